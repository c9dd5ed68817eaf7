"""
Bearer tokens: long random strings, of which only SHA-256 digests are kept, in a file that names actor and roles.

Invariant: a token that is not in the file opens nothing, and the file opens nothing by itself.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from access.policy import ROLES, Principal, principal


class TokenRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sha256`: hex digest of the token."""

    actor: str
    roles: list[str]
    sha256: str


class Tokens:
    """The tokens that a service accepts."""

    def __init__(self, records: Iterable[TokenRecord]) -> None:
        self._principals: dict[str, Principal] = {}
        self._known: dict[str, Principal] = {}
        for each in records:
            self._principals[each.sha256] = principal(each.actor, each.roles, machine=True)
            before = self._known.get(each.actor)
            together = frozenset(each.roles) | (before.roles if before else frozenset())
            self._known[each.actor] = principal(each.actor, together, machine=True)

    @classmethod
    def from_file(cls, path: Path) -> Tokens:
        return cls(msgspec.json.decode(path.read_bytes(), type=list[TokenRecord]))

    def principal(self, authorization: str) -> Principal | None:
        """Who sends `Authorization: Bearer <token>`, if anybody known."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self._principals.get(hashlib.sha256(token.strip().encode()).hexdigest())

    def known(self, actor: str) -> Principal | None:
        """What an actor may do with all of their tokens together; None if they have none."""
        return self._known.get(actor)


def new_token() -> str:
    return "cr_" + secrets.token_urlsafe(32)


def record(token: str, actor: str, roles: Iterable[str]) -> TokenRecord:
    """Raises ValueError for an unknown role."""
    chosen = sorted(roles)
    unknown = [role for role in chosen if role not in ROLES]
    if unknown:
        raise ValueError(f"no role is called {', '.join(unknown)}; there are {', '.join(ROLES)}")
    return TokenRecord(actor, chosen, hashlib.sha256(token.encode()).hexdigest())
