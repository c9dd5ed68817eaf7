"""Positions that somebody has seen, and waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from projections.projection import Position
from queries import causal
from queries.causal import LOG, PositionMalformed, Reached, Seen, UnknownLog, Waiting, parse, write
from tests.projections.books import Book
from tests.queries.house import House

LEAF = "0123456789abcdef"


def test_positions_are_written_and_read_alike() -> None:
    stands = {"us": Position(7, bytes.fromhex(LEAF * 4)), "eu.2": Position(12, bytes(32)), "ap": Position(0, b"")}
    text = f"eu.2/12/{'0' * 16},us/7/{LEAF}"
    assert write(stands) == text
    assert parse(text) == [Seen("eu.2", 12, "0" * 16), Seen("us", 7, LEAF)]
    assert parse("eu/3, us/4") == [Seen("eu", 3), Seen("us", 4)]
    assert parse("") == []


@pytest.mark.parametrize(
    "text",
    ["eu", "eu/", "eu/-1", "eu/01", "eu/1/", f"eu/1/{LEAF[:-1]}", f"eu/1/{LEAF}0", f"eu/1/{LEAF.upper()}", "EU/1", "eu/1,eu/2",
     "eu/1;us/2", "eu/1\n", "eu/" + "9" * 19, "region-eu/1", "eu.0/1", "é/1", "eu/1/../2"],
)  # fmt: skip
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(PositionMalformed):
        parse(text)


class Sources:
    """What stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 0
        self.looks = 0

    async def look(self, sources: Collection[str]) -> Reached:
        self.looks += 1
        await asyncio.sleep(0)
        return {each: {"eu": Position(self.at, b"")} for each in sources}


async def test_who_waits_is_woken_when_all_of_their_sources_are_there() -> None:
    sources = Sources()
    waiting = Waiting(sources.look)
    both = [asyncio.create_task(waiting.until(["a", "b"], [Seen("eu", at)], timeout_s=60)) for at in (1, 2)]
    await asyncio.sleep(0.05)
    assert not any(each.done() for each in both)
    sources.at = 1
    assert await both[0]
    assert not both[1].done()
    sources.at = 2
    assert await both[1]


async def test_who_has_waited_long_enough_is_told_so() -> None:
    assert not await Waiting(Sources().look).until(["a"], [Seen("eu", 1)], timeout_s=0.05)
    assert not await Waiting(Sources().look).until(["a"], [Seen("us", 1)], timeout_s=0)


async def test_one_task_looks_for_all_who_wait_and_none_for_nobody() -> None:
    sources = Sources()
    waiting = Waiting(sources.look)
    crowd = [asyncio.create_task(waiting.until(["a"], [Seen("eu", 1)], timeout_s=60)) for _ in range(200)]
    await asyncio.sleep(0.1)
    assert sources.looks < 220, "once for each who comes, and then for all"
    sources.at = 1
    assert all(await asyncio.gather(*crowd))
    await asyncio.sleep(0.1)
    looked = sources.looks
    await asyncio.sleep(0.1)
    assert sources.looks == looked


async def test_of_too_many_who_wait_the_later_ones_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "WAITING_MAX", 1)
    waiting = Waiting(Sources().look)
    first = asyncio.create_task(waiting.until(["a"], [Seen("eu", 1)], timeout_s=60))
    await asyncio.sleep(0.05)
    assert not await asyncio.wait_for(waiting.until(["a"], [Seen("eu", 1)], timeout_s=60), 30)
    assert await waiting.until(["a"], [], timeout_s=60)
    first.cancel()


async def test_who_waits_hears_of_a_database_that_is_away() -> None:
    async def away(_sources: Collection[str]) -> Reached:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        await Waiting(away).until(["a"], [Seen("eu", 1)], timeout_s=60)


@pytest.mark.parametrize("source", ["players", "dashboard", "segments", "tickets"])
async def test_who_wrote_waits_until_it_can_be_read(house: House, source: str) -> None:
    book = Book("eu")
    book.register()
    seen = [Seen("eu", len(book.entries))]

    async def look(sources: Collection[str]) -> Reached:
        return await causal.reached(house.context, "eu", sources)

    waiting = Waiting(look)
    assert not await waiting.until([source], seen, timeout_s=0.05)
    woken = asyncio.create_task(waiting.until([source], seen, timeout_s=60))
    await house.project(book)
    assert await woken
    last = book.entries[-1]
    assert (await look([source, LOG]))[source]["eu"] == Position(last.position, last.leaf)
    assert await causal.check(house.context, "eu", [Seen("eu", last.position, last.leaf.hex()[:16])])
    with pytest.raises(UnknownLog):
        await causal.check(house.context, "eu", [*seen, Seen("nowhere", 1)])
