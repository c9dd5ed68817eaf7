"""
Rebuilding: a read model is made anew beside the one that answers, and takes its place when it stands as far.

Invariants:
    - until the switch, which is one transaction, everybody sees the old one and it goes on following the logs;
    - a read model never goes back by being rebuilt;
    - an interrupted rebuild leaves the old one as it was; the next begins from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from projections import catalog, postgres
from projections.projection import Source, Standing, StateHash, Store

BATCH_ENTRIES = 5_000


class Progress(NamedTuple):
    """`applied` of the `total` entries that the logs held when the pass began."""

    projection: str
    applied: int
    total: int


class RebuildStopped(Exception):
    """The logs cannot be read as far as the old read model stands; it stays."""


async def rebuild(
    name: str,
    *,
    dsn: str,
    client: Redis,
    regions: Sequence[str],
    progress: Callable[[Progress], None] = lambda _: None,
) -> Standing:
    """Rebuild a projection from the regions' logs. Raises KeyError, RebuildRunning, RebuildStopped, or Moved if Redis was flushed meanwhile."""
    async with await postgres.connect(dsn) as connection:
        store = catalog.stores(connection, client)[name]
        standing = await rebuild_store(store, catalog.source(connection, regions), progress=progress)
        await connection.execute("DELETE FROM read.status WHERE projection = %s", (name,))  # what stopped the old one
        return standing


async def rebuild_store(
    store: Store,
    source: Source,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    entries: int = BATCH_ENTRIES,
) -> Standing:
    async with store.building():
        draft = await store.begin()
        while True:
            before = draft
            draft, stopped = await _catch_up(store, source, draft, progress, entries)
            if await store.switch(draft):
                return draft._replace(live=True)
            if draft == before and stopped:
                raise RebuildStopped("; ".join(stopped))


async def state_hash(name: str, *, dsn: str, client: Redis) -> StateHash:
    """What a projection holds. Two that stand at the same positions hold the same, however they came there."""
    async with await postgres.connect(dsn) as connection:
        return await catalog.stores(connection, client)[name].state_hash()


async def _catch_up(
    store: Store, source: Source, draft: Standing, progress: Callable[[Progress], None], entries: int
) -> tuple[Standing, list[str]]:
    """Apply what the logs hold now. Returns the draft, and why logs could not be read to their heads."""
    heads = await source.heads()
    stops: dict[str, str] = {}
    moved = True
    while moved:  # a log may wait for another one
        moved = False
        for log, head in heads.items():
            while log not in stops and draft.at(log).position < head:
                batch, stopped = await source.read(log, draft.at(log), entries)
                if not draft.may_take(batch):
                    break
                if batch.after != batch.before:
                    draft, moved = await store.apply(draft, batch), True
                applied = sum(place.position for place in draft.vector.values())
                progress(Progress(store.name, applied, sum(heads.values())))
                if stopped is not None:
                    stops[log] = stopped
    return draft, list(stops.values())
