"""
Transactions: each payment and where it stands, and how many of them stand where.

Invariant: a row follows from the events of its transaction in their order, and the counts from the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final

import msgspec

from domain import transactions
from domain.kernel import Event
from domain.transactions import STATUS_AFTER, TRANSACTIONS, DepositRequested, Kind, WithdrawalRequested
from eventstore.record import Recorded
from projections.columns import as_shown, bigint, shown, text, times
from projections.folded import in_order
from projections.memory import Rows, Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.sealed import words
from projections.state import Table
from projections.times import as_us, occurred_us

_STREAM = len("transaction-")
_WITHOUT_MONEY: Final[frozenset[type[Event]]] = frozenset(
    {
        transactions.DepositFailed,
        transactions.DepositExpired,
        transactions.WithdrawalRejected,
        transactions.WithdrawalCancelled,
        transactions.WithdrawalExpired,
        transactions.WithdrawalReturned,
    }
)


class Row(msgspec.Struct, gc=False):
    """A row of read.transaction. What is None was not told, so it stays as it is. `failure`: why, sealed. `held`: why nobody is asked
    to pay it out for now, a word.
    """

    id: str
    player: str
    kind: str
    amount: int
    currency: str
    provider: str
    reference: str
    requested_us: int | None
    version: int
    status: str
    settled_us: int | None = None
    failed_us: int | None = None
    failure: str | None = None
    settled: int = 0
    refunded: int = 0
    lost: int = 0
    outside: str | None = None
    expires_us: int | None = None
    held: str = ""


_COLUMNS = (
    "id", "player", "kind", "amount", "currency", "provider", "reference", "requested_at", "version", "status",
    "settled_at", "failed_at", "failure", "settled", "refunded", "lost", "outside", "expires_at", "held",
)  # fmt: skip

Place = tuple[str, str, str]
"""(kind, status, currency)."""


class Changes(msgspec.Struct):
    """By transaction id. `later`: what happened to those that were requested in an earlier batch, in order."""

    requested: dict[str, Row] = {}
    later: dict[str, list[Recorded]] = {}


class Transactions:
    name = "transactions"
    tables: ClassVar[Sequence[Table]] = (
        Table("transaction", _COLUMNS, player="player"),
        Table("payments", ("kind", "status", "currency", "count", "amount"), key=3),
    )

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        for recorded in in_order(events, TRANSACTIONS.events.values()):
            id_ = "transaction_" + recorded.body.stream[_STREAM:]
            if isinstance(recorded.event, DepositRequested | WithdrawalRequested):
                changes.requested[id_] = _requested(id_, recorded, recorded.event)
            elif (row := changes.requested.get(id_)) is not None:
                _happen(row, recorded)
            else:
                changes.later.setdefault(id_, []).append(recorded)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        moved = _Moved()
        if changes.requested:
            await _insert(cursor, schema, list(changes.requested.values()))
            moved.enter(changes.requested.values())
        if changes.later:
            rows = await _read(cursor, schema, changes.later)
            moved.leave(rows)
            for row in rows:
                for recorded in changes.later[row.id]:
                    _happen(row, recorded)
            await _update(cursor, schema, rows)
            moved.enter(rows)
        await moved.write(cursor, schema)

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows, moved = tables["transaction"], _Moved()
        begun = len(rows.keys() & changes.later.keys())
        if begun != len(changes.later):
            raise _out_of_order(changes.later, begun)
        if not rows.keys().isdisjoint(changes.requested):
            raise OutOfOrder("a transaction was requested twice")
        moved.enter(changes.requested.values())
        for id_, row in changes.requested.items():
            rows[id_] = as_shown(*msgspec.structs.astuple(row))
        for id_, happened in changes.later.items():
            row = Row(*rows[id_])
            moved.leave([row])
            for recorded in happened:
                _happen(row, recorded)
            moved.enter([row])
            rows[id_] = as_shown(*msgspec.structs.astuple(row))
        moved.fold(tables["payments"])


def _requested(id_: str, recorded: Recorded, event: DepositRequested | WithdrawalRequested) -> Row:
    kind, reference, expires_us = Kind.DEPOSIT, "", None
    if isinstance(event, DepositRequested):
        reference = event.reference
    else:
        kind, expires_us = Kind.WITHDRAWAL, as_us(event.expires_at)
    money = event.money
    return Row(
        id_, event.player, kind.value, money.amount, money.currency, event.provider, reference, occurred_us(recorded),
        recorded.body.version, STATUS_AFTER[type(event)].value, expires_us=expires_us,
    )  # fmt: skip


def _happen(row: Row, recorded: Recorded) -> None:
    event = recorded.event
    kind = type(event)
    row.version = recorded.body.version
    if (status := STATUS_AFTER.get(kind)) is not None:
        row.status, row.held = status.value, ""
    if kind in _WITHOUT_MONEY:
        row.failed_us = occurred_us(recorded)
        row.failure = words(recorded) or row.failure
    match event:
        case transactions.DepositSettled() | transactions.WithdrawalSettled():
            row.settled_us, row.settled = occurred_us(recorded), row.amount
        case transactions.DepositSettledFor(money):
            row.settled_us, row.settled = occurred_us(recorded), money.amount
        case transactions.DepositRefunded(money):
            row.refunded += money.amount
        case transactions.DisputeLost(money):
            row.lost += money.amount
        case transactions.DepositAuthorised(reference) | transactions.WithdrawalSent(reference):
            row.outside = reference
        case transactions.PayoutHeld(reason):
            row.held = reason
        case transactions.PayoutResumed():
            row.held = ""
        case _:
            pass


class _Moved:
    """How many transactions, and how much of what was asked for, came to each place or left it."""

    def __init__(self) -> None:
        self._by: dict[Place, tuple[int, int]] = {}

    def enter(self, rows: Iterable[Row]) -> None:
        self._count(rows, 1)

    def leave(self, rows: Iterable[Row]) -> None:
        self._count(rows, -1)

    def _count(self, rows: Iterable[Row], sign: int) -> None:
        for row in rows:
            place = (row.kind, row.status, shown(row.currency))
            count, amount = self._by.get(place, (0, 0))
            self._by[place] = (count + sign, amount + sign * row.amount)

    def fold(self, rows: Rows) -> None:
        for place, (count, amount) in self._by.items():
            *_, before, amount_before = rows.pop(place, (0, 0))
            if before + count:
                rows[place] = (*place, before + count, amount_before + amount)

    async def write(self, cursor: Cursor, schema: str) -> None:
        changed = {place: change for place, change in self._by.items() if change[0] or change[1]}
        if not changed:
            return
        await cursor.execute(
            f"""
            INSERT INTO {schema}.payments AS old (kind, status, currency, count, amount)
            SELECT * FROM unnest(%b, %b, %b, %b, %b)
            ON CONFLICT (kind, status, currency) DO UPDATE
               SET count = old.count + excluded.count, amount = old.amount + excluded.amount""",
            (
                text([kind for kind, _, _ in changed]),
                text([status for _, status, _ in changed]),
                text([currency for _, _, currency in changed]),
                bigint([count for count, _ in changed.values()]),
                bigint([amount for _, amount in changed.values()]),
            ),
        )
        await cursor.execute(f"DELETE FROM {schema}.payments WHERE count = 0")


async def _insert(cursor: Cursor, schema: str, rows: list[Row]) -> None:
    await cursor.execute(
        f"""
        INSERT INTO {schema}.transaction
            (id, player, kind, amount, currency, provider, reference, requested_at, expires_at, version, status,
             settled_at, failed_at, failure, settled, refunded, lost, outside, held)
        SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)""",
        (
            text([row.id for row in rows]),
            text([row.player for row in rows]),
            text([row.kind for row in rows]),
            bigint([row.amount for row in rows]),
            text([row.currency for row in rows]),
            text([row.provider for row in rows]),
            text([row.reference for row in rows]),
            times([row.requested_us for row in rows]),
            times([row.expires_us for row in rows]),
            *_state(rows),
        ),
    )


async def _read(cursor: Cursor, schema: str, later: Mapping[str, object]) -> list[Row]:
    """What these transactions are and where they stand, without what no event reads."""
    await cursor.execute(
        f"""
        SELECT id, '', kind, amount, currency, '', '', NULL, version, status, NULL, NULL, NULL, settled, refunded, lost,
               NULL, NULL, held
          FROM {schema}.transaction WHERE id = ANY (%b)""",
        (text(list(later)),),
    )
    rows = [Row(*row) for row in await cursor.fetchall()]
    if len(rows) != len(later):
        raise _out_of_order(later, len(rows))
    return rows


async def _update(cursor: Cursor, schema: str, rows: list[Row]) -> None:
    await cursor.execute(
        f"""
        UPDATE {schema}.transaction AS t
           SET version = e.version, status = e.status, settled_at = coalesce(e.settled_at, t.settled_at),
               failed_at = coalesce(e.failed_at, t.failed_at),
               failure = coalesce(e.failure, t.failure), settled = e.settled,
               refunded = e.refunded, lost = e.lost, outside = coalesce(e.outside, t.outside), held = e.held
          FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
            AS e (id, version, status, settled_at, failed_at, failure, settled, refunded, lost, outside, held)
         WHERE t.id = e.id""",
        (text([row.id for row in rows]), *_state(rows)),
    )


def _out_of_order(later: Mapping[str, object], begun: int) -> OutOfOrder:
    return OutOfOrder(f"of {len(later)} transactions to which something happened, {begun} had begun")


def _state(rows: list[Row]) -> tuple[object, ...]:
    """The columns that events change, in the order of the statements above."""
    return (
        bigint([row.version for row in rows]),
        text([row.status for row in rows]),
        times([row.settled_us for row in rows]),
        times([row.failed_us for row in rows]),
        text([row.failure for row in rows]),
        bigint([row.settled for row in rows]),
        bigint([row.refunded for row in rows]),
        bigint([row.lost for row in rows]),
        text([row.outside for row in rows]),
        text([row.held for row in rows]),
    )
