"""Driving projections: exactly one effect, and faults that stay where they are."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from psycopg import AsyncConnection
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from eventstore.postgres import Waker
from eventstore.recorder import LogApplicationRecorder
from projections import catalog, postgres, runner
from projections.projection import Batch, Moved, OutOfOrder, Standing
from projections.rebuild import rebuild
from projections.redis import prefix
from projections.runner import Runner, Stop, reporting
from tests.eventstore.test_recorder import datastore_of
from tests.projections.books import PARTITIONS, Book, MemorySource, write
from tests.projections.histories import follow, forget, hashes


def deposits(name: str = "eu", count: int = 20) -> Book:
    book = Book(name)
    player = book.register()
    for amount in range(1, count + 1):
        book.imported(player, amount, "2025-01-01T00:00:00Z")
    return book


ROOT = Path(__file__).parents[2]


class Stops(list[Stop]):
    async def __call__(self, stop: Stop) -> None:
        self.append(stop)


async def to_the_end(run: Runner) -> None:
    while await run.step():
        pass


async def replayed(connection: AsyncConnection[Any], client: Redis, *books: Book) -> Any:
    await forget(connection, client)
    stores = catalog.stores(connection, client)
    await follow(stores.values(), MemorySource(*books))
    return await hashes(stores)


async def test_all_projections_come_to_the_heads_of_all_logs(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    eu, us = deposits("eu"), deposits("us")
    write(dsn, eu, us)
    stores = catalog.stores(connection, client)
    await to_the_end(Runner(catalog.source(connection, PARTITIONS), stores.values(), Stops(), entries=7))
    found = await hashes(stores)
    assert found == await replayed(connection, client, eu, us)
    assert found["players"].vector["us"].position == len(us.entries)


async def test_a_batch_is_read_once_for_all_that_stand_together(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    reads = []

    class Counting(MemorySource):
        async def read(self, log: str, after: Any, limit: int) -> Any:
            reads.append(after.position)
            return await super().read(log, after, limit)

    await Runner(Counting(deposits()), catalog.stores(connection, client).values(), Stops()).step()
    assert reads == [0]


async def test_what_is_appended_later_is_followed_without_being_asked(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    book = deposits()
    write(dsn, book)
    stores = catalog.stores(connection, client)
    async with await postgres.connect(dsn) as listening:
        run = Runner(catalog.source(connection, PARTITIONS), stores.values(), Stops())
        running = asyncio.create_task(run.run(Waker(listening), poll_s=30.0))
        await arrives(client, len(book.entries))
        book.imported(book.players[0], 5, "2025-01-01T00:00:00Z")
        await asyncio.to_thread(write, dsn, book)
        await arrives(client, len(book.entries))
        running.cancel()


class Restored(MemorySource):
    """A log that was restored to its beginning, and is filled again."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.filled = 0

    async def heads(self) -> dict[str, int]:
        return dict.fromkeys(await super().heads(), self.filled)

    async def _rows(self, log: str, first: int, count: int) -> list[tuple[Any, ...]]:
        return [row for row in await super()._rows(log, first, count) if row[0] <= self.filled]


