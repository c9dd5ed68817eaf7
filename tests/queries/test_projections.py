"""Read models as they are asked: how far they are, what they hold, and that a replay answers as they do."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import psycopg
import pytest

from domain.errors import NotFound
from domain.kernel import Money
from projections import catalog, state
from projections.dashboard import AMOUNTS, COUNTS, TOTALS
from projections.memory import MemoryStore
from projections.segments import deposited
from projections.version import CODE
from queries import dashboard, players, projections, segments, wallets
from queries.context import Made
from queries.projections import ProjectionInfo, ProjectionStop
from tests.projections.books import Book
from tests.queries.house import House


def history() -> tuple[Book, Book]:
    eu, us = Book("eu"), Book("us")
    for book in (eu, us):
        for place in range(7):
            player = book.register(("EUR", "SEK")[place % 2], name="Ada")
            book.imported(player, 100 + place // 3, f"2025-01-0{1 + place % 3}T10:00:00Z")
            book.request(player, 5)
        book.reserve(book.players[0], 50)
    return eu, us


def replayed(*books: Book) -> dict[str, MemoryStore]:
    stores = catalog.in_memory()
    for store in stores.values():
        for book in books:
            store.apply(book.batch())
    return stores


async def test_read_models_say_how_far_they_are_and_what_made_them(house: House) -> None:
    assert await projections.projections(house.context) == [
        ProjectionInfo(name, {}, None, []) for name in catalog.NAMES
    ]
    eu, us = history()
    await house.project(eu, us)
    await house.connection.execute("INSERT INTO read.status VALUES ('wallets', 'eu', 7, 'too new')")
    found = await projections.projections(house.context)
    at = {"eu": len(eu.entries), "us": len(us.entries)}
    assert found == [
        ProjectionInfo(name, at, CODE, [ProjectionStop("eu", 7, "too new")] if name == "wallets" else [])
        for name in catalog.NAMES
    ]


async def test_a_state_can_be_compared_with_a_replay(house: House) -> None:
    books = history()
    await house.project(*books)
    for name, own in replayed(*books).items():
        lines = b"".join([part async for part in projections.state(house.context, name)]).splitlines(keepends=True)
        live = state.read(lines)
        assert live.code == CODE
        assert state.difference(live, own.state()) is None
        assert state.read(lines).digest() == own.state_hash().digest


async def test_the_state_of_what_was_never_projected_is_empty(house: House) -> None:
    for name, own in catalog.in_memory().items():
        lines = b"".join([part async for part in projections.state(house.context, name)]).splitlines(keepends=True)
        assert state.difference(state.read(lines), own.state()) is None


async def test_an_unknown_read_model_has_no_state(house: House) -> None:
    with pytest.raises(NotFound):
        await anext(projections.state(house.context, "pg_authid"))


async def test_a_reader_who_goes_away_frees_the_connection(house: House) -> None:
    await house.project(*history())
    for _ in range(5):  # of a pool of three
        async with aclosing(projections.state(house.context, "players")) as stream:
            await anext(stream)
            await anext(stream)
    assert (await wallets.trial_balance(house.context)).balanced


async def test_a_reader_who_pauses_for_too_long_loses_the_snapshot(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "IDLE_S_MAX", 1)
    await house.project(*history())
    stream = projections.state(house.context, "players")
    await anext(stream)
    holding = "SELECT FROM pg_locks WHERE relation = 'read.player'::regclass"
    while (await house.connection.execute(holding)).rowcount:  # noqa: ASYNC110 — no event of ours
        await asyncio.sleep(0.1)
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        async for _ in stream:
            pass
    assert (await wallets.trial_balance(house.context)).balanced


# The same function makes the live answer and the replayed one


async def test_a_replayed_dashboard_is_the_live_one(house: House) -> None:
    books = history()
    await house.project(*books)
    live = await dashboard.dashboard(house.context)
    own = replayed(*books)["dashboard"]
    made = Made(own.positions, own.code, live.as_of)
    assert dashboard.answer(own.rows(COUNTS), own.rows(AMOUNTS), own.rows(TOTALS), made) == live
    assert live.code == CODE


async def test_a_replayed_trial_balance_is_the_live_one(house: House) -> None:
    books = history()
    await house.project(*books)
    own = replayed(*books)["wallets"]
    live = await wallets.trial_balance(house.context)
    assert wallets.answer(own.rows("account"), Made(own.positions, own.code)) == live
    assert live.code == CODE


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_the_pages_of_a_replayed_segment_are_the_live_ones(house: House, limit: int) -> None:
    books = history()
    await house.project(*books)
    own = replayed(*books)["segments"]
    for money in (Money(1, "EUR"), Money(101, "EUR"), Money(102, "SEK"), Money(1, "USD")):
        cursor = None
        while True:
            live = await segments.deposited_at_least(house.context, money, cursor, limit)
            page = segments.page_of(own.rows(deposited(money.currency)), money, cursor, limit)
            assert segments.answer(money, page, Made(own.positions, own.code, live.as_of)) == live
            cursor = live.next_cursor
            if cursor is None:
                break


async def test_a_card_says_from_what_it_was_made_and_its_version_does_not(house: House) -> None:
    eu, us = history()
    await house.project(eu)
    before = await players.card(house.context, eu.players[0])
    assert (before.positions, before.code) == ({"eu": len(eu.entries)}, CODE)
    await house.project(us)
    after = await players.card(house.context, eu.players[0])
    assert after.positions == {"eu": len(eu.entries), "us": len(us.entries)}
    assert after.version == before.version
