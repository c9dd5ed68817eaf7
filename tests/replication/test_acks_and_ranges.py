from __future__ import annotations

import asyncio

import psycopg
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from replication.frame import FRAME_BYTES_MAX, Row, parse
from replication.wire import ERROR_CODE, RANGE_EMPTY, RANGE_REFUSED, Realm, encode_range, region_of, token
from tests.replication.regions import World, eventually


async def ask(client: Client, request: bytes) -> tuple[str | None, bytes]:
    for _ in range(100):
        try:
            answer = await client.request("rpc.EU.range", request, timeout=2)
            return (answer.headers or {}).get(ERROR_CODE), answer.data
        except (NoRespondersError, TimeoutError):
            await asyncio.sleep(0.05)  # the relay is not there yet
    raise AssertionError("nobody answers")


async def test_ranges_are_answered_in_frames_of_whole_commands(world: World) -> None:
    last = world["eu"].append([3, 1, 2] + [1] * 30, filler=30_000)
    world.relay("eu")
    rows = world["eu"].rows("eu")
    async with world["eu"].as_itself() as client:
        fetched: list[Row] = []
        while len(fetched) < last:
            refusal, data = await ask(client, encode_range(len(fetched) + 1, 2**63 - 1))
            assert refusal is None
            assert len(data) <= FRAME_BYTES_MAX
            frame = parse(data)
            assert frame.first == len(fetched) + 1
            fetched += zip(frame.recorded, frame.leaves, frame.bodies, strict=True)
        assert fetched == rows
        refusal, data = await ask(client, encode_range(2, 5))
        assert refusal is None
        assert (parse(data).first, parse(data).last) == (2, 5)
        assert await ask(client, encode_range(last + 1, last + 9)) == (RANGE_EMPTY, b"")
        assert await ask(client, encode_range(last + 5, last + 9)) == (RANGE_EMPTY, b"")


async def test_what_is_no_range_is_refused(world: World) -> None:
    world["eu"].append([3])
    world.relay("eu")
    async with world["eu"].as_itself() as client:
        for request in (b"", b"x" * 17, encode_range(0, 1), encode_range(5, 4), encode_range(3, 4), encode_range(2, 3)):
            assert await ask(client, request) == (RANGE_REFUSED, b"")
        assert (await ask(client, encode_range(2**64 - 2, 2**64 - 1)))[0] in {RANGE_REFUSED, RANGE_EMPTY}
        assert (await ask(client, encode_range(1, 2**64 - 1)))[0] is None


async def acknowledge(client: Client, position: int, leaf: str, peer: str = "US") -> None:
    await client.publish(f"ack.EU.{peer}", f'{{"position":{position},"leaf":"{leaf}"}}'.encode())
    await client.flush()


async def test_a_watermark_is_believed_only_with_our_leaf(world: World) -> None:
    eu = world["eu"]
    eu.append([1, 1])
    leaves = [bytes(leaf).hex() for _, _, leaf, _ in eu.entries("eu")]
    world.relay("eu")
    alarm = "SELECT alarm FROM replication.watermark WHERE peer = 'us'"
    async with eu.as_itself() as client:
        await ask(client, encode_range(1, 1))
        await acknowledge(client, 2, leaves[1])
        await eventually(lambda: eu.watermark("us") == 2, world=world)
        for position, leaf in ((3, leaves[1]), (4, leaves[2]), (3, "not hex"), (-1, leaves[0])):
            await acknowledge(client, position, leaf)
            await eventually(lambda p=position: f"position {p} " in (eu.sql(alarm)[0][0] or ""), world=world)
            assert eu.watermark("us") == 2
        await acknowledge(client, 3, leaves[2])
        await eventually(lambda: eu.sql(alarm) == [(None,)] and eu.watermark("us") == 3, world=world)


async def test_an_acknowledgement_that_is_none_hurts_nobody(world: World) -> None:
    world.relay("eu")
    async with world["eu"].as_itself() as client:
        await ask(client, encode_range(1, 1))
        for junk in (b"", b"[]", b'{"position":"1","leaf":""}', b"\xff"):
            await client.publish("ack.EU.US", junk)
        leaf = bytes(world["eu"].entries("eu")[0][2]).hex()
        await acknowledge(client, 1, leaf, "AP")
        await eventually(lambda: world["eu"].watermark("ap") == 1, world=world)
    assert world["eu"].watermark("us") == -1


async def test_a_copy_that_fell_back_is_shown_as_it_is(world: World) -> None:
    eu = world["eu"]
    eu.append([1, 1])
    leaves = [bytes(leaf).hex() for _, _, leaf, _ in eu.entries("eu")]
    world.relay("eu")
    async with eu.as_itself() as client:
        await ask(client, encode_range(1, 1))
        for position in (3, 1, 2):
            await acknowledge(client, position, leaves[position - 1])
            await eventually(lambda p=position: eu.watermark("us") == p, world=world)


async def test_many_acknowledgements_write_the_table_seldom_and_tell_the_last(world: World) -> None:
    eu = world["eu"]
    last = eu.append_many(300)
    leaves = [bytes(leaf).hex() for _, _, leaf, _ in eu.entries("eu")]
    world.relay("eu")
    with psycopg.connect(eu.dsn, autocommit=True) as waiting:
        waiting.execute("LISTEN replication")
        async with eu.as_itself() as client:
            await ask(client, encode_range(1, 1))
            for position in range(1, last + 1):
                await acknowledge(client, position, leaves[position - 1])
            await eventually(lambda: eu.watermark("us") == last, world=world)
        told = [int(n.payload.split()[3]) for n in waiting.notifies(timeout=0.5)]
    assert told == sorted(set(told))
    assert told[-1] == last


async def test_a_peer_cannot_acknowledge_in_anothers_name(world: World) -> None:
    eu = world["eu"]
    leaf = bytes(eu.entries("eu")[0][2]).hex()
    world.relay("eu")
    async with eu.as_itself() as client:
        await ask(client, encode_range(1, 1))
    async with world.link("us", "eu") as us:
        for _ in range(20):  # leaf links form within about a second
            await acknowledge(us, 1, leaf, "AP")
            await acknowledge(us, 1, leaf, "US")
            if eu.watermark("us") == 1:
                break
            await asyncio.sleep(0.1)
    assert eu.watermark("us") == 1
    assert eu.watermark("ap") == -1


@pytest.mark.parametrize("region", ["eu", "eu.2", "us", "a1.10"])
def test_a_region_has_one_name_inside_nats(region: str) -> None:
    assert region_of(token(region)) == region
    assert Realm(region).stream == f"LOG_{token(region)}"
    assert "." not in token(region)
