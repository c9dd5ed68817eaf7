"""Players: the card, and the list of all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import msgspec

from domain.errors import NotFound
from domain.kernel import Money, PlayerId, Sealed, at_versions, parse_id
from domain.players import DataKey
from queries.context import LIMIT_MAX, Context, page_size, read_cursor, write_cursor
from queries.positions import MADE

_CARD = f"""
    SELECT p.version, p.status, p.block_reason, p.brand, p.country, p.currency, p.registered_at, p.sealed_by, p.personal::text,
           (SELECT convert_from(e.body, 'UTF8')::json -> 'data' ->> 'key' FROM ledger.entry AS e
             WHERE e.stream = replace(p.id, '_', '-') AND e.version = 1),
           l.version, l.daily, l.currency, l.day, l.used,
           (SELECT coalesce(json_agg(b ORDER BY b.currency), '[]') FROM read.balance AS b WHERE b.player = p.id)::text,
           m.positions, m.code
      FROM read.player AS p LEFT JOIN read.deposit_limit AS l ON l.player = p.id,
           ({MADE} WHERE projection = 'players' AND live) AS m
     WHERE p.id = %s"""
_PAGE = """
    SELECT id, status, brand, country, currency, registered_at FROM read.player
     WHERE id < %s ORDER BY id DESC LIMIT %s"""
_SUMMARIES = """
    SELECT id, status, brand, country, currency, registered_at FROM read.player WHERE id = ANY (%s) ORDER BY id DESC"""
_AFTER_ALL = "player_~"


class Personal(msgspec.Struct, frozen=True):
    """Who the player is. `sealed`: some of it cannot be opened here, because its key is elsewhere or was destroyed."""

    sealed: bool
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    birth_date: str | None = None
    external_id: str | None = None


class Balance(msgspec.Struct, frozen=True):
    """What the player owns in a currency, in minor units, and the sum and number of all settled deposits."""

    currency: str
    cash: int
    reserved: int
    deposited: int
    deposits: int


class DepositLimit(msgspec.Struct, frozen=True):
    """`daily`: null = no limit is set. `used`: minor units that requests consumed on `day` (UTC); on another day nothing is used."""

    daily: Money | None
    day: date
    used: int


class PlayerCard(msgspec.Struct, frozen=True):
    """
    A player. `version` names this state of the card, for the ETag; `player_version` that of the player's stream.

    `positions`: the last entry of each log that the read model holds, `code`: by which code, null if not known. They move
    without the card, and the ETag without them.
    """

    id: PlayerId
    version: str
    player_version: int
    status: str
    block_reason: str | None
    brand: str
    country: str
    currency: str
    registered_at: datetime
    personal: Personal
    balances: list[Balance]
    deposit_limit: DepositLimit | None
    positions: dict[str, int]
    code: str | None


class PlayerSummary(msgspec.Struct, frozen=True):
    """A player in a list: nothing that identifies the person, since each look at that is a fact of its own."""

    id: PlayerId
    status: str
    brand: str
    country: str
    currency: str
    registered_at: datetime


class PlayerPage(msgspec.Struct, frozen=True):
    """Players, those with the newest ids first."""

    items: list[PlayerSummary]
    next_cursor: str | None


class _BalanceRow(msgspec.Struct, frozen=True):
    version: int
    currency: str
    cash: int
    reserved: int
    deposited: int
    deposits: int


async def card(context: Context, player_id: PlayerId) -> PlayerCard:
    """A player's card. Raises InvalidId, NotFound."""
    parse_id("player", player_id)
    rows = await context.fetch(_CARD, player_id)
    if not rows:
        raise NotFound("no such player")
    (
        version,
        status,
        block_reason,
        brand,
        country,
        currency,
        registered_at,
        sealed_by,
        personal,
        key,
        *limit,
        balances,
        positions,
        code,
    ) = rows[0]
    wallet = msgspec.json.decode(balances, type=list[_BalanceRow])
    wallet_version = max((row.version for row in wallet), default=0)
    return PlayerCard(
        id=player_id,
        version=at_versions(version, wallet_version, limit[0] or 0),
        player_version=version,
        status=status,
        block_reason=block_reason,
        brand=brand,
        country=country,
        currency=currency,
        registered_at=registered_at,
        personal=await _opened(context, sealed_by, key, personal),
        balances=[Balance(row.currency, row.cash, row.reserved, row.deposited, row.deposits) for row in wallet],
        deposit_limit=_deposit_limit(*limit),
        positions=msgspec.json.decode(positions, type=dict[str, int]),
        code=code,
    )


async def page(context: Context, cursor: str | None = None, limit: int = 50) -> PlayerPage:
    """A page of all players. Raises Invalid."""
    page_size(limit)
    (before,) = read_cursor(cursor, tuple[str]) if cursor else (_AFTER_ALL,)
    rows = await context.fetch(_PAGE, before, limit + 1)
    items = [PlayerSummary(*row) for row in rows[:limit]]
    return PlayerPage(items, write_cursor(items[-1].id) if len(rows) > limit else None)


async def summaries(context: Context, ids: Sequence[PlayerId]) -> PlayerPage:
    """Those of the given players that are registered, in the newest first: what a look-up has found."""
    rows = await context.fetch(_SUMMARIES, list(ids[:LIMIT_MAX]))
    return PlayerPage([PlayerSummary(*row) for row in rows], None)


def _deposit_limit(
    version: int | None, daily: int | None, currency: str | None, day: date | None, used: int | None
) -> DepositLimit | None:
    if version is None or day is None or used is None:
        return None
    return DepositLimit(Money(daily, currency) if daily is not None and currency is not None else None, day, used)


async def _opened(context: Context, event_id: str, key: str, personal: str) -> Personal:
    """`key`: as the registration in the log names it and commits to it, whatever the read model holds."""
    committed = msgspec.json.decode(key, type=DataKey)
    sealed = {f"data.{field}": value for field, value in msgspec.json.decode(personal, type=dict[str, Sealed]).items()}
    opened = await context.open_personal(event_id, committed, sealed) if sealed else {}
    return Personal(
        sealed=len(opened) < len(sealed), **{path.removeprefix("data."): value for path, value in opened.items()}
    )
