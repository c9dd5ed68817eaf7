"""When a player is erased, nothing sealed of them is left in any read model, and everything else is as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain import erasures
from domain.kernel import PlayerId
from domain.protection import Protection
from domain.wallets import Wallet
from policies.sla import Priority
from projections import catalog, state
from projections.memory import MemoryStore
from tests.projections.books import Book, MemorySource
from tests.projections.histories import ANSWERS, WORK, follow, forget
from tests.projections.knowing import KNOWN, LOGGED_IN
from tests.projections.test_memory import replayed, shown


def lived(book: Book, player: PlayerId) -> None:
    """All that people write about a player, who was here before."""
    book.know(player, LOGGED_IN)
    for decision in KNOWN:
        book.know(player, decision)
    ticket = book.ticket(player, Priority.URGENT)
    for decide in WORK:
        book.work(ticket, decide)
    book.answer(book.ask(player), ANSWERS[1])
    book.request(player, 900)
    book.fail(book.transactions[-1])


def erased() -> tuple[Book, PlayerId, PlayerId]:
    """A book in which one of two players was erased."""
    book = Book("eu")
    ada, bob = book.register(name="Ada", email="old"), book.register(name="Bob")
    lived(book, ada)
    lived(book, bob)
    book.wait(timedelta(days=366 * 11))
    for player in (ada, bob):
        book.block(player, reason="asked")
    book.know(ada, lambda player, *_: erase(book, player))
    return book, ada, bob


def erase(book: Book, player: Any) -> list[Any]:
    return erasures.erase(player, Wallet(), Protection(), basis="asked", at=book._now)


def sealed_of(stores: dict[str, MemoryStore], player: PlayerId) -> int:
    """In how many rows of the player something sealed stands."""
    whose = {player, *(row[0] for name in ("ticket", "contact") for store in stores.values() for row in store.rows(name) if player in row)}  # fmt: skip
    return sum(
        "sealed" in str(row) and not whose.isdisjoint(map(str, row))
        for projection in catalog.TABLES
        for table in projection.tables
        for row in stores[projection.name].rows(table.name)
    )


async def test_nothing_sealed_is_left_of_the_one_and_everything_of_the_other() -> None:
    book, ada, bob = erased()
    stores = await replayed(MemorySource(book), [])
    assert sealed_of(stores, ada) == 0
    assert sealed_of(stores, bob) > 3


async def test_what_they_called_their_telephone_goes_too() -> None:
    """It is a label of the player's own: «Anna Berg's phone»."""
    book, ada, bob = erased()
    players = (await replayed(MemorySource(book), []))["players"]
    cards = {row[0]: str(row) for row in players.rows("player")}
    seen = {row[0]: row for row in players.rows("login")}
    assert ("phone of Ada" in cards[bob], "ios" in str(seen[bob])) == (True, True)
    assert ("phone of Ada" in cards[ada], "ios" in str(seen[ada])) == (False, False)
    assert (seen[ada][1], '"last"' in str(seen[ada])) == (seen[bob][1], True), "when they came is left"


@pytest.mark.parametrize("entries", [1, 5, 1_000])
async def test_memory_and_server_forget_the_same_however_the_log_is_cut(
    connection: AsyncConnection[Any], client: Redis, entries: int
) -> None:
    book, *_ = erased()
    await forget(connection, client)
    live = catalog.stores(connection, client)
    await follow(live.values(), MemorySource(book), entries=entries)
    own = await replayed(MemorySource(book), [])
    for name, store in live.items():
        assert await store.state_hash() == own[name].state_hash(), name
    await connection.execute("UPDATE read.ticket_message SET sealed = '{\"text\": 1}'")
    assert state.difference(await shown(live["tickets"]), own["tickets"].state()) is not None
