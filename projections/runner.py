"""
Drives projections along the logs: reads a batch once for all that stand at the same place, and lets each apply it.

Invariants:
    - each projection applies each log in order, and only what follows where its store says that it stands; what follows an adoption,
      only once it stands at the cut of the log from which partitions were adopted;
    - whatever ends the process, and whenever, every event has its effect exactly once: nothing is remembered here that the
      stores do not know better;
    - what stops one projection in one log (an event of a later release, a fault of ours) stops nothing else, and is said
      in read.status.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import AsyncConnection
from redis.asyncio import Redis
from redis.exceptions import RedisError

from eventstore.postgres import Waker
from projections import catalog, postgres
from projections.projection import Batch, Moved, Position, Source, Standing, Store

BATCH_ENTRIES = 2_000
POLL_S = 1.0
GATHER_S = 0.2
RETRY_S = 1.0

_log = logging.getLogger("projections")


class Wakes(Protocol):
    """eventstore.postgres.Waker."""

    async def wait(self, timeout: float, /) -> None:  # noqa: ASYNC109 — a time-out is an ordinary answer here
        """Return when something was appended, or after `timeout` seconds."""


class Stop(NamedTuple):
    """A projection cannot go on in a log after the entry at `position`."""

    projection: str
    log: str
    position: int
    reason: str


Report = Callable[[Stop], Awaitable[None]]
Told = Callable[[str, Batch, float], None]
"""Hears that a projection, by its name, has applied a batch, and in how many seconds."""


def tell_nobody(_projection: str, _batch: Batch, _seconds: float) -> None:
    pass


class Runner:
    """Not for two tasks at once. Two runners of the same projections do no harm and no good."""

    def __init__(
        self,
        source: Source,
        stores: Iterable[Store],
        report: Report,
        applied: Told = tell_nobody,
        *,
        entries: int = BATCH_ENTRIES,
    ) -> None:
        self._source = source
        self._followers = [_Follower(store) for store in stores]
        self._report = report
        self._applied = applied
        self._entries = entries

    async def run(self, waker: Wakes, *, poll_s: float = POLL_S, gather_s: float = GATHER_S) -> None:
        """
        Follow the logs until cancelled. Raises psycopg.OperationalError when PostgreSQL is lost.

        `gather_s` lets a batch grow while commands come one by one: it bounds what following costs. Only who is far behind, so
        that a batch was full, goes on at once.
        """
        while True:
            began = time.monotonic()
            await waker.wait(poll_s)
            if time.monotonic() - began >= poll_s:
                self._look_again()
            while await self.step() >= self._entries:
                pass
            await asyncio.sleep(gather_s)

    async def step(self) -> int:
        """Apply at most one batch of each log to each projection. Returns how many entries were read; 0 = all are at the head."""
        done = 0
        heads = await self._source.heads()
        for follower in self._followers:
            await follower.locate()
        for log, head in heads.items():
            groups: dict[Position, list[_Follower]] = {}
            for follower in self._followers:
                place = follower.place(log)
                if place is not None and place.position != head:
                    groups.setdefault(place, []).append(follower)
            for place, group in groups.items():
                done += await self._advance(log, place, group)
        return done

    async def _advance(self, log: str, place: Position, group: list[_Follower]) -> int:
        batch, stopped = await self._source.read(log, place, self._entries)
        group = [follower for follower in group if follower.may_take(batch)]
        if not group:
            return 0
        if batch.after != place:
            for follower in group:
                began = time.perf_counter()
                reason = await follower.apply(batch)
                if reason is not None:
                    await self._stop(follower, log, place, reason)
                elif follower.place(log) == batch.after:
                    self._applied(follower.store.name, batch, time.perf_counter() - began)
        if stopped is not None:
            for follower in group:
                if follower.place(log) == batch.after:
                    await self._stop(follower, log, batch.after, stopped)
        return batch.after.position - place.position

    async def _stop(self, follower: _Follower, log: str, place: Position, reason: str) -> None:
        follower.stopped.add(log)
        _log.error(
            "projection %s stops in log %s after position %s: %s", follower.store.name, log, place.position, reason
        )
        await self._report(Stop(follower.store.name, log, place.position, reason))

    def _look_again(self) -> None:
        """Nothing was appended for a while: ask the stores where they stand, since one may have been flushed or rebuilt."""
        for follower in self._followers:
            follower.standing = None


class _Follower:
    """A store, and what the runner believes of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.standing: Standing | None = None
        self.stopped: set[str] = set()
        self._generation = 0
        self._retry_at = 0.0

    async def locate(self) -> None:
        """Ask the store where it stands, if that is not known. A Redis that is away is asked again later."""
        if self.standing is not None or time.monotonic() < self._retry_at:
            return
        try:
            self.standing = await self.store.open()
        except RedisError as error:
            self._lost(error)
            return
        if self.standing.generation != self._generation:
            self._generation = self.standing.generation
            self.stopped.clear()  # it was rebuilt, perhaps by a release that can go on

    def place(self, log: str) -> Position | None:
        """Where to go on, None if not now."""
        if self.standing is None or log in self.stopped:
            return None
        return self.standing.at(log)

    def may_take(self, batch: Batch) -> bool:
        """Whether the other log stands far enough, where the batch goes on from one."""
        return self.standing is not None and self.standing.may_take(batch)

    async def apply(self, batch: Batch) -> str | None:
        """Why the projection cannot go on, if so."""
        assert self.standing is not None  # noqa: S101 — it had a place
        standing, self.standing = self.standing, None  # unknown, until the store has answered
        try:
            self.standing = await self.store.apply(standing, batch)
        except Moved:
            return None
        except RedisError as error:
            self._lost(error)
        except psycopg.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 — a fault of one projection must not stop the others
            _log.exception("projection %s failed", self.store.name)
            return f"{batch.log}/{batch.before.position + 1} to {batch.after.position}: {type(error).__name__}: {error}"
        return None

    def _lost(self, error: RedisError) -> None:
        _log.warning("projection %s waits for Redis: %s", self.store.name, error)
        self._retry_at = time.monotonic() + RETRY_S


async def serve(dsn: str, client: Redis, regions: Sequence[str], applied: Told = tell_nobody) -> None:
    """Run every projection over the regions' logs until cancelled, with new connections when they are lost."""
    while True:
        try:
            async with await postgres.connect(dsn) as connection, await postgres.connect(dsn) as listening:
                await _serve(connection, Waker(listening), client, regions, applied)
        except psycopg.OperationalError as error:
            _log.warning("projections wait for PostgreSQL: %s", error)
            await asyncio.sleep(RETRY_S)


async def _serve(
    connection: AsyncConnection[Any], waker: Wakes, client: Redis, regions: Sequence[str], applied: Told
) -> None:
    # A new process may be a new release, which knows more: it says anew what stops it.
    await connection.execute("DELETE FROM read.status WHERE projection = ANY (%s)", (list(catalog.NAMES),))
    source = catalog.source(connection, regions)
    runner = Runner(source, catalog.stores(connection, client).values(), reporting(connection), applied)
    await runner.run(waker)


def reporting(connection: AsyncConnection[Any]) -> Report:
    """Writes stops into read.status."""

    async def report(stop: Stop) -> None:
        await connection.execute(
            "INSERT INTO read.status (projection, log, stopped_at, reason) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (projection, log) DO UPDATE SET stopped_at = excluded.stopped_at, reason = excluded.reason",
            stop,
        )

    return report
