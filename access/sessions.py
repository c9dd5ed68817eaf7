"""
Sessions of people at a browser: opaque, kept in Redis, ended by time, by themselves, by an administrator or by their provider.

    session:<hex SHA-256 of the id>   → Session as JSON, which Redis forgets when it has ended
    sessions:<operator>               → the digests of that operator's sessions
    sessions:of:<hex SHA-256 of …>    → the digests of those that a provider of identities may end
    ended:of:<hex SHA-256 of …>       → until when (seconds since 1970) a provider has ended what it names so

Invariants:
    - Redis holds no id: who reads it gets into no session; what it has forgotten is over;
    - signing in, and showing a second factor, makes a new id, and the old one opens nothing any more;
    - a session that has ended is never written again;
    - what a provider has ended is over wherever it is on its way: waiting for a second factor, or moving to another id;
    - time is a value: it comes from the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

IDLE = timedelta(minutes=30)
ABSOLUTE = timedelta(hours=12)
SEEN_EVERY = timedelta(minutes=1)
"""Figures of the house. Being seen is written once in a while, so that reading costs no write: IDLE may be shorter by this."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """`method`: by what they signed in. `stepped_up`: when a second factor was last shown; None: only a first one, by which one
    may do no more than enrol others. `roles`: what the groups of a provider of identities come to, beside those that were
    granted. `providers`: digests by which that provider may end the session. `means`: how far it has heard of what its operator
    comes in by (domain.operators.Operator.means). `since`: when the first factor was shown, from which it all follows.
    """

    operator: str
    csrf: str
    created: datetime
    seen: datetime
    method: str
    since: datetime
    stepped_up: datetime | None = None
    roles: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    means: int = 0

    def is_over(self, at: datetime) -> bool:
        return at >= min(self.seen + IDLE, self.created + ABSOLUTE)

    def seconds_left(self, at: datetime) -> int:
        """Until it is over, at least 1."""
        return max(1, int((min(self.seen + IDLE, self.created + ABSOLUTE) - at).total_seconds()))

    def may_change(self, csrf: str) -> bool:
        """Whether a request that changes something carries this session's own token."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class Begun(NamedTuple):
    """`id`: for the cookie; told to nobody else, and kept nowhere."""

    id: str
    session: Session


class Kept(NamedTuple):
    """A session as others may name it: `digest` opens nothing."""

    digest: str
    session: Session


