"""Transactions: each payment and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from domain.transactions import DepositFailed, DepositRequested, DepositSettled, Status
from eventstore.record import Recorded
from projections.columns import Column, as_shown, bigint, text, times
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.state import Table
from projections.times import occurred_us

_STREAM = len("transaction-")
_KIND = "deposit"
_COLUMNS = (
    "id", "player", "kind", "amount", "currency", "provider", "reference", "requested_at",
    "version", "status", "settled_at", "failed_at", "failure_reason",
)  # fmt: skip
_ENDS = _COLUMNS.index("version")


class End(msgspec.Struct, frozen=True, gc=False):
    """How a transaction ended."""

    version: int
    status: str
    settled_us: int | None = None
    failed_us: int | None = None
    reason: str | None = None


class Row(msgspec.Struct, gc=False):
    """A row of read.transaction."""

    id: str
    version: int
    player: str
    amount: int
    currency: str
    provider: str
    reference: str
    requested_us: int
    end: End | None = None

    def ended(self) -> End:
        return self.end or End(self.version, Status.REQUESTED.value)


class Changes(msgspec.Struct):
    """By transaction id. `ended`: those that were requested in an earlier batch."""

    requested: dict[str, Row] = {}
    ended: dict[str, End] = {}


class Transactions:
    name = "transactions"
    tables: ClassVar[Sequence[Table]] = (Table("transaction", _COLUMNS, player="player"),)

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        for recorded, requested in events.of(DepositRequested):
            row = _requested(recorded, requested)
            changes.requested[row.id] = row
        for recorded, _ in events.of(DepositSettled):
            at_us = occurred_us(recorded)
            _end(changes, recorded, End(recorded.body.version, Status.SETTLED.value, settled_us=at_us))
        for recorded, failed in events.of(DepositFailed):
            at_us = occurred_us(recorded)
            _end(
                changes,
                recorded,
                End(recorded.body.version, Status.FAILED.value, failed_us=at_us, reason=failed.reason),
            )
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if changes.requested:
            await _insert(cursor, schema, list(changes.requested.values()))
        if changes.ended:
            await _update(cursor, schema, changes.ended)

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["transaction"]
        begun = len(rows.keys() & changes.ended.keys())
        if begun != len(changes.ended):
            raise _out_of_order(changes.ended, begun)
        if not rows.keys().isdisjoint(changes.requested):
            raise OutOfOrder("a transaction was requested twice")
        for id_, row in changes.requested.items():
            rows[id_] = as_shown(
                id_, row.player, _KIND, row.amount, row.currency, row.provider, row.reference, row.requested_us,
                *_end_columns(row.ended()),
            )  # fmt: skip
        for id_, end in changes.ended.items():
            rows[id_] = rows[id_][:_ENDS] + as_shown(*_end_columns(end))


def _id(recorded: Recorded) -> str:
    return "transaction_" + recorded.body.stream[_STREAM:]


def _requested(recorded: Recorded, event: DepositRequested) -> Row:
    money = event.money
    return Row(
        _id(recorded), recorded.body.version, event.player, money.amount, money.currency, event.provider, event.reference,
        occurred_us(recorded),
    )  # fmt: skip


def _end(changes: Changes, recorded: Recorded, end: End) -> None:
    transaction = _id(recorded)
    row = changes.requested.get(transaction)
    if row is None:
        changes.ended[transaction] = end
    else:
        row.end = end


async def _insert(cursor: Cursor, schema: str, rows: list[Row]) -> None:
    await cursor.execute(
        f"""
        INSERT INTO {schema}.transaction
            (id, player, kind, amount, currency, provider, reference, requested_at,
             version, status, settled_at, failed_at, failure_reason)
        SELECT id, player, '{_KIND}', amount, currency, provider, reference, requested_at,
               version, status, settled_at, failed_at, failure_reason
          FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
            AS t (id, player, amount, currency, provider, reference, requested_at,
                  version, status, settled_at, failed_at, failure_reason)""",
        (
            text([row.id for row in rows]),
            text([row.player for row in rows]),
            bigint([row.amount for row in rows]),
            text([row.currency for row in rows]),
            text([row.provider for row in rows]),
            text([row.reference for row in rows]),
            times([row.requested_us for row in rows]),
            *_columns([row.ended() for row in rows]),
        ),
    )


async def _update(cursor: Cursor, schema: str, ended: dict[str, End]) -> None:
    await cursor.execute(
        f"""
        UPDATE {schema}.transaction AS t
           SET version = e.version, status = e.status, settled_at = e.settled_at, failed_at = e.failed_at,
               failure_reason = e.failure_reason
          FROM unnest(%b, %b, %b, %b, %b, %b) AS e (id, version, status, settled_at, failed_at, failure_reason)
         WHERE t.id = e.id""",
        (text(list(ended)), *_columns(list(ended.values()))),
    )
    if cursor.rowcount != len(ended):
        raise _out_of_order(ended, cursor.rowcount)


def _out_of_order(ended: dict[str, End], begun: int) -> OutOfOrder:
    return OutOfOrder(f"of {len(ended)} transactions that ended, {begun} had begun")


def _end_columns(end: End) -> tuple[int, str, int | None, int | None, str | None]:
    return end.version, end.status, end.settled_us, end.failed_us, end.reason


def _columns(ends: list[End]) -> tuple[Column, ...]:
    versions, statuses, settled_us, failed_us, reasons = zip(*map(_end_columns, ends), strict=True)
    return bigint(versions), text(statuses), times(settled_us), times(failed_us), text(reasons)
