"""
Notices and contacts: where each one stands, as the domain folds it, and what was written on contacts (sealed).

Invariant: nothing is counted here that the domain does not count: `state` is folded by the aggregate; the columns beside it are
read from it, so that lists can be found by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import msgspec

from domain import contacts, notices
from domain.contacts import CONTACTS, Attempted, Contact, FollowedUp, Made
from domain.kernel import Aggregate, Event
from domain.notices import NOTICES, Notice
from projections.columns import as_shown, bigint, text, times
from projections.folded import Since, in_order, suffix_of
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.sealed import words
from projections.state import Row, Table
from projections.times import as_us

_NOTE = ("contact", "event", "version", "kind", "author", "at", "sealed")
_KINDS: Mapping[type[Event], str] = {Attempted: "attempted", Made: "made", FollowedUp: "followed_up"}
_encode = msgspec.json.Encoder(order="deterministic").encode


class Sort(NamedTuple):
    """A table of ours. `begins`: the event with which a stream does; `found_by`: texts of the state that lists are found by."""

    name: str
    aggregate: Aggregate[Any]
    begins: type[Event]
    found_by: tuple[str, ...]
    due_at: Callable[[Any], datetime]

    @property
    def columns(self) -> tuple[str, ...]:
        return ("id", "version", "player", *self.found_by, "due_at", "state")

    @property
    def table(self) -> Table:
        return Table(self.name, self.columns, player="player")

    def changes(self, events: Events) -> dict[str, Since]:
        """By id."""
        changes: dict[str, Since] = {}
        for recorded in in_order(events, self.aggregate.events.values()):
            since = changes.setdefault(f"{self.name}_{suffix_of(recorded)}", Since(0, []))
            since.version = recorded.body.version
            since.events.append((recorded.event, recorded.at))
        return changes

    def rows(self, before: Mapping[str, str], changes: Mapping[str, Since]) -> list[Row]:
        """What follows from the states before, by id, and from what happened since. Raises OutOfOrder."""
        rows: list[Row] = []
        for id_, since in changes.items():
            if isinstance(since.events[0][0], self.begins) == (id_ in before):
                raise OutOfOrder(f"{id_} begins once, and first")
            state = self.aggregate.initial
            if id_ in before:
                state = msgspec.json.decode(before[id_], type=self.aggregate.state)
            for event, at in since.events:
                state = self.aggregate.evolve(state, event, at)
            told = [None if (value := getattr(state, name)) is None else str(value) for name in self.found_by]
            due_us = as_us(self.due_at(state))
            rows.append((id_, since.version, str(state.player), *told, due_us, _encode(state).decode()))
        return rows

    async def write(self, cursor: Cursor, schema: str, changes: Mapping[str, Since]) -> None:
        if not changes:
            return
        await cursor.execute(
            f"SELECT id, state::text FROM {schema}.{self.name} WHERE id = ANY (%b)", (text(list(changes)),)
        )
        rows = self.rows(dict(await cursor.fetchall()), changes)
        ids, versions, *told, due_us, states = zip(*rows, strict=True)
        columns = ", ".join(self.columns)
        renewed = ", ".join(f"{column} = excluded.{column}" for column in self.columns[1:])
        await cursor.execute(
            f"""
            INSERT INTO {schema}.{self.name} ({columns})
            SELECT {columns.removesuffix("state")} state::json FROM unnest({", ".join(["%b"] * len(self.columns))}) AS f ({columns})
            ON CONFLICT (id) DO UPDATE SET {renewed}""",
            (text(ids), bigint(versions), *map(text, told), times(due_us), text(states)),
        )

    def fold(self, tables: Tables, rows: Sequence[Row]) -> None:
        for row in rows:
            tables[self.name][row[0]] = as_shown(*row)


def _contact_due(contact: Contact) -> datetime:
    """What is due next; of a contact that is over, when it was made."""
    return contact.due_at or contact.made_at or contact.opened_at


def _notice_due(notice: Notice) -> datetime:
    return notice.due_at


NOTICE = Sort("notice", NOTICES, notices.Raised, ("status", "rule", "kind", "severity", "assignee"), _notice_due)
CONTACT = Sort("contact", CONTACTS, contacts.Opened, ("status", "reason", "trigger"), _contact_due)


class Changes(NamedTuple):
    """`notes`: rows of read.contact_note."""

    notices: Mapping[str, Since]
    contacts: Mapping[str, Since]
    notes: Sequence[Row]


class Notices:
    name = "notices"
    tables: ClassVar[Sequence[Table]] = (NOTICE.table, CONTACT.table, Table("contact_note", _NOTE, key=2))

    def changes(self, events: Events) -> Changes:
        return Changes(NOTICE.changes(events), CONTACT.changes(events), _notes(events))

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        await NOTICE.write(cursor, schema, changes.notices)
        await CONTACT.write(cursor, schema, changes.contacts)
        if changes.notes:
            await _write_notes(cursor, schema, changes.notes)

    def fold(self, tables: Tables, changes: Changes) -> None:
        found = []
        for sort, happened in ((NOTICE, changes.notices), (CONTACT, changes.contacts)):
            before = {id_: row[-1] for id_ in happened if (row := tables[sort.name].get(id_))}
            found.append((sort, sort.rows(before, happened)))
        for sort, rows in found:  # all of it, or nothing
            sort.fold(tables, rows)
        for note in changes.notes:
            tables["contact_note"][note[:2]] = as_shown(*note)


def _notes(events: Events) -> list[Row]:
    return [
        (
            f"contact_{suffix_of(recorded)}", recorded.body.id, recorded.body.version, _KINDS[type(recorded.event)],
            recorded.body.actor, recorded.recorded, words(recorded),
        )
        for recorded in in_order(events, _KINDS)
    ]  # fmt: skip


async def _write_notes(cursor: Cursor, schema: str, notes: Sequence[Row]) -> None:
    ids, events, versions, kinds, authors, at_us, sealed = zip(*notes, strict=True)
    await cursor.execute(
        f"INSERT INTO {schema}.contact_note ({', '.join(_NOTE)}) SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b)",
        (
            text(ids), text(events), bigint(versions), text(kinds), text(authors), times(at_us), text(sealed),
        ),
    )  # fmt: skip
