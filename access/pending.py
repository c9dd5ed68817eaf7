"""
What is half done at sign-in: a first factor that waits for the second, a challenge, a way to a provider and back.

Invariants:
    - who holds the name of such a thing is the only one who can go on with it; Redis knows digests of names;
    - `take` gives it to one, once.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from redis.asyncio import Redis

GOOD_FOR = timedelta(minutes=10)
"""A figure of the house."""

P = TypeVar("P", bound=msgspec.Struct)


class FirstFactor(msgspec.Struct, frozen=True, kw_only=True):
    """Who they say they are, as far as one factor shows; `since`: when it was shown. `means`: as in access.sessions.Session, then."""

    operator: str
    method: str
    means: int
    since: datetime
    roles: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


class Challenge(msgspec.Struct, frozen=True):
    """For an authenticator. `purpose`: signin, factor, step_up or enrol. `bound_to`: what else must be shown, as a digest."""

    challenge: str
    purpose: str
    bound_to: str = ""


class Away(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody was sent to a provider of identities. `browser`: the digest of the cookie that they took along. `linking`, `means`: in
    whose session their account is linked, and how far that one has heard.
    """

    provider: str
    nonce: str
    verifier: str
    browser: str
    invitation: str = ""
    linking: str = ""
    means: int = 0


class NewSecret(msgspec.Struct, frozen=True):
    """A secret of an authenticator app that was told, and is enrolled once a code of it comes back."""

    operator: str
    secret: str


class Pending:
    """What is half done in one region."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, thing: msgspec.Struct, name: str = "") -> str:
        """Keep it for a while; returns its name, which is not guessed. `name`: such a one, made before."""
        name = name or new_name()
        await self._redis.set(_key(type(thing), name), msgspec.json.encode(thing), ex=GOOD_FOR)
        return name

    async def look(self, kind: type[P], name: str) -> P | None:
        return _read(kind, await self._redis.get(_key(kind, name)))

    async def take(self, kind: type[P], name: str) -> P | None:
        """It is there for nobody else from now on."""
        return _read(kind, await self._redis.getdel(_key(kind, name)))

    async def spend(self, what: str, for_seconds: int) -> None:
        """This was said, and is not to be said again for so long."""
        await self._redis.set(f"spent:{digest(what)}", b"1", ex=for_seconds)

    async def is_spent(self, what: str) -> bool:
        return bool(await self._redis.exists(f"spent:{digest(what)}"))


def new_name() -> str:
    return secrets.token_urlsafe(32)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _key(kind: type[msgspec.Struct], name: str) -> str:
    return f"pending:{kind.__name__.lower()}:{digest(name)}"


def _read(kind: type[P], found: bytes | str | None) -> P | None:
    return None if found is None else msgspec.json.decode(found, type=kind)