async def test_read_models_that_are_ahead_of_a_restored_log_wait_until_it_is_filled_again(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    book, stops = deposits(), Stops()
    stores = catalog.stores(connection, client)
    await to_the_end(Runner(MemorySource(book), stores.values(), stops))
    stands = len(book.entries)
    source = Restored(book)
    run = Runner(source, stores.values(), stops)
    for source.filled in (0, 3, stands - 1, stands):
        assert await run.step() == 0
    book.imported(book.players[0], 5, "2025-01-01T00:00:00Z")
    source.filled = len(book.entries)
    await to_the_end(run)
    assert stops == []
    assert await hashes(stores) == await replayed(connection, client, book)


async def test_read_models_stop_where_a_restored_log_went_on_otherwise(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    book, stops = deposits(), Stops()
    stores = catalog.stores(connection, client)
    await to_the_end(Runner(MemorySource(book), stores.values(), stops))
    forked = deposits(count=19)
    forked.block(forked.players[0])
    forked.imported(forked.players[0], 5, "2025-01-01T00:00:00Z")
    source = Restored(forked)
    run = Runner(source, stores.values(), stops)
    source.filled = len(forked.entries) - 4
    assert source.filled < len(book.entries) <= len(forked.entries)
    await to_the_end(run)
    assert stops == []
    source.filled = len(forked.entries)
    await to_the_end(run)
    reason = f"eu/{len(book.entries)} is not the entry that was applied"
    assert sorted(stops) == sorted(Stop(name, "eu", len(book.entries), reason) for name in stores)


@pytest.mark.parametrize(("entries", "rests"), [(1, True), (runner.BATCH_ENTRIES, False)])
async def test_it_rests_between_two_batches_unless_it_is_far_behind(entries: int, rests: bool) -> None:
    class Growing(Runner):
        steps = 0

        async def step(self) -> int:
            """There is always something new."""
            self.steps += 1
            await asyncio.sleep(0)
            return entries

    class Awake:
        async def wait(self, timeout: float) -> None:  # noqa: ASYNC109
            pass

    run = Growing(MemorySource(), [], Stops())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await run.run(Awake(), gather_s=3600)
    assert (run.steps == 1) == rests


async def test_an_event_of_a_later_release_stops_its_log_and_no_other(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    eu, us = deposits("eu"), deposits("us")
    eu.unknown(eu.players[0])
    us.imported(us.players[0], 9, "2025-01-01T00:00:00Z")
    write(dsn, eu, us)
    stores = catalog.stores(connection, client)
    await to_the_end(Runner(catalog.source(connection, PARTITIONS), stores.values(), reporting(connection)))
    for store in stores.values():
        standing = await store.open()
        assert {log: place.position for log, place in standing.vector.items()} == {
            "eu": len(eu.entries) - 1,
            "us": len(us.entries),
        }
    status = await (await connection.execute("SELECT projection, log, stopped_at, reason FROM read.status")).fetchall()
    reason = f"eu/{len(eu.entries)}: no event of this release is called player.renamed"
    assert sorted(status) == sorted((name, "eu", len(eu.entries) - 1, reason) for name in stores)


async def test_a_log_that_is_no_regions_is_left_alone(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    """One of the eventsourcing library's recorder, in the same database; eu.2 would be a log of the region eu."""
    book = deposits()
    write(dsn, book)
    with datastore_of(dsn) as datastore:
        recorder = LogApplicationRecorder(datastore)
        recorder.create_table()
        recorder.insert_events([StoredEvent(uuid4(), 1, "a topic", b"a state")])
    with psycopg.connect(dsn) as administrator:
        administrator.execute("SELECT ledger.register_log('eu.2', 'countroom.test/eu.2', false)")
    stores = catalog.stores(connection, client)
    source, stops = catalog.source(connection, ["eu"]), Stops()
    assert await source.heads() == {"eu": len(book.entries), "eu.2": 0}
    await to_the_end(Runner(source, stores.values(), stops))
    assert stops == []
    for store in stores.values():
        assert (await store.open()).vector.keys() == {"eu"}
    await rebuild("players", dsn=dsn, client=client, regions=["eu"])
    assert (await stores["players"].open()).vector.keys() == {"eu"}


async def test_a_fault_of_one_projection_stops_no_other(connection: AsyncConnection[Any], client: Redis) -> None:
    book = deposits()
    stores = catalog.stores(connection, client)

    async def fail(_standing: Standing, _batch: Batch) -> Standing:
        raise KeyError("a fault of ours")

    stores["wallets"].apply = fail  # type: ignore[method-assign]
    stops = Stops()
    await to_the_end(Runner(MemorySource(book), stores.values(), stops))
    assert [(stop.projection, stop.position) for stop in stops] == [("wallets", 0)]
    assert "KeyError" in stops[0].reason
    assert (await stores["segments"].open()).at("eu").position == len(book.entries)


async def test_a_text_that_postgresql_cannot_hold_stops_nothing(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    book = Book("eu")
    book.fail(book.request(book.register(), 5, reference="a\0b"), "no\0")
    stops = Stops()
    await to_the_end(Runner(MemorySource(book), catalog.stores(connection, client).values(), stops))
    assert stops == []
    row = await (await connection.execute("SELECT reference, failure FROM read.transaction")).fetchone()
    assert row is not None
    assert row[0] == "a\N{REPLACEMENT CHARACTER}b"
    assert msgspec.json.decode(row[1])["sealed"]["data.reason"]["sealed"] == "sealed no\0"


@pytest.mark.parametrize(("name", "end"), [("transactions", "failed"), ("players", "blocked")])
async def test_an_event_without_its_predecessor_is_not_lost_silently(
    connection: AsyncConnection[Any], client: Redis, name: str, end: str
) -> None:
    book = Book("eu")
    transaction = book.request(book.register(), 5)
    first = len(book.entries) + 1
    if end == "failed":
        book.fail(transaction)
    else:
        book.block(book.players[0])
    store = catalog.stores(connection, client)[name]
    with pytest.raises(OutOfOrder):
        await store.apply(await store.open(), book.batch(first))
    assert (await store.open()).vector == {}


async def test_two_runners_apply_once(connection: AsyncConnection[Any], dsn: str, client: Redis) -> None:
    eu, us = deposits("eu", 60), deposits("us", 60)
    write(dsn, eu, us)
    stores = catalog.stores(connection, client)
    async with await postgres.connect(dsn) as other:
        one = Runner(catalog.source(connection, PARTITIONS), stores.values(), Stops(), entries=5)
        two = Runner(catalog.source(other, PARTITIONS), catalog.stores(other, client).values(), Stops(), entries=7)
        await asyncio.gather(to_the_end(one), to_the_end(two))
    await to_the_end(one)
    assert await hashes(stores) == await replayed(connection, client, eu, us)


# Redis loses answers, data and itself


async def test_a_flush_is_noticed_and_the_caches_begin_again_by_themselves(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    book = deposits()
    write(dsn, book)
    stores = catalog.stores(connection, client)
    before = Runner(catalog.source(connection, PARTITIONS), stores.values(), Stops())
    await to_the_end(before)
    found = await hashes(stores)
    await client.flushall()
    async with await postgres.connect(dsn) as listening:
        running = asyncio.create_task(before.run(Waker(listening), poll_s=0.05))
        await arrives(client, len(book.entries))
        running.cancel()
    assert await hashes(stores) == found


async def test_a_flush_between_two_batches_loses_and_doubles_nothing(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    book = deposits()
    stores = catalog.stores(connection, client)
    run = Runner(MemorySource(book), stores.values(), Stops(), entries=10)
    await run.step()
    await client.flushall()
    await to_the_end(run)
    assert await hashes(stores) == await replayed(connection, client, book)


@pytest.mark.parametrize("name", ["dashboard", "players"])
async def test_a_batch_whose_answer_was_lost_is_not_applied_twice(
    connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    """Committed, but never acknowledged: as a kill -9 between the two, or a lost connection."""
    book = deposits()
    stores = catalog.stores(connection, client)
    apply, lost = stores[name].apply, []

    async def lose(standing: Standing, batch: Batch) -> Standing:
        moved = await apply(standing, batch)
        if not lost:
            lost.append(batch)
            raise RedisConnectionError("the answer is lost")
        return moved

    stores[name].apply = lose  # type: ignore[method-assign]
    run = Runner(MemorySource(book), stores.values(), Stops(), entries=10)
    runner.RETRY_S, before = 0.0, runner.RETRY_S
    try:
        await to_the_end(run)
    finally:
        runner.RETRY_S = before
    assert lost
    assert await hashes(stores) == await replayed(connection, client, book)


@pytest.mark.parametrize("name", catalog.NAMES)
async def test_sending_the_same_batch_again_changes_nothing(
    connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    store = catalog.stores(connection, client)[name]
    batch = deposits().batch()
    standing = await store.open()
    await store.apply(standing, batch)
    found = await store.state_hash()
    with pytest.raises(Moved):
        await store.apply(standing, batch)
    assert await store.state_hash() == found


@pytest.mark.parametrize("name", catalog.NAMES)
async def test_what_fails_half_way_leaves_nothing(connection: AsyncConnection[Any], client: Redis, name: str) -> None:
    """PostgreSQL rolls back; in Redis the vector goes and the projection begins again."""
    store: Any = catalog.stores(connection, client)[name]
    book = deposits()
    middle = await store.apply(await store.open(), book.batch(1, 11))
    if name in {"dashboard", "segments"}:
        own = f"{prefix(name)}1:"
        await client.sadd(own + "keys", own + "zz")
        await client.set(own + "zz", "no hash")
        projection = store._projection

        class Broken:
            def changes(self, events: Any) -> Any:
                changes = projection.changes(events)
                changes.hashes["zz"] = changes.scores["zz"] = {"x": 1}
                return changes

        store._projection = Broken()
        with pytest.raises(Exception, match="half-applied"):
            await store.apply(middle, book.batch(12))
        store._projection = projection
        assert (await store.open()).vector == {}
    else:
        write_, calls = store._projection.write, []

        class Breaking:
            def __getattr__(self, name: str) -> Any:
                return getattr(projection_, name)

            async def write(self, *arguments: Any) -> None:
                await write_(*arguments)
                calls.append(1)
                raise RuntimeError("after the writing")

        projection_ = store._projection
        store._projection = Breaking()
        with pytest.raises(RuntimeError):
            await store.apply(middle, book.batch(12))
        store._projection = projection_
        assert calls
        assert await store.open() == middle
    await follow([store], MemorySource(book))
    found = await store.state_hash()
    assert found == (await replayed(connection, client, book))[name]


async def test_a_redis_that_is_away_holds_up_nobody_else(connection: AsyncConnection[Any], client: Redis) -> None:
    book = deposits()
    away = Redis(host="127.0.0.1", port=1, retry=None)
    stores = {**catalog.stores(connection, client), "segments": catalog.stores(connection, away)["segments"]}
    stops = Stops()
    await to_the_end(Runner(MemorySource(book), stores.values(), stops))
    assert stops == []
    assert (await stores["dashboard"].open()).at("eu").position == len(book.entries)
    assert (await stores["players"].open()).at("eu").position == len(book.entries)


# kill -9

_PROJECTOR = """
import asyncio, sys
from redis.asyncio import Redis
from projections import catalog, postgres
from projections.runner import Runner, reporting

async def main(dsn, url):
    async with await postgres.connect(dsn) as connection:
        stores = catalog.stores(connection, Redis.from_url(url)).values()
        runner = Runner(catalog.source(connection, ("eu", "us")), stores, reporting(connection), entries=5)
        print("begins", flush=True)
        while await runner.step():
            pass
        print("ends", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.fault
async def test_killed_at_any_moment_it_has_applied_everything_once(
    dsn: str, connection: AsyncConnection[Any], client: Redis, servers: Any
) -> None:
    eu, us = deposits("eu", 150), deposits("us", 150)
    write(dsn, eu, us)
    killed = 0
    for pause_s in (0.02, 0.06, 0.15, 280.0):
        projector = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROJECTOR, dsn, servers.endpoints.redis, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert projector.stdout is not None
        await projector.stdout.readline()
        try:
            await asyncio.wait_for(projector.wait(), pause_s)
        except TimeoutError:
            projector.kill()
            await projector.wait()
            killed += 1
    assert projector.returncode == 0
    assert killed
    stores = catalog.stores(connection, client)
    assert await hashes(stores) == await replayed(connection, client, eu, us)


async def test_a_lost_postgresql_is_no_fault_of_a_projection(connection: AsyncConnection[Any], client: Redis) -> None:
    stops = Stops()
    run = Runner(MemorySource(deposits()), catalog.stores(connection, client).values(), stops)
    await connection.close()
    with pytest.raises(psycopg.OperationalError):
        await run.step()
    assert stops == []


async def arrives(client: Redis, position: int) -> None:
    """Wait until the dashboard stands at `position` of eu."""
    for _ in range(3000):
        vector = await client.get(prefix("dashboard") + "1:vector")
        if vector is not None and f'"eu":[{position},'.encode() in vector:
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("the dashboard does not arrive")
