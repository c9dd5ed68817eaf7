"""
The geo watermark: how far our log is safe from the loss of this region. What reaches outside of the house waits for it.

It is what watermarks.py keeps of the other regions' acknowledgements, read by whoever has an effect to wait with.
"""

from typing import Any

from psycopg import AsyncConnection

_WATERMARK = """
    SELECT coalesce(max(w.position), 0) FROM replication.watermark AS w JOIN ledger.log AS l ON l.id = w.log
     WHERE l.name = %s AND l.own AND w.alarm IS NULL"""


async def watermark(connection: AsyncConnection[Any], log: str) -> int:
    """Up to which position of the own log at least one other region has committed a verified copy that agrees with it."""
    cursor = await connection.execute(_WATERMARK, (log,))
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 — an aggregate
    return int(row[0])
