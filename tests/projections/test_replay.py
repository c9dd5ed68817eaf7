"""Incremental equals full replay, bit for bit, however the logs interleave: on real servers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain import limits, players, wallets
from projections import catalog
from projections.dashboard import Dashboard
from projections.postgres import exclusive
from projections.projection import Batch, Events, OutOfOrder, Standing, Store
from projections.redis import RedisStore
from tests.projections.books import Book, MemorySource
from tests.projections.histories import acts, follow, forget, hand_overs, handed_over, hashes, played, schedules

on_servers = settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def is_a_replay(
    stores: Mapping[str, Store],
    source: MemorySource,
    schedule: list[tuple[str, int]],
    connection: AsyncConnection[Any],
    client: Redis,
) -> None:
    """The property: applied as scheduled, the stores hold what a replay in one go makes."""
    await forget(connection, client)
    await follow(stores.values(), source, schedule)
    incremental = await hashes(stores)
    await forget(connection, client)
    whole = catalog.stores(connection, client)
    await follow(whole.values(), source)
    assert incremental == await hashes(whole)


@on_servers
@given(eu=acts, us=acts, schedule=schedules)
async def test_incremental_is_full_replay_however_the_logs_interleave(
    connection: AsyncConnection[Any], client: Redis, eu: Any, us: Any, schedule: Any
) -> None:
    source = MemorySource(played("eu", eu), played("us", us))
    await is_a_replay(catalog.stores(connection, client), source, schedule, connection, client)


@on_servers
@given(eu=acts, stranded=st.sets(st.integers(2, 40)), schedule=schedules)
async def test_nor_does_it_matter_that_some_entries_do_not_count(
    connection: AsyncConnection[Any], client: Redis, eu: Any, stranded: Any, schedule: Any
) -> None:
    book = played("eu", eu)
    source = MemorySource(book, played("us", []), stranded=whole_commands(book, stranded))
    await is_a_replay(catalog.stores(connection, client), source, schedule, connection, client)


@on_servers
@given(eu=acts, us=acts, then=hand_overs, schedule=schedules)
async def test_nor_when_partitions_go_from_one_log_to_the_other_and_back(
    connection: AsyncConnection[Any], client: Redis, eu: Any, us: Any, then: Any, schedule: Any
) -> None:
    source = MemorySource(*handed_over(eu, us, then))
    await is_a_replay(catalog.stores(connection, client), source, schedule, connection, client)


async def test_a_missing_barrier_is_caught(
    connection: AsyncConnection[Any], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: what another log goes on with is applied before its beginning."""
    start = [("register", 0, 1), ("import", 0, 500), ("ticket", 0, 3), ("limit", 0, 300)]
    go_on = [("block", 0, 1), ("import", 0, 70), ("work", 0, 1), ("limit", 0, 90)]
    source = MemorySource(*handed_over(start, [], [([], go_on, False, 1)]))
    schedule = [("us", 40), ("us", 40), ("eu", 2)]
    await is_a_replay(catalog.stores(connection, client), source, schedule, connection, client)
    monkeypatch.setattr(Standing, "may_take", lambda _self, _batch: True)
    with pytest.raises(OutOfOrder):
        await is_a_replay(catalog.stores(connection, client), source, schedule, connection, client)


