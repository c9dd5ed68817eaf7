"""Real processes are killed -9, folders lost. In the end every copy equals its origin, byte for byte."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
from dataclasses import replace

import pytest

from replication.applier import run_applier
from replication.relay import run_relay
from tests.replication.process import arguments
from tests.replication.regions import Region, World, eventually, newest_in_stream

pytestmark = pytest.mark.fault


async def equal_in_the_end(world: World, last: int) -> None:
    await eventually(lambda: world["us"].position("eu") == last, world=world, within_s=60)
    assert world["us"].entries("eu") == world["eu"].entries("eu")
    await eventually(lambda: world["eu"].watermark("us") == last, world=world)


def lose_streams(region: Region) -> None:
    """The folder of its NATS, which goes on writing there until it is killed."""
    folder = region.config.seeds / "jetstream" / "jetstream"
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


async def restart(world: World, region: str, role: str) -> None:
    await asyncio.to_thread(world.stack.kill, region, role)
    await asyncio.to_thread(world.stack.wait_restarted, region, role)


async def test_the_origins_nats_may_die(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    for _ in range(3):
        world["eu"].append([1, 2, 3])
        await restart(world, "eu", "nats")
        last = world["eu"].append([3, 1])
    await equal_in_the_end(world, last)


async def test_a_relay_goes_on_after_its_nats_was_idle_and_died(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    await equal_in_the_end(world, world["eu"].append([1]))
    await asyncio.sleep(0.3)  # longer than the window for duplicates
    await restart(world, "eu", "nats")
    await equal_in_the_end(world, world["eu"].append([3, 1]))


async def test_the_copys_nats_may_die(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    world["eu"].append([1, 2, 3])
    await restart(world, "us", "nats")
    await equal_in_the_end(world, world["eu"].append([3, 1]))


@pytest.mark.parametrize("region", ["eu", "us"])
async def test_postgresql_may_die(world: World, region: str) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    world["eu"].append([1, 2, 3])
    await restart(world, region, "postgres")
    await equal_in_the_end(world, world["eu"].append([3, 1]))


async def test_the_origins_nats_may_lose_its_folder_and_the_copy_fetches_what_it_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replication.relay.BEHIND_MAX", 3)
    relaying = world.relay("eu")
    copying = world.applier("us", "eu")
    await equal_in_the_end(world, world["eu"].append([1, 2, 3]))
    await world.halt(copying)
    await world.halt(relaying)
    world["eu"].append([4] * 20)
    lose_streams(world["eu"])
    await restart(world, "eu", "nats")
    world.relay("eu")
    world.applier("us", "eu")
    await equal_in_the_end(world, world["eu"].append([2]))


async def test_the_folder_may_be_lost_under_a_running_relay_and_applier(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    await equal_in_the_end(world, world["eu"].append([1, 2, 3]))
    lose_streams(world["eu"])
    await restart(world, "eu", "nats")
    await equal_in_the_end(world, world["eu"].append([2, 2]))


async def test_a_stream_that_was_lost_is_made_anew_although_nothing_is_written(world: World) -> None:
    world.relay("eu")
    last = world["eu"].append([1, 2, 3])
    await eventually(lambda: newest_in_stream(world["eu"]) == last, world=world)
    lose_streams(world["eu"])
    await restart(world, "eu", "nats")
    await eventually(lambda: newest_in_stream(world["eu"]) == last, world=world)


@pytest.mark.parametrize("missing", ["nats", "postgres"])
async def test_relay_and_applier_stop_when_told_although_a_server_is_not_there(world: World, missing: str) -> None:
    nowhere = "127.0.0.1:1"
    config = world["us"].config
    config = (
        replace(config, nats=f"nats://{nowhere}")
        if missing == "nats"
        else replace(config, postgres=f"postgresql://{nowhere}/x")
    )
    stop = asyncio.Event()
    running = asyncio.gather(run_relay(config, stop), run_applier(config, "eu", stop))
    await asyncio.sleep(1)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 60)


@pytest.mark.parametrize("who", ["relay", "applier"])
async def test_relay_and_applier_may_be_killed_at_any_moment(world: World, who: str) -> None:
    """Again and again while entries keep coming: sooner or later also between a commit and its acknowledgement."""
    if who == "relay":
        world.applier("us", "eu")
        command = arguments(world["eu"].config)
    else:
        world.relay("eu")
        command = arguments(world["us"].config, "eu")
    dice = random.Random(20)
    appending = asyncio.create_task(keep_appending(world, 7.0))
    process = None
    while not appending.done():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 — returns at once
        await asyncio.sleep(dice.uniform(0.9, 2.2))  # it needs most of a second to start
        if not appending.done():
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process
    try:
        await equal_in_the_end(world, await appending)
    finally:
        process.kill()
        process.wait()


async def keep_appending(world: World, seconds: float) -> int:
    dice = random.Random(21)
    until = asyncio.get_running_loop().time() + seconds
    last = 0
    while asyncio.get_running_loop().time() < until:
        last = await asyncio.to_thread(world["eu"].append, [dice.randint(1, 4) for _ in range(dice.randint(1, 5))])
        await asyncio.sleep(dice.uniform(0, 0.02))
    return last
