"""Tickets: the list by due time, and one with what was written on it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

import msgspec

from domain.errors import NotFound
from domain.kernel import PlayerId, Sealed, TicketId, TransactionId, parse_id
from domain.players import DataKey
from domain.tickets import Status
from policies.sla import Priority
from queries import seeing
from queries.by_due import ByDue
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.listing import Listing

_COLUMNS: LiteralString = """t.id, t.version, t.player, t.status, t.priority, t.channel, t.opened_by, t.transaction, t.assignee, t.opened_at,
              t.first_response_due, t.resolution_due, t.due_at, t.first_response_missed <> 0, t.resolution_missed <> 0,
              t.answered_at, t.closed_at, t.resolution"""
_GET = f"""
    SELECT {_COLUMNS},
           (SELECT convert_from(e.body, 'UTF8')::json -> 'data' ->> 'key' FROM ledger.entry AS e
             WHERE e.stream = replace(t.player, '_', '-') AND e.version = 1)
      FROM read.ticket AS t WHERE t.id = %s"""
_MESSAGES = """
    SELECT event, version, kind, author, at, sealed::text FROM read.ticket_message
     WHERE ticket = %s AND version > %s ORDER BY version LIMIT %s"""
_LEADS = [("player",), ("assignee", "status"), ("assignee",), ("status",), ("priority",)]
STATUSES = frozenset(Status) - {Status.UNKNOWN}


class Message(msgspec.Struct, frozen=True):
    """What was written. `subject` of the first one only; `sealed`: it cannot be opened here, or not by this token."""

    event: str
    kind: str
    author: str
    at: datetime
    sealed: bool
    subject: str | None = None
    text: str | None = None


class MessagePage(msgspec.Struct, frozen=True):
    """In the order in which they were written."""

    items: list[Message]
    next_cursor: str | None


class Ticket(msgspec.Struct, frozen=True):
    """
    A ticket without what was written on it. `due_at`: what is due next; of a closed ticket, when its end was due.

    `opened_by`: whose words it began with. `first_response_missed`, `resolution_missed`: recorded as not kept.
    """

    id: TicketId
    version: int
    player: PlayerId
    status: str
    priority: str
    channel: str
    opened_by: str
    transaction: TransactionId | None
    assignee: str | None
    opened_at: datetime
    first_response_due: datetime
    resolution_due: datetime
    due_at: datetime
    first_response_missed: bool
    resolution_missed: bool
    answered_at: datetime | None
    closed_at: datetime | None
    resolution: str | None


class Conversation(Ticket, frozen=True):
    """A ticket with what was written on it."""

    messages: MessagePage


class TicketPage(msgspec.Struct, frozen=True):
    """Tickets, those due first first."""

    items: list[Ticket]
    next_cursor: str | None


_ALL = ByDue(
    "ticket",
    Listing("read.ticket AS t", _COLUMNS, "due_at", _LEADS, attributes=seeing.TICKETS),
    Ticket,
    words={"status": STATUSES, "priority": frozenset(Priority)},
    ids={"player": "player"},
)


async def page(
    context: Context,
    status: str | None = None,
    priority: str | None = None,
    assignee: str | None = None,
    player: str | None = None,
    due_before: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> TicketPage:
    """Tickets by due time, those due first first. Raises Invalid, InvalidId, UnknownMoment."""
    given = {"status": status, "priority": priority, "assignee": assignee, "player": player}
    return TicketPage(*await _ALL.page(context, given, due_before, cursor, limit))


async def get(context: Context, ticket_id: TicketId, cursor: str | None = None, limit: int = 50) -> Conversation:
    """A ticket with a page of what was written on it, the first first. Raises InvalidId, NotFound, Invalid."""
    parse_id("ticket", ticket_id)
    page_size(limit)
    (after,) = read_cursor(cursor, tuple[int]) if cursor else (0,)
    rows = await context.fetch(_GET, ticket_id)
    if not rows:
        raise NotFound("no such ticket")
    *ticket, key = rows[0]
    found = await context.fetch(_MESSAGES, ticket_id, after, limit + 1)
    committed = msgspec.json.decode(key, type=DataKey)
    items = [await _message(context, ticket[2], committed, *row) for row in found[:limit]]
    more = write_cursor(found[limit - 1][1]) if len(found) > limit else None
    return Conversation(*[*ticket, MessagePage(items, more)])


async def _message(
    context: Context,
    player: PlayerId,
    key: DataKey,
    event: str,
    _version: int,
    kind: str,
    author: str,
    at: datetime,
    personal: str,
) -> Message:
    """`key`: as the registration in the log names it and commits to it, whatever the read model holds."""
    fields: dict[str, Any] = {
        f"data.{name}": value for name, value in msgspec.json.decode(personal, type=dict[str, Sealed]).items()
    }
    opened = await context.open_personal(player, event, key, fields) if fields else {}
    return Message(
        event, kind, author, at, not fields or len(opened) < len(fields),
        **{path.removeprefix("data."): value for path, value in opened.items()},
    )  # fmt: skip
