"""Contacts with players of whom there is a marker of harm: the list by what is due, and one with what was written on it."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString

import msgspec

from domain import contacts
from domain.contacts import Status
from domain.errors import NotFound
from domain.kernel import ContactId, PlayerId, parse_id
from queries import seeing, words
from queries.by_due import ByDue
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.listing import Listing

_COLUMNS: LiteralString = "c.id, c.version, c.player, c.due_at, c.state::text"
_LEADS = [("player",), ("status",), ("reason",), ("trigger",)]
_NOTES = """
    SELECT event, version, kind, author, at, sealed FROM read.contact_note
     WHERE contact = %s AND version > %s ORDER BY version LIMIT %s"""
STATUSES = frozenset(Status) - {Status.UNKNOWN}
_state = msgspec.json.Decoder(contacts.Contact).decode


class Contact(msgspec.Struct, frozen=True):
    """A contact. `due_at`: what is due next; of one that is over, when it was made. `state`: how it stands."""

    id: ContactId
    version: int
    player: PlayerId
    due_at: datetime
    state: contacts.Contact


class ContactPage(msgspec.Struct, frozen=True):
    """Contacts, those due first first."""

    items: list[Contact]
    next_cursor: str | None


def _contact(id_: ContactId, version: int, player: PlayerId, due_at: datetime, state: str) -> Contact:
    return Contact(id_, version, player, due_at, _state(state))


_ALL = ByDue(
    "contact",
    Listing("read.contact AS c", _COLUMNS, "due_at", _LEADS, attributes=seeing.CONTACTS),
    _contact,
    words={"status": STATUSES},
    ids={"player": "player", "trigger": "notice"},
)


class Note(msgspec.Struct, frozen=True):
    """What was done. `sealed`: a note was written that cannot be opened here, or not by this token."""

    event: str
    kind: str
    author: str
    at: datetime
    sealed: bool
    note: str | None = None


class NotePage(msgspec.Struct, frozen=True):
    """In the order in which it was done."""

    items: list[Note]
    next_cursor: str | None


class ContactWithNotes(Contact, frozen=True):
    """A contact with what was done and written."""

    notes: NotePage


async def page(
    context: Context,
    status: str | None = None,
    reason: str | None = None,
    trigger: str | None = None,
    player: str | None = None,
    due_before: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> ContactPage:
    """Contacts by what is due, those due first first. Raises Invalid, InvalidId, UnknownMoment."""
    given = {"status": status, "reason": reason, "trigger": trigger, "player": player}
    return ContactPage(*await _ALL.page(context, given, due_before, cursor, limit))


async def get(context: Context, contact_id: ContactId, cursor: str | None = None, limit: int = 50) -> ContactWithNotes:
    """A contact with a page of what was done, the first first. Raises InvalidId, NotFound, Invalid."""
    parse_id("contact", contact_id)
    page_size(limit)
    (after,) = read_cursor(cursor, tuple[int]) if cursor else (0,)
    rows = await context.fetch(f"SELECT {_COLUMNS} FROM read.contact AS c WHERE c.id = %s", contact_id)
    if not rows:
        raise NotFound("no such contact")
    contact = _contact(*rows[0])
    found = await context.fetch(_NOTES, contact_id, after, limit + 1)
    opened = await words.opened(context, [(contact.player, row[5]) for row in found[:limit]])
    items = [
        Note(event, kind, author, at, sealed is not None and not texts, texts.get("data.note"))
        for (event, _, kind, author, at, sealed), texts in zip(found[:limit], opened, strict=True)
    ]
    more = write_cursor(found[limit - 1][1]) if len(found) > limit else None
    return ContactWithNotes(
        contact.id, contact.version, contact.player, contact.due_at, contact.state, NotePage(items, more)
    )
