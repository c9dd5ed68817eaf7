"""Reading the logs in batches."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import AsyncConnection

from projections.projection import START, Position
from projections.source import LogSource
from tests.projections.books import CODEC, PARTITIONS, Book, MemorySource, write


def deposits(count: int) -> Book:
    book = Book("eu")
    player = book.register()
    for amount in range(1, count + 1):
        book.imported(player, amount, "2025-01-01T00:00:00Z")
    return book


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
async def test_a_batch_holds_whole_commands_whatever_the_limit(limit: int) -> None:
    book = deposits(4)
    source = MemorySource(book)
    place, seen = START, []
    while place.position < len(book.entries):
        batch, stopped = await source.read("eu", place, limit)
        assert stopped is None
        assert batch.before == place
        assert batch.after != place
        assert batch.events[-1].body.command.i == batch.events[-1].body.command.n
        seen += [recorded.position for recorded in batch.events]
        place = batch.after
    assert seen == list(range(1, len(book.entries) + 1))


async def test_an_entry_that_does_not_count_moves_the_position_and_is_seen_by_nobody() -> None:
    book = deposits(2)
    batch, _ = await MemorySource(book, stranded=range(3, 6)).read("eu", START, 100)
    assert [recorded.position for recorded in batch.events] == [1, 2, 6, 7, 8]
    assert batch.after == Position(8, book.entries[-1].leaf)


async def test_a_batch_of_nothing_that_counts_still_moves() -> None:
    book = deposits(2)
    source = MemorySource(book, stranded=range(3, 9))
    batch, _ = await source.read("eu", Position(2, book.entries[1].leaf), 2)
    assert batch.events == []
    assert batch.after.position > 2


async def test_nothing_is_read_beyond_an_event_of_a_later_release() -> None:
    book = deposits(1)
    book.unknown(book.players[0])
    book.imported(book.players[0], 7, "2025-01-01T00:00:00Z")
    batch, stopped = await MemorySource(book).read("eu", START, 100)
    assert batch.after.position == 5
    assert stopped == "eu/6: no event of this release is called player.renamed"


async def test_a_log_in_whose_place_another_was_put_is_not_read() -> None:
    book = deposits(2)
    batch, stopped = await MemorySource(book).read("eu", Position(5, b"\1" * 32), 100)
    assert batch.after == batch.before
    assert stopped == "eu/5 is not the entry that was applied"


async def test_a_log_that_lost_its_end_is_waited_for() -> None:
    book = deposits(2)
    batch, stopped = await MemorySource(book).read("eu", Position(99, b"\1" * 32), 100)
    assert batch.after == batch.before
    assert stopped is None


async def test_postgresql_is_read_as_memory_is(dsn: str, connection: AsyncConnection[Any]) -> None:
    book = deposits(5)
    write(dsn, book, stranded=range(6, 9))
    source, memory = LogSource(connection, CODEC, PARTITIONS), MemorySource(book, stranded=range(6, 9))
    assert await source.heads() == await memory.heads()
    for limit in (1, 4, 100):
        place = START
        while place.position < len(book.entries):
            reading = await source.read("eu", place, limit)
            assert reading == await memory.read("eu", place, limit)
            place = reading.batch.after
