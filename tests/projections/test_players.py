"""What is known of players, batch by batch: the same in memory, on the server, and however the log is cut."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain import players
from domain.players import ProfileRecorded
from projections import catalog, state
from projections.memory import MemoryStore
from projections.projection import OutOfOrder
from tests.projections.books import Book, MemorySource
from tests.projections.histories import follow, forget
from tests.projections.knowing import KNOWN
from tests.projections.test_memory import replayed, shown


def known_twice() -> Book:
    """Two players of whom everything is learnt that there is, in two orders."""
    book = Book("eu")
    ada, bob = book.register(name="Ada", email="old"), book.register(name="Bob")
    for player, decisions in ((ada, KNOWN), (bob, [*KNOWN[::-1], *KNOWN])):
        for decision in decisions:
            book.know(player, decision)
            book.wait(timedelta(hours=9))
    return book


def players_in_memory() -> MemoryStore:
    return catalog.in_memory()["players"]


@pytest.mark.parametrize("entries", [1, 2, 7, 1_000])
def test_however_a_log_is_cut_the_same_is_known(entries: int) -> None:
    book = known_twice()
    whole, cut = players_in_memory(), players_in_memory()
    whole.apply(book.batch())
    first = 1
    while first <= len(book.entries):
        last = min(first + entries - 1, len(book.entries))
        while last < len(book.entries) and book.entries[last].body.count(b'"i":1,') == 0:
            last += 1  # whole commands
        cut.apply(book.batch(first, last))
        first = last + 1
    assert cut.state_hash() == whole.state_hash()


async def test_memory_and_server_know_the_same(connection: AsyncConnection[Any], client: Redis) -> None:
    book = known_twice()
    for entries in (3, 1_000):
        await forget(connection, client)
        live = catalog.stores(connection, client)["players"]
        await follow([live], MemorySource(book), entries=entries)
        own = (await replayed(MemorySource(book), []))["players"]
        assert await live.state_hash() == own.state_hash()
        assert state.difference(await shown(live), own.state()) is None


async def test_a_row_that_was_changed_is_noticed(connection: AsyncConnection[Any], client: Redis) -> None:
    book = known_twice()
    own = (await replayed(MemorySource(book), []))["players"]
    for fault in (
        "UPDATE read.player SET known = '{}'",
        "UPDATE read.player SET state = '{}'",
        "UPDATE read.kyc SET state = replace(state::text, 'none', 'identity')::json",
        "UPDATE read.login SET version = version + 1",
        "INSERT INTO read.player_tag VALUES ('a', (SELECT min(id) FROM read.player))",
        "DELETE FROM read.player_tag",
    ):
        await forget(connection, client)
        live = catalog.stores(connection, client)["players"]
        await follow([live], MemorySource(book))
        cursor = await connection.execute(fault)
        assert cursor.rowcount > 0, fault
        assert state.difference(await shown(live), own.state()) is not None, fault


def test_a_row_is_what_the_domain_has_made() -> None:
    book = known_twice()
    store = players_in_memory()
    store.apply(book.batch())
    for player in book.players:
        card = dict(zip(catalog.TABLES[0].tables[0].columns, store.tables["player"][player], strict=True))
        folded = book.state(players.stream(player))
        assert (card["status"], card["block_reason"]) == (folded.status, folded.block_reason)
        tags = tuple(sorted(tag for tag, whose in store.tables["player_tag"] if whose == player))
        assert tags == folded.tags


def test_what_follows_a_registration_that_was_not_read_is_out_of_order() -> None:
    book = Book("eu")
    player = book.register()
    book.know(player, lambda p, _k, _l, at: players.record_profile(
        p, profile=ProfileRecorded(language="de"), birth_date=None, at=at))  # fmt: skip
    store = players_in_memory()
    store.vector["eu"] = book.batch(3, 3).before
    with pytest.raises(OutOfOrder):
        store.apply(book.batch(3, 3))