@on_servers
@given(history=acts)
async def test_read_models_hold_what_the_domain_folds(
    connection: AsyncConnection[Any], client: Redis, history: Any
) -> None:
    book = played("eu", history)
    await forget(connection, client)
    await follow(catalog.stores(connection, client).values(), MemorySource(book), [("eu", 3)] * 20)
    for player in book.players:
        who = book.state(players.stream(player))
        wallet = book.state(wallets.stream(player)).balances
        usage = book.state(limits.stream(player))
        assert await rows(connection, "SELECT status, currency FROM read.player WHERE id = %s", player) == [
            (who.status, who.currency)
        ]
        told = await rows(
            connection, "SELECT currency, cash, bonus, reserved, receivable FROM read.balance WHERE player = %s", player
        )
        held = book.state(wallets.stream(player))
        assert told == [(currency, *msgspec.structs.astuple(held.balance(currency))) for currency, *_ in told]
        assert {currency for currency, *_ in told} >= wallet.keys(), (
            "and perhaps of a wallet in which nothing has moved"
        )
        kept = await rows(connection, "SELECT state::text FROM read.limits WHERE player = %s", player)
        assert [msgspec.json.decode(state, type=limits.Limits) for (state,) in kept] == (
            [] if usage == limits.Limits() else [usage]
        )
    unbalanced = "SELECT currency FROM read.account GROUP BY currency HAVING sum(balance) <> 0"
    assert await rows(connection, unbalanced) == []
    books_against_balances = """
        SELECT account, currency, a.balance - coalesce(sum(CASE account
                   WHEN 'cash' THEN b.cash WHEN 'bonus' THEN b.bonus WHEN 'reserved' THEN b.reserved ELSE b.receivable
               END), 0)
          FROM read.account AS a LEFT JOIN read.balance AS b USING (currency)
         WHERE strpos(account, ':') = 0 GROUP BY account, currency, a.balance"""
    assert all(difference == 0 for _, _, difference in await rows(connection, books_against_balances))


class Twice:
    """A planted bug: a store that applies some batch again."""

    def __init__(self, store: Any, again: Any) -> None:
        self._store, self._again = store, again
        self.name = store.name
        self.open, self.state_hash = store.open, store.state_hash

    async def apply(self, standing: Standing, batch: Batch) -> Standing:
        moved: Standing = await self._store.apply(standing, batch)
        return await self._again(self._store, standing, moved, batch)


async def forgets_to_compare(store: Any, _before: Standing, moved: Standing, batch: Batch) -> Standing:
    """As if the position were not part of the condition."""
    return await store.apply(moved, batch._replace(before=batch.after))


@pytest.mark.parametrize("name", ["wallets", "players", "dashboard", "segments"])
async def test_a_store_that_applies_twice_is_caught(connection: AsyncConnection[Any], client: Redis, name: str) -> None:
    book = Book("eu")
    book.imported(book.register(), 500, "2025-01-01T00:00:00Z")
    source = MemorySource(book)
    stores = catalog.stores(connection, client)
    stores[name] = Twice(stores[name], forgets_to_compare)  # type: ignore[assignment]
    with pytest.raises(Exception, match=r"assert|duplicate key"):
        await is_a_replay(stores, source, [("eu", 2)], connection, client)


async def test_a_projection_that_depends_on_the_order_of_logs_is_caught(
    connection: AsyncConnection[Any], client: Redis
) -> None:
    class Last(Dashboard):
        """A planted bug: counts only what came after the other log."""

        first: str | None = None

        def changes(self, events: Any) -> Any:
            log = events[0].log if events else None
            self.first = self.first or log
            return super().changes(events if log == self.first else Events())

    eu, us = Book("eu"), Book("us")
    for book, amount in ((eu, 500), (us, 70)):
        book.imported(book.register(), amount, "2025-01-01T00:00:00Z")
    source = MemorySource(eu, us)
    found = []
    for schedule in ([("eu", 100)], [("us", 100)]):
        await client.flushall()
        store = RedisStore(Last(), client, partial(exclusive, connection))
        await follow([store], source, schedule)
        found.append(await store.state_hash())
    assert found[0] != found[1]


def whole_commands(book: Book, positions: set[int]) -> set[int]:
    """The positions of all commands that have one of `positions`."""
    found = set()
    for recorded in book.batch().events:
        first = recorded.position - recorded.body.command.i + 1
        command = range(first, first + recorded.body.command.n)
        if positions & set(command) and _alone(recorded.body.type):
            found |= set(command)
    return found


def _alone(type_: str) -> bool:
    """Stranding takes a stream's end; here, events on which no later one depends."""
    return type_ in {"player.blocked", "limits.limit_set"}


async def rows(connection: AsyncConnection[Any], query: Any, *arguments: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query, arguments)).fetchall()
