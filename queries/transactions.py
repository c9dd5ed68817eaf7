"""Transactions: one, and a player's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from domain.errors import NotFound
from domain.kernel import EPOCH, Money, PlayerId, TransactionId, instant, parse_id
from queries.context import Context, page_size, read_cursor, write_cursor

_COLUMNS = """id, version, player, kind, status, amount, currency, provider, nullif(reference, ''), requested_at, settled_at,
              failed_at, failure_reason"""
_GET = f"SELECT {_COLUMNS} FROM read.transaction WHERE id = %s"
_FIRST = f"SELECT {_COLUMNS} FROM read.transaction WHERE player = %s ORDER BY requested_at DESC, id DESC LIMIT %s"
_NEXT = f"""
    SELECT {_COLUMNS} FROM read.transaction WHERE player = %s AND (requested_at, id) < (%s, %s)
     ORDER BY requested_at DESC, id DESC LIMIT %s"""
_MICROSECOND = timedelta(microseconds=1)


class Transaction(msgspec.Struct, frozen=True):
    """A payment. Times are when it happened, which only imported history did not by being recorded."""

    id: TransactionId
    version: int
    player: PlayerId
    kind: str
    status: str
    money: Money
    provider: str
    reference: str | None
    requested_at: datetime
    settled_at: datetime | None
    failed_at: datetime | None
    failure_reason: str | None


class TransactionPage(msgspec.Struct, frozen=True):
    """A player's transactions, those requested last first."""

    items: list[Transaction]
    next_cursor: str | None


async def get(context: Context, transaction_id: TransactionId) -> Transaction:
    """Raises InvalidId, NotFound."""
    parse_id("transaction", transaction_id)
    rows = await context.fetch(_GET, transaction_id)
    if not rows:
        raise NotFound("no such transaction")
    return _transaction(*rows[0])


async def of_player(
    context: Context, player_id: PlayerId, cursor: str | None = None, limit: int = 50
) -> TransactionPage:
    """A page of a player's transactions. Raises InvalidId, NotFound, Invalid."""
    parse_id("player", player_id)
    page_size(limit)
    if cursor is None:
        rows = await context.fetch(_FIRST, player_id, limit + 1)
        if not rows and not await context.fetch("SELECT FROM read.player WHERE id = %s", player_id):
            raise NotFound("no such player")
    else:
        requested_us, id_ = read_cursor(cursor, tuple[int, str])
        rows = await context.fetch(_NEXT, player_id, instant(requested_us), id_, limit + 1)
    items = [_transaction(*row) for row in rows[:limit]]
    if len(rows) <= limit:
        return TransactionPage(items, None)
    last = items[-1]
    return TransactionPage(items, write_cursor((last.requested_at - EPOCH) // _MICROSECOND, last.id))


def _transaction(
    id_: str, version: int, player: str, kind: str, status: str, amount: int, currency: str, *rest: Any
) -> Transaction:
    return Transaction(TransactionId(id_), version, PlayerId(player), kind, status, Money(amount, currency), *rest)
