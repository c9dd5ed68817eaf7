"""The dashboard: settled deposits by day and currency, once or whenever they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from typing import Any

import msgspec
from redis.exceptions import RedisError

from projections.dashboard import AMOUNTS, COUNTS, TOTALS
from projections.redis import prefix, text
from queries.context import Context, Made
from queries.positions import made

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
return {{vector, redis.call('GET', own .. 'code') or '', redis.call('GET', own .. 'at') or '', all('{COUNTS}'), all('{AMOUNTS}'), all('{TOTALS}')}}
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
    """
    `positions`: the last entry of each log that is counted; `as_of`: when that was; `code`: by which code, null if not known.
    A cache that was flushed begins again from 0.
    """

    days: list[Deposits]
    totals: list[Total]
    players: int
    positions: dict[str, int]
    as_of: datetime | None
    code: str | None


Fields = Iterable[tuple[str, int]]
"""A hash of the projection: its fields and their values (projections.dashboard)."""


def answer(counts: Fields, amounts: Fields, totals: Fields, made: Made) -> Dashboard:
    """The dashboard that these numbers make, wherever they are kept."""
    days = _days(dict(counts), dict(amounts))
    return Dashboard(days, _totals(days), dict(totals).get("players", 0), made.positions, made.as_of, made.code)


async def dashboard(context: Context) -> Dashboard:
    """The dashboard as it stands."""
    client: Any = context.redis
    found = await client.eval(_READ, 1, prefix("dashboard"))
    if not found:
        return answer((), (), (), Made({}, None))
    vector, code, at, counts, amounts, totals = found
    return answer(_fields(counts), _fields(amounts), _fields(totals), made(vector, code, at))


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


def _fields(reply: bytes | str) -> Fields:
    parts = text(reply).split("\n") if reply else []
    return zip(parts[::2], map(int, parts[1::2]), strict=True)


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
