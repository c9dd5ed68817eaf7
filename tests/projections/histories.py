"""Random histories of two regions, and what a projection must make of them however it comes across them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from psycopg import AsyncConnection
from redis.asyncio import Redis

from projections.projection import Source, Standing, StateHash, Store
from tests.projections.books import Book

VERBS = ("register", "request", "settle", "fail", "import", "limit", "block", "reserve", "wait")
Act = tuple[str, int, int]
"""Verb, whom it concerns (an index), and an amount."""

acts = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 7), st.integers(1, 900)), max_size=30)
schedules = st.lists(st.tuples(st.sampled_from(["eu", "us"]), st.integers(1, 40)), max_size=12)
"""Which log is read next, and about how many entries of it."""


def played(name: str, history: Sequence[Act]) -> Book:  # noqa: C901 — one case a verb
    """A region's book; what makes no sense at that moment is left out."""
    book = Book(name)
    for verb, which, amount in history:
        if verb == "register" or not book.players:
            book.register(("EUR", "SEK")[which % 2], name="Ada")
            continue
        player = book.players[which % len(book.players)]
        waiting = book.open_transactions()
        match verb:
            case "request":
                book.request(player, amount)
            case "settle" if waiting:
                book.settle(waiting[which % len(waiting)])
            case "fail" if waiting:
                book.fail(waiting[which % len(waiting)])
            case "import":
                book.imported(player, amount, f"2025-01-{1 + which:02}T23:59:59.5-00:30")
            case "limit":
                book.limit(player, amount)
            case "block":
                book.block(player)
            case "reserve" if book.cash(player) >= amount:
                book.reserve(player, amount)
            case "wait":
                book.wait(timedelta(hours=amount % 30))
            case _:
                pass
    return book


async def follow(
    stores: Iterable[Store], source: Source, schedule: Sequence[tuple[str, int]] = (), *, entries: int = 100_000
) -> None:
    """Apply the logs as scheduled, and then what is left of them."""
    for store in stores:
        standing = await store.open()
        for log, limit in schedule:
            standing = await _advance(store, source, standing, log, limit)
        for log, head in (await source.heads()).items():
            while standing.at(log).position < head:
                standing = await _advance(store, source, standing, log, entries)


async def _advance(store: Store, source: Source, standing: Standing, log: str, limit: int) -> Standing:
    batch, stopped = await source.read(log, standing.at(log), limit)
    assert stopped is None, stopped
    return await store.apply(standing, batch) if batch.after != batch.before else standing


async def hashes(stores: Mapping[str, Store]) -> dict[str, StateHash]:
    return {name: await store.state_hash() for name, store in stores.items()}


async def forget(connection: AsyncConnection[Any], client: Redis) -> None:
    """Empty all read models."""
    tables = (
        "read.generation, read.position, read.status, read.player, read.balance, read.deposit_limit, read.transaction"
    )
    await connection.execute(f"TRUNCATE {tables}, read.account")
    await client.flushall()
