"""Transactions: one, a player's, those in a state, and how many stand where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import msgspec

from domain.errors import Invalid, NotFound
from domain.kernel import EPOCH, Money, PlayerId, TransactionId, instant, parse_id
from domain.transactions import Kind, Status
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.positions import MADE

_COLUMNS = """id, version, player, kind, status, amount, currency, provider, nullif(reference, ''), requested_at, settled_at,
              failed_at, failure_reason, settled, refunded, lost, outside, expires_at"""
_GET = f"SELECT {_COLUMNS} FROM read.transaction WHERE id = %s"
_FIRST = f"SELECT {_COLUMNS} FROM read.transaction WHERE player = %s ORDER BY requested_at DESC, id DESC LIMIT %s"
_NEXT = f"""
    SELECT {_COLUMNS} FROM read.transaction WHERE player = %s AND (requested_at, id) < (%s, %s)
     ORDER BY requested_at DESC, id DESC LIMIT %s"""
_CHOSEN: Mapping[str, LiteralString] = {
    "status": "status = %s",
    "kind": "kind = %s",
    "provider": "provider = %s",
    "requested_from": "requested_at >= %s",
    "requested_to": "requested_at < %s",
    "cursor": "(requested_at, id) < (%s, %s)",
}
_SUMMARY = f"""
    SELECT m.positions, m.code, p.kind, p.status, p.currency, p.count, p.amount
      FROM ({MADE} WHERE projection = 'transactions' AND live) AS m LEFT JOIN read.payments AS p ON true
     ORDER BY p.kind, p.status, p.currency"""
_MICROSECOND = timedelta(microseconds=1)

STATUSES = sorted(set(Status) - {Status.UNKNOWN})
KINDS = sorted(Kind)


class Transaction(msgspec.Struct, frozen=True):
    """A payment. Times are when it happened, which only imported history did not by being recorded.

    `money` was asked for; `settled` has arrived or was paid out; `refunded` and `lost` (charged back) have gone back since.
    `failed_at`, `failure_reason`: when and why no money moved, or came back. `outside`: the provider's own reference.
    `expires_at`: until when a withdrawal keeps its money reserved.
    """

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
    settled: Money
    refunded: Money
    lost: Money
    outside: str | None
    expires_at: datetime | None


class TransactionPage(msgspec.Struct, frozen=True):
    """Transactions, those requested last first."""

    items: list[Transaction]
    next_cursor: str | None


class Standing(msgspec.Struct, frozen=True):
    """How many payments of a kind stand in a status, and the sum of what was asked for."""

    kind: str
    status: str
    count: int
    amount: Money


class PaymentsSummary(msgspec.Struct, frozen=True):
    """
    All payments by kind, status and currency.

    `positions`: the last entry of each log that is counted, `code`: by which code, null if not known.
    """

    items: list[Standing]
    positions: dict[str, int]
    code: str | None


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
    return _page(rows, limit)


async def page(
    context: Context,
    status: str | None = None,
    kind: str | None = None,
    provider: str | None = None,
    requested_from: str | None = None,
    requested_to: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> TransactionPage:
    """All transactions, or those in a status, of a kind, of a provider, or requested within a time.

    Raises Invalid.
    """
    page_size(limit)
    if status is not None and status not in STATUSES:
        raise Invalid(f"a status is one of {', '.join(STATUSES)}", parameter="status")
    if kind is not None and kind not in KINDS:
        raise Invalid(f"a kind is one of {', '.join(KINDS)}", parameter="kind")
    if "\0" in (provider or ""):
        raise Invalid("no provider has this name", parameter="provider")
    given = {
        "status": status,
        "kind": kind,
        "provider": provider,
        "requested_from": _instant(requested_from, "requested_from"),
        "requested_to": _instant(requested_to, "requested_to"),
    }
    wanted: dict[str, Sequence[object]] = {name: (value,) for name, value in given.items() if value is not None}
    if cursor is not None:
        requested_us, id_ = read_cursor(cursor, tuple[int, str])
        wanted["cursor"] = (instant(requested_us), id_)
    chosen: LiteralString = " AND ".join([_CHOSEN[name] for name in wanted]) or "true"
    rows = await context.fetch(
        f"SELECT {_COLUMNS} FROM read.transaction WHERE {chosen} ORDER BY requested_at DESC, id DESC LIMIT %s",
        *(argument for arguments in wanted.values() for argument in arguments),
        limit + 1,
    )
    return _page(rows, limit)


async def summary(context: Context) -> PaymentsSummary:
    """How many payments stand where, and their sums: by kind, status and currency."""
    rows = await context.fetch(_SUMMARY)
    positions, code = rows[0][:2]
    items = [
        Standing(kind, status, count, Money(amount, currency))
        for _, _, kind, status, currency, count, amount in rows
        if kind is not None
    ]
    return PaymentsSummary(items, msgspec.json.decode(positions, type=dict[str, int]), code)


def _instant(text: str | None, parameter: str) -> datetime | None:
    """Raises Invalid unless it is an RFC 3339 time."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Invalid("not a time with a zone, such as 2026-11-22T12:00:00Z", parameter=parameter)


def _page(rows: list[tuple[Any, ...]], limit: int) -> TransactionPage:
    items = [_transaction(*row) for row in rows[:limit]]
    if len(rows) <= limit:
        return TransactionPage(items, None)
    last = items[-1]
    return TransactionPage(items, write_cursor((last.requested_at - EPOCH) // _MICROSECOND, last.id))


def _transaction(
    id_: str, version: int, player: str, kind: str, status: str, amount: int, currency: str, *rest: Any
) -> Transaction:
    *told, settled, refunded, lost, outside, expires_at = rest
    moved: list[Any] = [Money(each, currency) for each in (settled, refunded, lost)]
    return Transaction(
        TransactionId(id_), version, PlayerId(player), kind, status, Money(amount, currency),
        *(*told, *moved, outside, expires_at),
    )  # fmt: skip