def digest_of(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def provider_digest(issuer: str, kind: str, value: str) -> str:
    """Names the sessions of a provider's own session (kind sid) or of one of its users (kind sub)."""
    return hashlib.sha256(f"{issuer}\n{kind}\n{value}".encode()).hexdigest()


class Sessions:
    """The sessions of one region."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def begin(
        self,
        operator: str,
        method: str,
        at: datetime,
        *,
        stepped_up: datetime | None,
        means: int,
        roles: Sequence[str] = (),
        providers: Sequence[str] = (),
        since: datetime | None = None,
        instead_of: str = "",
    ) -> Begun:
        """A new session. `since`: as in Session; now if that is when. `instead_of`: the id that the browser brought, whosever it was;
        it is over.
        """
        await self._forget(digest_of(instead_of))
        made = Session(
            operator=operator,
            csrf=secrets.token_urlsafe(32),
            created=at,
            seen=at,
            method=method,
            since=since or at,
            stepped_up=stepped_up,
            roles=tuple(roles),
            providers=tuple(providers),
            means=means,
        )
        return await self._keep(made, at)

    async def find(self, session_id: str, at: datetime, *, seen: bool = True) -> Session | None:
        """The session of an id, if it goes on; from now on it was seen, unless nobody has done anything (`seen` is false)."""
        if not session_id:
            return None
        digest = digest_of(session_id)
        found = await self._read(digest)
        if found is None or found.is_over(at):
            await self._forget(digest, found)
            return None
        if await self.is_ended(found.providers, found.since):
            return None  # kept until its end is recorded
        if seen and at >= found.seen + SEEN_EVERY:
            found = msgspec.structs.replace(found, seen=at)
            kept = await self._redis.set(_key(digest), _encode(found), ex=found.seconds_left(at), xx=True)
            return found if kept else None
        return found

    async def step_up(self, session_id: str, at: datetime) -> Begun | None:
        """A second factor was shown just now: the session goes on under a new id."""
        return await self._move(session_id, at, stepped_up=at, csrf=secrets.token_urlsafe(32))

    async def go_on(self, session_id: str, at: datetime, means: int) -> Begun | None:
        """What its operator comes in by was changed by this session itself: it goes on under a new id, and others do not."""
        return await self._move(session_id, at, means=means)

    async def _move(self, session_id: str, at: datetime, **changed: Any) -> Begun | None:
        digest = digest_of(session_id)
        taken = await self._redis.getdel(_key(digest))
        if taken is None:
            return None
        before = _decode(taken)
        await self._forget(digest, before)
        if before.is_over(at):
            return None
        return await self._keep(msgspec.structs.replace(before, seen=at, **changed), at)

    async def of(self, operator: str, at: datetime) -> list[Kept]:
        """An operator's sessions that go on, the newest first."""
        kept = []
        for digest in await self._members(f"sessions:{operator}"):
            found = await self._read(digest)
            if found is None or found.is_over(at):
                await self._forget(digest, found)
                await self._redis.srem(f"sessions:{operator}", digest)
            else:
                kept.append(Kept(digest, found))
        return sorted(kept, key=lambda each: each.session.created, reverse=True)

    async def at(self, digest: str) -> Session | None:
        """The session that others name so."""
        return await self._read(digest)

    async def end(self, digest: str) -> Session | None:
        """It is over. Returns what it was, None if it was over before."""
        taken = await self._redis.getdel(_key(digest))
        if taken is None:
            return None
        ended = _decode(taken)
        await self._forget(digest, ended)
        return ended

    async def refuse_of(self, provider: str, until: datetime | None) -> None:
        """What a provider names (provider_digest) and whose first factor was shown until then is over, whatever becomes of it; None:
        whenever it was.
        """
        await self._redis.set(_ended(provider), str(until.timestamp() if until else "inf"), ex=ABSOLUTE + IDLE)

    async def is_ended(self, providers: Sequence[str], since: datetime) -> bool:
        """Whether one of these has ended what was begun then."""
        if not providers:
            return False
        found = await self._redis.mget([_ended(each) for each in providers])
        return any(each is not None and since.timestamp() <= float(each) for each in found)

    async def of_provider(self, provider: str) -> list[Kept]:
        """The sessions that a provider names, as far as they are kept."""
        members = await self._members(f"sessions:of:{provider}")
        return [Kept(digest, found) for digest in members if (found := await self._read(digest)) is not None]

    async def _keep(self, session: Session, at: datetime) -> Begun:
        made = secrets.token_urlsafe(32)
        digest = digest_of(made)
        lists = [f"sessions:{session.operator}", *(f"sessions:of:{each}" for each in session.providers)]
        async with self._redis.pipeline(transaction=True) as together:
            together.set(_key(digest), _encode(session), ex=session.seconds_left(at))
            for each in lists:
                together.sadd(each, digest)
                together.expire(each, ABSOLUTE)
            await together.execute()
        return Begun(made, session)

    async def _read(self, digest: str) -> Session | None:
        found = await self._redis.get(_key(digest))
        return None if found is None else _decode(found)

    async def _members(self, key: str) -> list[str]:
        found = await self._redis.smembers(key)
        return [each.decode() if isinstance(each, bytes) else each for each in found]

    async def _forget(self, digest: str, known: Session | None = None) -> None:
        async with self._redis.pipeline(transaction=True) as together:
            together.delete(_key(digest))
            if known is not None:
                together.srem(f"sessions:{known.operator}", digest)
                for each in known.providers:
                    together.srem(f"sessions:of:{each}", digest)
            await together.execute()


def _ended(provider: str) -> str:
    return f"ended:of:{provider}"


def _key(digest: str) -> str:
    return f"session:{digest}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Session).decode
