"""
The logs as projections read them: in batches of whole commands, decoded once for all who stand at the same place.

Invariants:
    - an entry is read only after everything before it in its log (append commits in the order of positions);
    - only logs of regions are read (region eu's are eu, eu.2, …): what else keeps a log in this database speaks of its own;
    - an entry that does not count (its index is empty) moves the position and is seen by nobody;
    - a batch ends before an adoption of partitions, and the next one waits for the other log (Barrier);
    - nothing is read beyond an entry that this release cannot read, nor from a log in whose place another was put: one that has
      another leaf where the reader stands. One that does not go so far is waited for: a restored log gets back what it has lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from psycopg import AsyncConnection

from domain.logs import Adopted
from eventstore.record import Codec, Entry, Recorded, UnknownEvent
from projections.projection import Barrier, Batch, Events, Position, Reading

_READ = """
    SELECT e.position, e.recorded, e.leaf, CASE WHEN e.stream IS NOT NULL THEN e.body END
      FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position >= %s ORDER BY e.position LIMIT %s"""
_HEADS = """
    SELECT l.name, l.id, coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1), 0)
      FROM ledger.log AS l WHERE split_part(l.name, '.', 1) = ANY (%s) ORDER BY l.id"""


class LogSource:
    """Not for two tasks at once. Each read is a transaction of its own."""

    def __init__(self, connection: AsyncConnection[Any], codec: Codec, regions: Iterable[str]) -> None:
        self._connection = connection
        self._codec = codec
        self._regions = [region.partition(".")[0] for region in regions]
        self._ids: dict[str, int] = {}

    async def heads(self) -> dict[str, int]:
        """The last position of every region's log held here."""
        rows = await (await self._connection.execute(_HEADS, (self._regions,), binary=True)).fetchall()
        self._ids = {name: number for name, number, _ in rows}
        return {name: position for name, _, position in rows}

    async def read(self, log: str, after: Position, limit: int) -> Reading:
        """About `limit` entries after `after`: less what does not end a command, or more if the first is longer."""
        while True:
            rows = await self._rows(log, after.position, limit + 1)
            if after.position:
                nothing = Batch(log, after, after, Events())
                if not rows:
                    return Reading(nothing)
                if rows[0][2] != after.leaf:
                    return Reading(nothing, f"{log}/{after.position} is not the entry that was applied")
                del rows[0]
            reading, whole = self._decode(log, after, rows)
            if whole or len(rows) < limit:
                return reading
            limit *= 2

    async def _rows(self, log: str, first: int, count: int) -> list[tuple[Any, ...]]:
        if log not in self._ids:
            await self.heads()
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(_READ, (self._ids[log], first, count))
        return await cursor.fetchall()

    def _decode(self, log: str, after: Position, rows: list[tuple[Any, ...]]) -> tuple[Reading, bool]:
        """The whole commands at the beginning of `rows`, and whether there was one or an end of what can be read."""
        events: list[Recorded] = []
        whole, counted = after, 0
        barrier: Barrier | None = None
        decode = self._codec.decode
        for row in rows:
            position, _, leaf, body = row
            if body is not None:
                try:
                    recorded = decode(Entry(log, *row))
                except (UnknownEvent, msgspec.DecodeError) as error:
                    reason = str(error) if isinstance(error, UnknownEvent) else f"{log}/{position}: {error}"
                    return Reading(Batch(log, after, whole, Events(events[:counted]), barrier), reason), True
                if isinstance(recorded.event, Adopted):
                    if whole is not after:
                        break
                    barrier = Barrier(recorded.event.of, recorded.event.cut.position)
                events.append(recorded)
                command = recorded.body.command
                if command.i != command.n:
                    continue
            whole, counted = Position(position, leaf), len(events)
        return Reading(Batch(log, after, whole, Events(events[:counted]), barrier)), whole is not after
