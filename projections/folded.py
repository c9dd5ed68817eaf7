"""
Tables that hold the state of each player's stream of one kind, as the domain folds it.

Invariant: nothing is counted here that the domain does not count: states are read, folded by the aggregate, and written back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from domain.kernel import Aggregate, Event
from eventstore.record import Recorded
from projections.columns import bigint, shown, text
from projections.memory import Rows
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Row, Table

PLAYER = "player_"


class Since(msgspec.Struct):
    """What happened on a stream, in order, up to `version`."""

    version: int
    events: list[tuple[Event, datetime]]


Changes = dict[str, Since]
"""By the player's suffix."""


class Folded:
    """A table (player, version, state): `state` is the aggregate's, as JSON."""

    def __init__(self, name: str, aggregate: Aggregate[Any]) -> None:
        self.table = Table(name, ("player", "version", "state"), player="player")
        self._name = name
        self._aggregate = aggregate
        self._decode = msgspec.json.Decoder(aggregate.state).decode
        self._encode = msgspec.json.Encoder(order="deterministic").encode

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        for recorded in in_order(events, self._aggregate.events.values()):
            since = changes.setdefault(suffix_of(recorded), Since(0, []))
            since.version = recorded.body.version
            since.events.append((recorded.event, recorded.at))
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        await cursor.execute(
            f"SELECT player, state::text FROM {schema}.{self._name} WHERE player = ANY (%b)",
            (text([PLAYER + suffix for suffix in changes]),),
        )
        rows = self._rows(dict(await cursor.fetchall()), changes)
        players, versions, states = zip(*rows, strict=True)
        await cursor.execute(
            f"""
            INSERT INTO {schema}.{self._name} (player, version, state)
            SELECT player, version, state::json FROM unnest(%b, %b, %b) AS f (player, version, state)
            ON CONFLICT (player) DO UPDATE SET version = excluded.version, state = excluded.state""",
            (text(players), bigint(versions), text(states)),
        )

    def fold(self, rows: Rows, changes: Changes) -> None:
        before = {PLAYER + suffix: rows[PLAYER + suffix][2] for suffix in changes if PLAYER + suffix in rows}
        for row in self._rows(before, changes):
            rows[row[0]] = row

    def _rows(self, before: Mapping[str, str], changes: Changes) -> list[Row]:
        """The rows that follow from the states before, by player, and from what happened since."""
        rows: list[Row] = []
        for suffix, since in changes.items():
            player = PLAYER + suffix
            state = self._decode(before[player]) if player in before else self._aggregate.initial
            for event, at in since.events:
                state = self._aggregate.evolve(state, event, at)
            rows.append((player, since.version, shown(self._encode(state).decode())))
        return rows


def in_order(events: Events, kinds: Iterable[type[Event]]) -> list[Recorded]:
    """Those of some kinds, in the order of their log."""
    found = [recorded for kind in kinds for recorded, _ in events.of(kind)]
    return sorted(found, key=lambda recorded: recorded.position)


def suffix_of(recorded: Recorded) -> str:
    return recorded.body.stream.rpartition("-")[2]
