"""Operators and tokens: one, and all, as administrators see them. Secrets are in no answer: the log holds their digests only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from domain.errors import Invalid, NotFound
from domain.kernel import OperatorId, TokenId, instant, parse_id
from domain.operators import FactorKind, Operator, Status
from domain.tokens import Status as TokenStatus
from domain.tokens import Token
from queries import listing, words
from queries.context import Context, page_size, read_cursor
from queries.listing import Listing, Wanted

_COLUMNS: LiteralString = "id, version, since, words, state::text"
_GET: LiteralString = f"SELECT {_COLUMNS} FROM read.operator WHERE id = %s"
_OPERATORS = Listing("read.operator", _COLUMNS, "since", [("status",)])
_TOKENS = Listing("read.token", _COLUMNS, "since", [("status",)])
STATUSES = frozenset(Status) - {Status.UNKNOWN}
TOKEN_STATUSES = frozenset(TokenStatus) - {TokenStatus.UNKNOWN}
_operator = msgspec.json.Decoder(Operator).decode
_token = msgspec.json.Decoder(Token).decode


class RoleHeld(msgspec.Struct, frozen=True):
    """`until`: when it ends by itself; null: it lasts. What has ended is not shown."""

    role: str
    until: datetime | None


class FactorHeld(msgspec.Struct, frozen=True):
    factor: str
    kind: FactorKind


class OperatorCard(msgspec.Struct, frozen=True):
    """Somebody who works here, or looks on. `person`: who is behind the account. `roles` count while `status` is active. `brands`,
    `countries`: whose players are theirs; null: all. `name` and `email` are null where they cannot be opened here.
    """

    id: OperatorId
    version: int
    status: Status
    person: str
    name: str | None
    email: str | None
    roles: list[RoleHeld]
    brands: list[str] | None
    countries: list[str] | None
    invited_at: datetime
    invited_until: datetime | None
    has_password: bool
    providers: list[str]
    factors: list[FactorHeld]


class OperatorPage(msgspec.Struct, frozen=True):
    """Operators, in the order in which they were invited."""

    items: list[OperatorCard]
    next_cursor: str | None


class TokenCard(msgspec.Struct, frozen=True):
    """A token. `issued_by`: the person who issued it, and has seen its secret. `expired`: its time is over."""

    id: TokenId
    version: int
    status: TokenStatus
    holder: str
    roles: list[str]
    brands: list[str] | None
    countries: list[str] | None
    issued_by: str
    issued_at: datetime
    expires: datetime
    expired: bool


class TokenPage(msgspec.Struct, frozen=True):
    """Tokens, in the order in which they were issued."""

    items: list[TokenCard]
    next_cursor: str | None


async def get(context: Context, operator_id: OperatorId, now: datetime) -> OperatorCard:
    """An operator, with what they may do. Raises InvalidId, NotFound."""
    parse_id("operator", operator_id)
    rows = await context.fetch(_GET, operator_id)
    if not rows:
        raise NotFound("no such operator")
    [found] = await _cards(context, rows, now)
    return found


async def page(
    context: Context, now: datetime, status: str | None = None, cursor: str | None = None, limit: int = 50
) -> OperatorPage:
    """Operators by when they were invited, all or of a status. Raises Invalid, InvalidId."""
    rows, more = await _rows(context, _OPERATORS, "operator", status, STATUSES, cursor, limit)
    return OperatorPage(await _cards(context, rows, now), more)


async def tokens(
    context: Context, now: datetime, status: str | None = None, cursor: str | None = None, limit: int = 50
) -> TokenPage:
    """Tokens by when they were issued, all or of a status. Raises Invalid, InvalidId."""
    rows, more = await _rows(context, _TOKENS, "token", status, TOKEN_STATUSES, cursor, limit)
    return TokenPage([_token_card(row, now) for row in rows], more)


async def _rows(
    context: Context,
    list_: Listing,
    kind: str,
    status: str | None,
    statuses: frozenset[Any],
    cursor: str | None,
    limit: int,
) -> tuple[Sequence[Sequence[Any]], str | None]:
    page_size(limit)
    if status is not None and status not in statuses:
        raise Invalid(f"not a status of {kind}s", parameter="status")
    wanted = Wanted({} if status is None else {"status": status})
    if cursor is not None:
        since_us, id_ = read_cursor(cursor, tuple[int, str])
        parse_id(kind, id_)
        wanted = wanted._replace(after=(instant(since_us), id_))
    rows = await listing.rows(context, list_, wanted, limit)
    shown = rows[:limit]
    return shown, listing.cursor(shown[-1][2], shown[-1][0]) if len(rows) > limit else None


async def _cards(context: Context, rows: Sequence[Sequence[Any]], now: datetime) -> list[OperatorCard]:
    texts = await words.opened(context, [(row[0], row[3]) for row in rows])
    return [_card(row, said, now) for row, said in zip(rows, texts, strict=True)]


def _card(row: Sequence[Any], said: Mapping[str, str], now: datetime) -> OperatorCard:
    id_, version, since, _, stored = row
    state = _operator(stored)
    return OperatorCard(
        id=OperatorId(id_),
        version=version,
        status=state.status,
        person=state.person,
        name=said.get("data.name"),
        email=said.get("data.email"),
        roles=[RoleHeld(role, state.roles[role]) for role in sorted(state.holds(now))],
        brands=_list(state.brands),
        countries=_list(state.countries),
        invited_at=since,
        invited_until=state.invited_until if state.status is Status.INVITED else None,
        has_password=state.has_password,
        providers=[issuer for issuer, _ in state.identities],
        factors=[FactorHeld(factor, each.kind) for factor, each in sorted(state.factors.items())],
    )


def _token_card(row: Sequence[Any], now: datetime) -> TokenCard:
    id_, version, since, _, stored = row
    state = _token(stored)
    return TokenCard(
        id=TokenId(id_),
        version=version,
        status=state.status,
        holder=state.holder,
        roles=list(state.roles),
        brands=_list(state.brands),
        countries=_list(state.countries),
        issued_by=state.person,
        issued_at=since,
        expires=state.expires,
        expired=now >= state.expires,
    )


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)
