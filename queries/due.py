"""
What is late: commands that timers and payouts owe, and payouts that their provider has not answered.

Invariant: of each log and duty the longest due are counted, COUNTED_ROWS at most, however long the list is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from projections.duties import DUTIES

COUNTED_ROWS = 10_000
PAYOUT = "payout"
"""The duty of which a row is a payout that was ordered; of all others it is a command."""

_LATE = """
    SELECT l.name, k.kind, s.count, s.oldest_s
      FROM ledger.log AS l CROSS JOIN unnest(%s::text[]) AS k (kind) CROSS JOIN LATERAL (
            SELECT count(*) AS count, coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 AS oldest_s
              FROM (SELECT due_at FROM read.due WHERE log = l.name AND kind = k.kind AND due_at <= now()
                     ORDER BY due_at LIMIT %s) AS d) AS s
     ORDER BY l.name, k.kind"""


class Late(NamedTuple):
    """How many things are late, and for how many seconds the oldest has been due; 0 if there is none."""

    number: int = 0
    oldest_s: float = 0.0


class OfLog(NamedTuple):
    """What is late by a log and a duty (projections.duties). `log`: in which the event stands that set the time."""

    log: str
    duty: str
    late: Late


async def late(connection: AsyncConnection[Any]) -> list[OfLog]:
    """By log and duty, also where nothing is late. From a read model: what was done a moment ago may still be there."""
    cursor = await connection.execute(_LATE, ([duty.name for duty in DUTIES], COUNTED_ROWS))
    return [OfLog(log, duty, Late(count, oldest_s)) for log, duty, count, oldest_s in await cursor.fetchall()]


def together(some: Iterable[Late]) -> Late:
    """All of them, and the oldest of all."""
    found = list(some)
    return Late(sum(each.number for each in found), max((each.oldest_s for each in found), default=0.0))
