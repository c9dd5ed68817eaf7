"""Transactions: one, a player's, those in a state, and how many stand where."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

import msgspec

from domain.errors import Invalid, NotFound
from domain.kernel import Money, PlayerId, TransactionId, instant, parse_id, parse_instant
from domain.transactions import Kind, Status
from queries import listing, seeing, words
from queries.context import Context, page_size, read_cursor
from queries.listing import Listing, Wanted
from queries.positions import MADE

_COLUMNS: LiteralString = """
    id, version, player, kind, status, amount, currency, provider, nullif(reference, ''), requested_at, settled_at,
    failed_at, failure, settled, refunded, lost, outside, expires_at, nullif(held, '')"""
_GET = f"SELECT {_COLUMNS} FROM read.transaction WHERE id = %s"
_IS_KNOWN = "SELECT FROM read.player WHERE id = %s"
_LEADS = [("player",), ("status",), ("provider",), ("kind",)]
_ALL = Listing("read.transaction", _COLUMNS, "requested_at", _LEADS, newest_first=True, attributes=seeing.PAYMENTS)
_SUMMARY = f"""
    SELECT m.positions, m.code, p.kind, p.status, p.currency, p.count, p.amount
      FROM ({MADE} WHERE projection = 'transactions' AND live) AS m LEFT JOIN read.payments AS p ON true
     ORDER BY p.kind, p.status, p.currency"""

STATUSES = sorted(set(Status) - {Status.UNKNOWN})
KINDS = sorted(Kind)


class Transaction(msgspec.Struct, frozen=True):
    """A payment. Times are when it happened, which only imported history did not by being recorded.

    `money` was asked for; `settled` has arrived or was paid out; `refunded` and `lost` (charged back) have gone back since.
    `failed_at`, `failure_reason`: when and why no money moved, or came back; null where it cannot be opened here, or not by
    this token. `outside`: the provider's own reference.
    `expires_at`: until when a withdrawal keeps its money reserved. `held`: why nobody is asked for now to pay it out, a word; it goes
    on by itself.
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
    held: str | None


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
    [found] = await _opened(context, [_transaction(*rows[0])])
    return found


async def of_player(
    context: Context, player_id: PlayerId, cursor: str | None = None, limit: int = 50
) -> TransactionPage:
    """A page of a player's transactions. Raises InvalidId, NotFound, Invalid."""
    parse_id("player", player_id)
    page_size(limit)
    found = await _page(context, Wanted({"player": player_id}), cursor, limit)
    if found.items or cursor is not None or await context.fetch(_IS_KNOWN, player_id):
        return found
    raise NotFound("no such player")


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
    given = {"status": status, "kind": kind, "provider": provider}
    wanted = Wanted({name: value for name, value in given.items() if value is not None})
    if requested_from is not None:
        wanted = wanted._replace(since=_instant(requested_from, "requested_from"))
    if requested_to is not None:
        wanted = wanted._replace(until=_instant(requested_to, "requested_to"))
    return await _page(context, wanted, cursor, limit)


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


def _instant(text: str, parameter: str) -> datetime:
    """Raises Invalid unless it is an RFC 3339 time."""
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Invalid(str(error), parameter=parameter) from None


async def _page(context: Context, wanted: Wanted, cursor: str | None, limit: int) -> TransactionPage:
    if cursor is not None:
        requested_us, id_ = read_cursor(cursor, tuple[int, str])
        wanted = wanted._replace(after=(instant(requested_us), id_))
    rows = await listing.rows(context, _ALL, wanted, limit)
    items = [_transaction(*row) for row in rows[:limit]]
    more = listing.cursor(items[-1].requested_at, items[-1].id) if len(rows) > limit else None
    return TransactionPage(await _opened(context, items), more)


async def _opened(context: Context, items: list[Transaction]) -> list[Transaction]:
    """The same with what was said of their failures."""
    texts = await words.opened(context, [(each.player, each.failure_reason) for each in items])
    return [
        msgspec.structs.replace(each, failure_reason=text.get("data.reason")) if each.failure_reason else each
        for each, text in zip(items, texts, strict=True)
    ]


def _transaction(
    id_: str, version: int, player: str, kind: str, status: str, amount: int, currency: str, *rest: Any
) -> Transaction:
    """A row; its `failure_reason` is sealed."""
    *told, settled, refunded, lost, outside, expires_at, held = rest
    moved: list[Any] = [Money(each, currency) for each in (settled, refunded, lost)]
    return Transaction(
        TransactionId(id_), version, PlayerId(player), kind, status, Money(amount, currency),
        *(*told, *moved, outside, expires_at, held),
    )  # fmt: skip
