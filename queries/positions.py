"""How far read models have come, for those who must read what they wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from redis.asyncio import Redis

from domain.kernel import instant
from projections.projection import START
from projections.redis import parse_vector, prefix, text
from queries.context import Context, Made

_LOOK_AGAIN_S = 0.02
CACHES = frozenset({"dashboard", "segments"})
MADE = """
    SELECT coalesce(json_object_agg(log, position), '{}')::text AS positions, (array_agg(code ORDER BY applied_at DESC))[1] AS code
      FROM read.position JOIN read.generation USING (projection, generation)"""
"""One row: where a projection in tables stands, and the code that moved it last. Its WHERE says which, and that it is live."""
_TABLE = f"{MADE} WHERE projection = %s AND live"


def made(vector: bytes | str, code: bytes | str, at: bytes | str) -> Made:
    """From what an answer of a cache was made, as Redis keeps it."""
    return Made(
        {log: place.position for log, place in parse_vector(vector).items()},
        text(code) or None,
        instant(int(at)) if at else None,
    )


async def standing(context: Context, projection: str) -> Made:
    """Where a projection stands."""
    if projection in CACHES:
        return await cached(context.redis, projection)
    [(stands, code)] = await context.fetch(_TABLE, projection)
    return Made(msgspec.json.decode(stands, type=dict[str, int]), code)


async def cached(redis: Redis, projection: str) -> Made:
    """The same of a projection that lives in Redis."""
    client: Any = redis
    live = await client.get(prefix(projection) + "live")
    keys = [f"{prefix(projection)}{int(live or 0)}:{what}" for what in ("vector", "code", "at")]
    vector, code, at = await client.mget(keys)
    return made(vector or b"{}", code or b"", at or b"")


async def positions(context: Context, projection: str) -> dict[str, int]:
    """The last entry of each log that a projection has applied."""
    return (await standing(context, projection)).positions


async def wait_for(context: Context, projection: str, at_least: Mapping[str, int], *, timeout_s: float) -> bool:
    """Whether the projection has applied those positions, waiting for it if need be (`?at_least=`).

    It looks at the time itself as well: a cancellation that meets the answer of Redis may be lost inside its client.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(until):
            while not _includes(await positions(context, projection), at_least):
                if loop.time() >= until:
                    return False
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        return False
    return True


def _includes(reached: Mapping[str, int], at_least: Mapping[str, int]) -> bool:
    return all(reached.get(log, START.position) >= position for log, position in at_least.items())
