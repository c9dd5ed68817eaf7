"""Tickets: where each one stands, as the domain folds it, and what people wrote on it (sealed)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec

from domain import tickets
from domain.kernel import EPOCH, Event, Sealed, instant, personal_fields
from domain.tickets import TICKETS, Answered, Noted, Opened, Ticket, TicketEvent
from eventstore.record import Recorded
from projections.columns import as_shown, bigint, read_plainly, text, times
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.state import Row, Table

_STREAM = len("ticket-")
_KINDS: Mapping[type[Event], str] = {Opened: "opened", Answered: "answered", Noted: "noted"}
_PERSONAL = {kind: personal_fields(kind) for kind in _KINDS}
_COLUMNS = (
    "id", "version", "player", "status", "priority", "channel", "opened_by", "transaction", "assignee", "opened_at",
    "first_response_due", "resolution_due", "due_at", "awaits_answer", "first_response_missed", "resolution_missed",
    "answered_at", "closed_at", "resolution",
)  # fmt: skip
_TIMES = frozenset({"opened_at", "first_response_due", "resolution_due", "due_at", "answered_at", "closed_at"})
_NUMBERS = frozenset({"version", "awaits_answer", "first_response_missed", "resolution_missed"})
_MESSAGE_COLUMNS = ("ticket", "event", "version", "kind", "author", "at", "sealed")
_MICROSECOND = timedelta(microseconds=1)


class Since(msgspec.Struct):
    """What happened to a ticket in a batch, in order, up to `version`."""

    version: int
    events: list[tuple[TicketEvent, datetime]]

    @property
    def begins(self) -> bool:
        return isinstance(self.events[0][0], Opened)


class Changes(msgspec.Struct):
    """Tickets by id; messages as rows of read.ticket_message."""

    tickets: dict[str, Since] = {}
    messages: list[Row] = []


class Tickets:
    name = "tickets"
    tables: ClassVar[Sequence[Table]] = (
        Table("ticket", _COLUMNS, player="player"),
        Table("ticket_message", _MESSAGE_COLUMNS, key=2),
    )

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        happened = [pair for kind in TICKETS.events.values() for pair in events.of(kind)]
        for recorded, event in sorted(happened, key=_position):
            id_ = "ticket_" + recorded.body.stream[_STREAM:]
            since = changes.tickets.get(id_)
            if since is None:
                since = changes.tickets[id_] = Since(0, [])
            since.version = recorded.body.version
            since.events.append((event, recorded.at))  # type: ignore[arg-type]
            if (kind := _KINDS.get(type(event))) is not None:
                changes.messages.append(_message(id_, kind, recorded, event))
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes.tickets:
            return
        async with cursor.connection.cursor() as reading:
            read_plainly(reading)
            await reading.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM {schema}.ticket WHERE id = ANY (%b)",
                (text(list(changes.tickets)),),
                binary=True,
            )
            before = {row[0]: row for row in await reading.fetchall()}
        rows = _rows(before, changes.tickets)
        await cursor.execute(_upsert(schema), tuple(map(_column, _COLUMNS, zip(*rows, strict=True))))
        if changes.messages:
            await _insert_messages(cursor, schema, changes.messages)

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["ticket"]
        for row in _rows({id_: rows[id_] for id_ in changes.tickets if id_ in rows}, changes.tickets):
            rows[row[0]] = as_shown(*row)
        for message in changes.messages:
            tables["ticket_message"][message[:2]] = as_shown(*message)


def _position(pair: tuple[Recorded, Event]) -> int:
    return pair[0].position


def _message(id_: str, kind: str, recorded: Recorded, event: Event) -> Row:
    sealed = {name: value for name in _PERSONAL[type(event)] if isinstance(value := getattr(event, name), Sealed)}
    body = recorded.body
    return id_, body.id, body.version, kind, body.actor, recorded.recorded, msgspec.json.encode(sealed).decode()


def _rows(before: Mapping[str, Row], happened: Mapping[str, Since]) -> list[Row]:
    """The rows of read.ticket that follow from those before and from what happened since. Raises OutOfOrder."""
    begun = sum(id_ in before for id_, since in happened.items() if not since.begins)
    going_on = sum(not since.begins for since in happened.values())
    if begun != going_on:
        raise OutOfOrder(f"of {going_on} tickets that went on, {begun} had been opened")
    if any(since.begins and id_ in before for id_, since in happened.items()):
        raise OutOfOrder("a ticket was opened twice")
    return [
        _row(id_, since.version, _folded(_ticket(before[id_]) if id_ in before else Ticket(), since.events))
        for id_, since in happened.items()
    ]


def _folded(ticket: Ticket, events: Iterable[tuple[TicketEvent, datetime]]) -> Ticket:
    for event, at in events:
        ticket = tickets.evolve(ticket, event, at)
    return ticket


def _row(id_: str, version: int, ticket: Ticket) -> Row:
    return (
        id_, version, ticket.player, ticket.status.value, ticket.priority.value, ticket.channel, ticket.by.value,
        ticket.transaction, ticket.assignee, _us(ticket.opened_at), _us(ticket.first_response_due),
        _us(ticket.resolution_due), _us(ticket.due_at), int(ticket.awaits_answer), int(ticket.first_response_missed),
        int(ticket.resolution_missed), _us(ticket.answered_at), _us(ticket.closed_at),
        ticket.resolution.value if ticket.resolution else None,
    )  # fmt: skip


def _ticket(row: Row) -> Ticket:
    known: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    del known["id"], known["version"], known["due_at"]
    known["by"] = known.pop("opened_by")
    for column in _TIMES & known.keys():
        known[column] = None if known[column] is None else instant(known[column])
    for column in _NUMBERS & known.keys():
        known[column] = bool(known[column])
    return msgspec.convert(known, Ticket)


def _us(at: datetime | None) -> int | None:
    return None if at is None else (at - EPOCH) // _MICROSECOND


def _column(name: str, values: Sequence[Any]) -> Any:
    return (times if name in _TIMES else bigint if name in _NUMBERS else text)(values)


def _upsert(schema: str) -> Any:
    columns = ", ".join(_COLUMNS)
    renewed = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
    return f"""
        INSERT INTO {schema}.ticket ({columns}) SELECT * FROM unnest({", ".join(["%b"] * len(_COLUMNS))})
        ON CONFLICT (id) DO UPDATE SET {renewed}"""


async def _insert_messages(cursor: Cursor, schema: str, messages: Sequence[Row]) -> None:
    ticket_ids, events, versions, kinds, authors, at_us, sealed = zip(*messages, strict=True)
    await cursor.execute(
        f"""
        INSERT INTO {schema}.ticket_message (ticket, event, version, kind, author, at, sealed)
        SELECT ticket, event, version, kind, author, at, sealed::json
          FROM unnest(%b, %b, %b, %b, %b, %b, %b) AS m (ticket, event, version, kind, author, at, sealed)""",
        (
            text(ticket_ids), text(events), bigint(versions), text(kinds), text(authors), times(at_us), text(sealed),
        ),
    )  # fmt: skip
