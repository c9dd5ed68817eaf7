"""What is read from Redis: the dashboard and segments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import date

import pytest

from domain.errors import Invalid
from domain.kernel import Money
from queries import dashboard, segments
from queries.dashboard import Dashboard, Deposits, Total
from tests.projections.books import Book
from tests.queries.house import House


async def test_the_dashboard_counts_settled_deposits_by_day_and_currency(house: House) -> None:
    eu, us = Book("eu"), Book("us")
    ada, bob = eu.register("EUR"), us.register("SEK")
    eu.imported(ada, 500, "2025-01-01T10:00:00Z")
    eu.imported(ada, 70, "2025-01-01T11:00:00Z")
    us.imported(bob, 9, "2025-01-02T10:00:00Z")
    await house.project(eu, us)
    found = await dashboard.dashboard(house.context)
    assert found.days == [Deposits(date(2025, 1, 1), "EUR", 2, 570), Deposits(date(2025, 1, 2), "SEK", 1, 9)]
    assert found.totals == [Total("EUR", 2, 570), Total("SEK", 1, 9)]
    assert found.players == 2
    assert found.positions == {"eu": len(eu.entries), "us": len(us.entries)}
    assert found.as_of is not None


async def test_an_empty_cache_says_that_it_stands_nowhere(house: House) -> None:
    assert await dashboard.dashboard(house.context) == Dashboard([], [], 0, {}, None, None)
    assert (await segments.deposited_at_least(house.context, Money(1, "EUR"))).positions == {}


async def test_a_live_dashboard_comes_again_when_it_has_changed(house: House) -> None:
    book = Book("eu")
    player = book.register()
    await house.project(book)
    async with aclosing(dashboard.live(house.context)) as live:
        assert (await upcoming(live)).players == 1
        for amount in (500, 70):
            book.imported(player, amount, "2025-01-01T10:00:00Z")
            await house.project(book)
            assert (await upcoming(live)).positions == {"eu": len(book.entries)}


async def test_a_live_dashboard_comes_at_most_five_times_a_second(house: House) -> None:
    book = Book("eu")
    player = book.register()
    await house.project(book)
    seen = []

    async def watch() -> None:
        async with aclosing(dashboard.live(house.context)) as live:
            async for found in live:
                seen.append(found)  # noqa: PERF401 — it is looked at while it grows

    watching = asyncio.create_task(watch())
    loop = asyncio.get_running_loop()
    began = loop.time()
    for amount in range(1, 31):
        book.imported(player, amount, "2025-01-01T10:00:00Z")
        await house.project(book)
    async with asyncio.timeout(60):
        while not seen or seen[-1].positions != {"eu": len(book.entries)}:  # noqa: ASYNC110 — until the last is shown
            await asyncio.sleep(0.02)
    took = loop.time() - began
    watching.cancel()
    assert len(seen) <= 2 + took * 5


async def test_a_live_dashboard_outlives_a_flush_and_lost_connections(house: House) -> None:
    book = Book("eu")
    player = book.register()
    book.imported(player, 500, "2025-01-01T10:00:00Z")
    await house.project(book)
    async with aclosing(dashboard.live(house.context)) as live:
        assert (await upcoming(live)).players == 1
        await house.client.flushall()
        assert (await upcoming(live)).positions == {}
        await house.client.client_kill_filter(_type="pubsub", skipme=True)
        await house.project(book)
        assert (await upcoming(live)).totals == [Total("EUR", 1, 500)]


async def test_a_segment_is_everybody_who_deposited_at_least_so_much(house: House) -> None:
    eu, us = Book("eu"), Book("us")
    totals = {}
    for book in (eu, us):
        for amount in (100, 200, 200, 300):
            player = book.register()
            book.imported(player, amount - 1, "2025-01-01T00:00:00Z")
            book.settle(book.request(player, 1))
            totals[player] = amount
        book.imported(book.register("SEK"), 900, "2025-01-01T00:00:00Z")
    await house.project(eu, us)
    for least in (1, 100, 101, 200, 300, 301):
        found = await segments.deposited_at_least(house.context, Money(least, "EUR"))
        assert {item.player: item.deposited for item in found.items} == {
            player: total for player, total in totals.items() if total >= least
        }
        assert found.size == len(found.items)
        assert found.positions == {"eu": len(eu.entries), "us": len(us.entries)}
        assert [item.deposited for item in found.items] == sorted((i.deposited for i in found.items), reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_of_a_segment_hold_everybody_once_though_one_of_them_moves(house: House, limit: int) -> None:
    book = Book("eu")
    members = [book.register() for _ in range(12)]
    for place, player in enumerate(members):
        book.imported(player, 100 + place // 5, "2025-01-01T00:00:00Z")  # many are equal
    await house.project(book)
    found, cursor, moved = [], None, False
    while True:
        page = await segments.deposited_at_least(house.context, Money(100, "EUR"), cursor, limit)
        found += [item.player for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        if not moved:  # the last one that was shown goes to the top
            book.imported(page.items[-1].player, 500, "2025-01-01T00:00:00Z")
            await house.project(book)
            moved = True
    assert sorted(found) == sorted(members)


async def test_a_cursor_of_another_list_is_refused(house: House) -> None:
    with pytest.raises(Invalid):
        await segments.deposited_at_least(house.context, Money(1, "EUR"), "WyJhIl0")


async def upcoming(live: AsyncIterator[Dashboard]) -> Dashboard:
    return await asyncio.wait_for(anext(live), 60)
