"""Segments: players by what they have deposited in total."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from domain.kernel import Money, PlayerId
from projections.redis import prefix, text
from projections.segments import deposited
from queries.context import Context, Made, page_size, read_cursor, write_cursor
from queries.positions import made

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
return {vector, redis.call('GET', own .. 'code') or '', redis.call('GET', own .. 'at') or '', size, last + 1 < size and 1 or 0, members}
"""


class SegmentMember(msgspec.Struct, frozen=True):
    """A player and the sum of all settled deposits in the segment's currency, in minor units."""

    player: PlayerId
    deposited: int


class Segment(msgspec.Struct, frozen=True):
    """
    A page of the players who have deposited at least an amount, highest first; `size`: how many there are on all pages.

    `positions`: the last entry of each log that is counted; `as_of`: when that was; `code`: by which code, null if not known.
    A cache that was flushed begins again from 0.
    """

    at_least: Money
    size: int
    items: list[SegmentMember]
    next_cursor: str | None
    positions: dict[str, int]
    as_of: datetime | None
    code: str | None


class Page(NamedTuple):
    """`members`: suffixes of players and their totals, in the segment's order; `size`: how many there are on all pages."""

    members: Sequence[tuple[str, int]]
    size: int
    more: bool


def answer(money: Money, page: Page, made: Made) -> Segment:
    """The page of a segment, wherever its members are kept."""
    items = [SegmentMember(PlayerId("player_" + member), total) for member, total in page.members]
    return Segment(
        at_least=money,
        size=page.size,
        items=items,
        next_cursor=write_cursor(page.members[-1][1], page.members[-1][0]) if page.more else None,
        positions=made.positions,
        as_of=made.as_of,
        code=made.code,
    )


def page_of(totals: Iterable[tuple[str, int]], money: Money, cursor: str | None = None, limit: int = 50) -> Page:
    """What the script finds, in all totals of the segment's currency by players' suffixes. Raises Invalid."""
    page_size(limit)
    all_ = sorted(((total, member) for member, total in totals if total >= money.amount), reverse=True)
    after = read_cursor(cursor, tuple[int, str]) if cursor else None
    rest = [place for place in all_ if after is None or place < after]
    return Page([(member, total) for total, member in rest[:limit]], len(all_), len(rest) > limit)


async def deposited_at_least(context: Context, money: Money, cursor: str | None = None, limit: int = 50) -> Segment:
    """Who has deposited at least `money` in its currency. Raises Invalid."""
    page_size(limit)
    score, name = read_cursor(cursor, tuple[int, str]) if cursor else (0, "")
    client: Any = context.redis
    found = await client.eval(_PAGE, 1, prefix("segments"), deposited(money.currency), money.amount, limit, score, name)
    if not found:
        return answer(money, Page([], 0, more=False), Made({}, None))
    vector, code, at, size, more, flat = found
    members = [(text(member), int(float(total))) for member, total in zip(flat[::2], flat[1::2], strict=True)]
    return answer(money, Page(members, size, bool(more)), made(vector, code, at))
