"""Read models in memory hold what those on servers hold, line by line; a fault in either is named."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import AsyncConnection
from redis.asyncio import Redis

from projections import catalog, state
from projections.memory import MemoryStore
from projections.projection import Batch, Events, Moved, OutOfOrder, Standing, Store
from projections.state import Difference, State
from projections.version import CODE
from tests.projections.books import Book, MemorySource
from tests.projections.histories import acts, follow, forget, hashes, played, schedules

on_servers = settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class InMemory:
    """A MemoryStore as tests drive stores."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    async def open(self) -> Standing:
        return Standing(1, live=True, vector=dict(self.store.vector), code=self.store.code)

    async def apply(self, _standing: Standing, batch: Batch) -> Standing:
        self.store.apply(batch)
        return await self.open()


async def replayed(source: MemorySource, schedule: list[tuple[str, int]]) -> dict[str, MemoryStore]:
    stores = catalog.in_memory()
    driven: Any = [InMemory(store) for store in stores.values()]
    await follow(driven, source, schedule)
    return stores


async def shown(store: Store) -> State:
    """What a live store holds, as it is sent over HTTP and read again."""
    writer = state.Writer()
    async with store.state() as found:
        positions = {log: place.position for log, place in found.standing.vector.items()}
        lines = writer.begin(store.name, positions, found.standing.code)
        async for chunk in found.chunks:
            lines += writer.add(chunk)
    return state.read((lines + writer.end()).splitlines(keepends=True))


async def differences(live: Mapping[str, Store], own: Mapping[str, MemoryStore]) -> list[Difference]:
    found = [state.difference(await shown(live[name]), own[name].state()) for name in own]
    return [each for each in found if each is not None]


@on_servers
@given(eu=acts, us=acts, schedule=schedules)
async def test_memory_holds_what_the_servers_hold(
    connection: AsyncConnection[Any], client: Redis, eu: Any, us: Any, schedule: Any
) -> None:
    source = MemorySource(played("eu", eu), played("us", us))
    await forget(connection, client)
    live = catalog.stores(connection, client)
    await follow(live.values(), source)
    own = await replayed(source, schedule)
    assert {name: store.state_hash() for name, store in own.items()} == await hashes(live)
    assert await differences(live, own) == []


