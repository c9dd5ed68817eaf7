"""
Findings: what the rules remember of each player, and what they have found that is no notice yet. reactions/notices.py raises it;
the event that says so takes the row away.

Invariants:
    - the events of a player are folded in the order of their log, as domain.findings has it, whatever the batches;
    - a finding is open until a notice was raised for it, or was withheld: nothing is lost with a process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import ClassVar, NamedTuple

import msgspec

from domain import notices, suppressions
from domain.catalog import OF_PLAYERS
from domain.findings import PLACES, SIGNS, Finding, Picture, Rulebook, Seen
from domain.kernel import partition_of
from eventstore.record import Recorded
from projections.columns import as_shown, bigint, text, times
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Row, Table

_OWN = frozenset(aggregate.name for aggregate in OF_PLAYERS)

_FINDING = ("cause", "rule", "version", "player", "at", "finding", "log", "position", "partition")

_encode = msgspec.json.Encoder().encode
_picture = msgspec.json.Decoder(Picture)

Key = tuple[str, str]
"""The cause (an event) and the rule."""


class Concerning(NamedTuple):
    """An event that some rule looks at, and the suffix of whom it concerns."""

    suffix: str
    recorded: Recorded


class Changes(msgspec.Struct):
    """By player's suffix, what happened in order; and of which findings it is told that they were raised or withheld."""

    seen: dict[str, list[Recorded]] = {}
    closed: list[Key] = []


def concerning(events: Iterable[Recorded]) -> Iterator[Concerning]:
    """Of whole commands, those events at which a rule looks. One on the stream of a payment concerns the player on whose own
    streams the same command has written. Of imported history only who and where a player is.
    """
    for _, together in groupby(events, key=lambda recorded: recorded.body.command.id):
        command = list(together)
        for recorded in command:
            tag = recorded.event.tag
            if tag in PLACES or (tag in SIGNS and recorded.body.occurred is None):
                suffix = _own(recorded) or next(filter(None, map(_own, command)), "")
                if suffix:
                    yield Concerning(suffix, recorded)


def _own(recorded: Recorded) -> str:
    aggregate, _, suffix = recorded.body.stream.partition("-")
    return suffix if aggregate in _OWN else ""


class Findings:
    name = "findings"
    tables: ClassVar[Sequence[Table]] = (
        Table("watched", ("player", "picture"), player="player"),
        Table("finding", _FINDING, key=2, player="player"),
    )

    def __init__(self, rules: Rulebook | None = None) -> None:
        self._rules = rules or Rulebook()

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        for suffix, recorded in concerning(events):
            changes.seen.setdefault(suffix, []).append(recorded)
        for closed in (events.of(notices.Raised), events.of(suppressions.Withheld)):
            changes.closed += [(recorded.body.cause or "", event.rule) for recorded, event in closed]
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if changes.seen:
            players = [f"player_{suffix}" for suffix in changes.seen]
            await cursor.execute(
                f"SELECT player, picture FROM {schema}.watched WHERE player = ANY (%b)", (text(players),), binary=True
            )
            watched, found = self._folded(dict(await cursor.fetchall()), changes)
            await _write_watched(cursor, schema, watched)
            if found:
                await _write_found(cursor, schema, found)
        if changes.closed:
            await cursor.execute(
                f"""
                DELETE FROM {schema}.finding AS f USING unnest(%b, %b) AS c (cause, rule)
                 WHERE f.cause = c.cause AND f.rule = c.rule""",
                (text([cause for cause, _ in changes.closed]), text([rule for _, rule in changes.closed])),
            )

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["watched"]
        before = {row[0]: row[1] for suffix in changes.seen if (row := rows.get(f"player_{suffix}"))}
        watched, found = self._folded(before, changes)
        for row in watched:
            rows[row[0]] = as_shown(*row)
        for row in found:
            tables["finding"][row[:2]] = as_shown(*row)
        for key in changes.closed:
            tables["finding"].pop(key, None)

    def _folded(self, before: Mapping[str, str], changes: Changes) -> tuple[list[Row], list[Row]]:
        """The rows of read.watched, and the new ones of read.finding."""
        watched: list[Row] = []
        found: list[Row] = []
        for suffix, happened in changes.seen.items():
            player = f"player_{suffix}"
            picture = _picture.decode(before[player]) if player in before else Picture()
            for recorded in happened:
                picture, findings = self._rules.follow(picture, Seen(recorded.body.id, recorded.at, recorded.event))
                found += [_row(player, recorded, finding) for finding in findings]
            watched.append((player, _encode(picture).decode()))
        return watched, found


def _row(player: str, recorded: Recorded, finding: Finding) -> Row:
    return (
        finding.cause, finding.rule, finding.version, player, recorded.recorded, _encode(finding).decode(), recorded.log,
        recorded.position, partition_of(player),
    )  # fmt: skip


async def _write_watched(cursor: Cursor, schema: str, rows: Sequence[Row]) -> None:
    await cursor.execute(
        f"""
        INSERT INTO {schema}.watched (player, picture) SELECT * FROM unnest(%b, %b)
        ON CONFLICT (player) DO UPDATE SET picture = excluded.picture""",
        (text([row[0] for row in rows]), text([row[1] for row in rows])),
    )


async def _write_found(cursor: Cursor, schema: str, rows: Sequence[Row]) -> None:
    causes, rules, versions, players, at_us, findings, logs, positions, partitions = zip(*rows, strict=True)
    await cursor.execute(
        f"""
        INSERT INTO {schema}.finding ({", ".join(_FINDING)})
        SELECT cause, rule, version, player, at, finding::json, log, position, partition
          FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b) AS f ({", ".join(_FINDING)})
        ON CONFLICT (cause, rule) DO NOTHING""",
        (
            text(causes), text(rules), bigint(versions), text(players), times(at_us), text(findings), text(logs),
            bigint(positions), bigint(partitions),
        ),
    )  # fmt: skip
