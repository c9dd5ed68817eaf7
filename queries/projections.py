"""
Read models themselves: how far each one is, and all that it holds, for whoever replays the logs and compares.

Invariant: a state is of one moment, and its reader holds a connection for no longer than it reads.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from domain.errors import NotFound
from projections import catalog, postgres, redis
from projections.projection import Snapshot
from projections.state import Writer
from queries import positions
from queries.context import Context

IDLE_S_MAX = 30
"""How long a reader of a state may pause: as long as its snapshot is open, no rebuild can take the tables' place."""

_TABLES = {projection.name: projection for projection in catalog.TABLES}
_CACHES = {projection.name: projection for projection in catalog.CACHES}
_STOPS = "SELECT projection, log, stopped_at, reason FROM read.status ORDER BY projection, log"


class ProjectionStop(msgspec.Struct, frozen=True):
    """A projection cannot go on in a log after the entry at `position`."""

    log: str
    position: int
    reason: str


class ProjectionInfo(msgspec.Struct, frozen=True):
    """
    A read model. `positions`: the last entry of each log that it holds; `stops`: where it cannot go on.

    `code`: the program's version and a hash over the source of domain, policies and projections, of what moved it last; null if
    not known. Equal code makes equal read models of equal logs.
    """

    name: str
    positions: dict[str, int]
    code: str | None
    stops: list[ProjectionStop]


async def projections(context: Context) -> list[ProjectionInfo]:
    """All read models."""
    stops: dict[str, list[ProjectionStop]] = {}
    for name, *stop in await context.fetch(_STOPS):
        stops.setdefault(name, []).append(ProjectionStop(*stop))
    found = []
    for name in catalog.NAMES:
        stands = await positions.standing(context, name)
        found.append(ProjectionInfo(name, stands.positions, stands.code, stops.get(name, [])))
    return found


async def state(context: Context, name: str) -> AsyncGenerator[bytes, None]:
    """All that a read model holds at one moment, as NDJSON (projections.state). Raises NotFound."""
    if name not in catalog.NAMES:
        raise NotFound("no such read model", projection=name)
    writer = Writer()
    async with _snapshot(context, name) as (standing, chunks):
        yield writer.begin(name, {log: place.position for log, place in standing.vector.items()}, standing.code)
        async for chunk in chunks:
            yield writer.add(chunk)
    yield writer.end()


@asynccontextmanager
async def _snapshot(context: Context, name: str) -> AsyncIterator[Snapshot]:
    if name in _CACHES:
        async with redis.state(context.redis, _CACHES[name]) as found:
            yield found
        return
    async with context.pool.connection() as connection, postgres.state(connection, _TABLES[name]) as found:
        await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_S_MAX}s'")
        yield found
