"""
How far every copy is behind its log, in entries and in seconds: the copies that this region holds, and its own log's copies elsewhere.

It is measured by signed heads, never by what a message server counts (ADR 46). The log of another region is at least as long as the
largest head of it that was heard of; its copy is what stands in the database here. Our own log's head is what we have signed; its
copies elsewhere are what their regions have acknowledged.

Invariants:
    - what was not heard of for a while is unknown, never 0;
    - seconds are how long a copy has lacked something that was signed, by this database's clock alone;
    - what is neither signed nor heard of is no lag: heads are signed once a second;
    - of a log that another one continues (eu.2 after eu) nothing more is to come than what counts of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from psycopg import AsyncConnection

UNKNOWN_AFTER_S = 15.0
"""Origins repeat their newest head every two seconds, copies their acknowledgements every second."""

# A copy is read before the heads that it is compared with. Ages are of the same clock as what was kept.
_LAGS = """
    WITH closed AS MATERIALIZED (
        SELECT o.said ->> 'log' AS name, (o.said ->> 'position')::bigint AS position
          FROM ledger.log AS n
               CROSS JOIN LATERAL (SELECT convert_from(e.body, 'UTF8')::json #> '{data,continues}' AS said
                                     FROM ledger.entry AS e WHERE e.log = n.id AND e.position = 1) AS o
         WHERE o.said IS NOT NULL)
    SELECT l.name, %(region)s, p.position, h.size, h.at, extract(epoch FROM clock_timestamp() - h.at)::float8,
           extract(epoch FROM clock_timestamp() - coalesce(k.at, h.first_at))::float8, false,
           EXISTS (SELECT FROM replication.evidence AS v WHERE v.log = l.id AND v.cleared_at IS NULL), o.position
      FROM ledger.log AS l
           CROSS JOIN LATERAL (SELECT coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id
                                                 ORDER BY e.position DESC LIMIT 1), 0) AS position) AS p
           LEFT JOIN replication.heard AS h ON h.log = l.id
           LEFT JOIN closed AS o ON o.name = l.name
           LEFT JOIN LATERAL (SELECT k.at FROM replication.lacking AS k WHERE k.log = l.id AND k.size > p.position
                               ORDER BY k.size LIMIT 1) AS k ON true
     WHERE NOT l.own
    UNION ALL
    SELECT l.name, r.region, coalesce(w.position, 0), c.size, w.at, extract(epoch FROM clock_timestamp() - w.at)::float8,
           extract(epoch FROM clock_timestamp() - k.at)::float8, w.alarm IS NOT NULL, false,
           NULL::bigint
      FROM ledger.log AS l
           CROSS JOIN unnest(%(regions)s::text[]) AS r (region)
           LEFT JOIN replication.watermark AS w ON w.log = l.id AND w.peer = r.region
           LEFT JOIN LATERAL (SELECT c.size FROM ledger.checkpoint AS c WHERE c.log = l.id
                               ORDER BY c.size DESC LIMIT 1) AS c ON true
           LEFT JOIN LATERAL (SELECT c.at FROM ledger.checkpoint AS c WHERE c.log = l.id AND c.size > coalesce(w.position, 0)
                               ORDER BY c.size LIMIT 1) AS k ON true
     WHERE l.own AND l.name = %(region)s AND r.region <> %(region)s AND r.region NOT IN (SELECT name FROM closed)
    ORDER BY 1, 2"""


class State(StrEnum):
    """
    `differs`: what the copy holds is not our log. `halted`: it met what cannot be part of the log. Both want a person. `closed`: the
    log is continued by another one, and the copy holds all that counts of it.
    """

    LEVEL = "level"
    BEHIND = "behind"
    UNKNOWN = "unknown"
    CLOSED = "closed"
    HALTED = "halted"
    DIFFERS = "differs"


class Lag(msgspec.Struct, frozen=True):
    """
    How far the copy of `log` in `region` is behind. `position`: its newest entry; `signed`: the size of the newest signed head that
    is known of; `heard_at`, `heard_seconds` ago: when the other side was last heard of, the origin of a copy here or the region of a
    copy there.

    `entries` of what was signed are not in the copy, the oldest for `seconds`; both are null where it is not known how far the log
    or its copy goes now, because nothing was heard for a while, or never.
    """

    log: str
    region: str
    state: State
    position: int
    signed: int | None
    entries: int | None
    seconds: float | None
    heard_at: datetime | None
    heard_seconds: float | None


async def lags(connection: AsyncConnection[Any], region: str, regions: Sequence[str]) -> list[Lag]:
    """Of every copy held in `region`, whose database this is, and of its own log's copy in each other one of the `regions`."""
    rows = await (await connection.execute(_LAGS, {"region": region, "regions": list(regions)})).fetchall()
    return [_lag(*row) for row in rows]


def _lag(
    log: str,
    region: str,
    position: int,
    signed: int | None,
    heard_at: datetime | None,
    heard_s: float | None,
    lacking_s: float | None,
    differs: bool,
    halted: bool,
    closed: int | None,
) -> Lag:
    heard = None if heard_at is None else heard_at.astimezone(UTC)
    is_known = closed is not None or (heard_s is not None and abs(heard_s) <= UNKNOWN_AFTER_S)
    end = signed if closed is None else closed
    entries = max(0, end - position) if is_known and end is not None else None
    seconds = None if entries is None else round(max(0.0, lacking_s or 0.0), 1) if entries else 0.0
    level = State.LEVEL if closed is None else State.CLOSED
    state = State.UNKNOWN if entries is None else State.BEHIND if entries else level
    if differs or halted:
        state = State.DIFFERS if differs else State.HALTED
    ago = None if heard_s is None else round(max(0.0, heard_s), 1)
    return Lag(log, region, state, position, signed, entries, seconds, heard, ago)
