"""The dashboard: settled deposits by day and currency, once or whenever they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Any

import msgspec
from redis.exceptions import RedisError

from domain.kernel import instant
from projections.dashboard import AMOUNTS, COUNTS, TOTALS
from projections.redis import parse_vector, prefix, text
from queries.context import Context

INTERVAL_S = 0.2
POLL_S = 1.0
_RETRY_S = 0.5

# One script, so that numbers and positions are of one moment. A hash is one text: thousands of days, few replies.
_READ = f"""#!lua flags=no-writes
local live = redis.call('GET', KEYS[1] .. 'live')
local own = KEYS[1] .. (live or '') .. ':'
local vector = live and redis.call('GET', own .. 'vector')
if not vector then return false end
local function all(name) return table.concat(redis.call('HGETALL', own .. name), '\\n') end
return {{vector, redis.call('GET', own .. 'at') or '', all('{COUNTS}'), all('{AMOUNTS}'), all('{TOTALS}')}}
"""


class Deposits(msgspec.Struct, frozen=True):
    """Deposits settled on `day` (UTC), by when that happened. `amount` in minor units."""

    day: date
    currency: str
    count: int
    amount: int


class Total(msgspec.Struct, frozen=True):
    """All settled deposits in a currency. `amount` in minor units."""

    currency: str
    count: int
    amount: int


class Dashboard(msgspec.Struct, frozen=True):
    """`positions`: the last entry of each log that is counted; `as_of`: when that was. A cache that was flushed begins again from 0."""

    days: list[Deposits]
    totals: list[Total]
    players: int
    positions: dict[str, int]
    as_of: datetime | None


async def dashboard(context: Context) -> Dashboard:
    """The dashboard as it stands."""
    client: Any = context.redis
    answer = await client.eval(_READ, 1, prefix("dashboard"))
    if not answer:
        return Dashboard([], [], 0, {}, None)
    vector, at, counts, amounts, totals = answer
    days = _days(_fields(counts), _fields(amounts))
    return Dashboard(
        days=days,
        totals=_totals(days),
        players=_fields(totals).get("players", 0),
        positions={log: place.position for log, place in parse_vector(vector).items()},
        as_of=instant(int(at)) if at else None,
    )


async def live(context: Context) -> AsyncIterator[Dashboard]:
    """The dashboard now, and again whenever it has changed, at most five times a second; for ever, also while Redis is away."""
    client: Any = context.redis
    last: Dashboard | None = None
    while True:
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as changes:
                await changes.subscribe(prefix("dashboard") + "changed")
                while True:
                    current = await dashboard(context)
                    if last is None or current.positions != last.positions:
                        last = current
                        yield current
                    await _change(changes)
        except (RedisError, OSError):
            await asyncio.sleep(_RETRY_S)


async def _change(changes: Any) -> None:
    """Wait for a change, but look again after a while: a flush is silent, and so is what was published while nobody listened."""
    await asyncio.sleep(INTERVAL_S)
    await changes.get_message(timeout=POLL_S)
    while await changes.get_message(timeout=0) is not None:
        pass


def _fields(reply: bytes | str) -> dict[str, int]:
    parts = text(reply).split("\n") if reply else []
    return {field: int(value) for field, value in zip(parts[::2], parts[1::2], strict=True)}


def _days(counts: dict[str, int], amounts: dict[str, int]) -> list[Deposits]:
    days = []
    for field in sorted(counts):
        day, currency = field.split(" ")
        days.append(Deposits(date.fromisoformat(day), currency, counts[field], amounts[field]))
    return days


def _totals(days: list[Deposits]) -> list[Total]:
    sums: dict[str, Total] = {}
    for day in days:
        total = sums.get(day.currency, Total(day.currency, 0, 0))
        sums[day.currency] = Total(day.currency, total.count + day.count, total.amount + day.amount)
    return [sums[currency] for currency in sorted(sums)]
