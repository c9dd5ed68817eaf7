"""A connection to NATS that is no longer wanted ends, whatever it is doing just then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import structlog

from replication.link import Link, link
from replication.tasks import cancelled
from replication.wire import Realm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.replication.regions import World

STEPS = 12  # of the event loop: more than one try to connect takes where nobody listens
BETWEEN_TRIES_S = 0.26
IN_TIME_S = 1.0  # by then what still runs would try again and again


async def test_a_cancelled_try_to_connect_ends_at_whichever_step_it_is_cancelled(world: World) -> None:
    """Python 3.11's `wait_for` drops a cancellation that meets the refusal."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"nats://127.0.0.1:{taken.getsockname()[1]}"
    config = replace(world["eu"].config, nats=nobody)
    for step in range(STEPS):
        opening = asyncio.create_task(Link(Realm("eu"), structlog.get_logger()).open(config, "a test"))
        for _ in range(step):
            await asyncio.sleep(0)
        opening.cancel()
        _, endless = await asyncio.wait([opening], timeout=IN_TIME_S)
        if endless:
            opening.cancel()  # or this test would never end
        assert not endless, step


@pytest.mark.parametrize("gone", [True, False], ids=["while nobody listens", "while the server takes it"])
async def test_a_link_that_is_closed_while_it_comes_back_leaves_nothing_behind(world: World, gone: bool) -> None:
    for step in range(STEPS):
        before = asyncio.all_tasks()
        async with _passing_on(world["eu"].config.nats) as (server, url):
            async with link(replace(world["eu"].config, nats=url), "eu", "a test", structlog.get_logger()) as opened:
                await asyncio.sleep(BETWEEN_TRIES_S)
                if gone:
                    server.close()
                await opened.client.force_reconnect()
                for _ in range(step):
                    await asyncio.sleep(0)
            left = {task for task in asyncio.all_tasks() - before if "Client." in repr(task)}
            if left:
                _, left = await asyncio.wait(left, timeout=IN_TIME_S)
            for task in left:
                task.cancel()
            assert not left, step


@contextlib.asynccontextmanager
async def _passing_on(url: str) -> AsyncIterator[tuple[asyncio.Server, str]]:
    """The same server at another port, where nobody listens any more once this one is closed."""
    there = urlsplit(url)
    passing: set[asyncio.Task[None]] = set()

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        its_reader, its_writer = await asyncio.open_connection(there.hostname, there.port)
        passing.add(asyncio.create_task(one_way(reader, its_writer)))
        passing.add(asyncio.create_task(one_way(its_reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server, f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await cancelled(*passing)
