"""
Reading what one has written, in any region: positions that a client has seen, and waiting until an answer includes them.

A client hands on what it was told: the `Ledger-Position` of its commands and reads, several separated by commas
(`eu/1234/8f3a…,us/77/01bc…`). It is a vector: of each log the newest entry that must be in the answer, and how the entry's leaf
begins, by which another history is told from the one that the client saw.

Each read is made of *sources*: the read models that it looks at, by their names; LOG, the logs and copies themselves; HEADS, their
published heads. It has a position once each of its sources does.

Invariants:
    - a position is waited for as long as it may still come, and no longer than the caller allows: one that another entry, or none
      that counts, stands at is refused at once;
    - who waits holds no connection; all who wait are looked after by one task, which runs only while somebody waits;
    - the vector of an answer is read after it was made, so it names all that the answer can include, and perhaps a little more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from domain.errors import Conflict, Invalid, Rejected
from projections.projection import START, Position, Vector
from queries.context import Context
from queries.positions import CACHES, vector

LOG = "log"
HEADS = "heads"
PREFIX_BYTES = 8
"""So much of a leaf is said, as on a command's answer."""
WAITING_MAX = 500
"""So many requests of one process wait at a time; whoever comes then is told at once that it is not yet so."""
LOOK_AGAIN_S = 0.02

_PLACE = re.compile(r"([a-z][a-z0-9]{0,62}(?:\.[1-9][0-9]{0,8})?)/(0|[1-9][0-9]{0,17})(?:/([0-9a-f]{16}))?")
_OF_REGIONS = "(NOT l.own OR split_part(l.name, '.', 1) = split_part(%s, '.', 1))"
_HELD = f"""
    SELECT q.place, l.id, e.leaf, e.stream IS NOT NULL,
           EXISTS (SELECT FROM ledger.continuation AS c WHERE c.after_log = q.log AND c.after_position < q.position)
      FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS q (log, position, place)
           LEFT JOIN ledger.log AS l ON l.name = q.log AND {_OF_REGIONS}
           LEFT JOIN ledger.entry AS e ON e.log = l.id AND e.position = q.position"""
_LEAVES = """
    SELECT q.log, q.position, e.leaf FROM unnest(%s::text[], %s::bigint[]) AS q (log, position)
           JOIN ledger.log AS l ON l.name = q.log JOIN ledger.entry AS e ON e.log = l.id AND e.position = q.position"""
_TABLES = """
    SELECT p.projection, p.log, p.position, p.leaf FROM read.position AS p JOIN read.generation AS g USING (projection, generation)
     WHERE g.live AND p.projection = ANY (%s)"""
_LOGS = f"""
    SELECT l.name, e.position, e.leaf FROM ledger.log AS l
           CROSS JOIN LATERAL (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e
     WHERE {_OF_REGIONS}"""
_HEADS = """
    SELECT l.name, c.size, e.leaf FROM ledger.log AS l
           CROSS JOIN LATERAL (SELECT c.size FROM ledger.checkpoint AS c WHERE c.log = l.id AND c.published_at IS NOT NULL
                                ORDER BY c.size DESC LIMIT 1) AS c
           JOIN ledger.entry AS e ON e.log = l.id AND e.position = c.size"""


class PositionMalformed(Invalid):
    code = "position_malformed"
    title = "Positions are written eu/1234/<16 hex digits of the leaf>, each log once, separated by commas"


class UnknownLog(Invalid):
    """Facts: log."""

    code = "unknown_log"
    title = "No log of this deployment has this name"


class PositionStranded(Conflict):
    """Facts: position."""

    code = "position_stranded"
    title = "What stood at this position does not count: another history has taken its place"


class NotYet(Rejected):
    """Facts: reached, the positions that an answer would include now."""

    code = "not_yet"
    title = "What was written elsewhere has not come here yet; ask again a little later"


class Seen(NamedTuple):
    """An entry that somebody has seen. `leaf`: how it begins, in hex; "" where they did not say."""

    log: str
    position: int
    leaf: str = ""


Reached = Mapping[str, Vector]
"""By source, how far it is."""


def parse(text: str) -> list[Seen]:
    """Raises PositionMalformed."""
    found: dict[str, Seen] = {}
    for part in filter(None, (each.strip(" ") for each in text.split(","))):
        match = _PLACE.fullmatch(part)
        if match is None or match[1] in found:
            raise PositionMalformed
        found[match[1]] = Seen(match[1], int(match[2]), match[3] or "")
    return list(found.values())


