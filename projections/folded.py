"""
Tables that hold the state of each player's stream of one kind, as the domain folds it.

Invariants:
    - nothing is counted here that the domain does not count: states are read, folded by the aggregate, and written back;
    - of a player who was erased what the domain forgets is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from domain.kernel import Aggregate, Event
from domain.players import Erased
from eventstore.record import Recorded
from projections.columns import bigint, shown, text
from projections.memory import Rows
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Row, Table

PLAYER = "player_"


class Since(msgspec.Struct):
    """What happened on a stream, in order, up to `version` (0: only an erasure, which stands on another one)."""

    version: int
    events: list[tuple[Event, datetime]]


Changes = dict[str, Since]
"""By the player's suffix."""


class Folded:
    """A table (player, version, state): `state` is the aggregate's, as JSON. `forgotten`: what is left of it after an erasure."""

    def __init__(self, name: str, aggregate: Aggregate[Any], forgotten: Callable[[Any], Any] | None = None) -> None:
        self.table = Table(name, ("player", "version", "state"), player="player")
        self._name = name
        self._aggregate = aggregate
        self._forgotten = forgotten
        self._kinds: list[type[Event]] = [*aggregate.events.values(), *([Erased] if forgotten else [])]
        self._decode = msgspec.json.Decoder(aggregate.state).decode
        self._encode = msgspec.json.Encoder(order="deterministic").encode

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        for recorded in in_order(events, self._kinds):
            since = changes.setdefault(suffix_of(recorded), Since(0, []))
            if not isinstance(recorded.event, Erased):
                since.version = recorded.body.version
            since.events.append((recorded.event, recorded.at))
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        await cursor.execute(
            f"SELECT player, version, state::text FROM {schema}.{self._name} WHERE player = ANY (%b)",
            (text([PLAYER + suffix for suffix in changes]),),
        )
        rows = self._rows({row[0]: row for row in await cursor.fetchall()}, changes)
        if not rows:
            return
        players, versions, states = zip(*rows, strict=True)
        await cursor.execute(
            f"""
            INSERT INTO {schema}.{self._name} (player, version, state)
            SELECT player, version, state::json FROM unnest(%b, %b, %b) AS f (player, version, state)
            ON CONFLICT (player) DO UPDATE SET version = excluded.version, state = excluded.state""",
            (text(players), bigint(versions), text(states)),
        )

    def fold(self, rows: Rows, changes: Changes) -> None:
        before = {PLAYER + suffix: rows[PLAYER + suffix] for suffix in changes if PLAYER + suffix in rows}
        for row in self._rows(before, changes):
            rows[row[0]] = row

    def _rows(self, before: Mapping[str, Row], changes: Changes) -> list[Row]:
        """The rows that follow from those before, by player, and from what happened since."""
        rows: list[Row] = []
        for suffix, since in changes.items():
            player = PLAYER + suffix
            if player not in before and not since.version:
                continue  # there is nothing to forget
            _, version, told = before.get(player, (player, 0, None))
            state = self._aggregate.initial if told is None else self._decode(told)
            for event, at in since.events:
                state = self._after(state, event, at)
            rows.append((player, since.version or version, shown(self._encode(state).decode())))
        return rows

    def _after(self, state: Any, event: Event, at: datetime) -> Any:
        if self._forgotten is not None and isinstance(event, Erased):
            return self._forgotten(state)
        return self._aggregate.evolve(state, event, at)


def in_order(events: Events, kinds: Iterable[type[Event]]) -> list[Recorded]:
    """Those of some kinds, in the order of their log."""
    found = [recorded for kind in kinds for recorded, _ in events.of(kind)]
    return sorted(found, key=lambda recorded: recorded.position)


def suffix_of(recorded: Recorded) -> str:
    return recorded.body.stream.rpartition("-")[2]
