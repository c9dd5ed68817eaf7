"""
The library `eventsourcing` with its own PostgreSQL recorder, in 16 threads: as it comes, and tuned.

As it comes, each command loads its aggregate's events and replays them, and five connections are kept (up to ten more are opened
and closed again as needed). Tuned, a cache holds the aggregates used last and is neither copied nor brought up to date, as a
single writer may do, and every thread has a connection. Its POSTGRES_ENABLE_DB_FUNCTIONS would be faster and is left out: with it,
a reader that follows the log can miss events, so it is not a safe configuration.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from bench.peers import CACHED_STATES, Clock, Load, Round, cuts
from bench.servers import Servers

THREADS = 16


class Wallet(Aggregate):
    """A player's limit."""

    @event("Opened")
    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.limit = cuts.FIRST_LIMIT

    def cut(self, limit: int) -> None:
        if limit >= self.limit:
            raise ValueError("a limit may be cut at once, but not raised")
        self.set_limit(limit, **msgspec.to_builtins(cuts.envelope()))

    @event("LimitSet")
    def set_limit(self, limit: int, actor: str, command: dict[str, Any]) -> None:  # noqa: ARG002 — both are stored
        self.limit = limit


class Stock:
    """`tuned` or as it comes."""

    def __init__(self, *, tuned: bool) -> None:
        self.name = "eventsourcing, tuned" if tuned else "eventsourcing, default"
        self._tuned = tuned

    @asynccontextmanager
    async def open(self, servers: Servers, load: Load) -> AsyncIterator[Clock]:
        dsn = servers.database("stock_tuned" if self._tuned else "stock_default")
        made = await asyncio.to_thread(application, dsn, tuned=self._tuned)
        players = [uuid.uuid4() for _ in range(load.players)]
        await asyncio.to_thread(_fill, made, dsn, players, load.events)
        try:
            yield lambda seconds: asyncio.to_thread(_round, made, players, seconds)
        finally:
            made.close()


def application(dsn: str, *, tuned: bool) -> Application[Any]:
    known = psycopg.conninfo.conninfo_to_dict(dsn)
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(known["dbname"]),
        "POSTGRES_HOST": str(known["host"]),
        "POSTGRES_PORT": str(known["port"]),
        "POSTGRES_USER": str(known["user"]),
        "POSTGRES_PASSWORD": str(known["password"]),
    }
    if tuned:
        env |= {
            "POSTGRES_POOL_SIZE": str(THREADS),
            "POSTGRES_MAX_OVERFLOW": str(THREADS),
            "AGGREGATE_CACHE_MAXSIZE": str(CACHED_STATES),
            "AGGREGATE_CACHE_FASTFORWARD": "n",
            "DEEPCOPY_FROM_AGGREGATE_CACHE": "n",
        }
    return Application(env=env)


def _fill(application: Application[Any], dsn: str, players: list[uuid.UUID], events: int) -> None:
    """Streams of an opening and `events` cuts, as the library itself stores them: one was saved, and the rest are like it."""
    wallet = Wallet(currency="EUR")
    wallet.cut(cuts.FIRST_LIMIT - 1)
    opened, cut = (application.mapper.to_stored_event(each) for each in wallet.collect_events())
    before, number, after = cut.state.partition(b"%d" % (cuts.FIRST_LIMIT - 1))
    if not number:
        raise ValueError("the library's way to store an event has changed: the limit is not found in it")
    recorder: Any = application.recorder
    table = recorder.events_table_name
    with psycopg.connect(dsn, autocommit=True) as connection:
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} (originator_id, originator_version, topic, state) FROM STDIN") as copy,
        ):
            for row in _rows(opened, cut.topic, (before, after), players, events):
                copy.write_row(row)
        connection.execute(f"VACUUM (ANALYZE) {table}")


def _rows(
    opened: Any, topic: str, around: tuple[bytes, bytes], players: list[uuid.UUID], events: int
) -> Iterator[tuple[object, ...]]:
    for player in players:
        yield player, 1, opened.topic, opened.state
    for n in range(1, events):
        state = (b"%d" % (cuts.FIRST_LIMIT - n)).join(around)
        for player in players:
            yield player, n + 1, topic, state


def _round(application: Application[Any], players: list[uuid.UUID], seconds: float) -> Round:
    latencies: list[list[float]] = [[] for _ in range(THREADS)]
    began = time.perf_counter()
    end = began + seconds

    def work(n: int) -> None:
        mine = range(n, len(players), THREADS)
        while (asked := time.perf_counter()) < end:
            limit = cuts.limit_asked(cuts.request())
            wallet: Any = application.repository.get(players[random.choice(mine)])
            wallet.cut(limit.amount)
            application.save(wallet)
            cuts.data(cuts.LimitSet("day", limit))
            latencies[n].append(time.perf_counter() - asked)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    done = [latency for each in latencies for latency in each]
    return Round(len(done), time.perf_counter() - began, done)