async def test_a_text_that_postgresql_cannot_hold_is_shown_alike(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    book = Book("eu")
    player = book.register(name="A\0da")
    book.settle(book.request(player, 500, reference="a\0b"))
    book.fail(book.request(player, 500), "no\0reason")
    book.block(player, "fraud\0")
    live = catalog.stores(connection, client)
    await follow(live.values(), MemorySource(book))
    own = await replayed(MemorySource(book), [("eu", 3)])
    assert await differences(live, own) == []
    assert own["players"].tables["player"][player][3] == "fraud\ufffd"


async def twenty_players(connection: AsyncConnection[Any], client: Redis) -> tuple[Any, dict[str, MemoryStore], Book]:
    book = Book("eu")
    players = [book.register(name="Ada") for _ in range(20)]
    for place, player in enumerate(players):
        book.limit(player, 9_000 + place)
        book.imported(player, 500 + place, "2025-01-01T00:00:00Z")
        book.request(player, 70)
    live = catalog.stores(connection, client)
    await follow(live.values(), MemorySource(book))
    return live, await replayed(MemorySource(book), []), book


FAULTS: list[tuple[Any, str, str, Any, Any]] = [
    ("UPDATE read.player SET brand = 'x' WHERE id = %s", "player", "brand", "x", "north"),
    ("UPDATE read.player SET block_reason = '' WHERE id = %s", "player", "block_reason", "", None),
    ("UPDATE read.balance SET deposited = deposited + 1 WHERE player = %s", "balance", "deposited", 507, 506),
    ("UPDATE read.limits SET version = version + 1 WHERE player = %s", "limits", "version", 3, 2),
    ("UPDATE read.transaction SET provider = 'x' WHERE player = %s", "transaction", "provider", "x", "test"),
    (
        "UPDATE read.player SET registered_at = registered_at + '1us'::interval WHERE id = %s",
        "player", "registered_at", 1_772_366_400_000_008, 1_772_366_400_000_007,
    ),
]  # fmt: skip


async def test_a_row_that_was_changed_is_named_with_its_player(connection: AsyncConnection[Any], client: Redis) -> None:
    for fault, table, field, live, right in FAULTS:
        await forget(connection, client)
        stores, own, book = await twenty_players(connection, client)
        player = book.players[6]
        await connection.execute(fault, (player,))
        [found] = await differences(stores, own)
        assert (found.table, found.player, found.field) == (table, player, field)
        assert (found.live, found.replayed) == (live, right)
        assert player in str(found)
        assert field in str(found)


async def test_a_row_that_is_missing_or_too_many_is_named(connection: AsyncConnection[Any], client: Redis) -> None:
    stores, own, book = await twenty_players(connection, client)
    player = book.players[6]
    await connection.execute("DELETE FROM read.balance WHERE player = %s", (player,))
    await connection.execute("INSERT INTO read.account VALUES ('bonus', 'EUR', 5, 1)")
    missing, added = await differences(stores, own)
    assert (missing.key, missing.player, missing.field, missing.live) == ([player, "EUR"], player, None, None)
    assert missing.replayed["deposited"] == 506
    assert (added.key, added.player, added.replayed) == (["bonus", "EUR"], None, None)
    assert added.live == {"account": "bonus", "currency": "EUR", "balance": 5, "postings": 1}


async def test_what_was_changed_in_a_cache_is_named(connection: AsyncConnection[Any], client: Redis) -> None:
    stores, own, book = await twenty_players(connection, client)
    suffix = book.players[6].removeprefix("player_")
    await client.hincrby("countroom:{dashboard}:1:counts", "2025-01-01 EUR", -1)  # type: ignore[misc]
    await client.zadd("countroom:{segments}:1:deposited:EUR", {suffix: 506.5})
    counts, scores = await differences(stores, own)
    assert (counts.table, counts.key, counts.live, counts.replayed) == ("counts", ["2025-01-01 EUR"], 19, 20)
    assert (scores.table, scores.player, scores.live, scores.replayed) == (
        "deposited:EUR", book.players[6], "506.5", 506
    )  # fmt: skip
    await client.zadd("countroom:{segments}:1:deposited:EUR", {suffix: 506, "nobody": 1})
    [_, added] = await differences(stores, own)
    assert (added.key, added.live) == (["nobody"], {"member": "nobody", "score": 1})


class Forgetful(MemoryStore):
    """A planted bug in memory: it folds without what came before."""

    def apply(self, batch: Batch) -> None:
        self.tables["account"].clear()
        super().apply(batch)


async def test_a_fault_of_the_replay_is_caught_too(connection: AsyncConnection[Any], client: Redis) -> None:
    stores, own, book = await twenty_players(connection, client)
    own["wallets"].__class__ = Forgetful
    book.imported(book.players[0], 5, "2025-01-01T00:00:00Z")
    await follow(stores.values(), MemorySource(book))
    for store in own.values():
        store.apply(book.batch(store.at("eu").position + 1))
    assert [found.table for found in await differences(stores, own)] == ["account"]


async def test_only_equal_positions_are_compared(connection: AsyncConnection[Any], client: Redis) -> None:
    stores, own, book = await twenty_players(connection, client)
    book.block(book.players[0])
    own["players"].apply(book.batch(len(book.entries)))
    with pytest.raises(ValueError, match="do not compare"):
        state.difference(await shown(stores["players"]), own["players"].state())


def ended_without_beginning() -> tuple[str, Book, int]:
    book = Book("eu")
    transaction = book.request(book.register(), 500)
    seen = len(book.entries)
    book.settle(transaction)
    return "transactions", book, seen


def blocked_without_registration() -> tuple[str, Book, int]:
    book = Book("eu")
    player = book.register()
    book.wait(timedelta(days=1))
    seen = len(book.entries)
    book.block(player)
    return "players", book, seen


@pytest.mark.parametrize("case", [ended_without_beginning, blocked_without_registration])
async def test_what_never_began_is_refused_as_on_the_servers_and_changes_nothing(
    connection: AsyncConnection[Any], client: Redis, case: Any
) -> None:
    name, book, seen = case()
    gap = book.batch(seen + 1)
    live, own = catalog.stores(connection, client)[name], catalog.in_memory()[name]
    with pytest.raises(OutOfOrder) as one:
        await live.apply((await live.open())._replace(vector={}), gap)
    with pytest.raises(OutOfOrder) as other:
        own.apply(gap._replace(before=own.at("eu")))
    assert str(one.value) == str(other.value)
    assert own.state_hash() == catalog.in_memory()[name].state_hash() == await live.state_hash()


@pytest.mark.parametrize("name", ["players", "transactions"])
def test_what_began_twice_is_refused(name: str) -> None:
    book = Book("eu")
    book.request(book.register(), 500)
    store = catalog.in_memory()[name]
    store.apply(book.batch())
    found = store.state_hash()
    with pytest.raises(OutOfOrder, match="twice"):
        store.apply(book.batch()._replace(before=store.at("eu")))
    assert store.state_hash() == found


def test_a_batch_that_does_not_follow_is_refused() -> None:
    book = Book("eu")
    book.register()
    store = catalog.in_memory()["players"]
    with pytest.raises(Moved):
        store.apply(book.batch(2))
    store.apply(book.batch())
    with pytest.raises(Moved):
        store.apply(book.batch())
    other = book.batch(2)
    with pytest.raises(Moved):
        store.apply(Batch("eu", store.at("eu")._replace(leaf=b"another"), other.after, Events()))


def test_an_empty_store_stands_nowhere() -> None:
    for store in catalog.in_memory().values():
        assert (store.positions, store.code) == ({}, None)
        assert state.difference(store.state(), store.state()) is None


async def test_every_move_keeps_the_code_that_made_it(connection: AsyncConnection[Any], client: Redis) -> None:
    book = Book("eu")
    book.register()
    for store in catalog.stores(connection, client).values():
        assert (await store.open()).code is None
        moved = await store.apply(await store.open(), book.batch(1, 1))
        assert moved.code == CODE
        assert await store.open() == moved
        moved = await store.apply(moved, book.batch(2))
        assert (await store.open()).code == CODE
        draft = await store.begin()
        assert draft.code is None
        assert await store.switch(await store.apply(draft, book.batch()))
        assert (await store.open()).code == CODE


async def test_what_an_older_release_has_applied_has_no_code(connection: AsyncConnection[Any], client: Redis) -> None:
    book = Book("eu")
    book.register()
    store = catalog.stores(connection, client)["players"]
    await follow([store], MemorySource(book))
    await connection.execute("UPDATE read.position SET code = NULL, applied_at = clock_timestamp()")
    assert (await store.open()).code is None
