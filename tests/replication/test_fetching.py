"""Fetching ahead: whoever takes what comes may stop at any moment, and what came before a failure is still taken."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from replication import applier, fetching, store, tasks
from replication.errors import Interrupted
from replication.fetching import AHEAD, Fetch, Range, pieces
from replication.frame import encode
from tests.replication.regions import World, body, chained, eventually, frame_of, newest_in_stream

FIRST, SIZE = 2, 40


class OneByOne:
    """A log that is answered for entry by entry, up to `end`, and then no more. `ahead`: as much was asked for as may wait."""

    def __init__(self, end: int = SIZE) -> None:
        self.ahead = asyncio.Event()
        self._end = end
        self._rows = chained([body("eu", "log", n, bytes([n]) * 16, 1, 1) for n in range(1, SIZE + 1)])

    async def __call__(self, first: int, last: int) -> Range | None:
        if first == FIRST + AHEAD + 1:
            self.ahead.set()
        if first > self._end:
            raise Interrupted("nobody answers")
        row = self._rows[first - 1 : first]
        return Range(encode(frame_of(first, self._rows[first - 2][1], row)), SIZE)


async def fail_at_the_first(fetch: OneByOne) -> None:
    """The first is taken and cannot be committed, while the queue is full and more is to be put there."""
    async with pieces(fetch, FIRST, SIZE) as found:
        async for _ in found:
            await fetch.ahead.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            raise psycopg.OperationalError("terminating connection due to administrator command")


async def take_all(fetch: OneByOne, taken: list[int]) -> None:
    async with pieces(fetch, FIRST, SIZE) as found:
        async for piece in found:
            await asyncio.sleep(0)
            taken.append(piece.frame.first)


async def test_a_commit_that_fails_while_answers_wait_ends_the_fetching() -> None:
    with pytest.raises(psycopg.OperationalError, match="administrator"):
        await asyncio.wait_for(fail_at_the_first(OneByOne()), 30)
    assert [each for each in asyncio.all_tasks() if each is not asyncio.current_task()] == []


async def test_it_ends_as_well_when_what_is_fetched_last_is_that_there_is_no_more() -> None:
    with pytest.raises(psycopg.OperationalError, match="administrator"):
        await asyncio.wait_for(fail_at_the_first(OneByOne(end=FIRST + AHEAD)), 30)
    assert [each for each in asyncio.all_tasks() if each is not asyncio.current_task()] == []


async def test_what_came_before_the_fetching_failed_is_taken_first() -> None:
    taken: list[int] = []
    with pytest.raises(Interrupted, match="nobody answers"):
        await take_all(OneByOne(end=20), taken)
    assert taken == list(range(FIRST, 21))


async def test_all_that_is_there_is_taken_in_its_order() -> None:
    taken: list[int] = []
    await take_all(OneByOne(), taken)
    assert taken == list(range(FIRST, SIZE + 1))


async def test_whoever_tells_a_full_queue_that_it_was_cancelled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above would catch: before, the end was put into the queue after a cancellation as well."""
    fetch, queues = fetching._fetch, list[asyncio.Queue[Any]]()

    async def telling(asked: Fetch, first: int, last: int, arrived: asyncio.Queue[Any]) -> None:
        queues.append(arrived)
        try:
            await fetch(asked, first, last, arrived)
        finally:
            await arrived.put(None)

    monkeypatch.setattr(fetching, "_fetch", telling)
    monkeypatch.setattr(tasks, "_CANCEL_AGAIN_S", 3600)
    failing = asyncio.create_task(fail_at_the_first(OneByOne()))
    done, _ = await asyncio.wait([failing], timeout=0.5)
    assert not done
    queues[0].get_nowait()
    with pytest.raises(psycopg.OperationalError, match="administrator"):
        await failing


async def test_a_catch_up_goes_on_after_a_commit_has_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    eu = world["eu"]
    world["eu"] = replace(eu, config=replace(eu.config, stream_bytes_max=1_200_000))
    monkeypatch.setattr(applier, "JOINED_MAX", 500)
    last = world["eu"].append_many(3_000, filler=1_700)
    world.relay("eu")
    await eventually(lambda: newest_in_stream(world["eu"]) == last, world=world)
    apply, put, ahead = store.apply, asyncio.Queue.put, asyncio.Event()
    failed: list[int] = []

    async def told(queue: asyncio.Queue[Any], item: object) -> None:
        if queue.maxsize == AHEAD and queue.full():
            ahead.set()
        await put(queue, item)

    async def fail_once(*arguments: Any) -> None:
        if not failed:
            await ahead.wait()
            failed.append(arguments[2].first)
            raise psycopg.OperationalError("terminating connection due to administrator command")
        await apply(*arguments)

    monkeypatch.setattr(asyncio.Queue, "put", told)
    monkeypatch.setattr(store, "apply", fail_once)
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    assert failed == [1]
