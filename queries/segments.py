"""Segments: players by what they have deposited in total."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from domain.kernel import Money, PlayerId, instant
from projections.redis import parse_vector, prefix, text
from projections.segments import deposited
from queries.context import Context, page_size, read_cursor, write_cursor

# ARGV: name of the sorted set, least score, how many, and the last member's score and name, or ''.
# The members stand from the highest score down, equal ones by name. A member may have moved since the last page, so its
# place is searched: the first rank whose (score, name) comes after the cursor's.
_PAGE = """#!lua flags=no-writes
local live = redis.call('GET', KEYS[1] .. 'live')
local own = KEYS[1] .. (live or '') .. ':'
local vector = live and redis.call('GET', own .. 'vector')
if not vector then return false end
local key = own .. ARGV[1]
local size = redis.call('ZCOUNT', key, ARGV[2], '+inf')
local first = 0
if ARGV[5] ~= '' then
    local score, beyond = tonumber(ARGV[4]), size
    while first < beyond do
        local middle = math.floor((first + beyond) / 2)
        local found = redis.call('ZREVRANGE', key, middle, middle, 'WITHSCORES')
        local its = tonumber(found[2])
        if its < score or (its == score and found[1] < ARGV[5]) then beyond = middle else first = middle + 1 end
    end
end
local last = math.min(first + ARGV[3], size) - 1
local members = {}
if last >= first then members = redis.call('ZREVRANGE', key, first, last, 'WITHSCORES') end
return {vector, redis.call('GET', own .. 'at') or '', size, last + 1 < size and 1 or 0, members}
"""


class SegmentMember(msgspec.Struct, frozen=True):
    """A player and the sum of all settled deposits in the segment's currency, in minor units."""

    player: PlayerId
    deposited: int


class Segment(msgspec.Struct, frozen=True):
    """
    A page of the players who have deposited at least an amount, highest first; `size`: how many there are on all pages.

    `positions`: the last entry of each log that is counted; `as_of`: when that was. A cache that was flushed begins again from 0.
    """

    at_least: Money
    size: int
    items: list[SegmentMember]
    next_cursor: str | None
    positions: dict[str, int]
    as_of: datetime | None


async def deposited_at_least(context: Context, money: Money, cursor: str | None = None, limit: int = 50) -> Segment:
    """Who has deposited at least `money` in its currency. Raises Invalid."""
    page_size(limit)
    score, name = read_cursor(cursor, tuple[int, str]) if cursor else (0, "")
    client: Any = context.redis
    answer = await client.eval(
        _PAGE, 1, prefix("segments"), deposited(money.currency), money.amount, limit, score, name
    )
    if not answer:
        return Segment(money, 0, [], None, {}, None)
    vector, at, size, more, members = answer
    pairs = zip(members[::2], members[1::2], strict=True)
    items = [SegmentMember(PlayerId("player_" + text(member)), int(float(total))) for member, total in pairs]
    return Segment(
        at_least=money,
        size=size,
        items=items,
        next_cursor=write_cursor(items[-1].deposited, items[-1].player.removeprefix("player_")) if more else None,
        positions={log: place.position for log, place in parse_vector(vector).items()},
        as_of=instant(int(at)) if at else None,
    )
