"""How far read models have come, for those who must read what they wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from projections.projection import START
from projections.redis import parse_vector, prefix
from queries.context import Context

_LOOK_AGAIN_S = 0.02
CACHES = frozenset({"dashboard", "segments"})
_TABLE = """
    SELECT log, position FROM read.position JOIN read.generation USING (projection, generation)
     WHERE projection = %s AND live"""


async def positions(context: Context, projection: str) -> dict[str, int]:
    """The last entry of each log that a projection has applied."""
    if projection not in CACHES:
        return dict(await context.fetch(_TABLE, projection))
    return await cached(context.redis, projection)


async def cached(redis: Redis, projection: str) -> dict[str, int]:
    """The same of a projection that lives in Redis."""
    client: Any = redis
    live = await client.get(prefix(projection) + "live")
    vector = live and await client.get(f"{prefix(projection)}{int(live)}:vector")
    return {log: place.position for log, place in parse_vector(vector or b"{}").items()}


async def wait_for(context: Context, projection: str, at_least: Mapping[str, int], *, timeout_s: float) -> bool:
    """Whether the projection has applied those positions, waiting for it if need be (`?at_least=`)."""
    try:
        async with asyncio.timeout(timeout_s):
            while not _includes(await positions(context, projection), at_least):  # noqa: ASYNC110 — no event of ours
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        return False
    return True


def _includes(reached: Mapping[str, int], at_least: Mapping[str, int]) -> bool:
    return all(reached.get(log, START.position) >= position for log, position in at_least.items())
