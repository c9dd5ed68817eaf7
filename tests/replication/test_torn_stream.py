"""A stream whose newest messages are unreadable: JetStream counts them still, and gives an earlier one as the newest."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import nats
import pytest
from structlog import get_logger

from replication.link import last_message, link, stream_info
from tests.replication.regions import Region, World, eventually, newest_in_stream

pytestmark = pytest.mark.fault


async def appended_and_copied(world: World, commands: int) -> None:
    """Each in a message of its own."""
    for _ in range(commands):
        last = world["eu"].append([2], filler=300)
        await eventually(lambda last=last: world["us"].position("eu") == last, world=world)


async def test_a_relay_goes_on_after_messages_that_its_stream_counts_and_has_lost(world: World) -> None:
    eu = world["eu"]
    world.relay("eu")
    copying = world.applier("us", "eu")
    await appended_and_copied(world, 20)
    with world.stack.down("eu", "nats", sent=signal.SIGTERM):
        pass  # the server writes down how far its stream goes
    await asyncio.to_thread(world.stack.wait_restarted, "eu", "nats")
    await appended_and_copied(world, 5)
    with world.stack.down("eu", "nats"):
        [block] = (eu.config.seeds / "jetstream").rglob("LOG_EU/msgs/*.blk")
        data = bytearray(block.read_bytes())
        data[len(data) // 2] ^= 0x08
        block.write_bytes(data)
    await asyncio.to_thread(world.stack.wait_restarted, "eu", "nats")
    found, counted = await newest_and_counted(eu)
    assert found
    assert found[0] < counted, "otherwise this is about nothing"
    last = eu.append([1, 2])
    await eventually(lambda: newest_in_stream(eu) == last, world=world)
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    await eventually(lambda: eu.watermark("us") == last, world=world)
    await world.halt(copying)
    assert world["us"].entries("eu") == eu.entries("eu")


async def newest_and_counted(region: Region) -> tuple[Any, int]:
    """The stream's newest message, and how many it says that it has had; as soon as a server that has just started says so."""
    async with asyncio.timeout(60), link(region.config, region.name, "test", get_logger()) as own:
        while True:
            with contextlib.suppress(nats.errors.Error):
                return await last_message(own), (await stream_info(own)).state.last_seq
