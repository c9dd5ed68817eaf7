"""
Tokens: how programs come in. A long random secret, of which the log holds only the SHA-256; with roles, a scope, and an end.

A token gives rights, as a grant of roles does, so it is good only when a second person has confirmed it. Whoever issued it has
seen the secret and is the person behind what it does, for four eyes.

Invariants:
    - a token that was not confirmed by another person than its issuer, is revoked, or is over, opens nothing;
    - an operator's own token is issued by that operator alone: whoever has its secret would be them;
    - a revoked token stays revoked;
    - the secret is shown once, and is in no event.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.approvals import SamePerson
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.kernel import EPOCH, STREAMS_CACHED, Aggregate, Event, Stream, TokenId, parse_id
from domain.operators import REGULATOR, InThePast, Operator

# Events: the tags and fields are the storage format.


class Issued(Event, frozen=True, kw_only=True, tag="token.issued"):
    """A token was made for `holder`, an actor. `digest`: SHA-256 of the secret, in hex. `person`: who is behind whoever issued
    it. `brands`, `countries`: whose players it may deal with; null: all.
    """

    holder: str
    digest: str
    roles: tuple[str, ...]
    expires: datetime
    person: str
    brands: tuple[str, ...] | None = None
    countries: tuple[str, ...] | None = None


class Confirmed(Event, frozen=True, tag="token.confirmed"):
    """A second person agreed. `person`: who is behind them."""

    person: str


class Revoked(Event, frozen=True, tag="token.revoked"):
    """It opens nothing any more."""


TokenEvent = Issued | Confirmed | Revoked


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    AWAITING = "awaiting_second_person"
    CONFIRMED = "confirmed"
    REVOKED = "revoked"


class Token(msgspec.Struct, frozen=True):
    status: Status = Status.UNKNOWN
    holder: str = ""
    digest: str = ""
    roles: tuple[str, ...] = ()
    expires: datetime = EPOCH
    person: str = ""
    brands: tuple[str, ...] | None = None
    countries: tuple[str, ...] | None = None

    def roles_at(self, at: datetime) -> frozenset[str]:
        """The roles that it gives at that time."""
        return frozenset(self.roles) if self.status is Status.CONFIRMED and at < self.expires else frozenset()


def evolve(token: Token, event: TokenEvent, _at: datetime) -> Token:
    match event:
        case Issued():
            return Token(
                Status.AWAITING, event.holder, event.digest, event.roles, event.expires, event.person, event.brands,
                event.countries,
            )  # fmt: skip
        case Confirmed():
            return msgspec.structs.replace(token, status=Status.CONFIRMED)
        case Revoked():
            return msgspec.structs.replace(token, status=Status.REVOKED)


TOKENS = Aggregate("token", initial=Token(), evolve=evolve, events=[Issued, Confirmed, Revoked])


@lru_cache(STREAMS_CACHED)
def stream(token_id: TokenId) -> Stream[Token]:
    return Stream(TOKENS, parse_id("token", token_id))


# Decisions


class TokenRevoked(Conflict):
    code = "token_revoked"
    title = "The token was revoked"


class HolderIsAnother(Forbidden):
    code = "holder_is_another"
    title = "An operator's own token is issued by that operator: its secret is for nobody else"


class RolesNotTheirs(Invalid):
    code = "roles_not_theirs"
    title = "A token gives its holder no role that they do not have; a regulator's gives that one, for countries"


def issue(token: Token, holder: Operator | None, *, issued: Issued, by: str, at: datetime) -> list[TokenEvent]:
    """Make a token. `holder`: the operator whose own it is, if it is no program's; `by`: the actor who makes it. Raises InThePast,
    RolesNotTheirs, HolderIsAnother, and of the holder NotFound, OperatorNotActive.
    """
    if token.status is not Status.UNKNOWN:
        raise Conflict("the token exists already")
    if issued.expires <= at:
        raise InThePast(pointer="/expires")
    if holder is not None:
        if by != issued.holder:
            raise HolderIsAnother
        holder.require_active()
        if not set(issued.roles) <= holder.roles_at(at):
            raise RolesNotTheirs(pointer="/roles")
    is_regulators = issued.holder.startswith("regulator:")
    if holder is None and (is_regulators or REGULATOR in issued.roles):
        alone = issued.roles == (REGULATOR,) and bool(issued.countries)
        if not (is_regulators and alone):
            raise RolesNotTheirs(pointer="/roles")
    return [issued]


def confirm(token: Token, *, person: str) -> list[TokenEvent]:
    """Agree, as another person than the issuer. Raises NotFound, SamePerson, TokenRevoked."""
    _refuse_unknown(token)
    if person == token.person:
        raise SamePerson("another person than its issuer confirms a token")
    if token.status is Status.REVOKED:
        raise TokenRevoked
    return [] if token.status is Status.CONFIRMED else [Confirmed(person)]


def revoke(token: Token) -> list[TokenEvent]:
    """End it, at once and for good. Raises NotFound."""
    _refuse_unknown(token)
    return [] if token.status is Status.REVOKED else [Revoked()]


def _refuse_unknown(token: Token) -> None:
    if token.status is Status.UNKNOWN:
        raise NotFound("no such token")
