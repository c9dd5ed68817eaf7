"""
What is due when: a row for each thing that time will change if nobody does before (an expiry, a promised answer), and for each
payout that waits for its provider. reactions/ do it; the event that says it was done takes the row away.

Invariants:
    - a row follows from the newest event of its own stream that concerns its kind, so it does not depend on how logs interleave;
    - a kind is one row of projections.duties: which events set its time, and which end it;
    - nothing is remembered of what is over, so the table is as long as what is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import msgspec

from domain.kernel import Event, partition_of
from projections.columns import as_shown, bigint, text, times
from projections.duties import DUTIES, LEAVE, Duty, When
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Table

_COLUMNS = ("stream", "kind", "due_at", "cause", "log", "position", "partition")

Key = tuple[str, str]
"""Stream and kind."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of read.due, without its key. `due_us`: µs since 1970 UTC."""

    due_us: int
    cause: str
    log: str
    position: int


Changes = dict[Key, Row | None]
"""What a batch leaves to be done; None: nothing any more."""


class _Rule(NamedTuple):
    kind: str
    when: When


class Due:
    name = "due"
    tables: ClassVar[Sequence[Table]] = (Table("due", _COLUMNS, key=2),)

    def __init__(self, duties: Sequence[Duty] = DUTIES) -> None:
        self._rules = _rules(duties)

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        begun: set[Key] = set()
        for recorded in events:
            for rule in self._rules.get(type(recorded.event), ()):
                key = (recorded.body.stream, rule.kind)
                due_us = rule.when(recorded, recorded.event)
                if due_us is LEAVE:
                    continue
                if due_us is not None:
                    if recorded.body.version == 1:
                        begun.add(key)
                    changes[key] = Row(due_us, recorded.body.id, recorded.log, recorded.position)
                elif key in begun:  # set and over within the batch, and never before: nothing to write
                    changes.pop(key, None)
                else:
                    changes[key] = None
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        over = [key for key, row in changes.items() if row is None]
        rows = [(key, row) for key, row in changes.items() if row is not None]
        if over:
            await cursor.execute(
                f"""
                DELETE FROM {schema}.due AS d USING unnest(%b, %b) AS o (stream, kind)
                 WHERE d.stream = o.stream AND d.kind = o.kind""",
                (text([stream for stream, _ in over]), text([kind for _, kind in over])),
            )
        if rows:
            await cursor.execute(
                f"""
                INSERT INTO {schema}.due (stream, kind, due_at, cause, log, position, partition)
                SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b)
                ON CONFLICT (stream, kind) DO UPDATE
                   SET due_at = excluded.due_at, cause = excluded.cause, log = excluded.log, position = excluded.position""",
                (
                    text([stream for (stream, _), _ in rows]),
                    text([kind for (_, kind), _ in rows]),
                    times([row.due_us for _, row in rows]),
                    text([row.cause for _, row in rows]),
                    text([row.log for _, row in rows]),
                    bigint([row.position for _, row in rows]),
                    bigint([partition_of(stream) for (stream, _), _ in rows]),
                ),
            )

    def fold(self, tables: Tables, changes: Changes) -> None:
        due = tables["due"]
        for key, row in changes.items():
            if row is None:
                due.pop(key, None)
            else:
                due[key] = as_shown(*key, row.due_us, row.cause, row.log, row.position, partition_of(key[0]))


def _rules(duties: Sequence[Duty]) -> Mapping[type[Event], Sequence[_Rule]]:
    """What each type of event means for which duties."""
    rules: dict[type[Event], list[_Rule]] = {}
    for duty in duties:
        for event, when in duty.events.items():
            rules.setdefault(event, []).append(_Rule(duty.name, when))
    return rules