def write(stands: Vector, *, leaves: bool = True) -> str:
    """`eu/1234/<leaf prefix>,us/77/<leaf prefix>`, of those logs that have entries."""
    return ",".join(
        f"{log}/{place.position}" + (f"/{place.leaf[:PREFIX_BYTES].hex()}" if leaves else "")
        for log, place in sorted(stands.items())
        if place.position
    )


async def leaves_of(context: Context, places: Mapping[str, int]) -> dict[tuple[str, int], bytes]:
    """The leaves at these positions, of those that are held here."""
    rows = await context.fetch(_LEAVES, list(places), list(places.values()))
    return {(log, position): leaf for log, position, leaf in rows}


async def named(context: Context, positions: Mapping[str, int]) -> str:
    """The same of positions alone, whose leaves are looked up; what is not held here is left out."""
    found = await leaves_of(context, positions)
    return write({log: Position(position, leaf) for (log, position), leaf in found.items()})


def together(reached: Reached) -> Vector:
    """Of each log the furthest that any source is."""
    found: dict[str, Position] = {}
    for stands in reached.values():
        for log, place in stands.items():
            found[log] = max(found.get(log, START), place)
    return found


async def reached(context: Context, log: str, sources: Collection[str]) -> Reached:
    """How far each of these sources is. `log`: the name of the one that is written here."""
    found: dict[str, dict[str, Position]] = {source: {} for source in sources}
    if tables := sorted(found.keys() - CACHES - {LOG, HEADS}):
        for name, of, position, leaf in await context.fetch(_TABLES, tables):
            found[name][of] = Position(position, leaf)
    if LOG in found:
        found[LOG] = {of: Position(*place) for of, *place in await context.fetch(_LOGS, log)}
    if HEADS in found:
        found[HEADS] = {of: Position(*place) for of, *place in await context.fetch(_HEADS)}
    for cache in found.keys() & CACHES:
        found[cache] = dict(await vector(context.redis, cache))
    return found


async def check(context: Context, log: str, seen: Collection[Seen]) -> bool:
    """Whether all of these entries are held here. Raises UnknownLog, PositionStranded."""
    rows = await context.fetch(_HELD, [each.log for each in seen], [each.position for each in seen], log)
    are_held = True
    for each, (_, known, leaf, counts, is_behind_the_end) in zip(seen, sorted(rows), strict=True):
        if known is None:
            raise UnknownLog(log=each.log)
        if leaf is None and not is_behind_the_end:
            are_held &= not each.position
        elif leaf is None or not counts or not leaf.hex().startswith(each.leaf):
            raise PositionStranded(position=f"{each.log}/{each.position}")
    return are_held


@dataclass(frozen=True, eq=False, slots=True)
class _Waiter:
    sources: frozenset[str]
    seen: Collection[Seen]
    done: asyncio.Future[None]


class Waiting:
    """Those who wait. `look(sources)`: how far these are now."""

    def __init__(self, look: Callable[[Collection[str]], Awaitable[Reached]]) -> None:
        self._look = look
        self._waiters: set[_Waiter] = set()
        self._task: asyncio.Task[None] | None = None

    async def until(self, sources: Collection[str], seen: Collection[Seen], *, timeout_s: float) -> bool:
        """Whether each of the sources has come to all that was seen, in time. Raises what a look raises."""
        if includes(await self._look(sources), seen):
            return True
        if timeout_s <= 0 or len(self._waiters) >= WAITING_MAX:
            return False
        waiter = _Waiter(frozenset(sources), seen, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        try:
            await asyncio.wait([waiter.done], timeout=timeout_s)
            if waiter.done.done():
                waiter.done.result()
                return True
            return False
        finally:
            self._waiters.discard(waiter)

    async def _follow(self) -> None:
        try:
            while self._waiters:
                now = list(self._waiters)
                try:
                    found = await self._look(frozenset().union(*(each.sources for each in now)))
                except Exception as error:  # noqa: BLE001 — told to all who wait for it
                    self._end(now, error)
                else:
                    mine = [each for each in now if includes({name: found[name] for name in each.sources}, each.seen)]
                    self._end(mine)
                await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            self._task = None

    def _end(self, waiters: Collection[_Waiter], error: Exception | None = None) -> None:
        for waiter in waiters:
            self._waiters.discard(waiter)
            if not waiter.done.done():
                waiter.done.set_exception(error) if error else waiter.done.set_result(None)


def includes(found: Reached, seen: Collection[Seen]) -> bool:
    return all(stands.get(each.log, START).position >= each.position for stands in found.values() for each in seen)
