"""How far read models have come, and by which code."""

from __future__ import annotations

from typing import Any

import msgspec
from redis.asyncio import Redis

from domain.kernel import instant
from projections.projection import Vector
from projections.redis import parse_vector, prefix, text
from queries.context import Context, Made

CACHES = frozenset({"dashboard", "segments"})
MADE = """
    SELECT coalesce(json_object_agg(log, position), '{}')::text AS positions, (array_agg(code ORDER BY applied_at DESC))[1] AS code
      FROM read.position JOIN read.generation USING (projection, generation)"""
"""One row: where a projection in tables stands, and the code that moved it last. Its WHERE says which, and that it is live."""
_TABLE = f"{MADE} WHERE projection = %s AND live"


def made(stands: bytes | str, code: bytes | str, at: bytes | str) -> Made:
    """From what an answer of a cache was made, as Redis keeps it."""
    return Made(
        {log: place.position for log, place in parse_vector(stands).items()},
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
    stands, code, at = await _kept(redis, projection, "vector", "code", "at")
    return made(stands or b"{}", code or b"", at or b"")


async def vector(redis: Redis, projection: str) -> Vector:
    """Where a projection stands that lives in Redis, with the leaves."""
    (stands,) = await _kept(redis, projection, "vector")
    return parse_vector(stands or b"{}")


async def _kept(redis: Redis, projection: str, *what: str) -> list[Any]:
    client: Any = redis
    live = await client.get(prefix(projection) + "live")
    found: list[Any] = await client.mget([f"{prefix(projection)}{int(live or 0)}:{each}" for each in what])
    return found


async def positions(context: Context, projection: str) -> dict[str, int]:
    """The last entry of each log that a projection has applied."""
    return (await standing(context, projection)).positions
