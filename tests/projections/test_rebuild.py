"""Rebuilding beside the one that answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from psycopg import AsyncConnection
from redis.asyncio import Redis

from projections import catalog, postgres, rebuild
from projections.projection import Moved, RebuildRunning
from projections.rebuild import Progress, RebuildStopped, rebuild_store
from tests.projections.books import PARTITIONS, Book, MemorySource, write
from tests.projections.histories import follow
from tests.projections.test_runner import deposits

each = pytest.mark.parametrize("name", catalog.NAMES)


async def spoil(connection: AsyncConnection[Any], client: Redis) -> None:
    """What a fault has left in the read models."""
    await connection.execute("UPDATE read.player SET brand = 'wrong'")
    await connection.execute("UPDATE read.transaction SET amount = 1")
    await connection.execute("UPDATE read.account SET balance = 1")
    await connection.execute("UPDATE read.funds SET received = 1")
    await connection.execute("INSERT INTO read.due VALUES ('nobody', 'nothing', now(), '', 'eu', 1, 0)")
    await connection.execute(
        "INSERT INTO read.approval VALUES ('nobody', 1, '', '', '', '', '', '', '', now(), now(), NULL, NULL, NULL)"
    )
    await connection.execute(
        "INSERT INTO read.ticket_message VALUES ('nobody', 'nothing', 1, 'noted', 'nobody', now(), '{}')"
    )
    await connection.execute("UPDATE read.watched SET picture = '{}'")
    await connection.execute(
        "INSERT INTO read.ggr VALUES ('2026-01-01', '', '', 'nobody', 'EUR', 1, 1, 0, 0, 0, 0, 0, 0)"
    )
    await connection.execute(
        """
        INSERT INTO read.session (id, player, version, bets, staked, staked_cash, won, won_cash, returned, returned_cash)
        VALUES ('none', 'nobody', 1, 0, 0, 0, 0, 0, 0, 0)"""
    )
    await connection.execute(
        """
        INSERT INTO read.round (id, player, provider, game, round, session, currency, opened_at, last_at, first, last, bets,
                                outcomes, taken_back, stakes, wins, returned)
        VALUES ('none', 'nobody', '', '', '', '', 'EUR', now(), now(), 1, 1, 1, 0, 0, 1, 0, 0)"""
    )
    await connection.execute("INSERT INTO read.operator VALUES ('nobody', 1, '', now(), NULL, '{}')")
    await connection.execute("INSERT INTO read.notice VALUES ('nobody', 1, '', '', '', '', '', NULL, now(), '{}')")
    await client.hincrby("countroom:{dashboard}:1:amounts", "2025-01-01 EUR", 7)
    await client.zadd("countroom:{segments}:1:deposited:EUR", {"nobody": 1})


@each
async def test_a_rebuild_repairs_and_is_the_same_as_before(
    dsn: str, connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    book = deposits()
    write(dsn, book)
    store = catalog.stores(connection, client)[name]
    await follow([store], MemorySource(book))
    right = await store.state_hash()
    await follow(catalog.stores(connection, client).values(), MemorySource(book))
    await spoil(connection, client)
    assert await store.state_hash() != right
    steps: list[Progress] = []
    standing = await rebuild.rebuild(name, dsn=dsn, client=client, regions=list(PARTITIONS), progress=steps.append)
    assert steps[-1] == Progress(name, len(book.entries), len(book.entries))
    assert (standing.generation, standing.live) == (2, True)
    assert await rebuild.state_hash(name, dsn=dsn, client=client) == right
    assert await store.open() == standing


@each
async def test_the_live_one_answers_and_follows_until_the_switch(
    connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    book = deposits()
    store = catalog.stores(connection, client)[name]
    await follow([store], MemorySource(book))
    draft = await store.begin()
    draft = await store.apply(draft, book.batch(1, 5))
    book.imported(book.players[0], 5, "2025-01-01T00:00:00Z")
    await follow([store], MemorySource(book))
    assert (await store.open()).generation == 1
    assert (await store.open()).at("eu").position == len(book.entries)
    assert not await store.switch(draft), "a read model must not go back"
    found = await store.state_hash()
    draft = await store.apply(draft, book.batch(6))
    assert await store.switch(draft)
    assert await store.state_hash() == found


@each
async def test_an_interrupted_rebuild_leaves_the_live_one_and_the_next_one_succeeds(
    connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    book = deposits()
    store = catalog.stores(connection, client)[name]
    await follow([store], MemorySource(book))
    found = await store.state_hash()

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rebuild_store(store, MemorySource(book), progress=interrupt, entries=10)
    assert await store.state_hash() == found
    await rebuild_store(store, MemorySource(book), entries=10)
    assert await store.state_hash() == found


@each
async def test_a_runner_goes_on_from_the_new_generation(
    connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    book = deposits()
    store = catalog.stores(connection, client)[name]
    await follow([store], MemorySource(book))
    old = await store.open()
    await rebuild_store(store, MemorySource(book))
    book.imported(book.players[0], 5, "2025-01-01T00:00:00Z")
    with pytest.raises(Moved):
        await store.apply(old, book.batch(old.at("eu").position + 1))
    await follow([store], MemorySource(book))
    assert (await store.open()).at("eu").position == len(book.entries)


@each
async def test_one_rebuilds_at_a_time(dsn: str, connection: AsyncConnection[Any], client: Redis, name: str) -> None:
    async with await postgres.connect(dsn) as other:
        async with catalog.stores(other, client)[name].building():
            with pytest.raises(RebuildRunning):
                await rebuild_store(catalog.stores(connection, client)[name], MemorySource(deposits()))
        await rebuild_store(catalog.stores(connection, client)[name], MemorySource(deposits()))


@each
async def test_a_rebuild_that_cannot_come_as_far_leaves_the_live_one(
    connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    book = deposits()
    store = catalog.stores(connection, client)[name]
    await follow([store], MemorySource(book))
    other = Book("eu")
    other.unknown(other.register())
    with pytest.raises(RebuildStopped, match="renamed"):
        await rebuild_store(store, MemorySource(other))
    assert (await store.open()).generation == 1


@each
async def test_a_rebuild_under_load_loses_nothing(
    dsn: str, connection: AsyncConnection[Any], client: Redis, name: str
) -> None:
    book = deposits(count=60)
    source = MemorySource(book)
    store = catalog.stores(connection, client)[name]
    async with await postgres.connect(dsn) as other:
        follower = catalog.stores(other, client)[name]

        async def keep_following() -> None:
            for amount in range(1, 40):
                book.imported(book.players[0], amount, "2025-01-01T00:00:00Z")
                try:
                    await follow([follower], source, entries=20)
                except Moved:
                    await follow([follower], source)

        await asyncio.gather(keep_following(), rebuild_store(store, source, entries=50))
    assert (await store.open()).generation == 2
    found = await store.state_hash()
    await rebuild_store(store, source)
    assert await store.state_hash() == found


async def test_readers_may_read_a_rebuilt_table(dsn: str, connection: AsyncConnection[Any], client: Redis) -> None:
    book = deposits()
    store = catalog.stores(connection, client)["transactions"]
    await rebuild_store(store, MemorySource(book))
    await connection.execute("SET ROLE countroom_reader")
    row = await (await connection.execute("SELECT count(*) FROM read.transaction")).fetchone()
    assert row == (20,)


async def test_a_rebuilt_table_has_the_indexes_and_settings_of_the_first(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    shape = """
        SELECT c.relname, c.relkind, c.reloptions, pg_get_indexdef(c.oid) FROM pg_class AS c
         WHERE c.relnamespace = 'read'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY c.relname"""
    before = await (await connection.execute(shape)).fetchall()
    for name in ("players", "transactions", "wallets"):
        await rebuild_store(catalog.stores(connection, client)[name], MemorySource(deposits()))
    assert await (await connection.execute(shape)).fetchall() == before
