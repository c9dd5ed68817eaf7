"""Approvals: each command that needed a second person, and what became of it. What people wrote stays sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import msgspec

from domain.approvals import Approved, Declined, Expired, Requested, Status
from domain.kernel import EPOCH
from eventstore.record import Recorded
from projections.columns import Column, as_shown, bigint, text, times
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.sealed import words
from projections.state import Table

_STREAM = len("approval-")
_MICROSECOND = timedelta(microseconds=1)
_COLUMNS = (
    "id", "player", "operator", "action", "path", "asked", "hash", "reasons", "requester", "requester_person", "requested_at",
    "expires_at", "version", "status", "decided_at", "decided_by", "decider_person", "refused",
)  # fmt: skip
_ENDS = _COLUMNS.index("version")


class End(msgspec.Struct, frozen=True, gc=False):
    """What became of it, and by whom; `person`: who is behind whoever approved it. `refused`: why not, sealed."""

    version: int
    status: str
    decided_us: int | None = None
    by: str | None = None
    person: str | None = None
    refused: str | None = None


class Row(msgspec.Struct, gc=False):
    """A row of read.approval. `asked`: the words of the request, sealed."""

    id: str
    requested: Requested
    asked: str | None
    requested_us: int
    end: End


class Changes(msgspec.Struct):
    """By approval id. `ended`: those that were requested in an earlier batch."""

    requested: dict[str, Row] = {}
    ended: dict[str, End] = {}


class Approvals:
    name = "approvals"
    tables: ClassVar[Sequence[Table]] = (Table("approval", _COLUMNS, player="player"),)

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        for recorded, requested in events.of(Requested):
            waits = End(recorded.body.version, Status.AWAITING.value)
            row = Row(_id(recorded), requested, words(recorded), recorded.recorded, waits)
            changes.requested[row.id] = row
        for recorded, approved in events.of(Approved):
            _end(changes, recorded, Status.APPROVED, approved.person or None)
        for recorded, _ in events.of(Declined):
            _end(changes, recorded, Status.REJECTED)
        for recorded, _ in events.of(Expired):
            _end(changes, recorded, Status.EXPIRED)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if changes.requested:
            await _insert(cursor, schema, list(changes.requested.values()))
        if changes.ended:
            await _update(cursor, schema, changes.ended)

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["approval"]
        begun = len(rows.keys() & changes.ended.keys())
        if begun != len(changes.ended):
            raise _out_of_order(changes.ended, begun)
        if not rows.keys().isdisjoint(changes.requested):
            raise OutOfOrder("an approval was requested twice")
        for id_, row in changes.requested.items():
            rows[id_] = as_shown(*_asked_columns(row), *_end_columns(row.end))
        for id_, end in changes.ended.items():
            rows[id_] = rows[id_][:_ENDS] + as_shown(*_end_columns(end))


def _id(recorded: Recorded) -> str:
    return "approval_" + recorded.body.stream[_STREAM:]


def _end(changes: Changes, recorded: Recorded, status: Status, person: str | None = None) -> None:
    approval = _id(recorded)
    end = End(recorded.body.version, status.value, recorded.recorded, recorded.body.actor, person, words(recorded))
    row = changes.requested.get(approval)
    if row is None:
        changes.ended[approval] = end
    else:
        row.end = end


async def _insert(cursor: Cursor, schema: str, rows: list[Row]) -> None:
    asked: list[Sequence[Any]] = list(zip(*map(_asked_columns, rows), strict=True))
    await cursor.execute(
        f"""
        INSERT INTO {schema}.approval
            ({", ".join(_COLUMNS)})
        SELECT * FROM unnest({", ".join(["%b"] * len(_COLUMNS))})""",
        (*map(text, asked[:10]), *map(times, asked[10:]), *_columns([row.end for row in rows])),
    )


async def _update(cursor: Cursor, schema: str, ended: dict[str, End]) -> None:
    await cursor.execute(
        f"""
        UPDATE {schema}.approval AS a
           SET version = e.version, status = e.status, decided_at = e.decided_at, decided_by = e.decided_by,
               decider_person = e.decider_person, refused = e.refused
          FROM unnest(%b, %b, %b, %b, %b, %b, %b)
               AS e (id, version, status, decided_at, decided_by, decider_person, refused)
         WHERE a.id = e.id""",
        (text(list(ended)), *_columns(list(ended.values()))),
    )
    if cursor.rowcount != len(ended):
        raise _out_of_order(ended, cursor.rowcount)


def _out_of_order(ended: dict[str, End], begun: int) -> OutOfOrder:
    return OutOfOrder(f"of {len(ended)} approvals that ended, {begun} had begun")


def _asked_columns(row: Row) -> tuple[str | int | None, ...]:
    asked = row.requested
    return (
        row.id, asked.player or None, asked.operator or None, asked.action, asked.path, row.asked, asked.hash,
        ",".join(asked.reasons), asked.requester, asked.person, row.requested_us, (asked.expires_at - EPOCH) // _MICROSECOND,
    )  # fmt: skip


def _end_columns(end: End) -> tuple[int, str, int | None, str | None, str | None, str | None]:
    return end.version, end.status, end.decided_us, end.by, end.person, end.refused


def _columns(ends: list[End]) -> tuple[Column, ...]:
    versions, statuses, decided_us, by, people, refused = zip(*map(_end_columns, ends), strict=True)
    return bigint(versions), text(statuses), times(decided_us), text(by), text(people), text(refused)
