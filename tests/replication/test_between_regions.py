from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
from nats.aio.msg import Msg
from structlog import get_logger

from replication import applier, relay, store
from replication.chain import verify
from replication.config import STREAM_BYTES_MAX
from replication.errors import Interrupted
from replication.frame import Row, command_part, parse
from replication.link import ensure_stream, link, stream_info
from replication.puller import MESSAGES_PER_PULL, Message, Puller
from tests.replication.regions import World, eventually, frames_in_stream, newest_in_stream


async def test_what_one_region_appends_is_copied_byte_for_byte_and_acknowledged(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    last = world["eu"].append([1, 3, 2, 5])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    assert world["us"].entries("eu") == world["eu"].entries("eu")
    await eventually(lambda: world["eu"].watermark("us") == last, world=world)
    last = world["eu"].append([2])
    await eventually(lambda: world["eu"].watermark("us") == last, world=world)
    assert world["us"].entries("eu") == world["eu"].entries("eu")


async def test_three_regions_copy_each_other(world: World) -> None:
    pairs = [(region, origin) for region in world.regions for origin in world.regions if region != origin]
    for region in world.regions:
        world.relay(region)
    for region, origin in pairs:
        world.applier(region, origin)
    last = {name: region.append([1, 2, 3]) for name, region in world.regions.items()}
    await eventually(lambda: all(world[r].position(o) == last[o] for r, o in pairs), world=world)
    assert all(world[region].entries(origin) == world[origin].entries(origin) for region, origin in pairs)
    await eventually(lambda: all(world[o].watermark(r) == last[o] for r, o in pairs), world=world)


async def test_a_copy_that_starts_late_gets_the_whole_log(world: World) -> None:
    world.relay("eu")
    last = world["eu"].append_many(5_000, filler=300)
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    assert world["us"].entries("eu") == world["eu"].entries("eu")


async def test_the_stream_holds_the_log_once_in_frames_of_whole_commands(world: World) -> None:
    for sizes in ([5, 1, 7], [3] * 40, [2]):
        world["eu"].append(sizes, filler=9_000)
        running = world.relay("eu")
        last = world["eu"].append(sizes, filler=9_000)
        await eventually(lambda last=last: newest_in_stream(world["eu"]) == last, world=world)
        await world.halt(running)
    rows: list[Row] = []
    for data in await frames_in_stream(world["eu"]):
        frame = parse(data)
        assert frame.first == len(rows) + 1
        verify(frame)
        last_part = command_part(frame.bodies[-1])
        assert last_part.i == last_part.n
        rows += zip(frame.recorded, frame.leaves, frame.bodies, strict=True)
    assert rows == world["eu"].rows("eu")


async def test_the_stream_refuses_to_be_purged_and_its_messages_to_be_deleted(world: World) -> None:
    world.relay("eu")
    await eventually(lambda: newest_in_stream(world["eu"]) == 1, world=world)
    async with world["eu"].as_itself() as client:
        for verb, request in (("PURGE", b"{}"), ("MSG.DELETE", b'{"seq": 1}')):
            answer = await client.request(f"$JS.EU.API.STREAM.{verb}.LOG_EU", request, timeout=30)
            assert "error" in json.loads(answer.data)


async def test_two_relays_of_a_log_do_not_disturb_each_other(world: World) -> None:
    first = world.relay("eu")
    await eventually(lambda: newest_in_stream(world["eu"]) == 1, world=world)
    world.relay("eu")
    world.applier("us", "eu")
    last = world["eu"].append([2, 1, 2])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    await world.halt(first)
    last = world["eu"].append([1, 3])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    assert len([parse(data) for data in await frames_in_stream(world["eu"])]) <= 1 + 3 + 2


async def test_two_appliers_of_a_log_do_not_disturb_each_other(world: World) -> None:
    world.relay("eu")
    first = world.applier("us", "eu")
    world.applier("us", "eu")
    last = world["eu"].append([2, 1, 2])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    await world.halt(first)
    last = world["eu"].append([2, 1, 2])
    await eventually(lambda: world["us"].position("eu") == last, world=world)


async def test_who_waits_for_a_peer_is_told(world: World) -> None:
    world.relay("eu")
    with psycopg.connect(world["eu"].dsn, autocommit=True) as waiting:
        waiting.execute("LISTEN replication")
        world.applier("us", "eu")
        last = world["eu"].append([1, 2])
        [(log,)] = world["eu"].sql("SELECT id FROM ledger.log WHERE own")
        heard = await asyncio.to_thread(
            lambda: next(n.payload for n in waiting.notifies(timeout=20) if n.payload.endswith(f" {last}"))
        )
        assert heard == f"watermark {log} us {last}"


async def test_a_far_behind_stream_skips_to_the_recent_past_and_copies_fetch_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BEHIND_MAX", 10)
    running = world.relay("eu")
    await eventually(lambda: newest_in_stream(world["eu"]) == 1, world=world)
    await world.halt(running)
    last = world["eu"].append([4] * 10)
    world.relay("eu")
    await eventually(lambda: newest_in_stream(world["eu"]) == last, world=world)
    frames = [parse(data) for data in await frames_in_stream(world["eu"])]
    assert [frame.first for frame in frames] == [1, last - 11]
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    assert world["us"].entries("eu") == world["eu"].entries("eu")


async def test_the_cursor_moves_with_the_copy(world: World) -> None:
    world.relay("eu")
    running = world.applier("us", "eu")
    last = world["eu"].append([1, 1])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    cursor = "SELECT created, sequence FROM replication.cursor"
    await eventually(lambda: world["us"].sql(cursor), world=world)  # what came as a range may come as a frame later
    await world.halt(running)
    async with link(world["us"].config, "eu", "test", get_logger()) as realm:
        stream = await stream_info(realm)
        assert world["us"].sql(cursor) == [(stream.created, stream.state.last_seq)]


async def test_a_puller_hands_out_every_message_once_and_asks_for_more(world: World) -> None:
    sent = [str(number).encode() for number in range(3 * MESSAGES_PER_PULL)]
    async with link(world["eu"].config, "eu", "test", get_logger()) as own:
        await ensure_stream(own, STREAM_BYTES_MAX)
        for data in sent:
            await own.publish("log.EU", data)
    async with link(world["us"].config, "eu", "test", get_logger()) as realm, Puller(realm, "test", 1) as puller:
        received: list[Message] = []
        while len(received) < len(sent):
            received += await asyncio.wait_for(puller.take(), 60)
    assert received == [Message(sequence, data) for sequence, data in enumerate(sent, 1)]


async def test_a_newest_message_that_is_lost_on_the_way_is_missed_by_the_next_heartbeat(world: World) -> None:
    class Losing(Puller):
        async def _receive(self, message: Msg) -> None:
            if message.data:
                return
            await super()._receive(message)

    async with link(world["eu"].config, "eu", "test", get_logger()) as own:
        await ensure_stream(own, STREAM_BYTES_MAX)
        await own.publish("log.EU", b"1")
    async with link(world["us"].config, "eu", "test", get_logger()) as realm, Losing(realm, "test", 1) as puller:
        with pytest.raises(Interrupted, match="message 1 of the consumer was lost"):
            await asyncio.wait_for(puller.take(), 60)


async def test_more_frames_than_fit_into_a_transaction_are_joined_up_to_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[int] = []
    real = store.apply

    async def counting(connection: store.Connection, log: store.Log, frame: object, cursor: object) -> None:
        applied.append(len(frame))  # type: ignore[arg-type]
        await real(connection, log, frame, cursor)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "apply", counting)
    monkeypatch.setattr(applier, "JOINED_MAX", 20)
    world.relay("eu")
    for _ in range(30):
        last = world["eu"].append([1])
        await eventually(lambda last=last: newest_in_stream(world["eu"]) == last, world=world)
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    assert 1 < max(applied) <= 20
    assert sum(applied) == last
