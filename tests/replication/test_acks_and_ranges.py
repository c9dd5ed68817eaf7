from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from structlog.testing import capture_logs

from replication import store
from replication.errors import FrameError
from replication.frame import FRAME_BYTES_MAX, Row, parse
from replication.wire import (
    ERROR_CODE,
    RANGE_EMPTY,
    RANGE_REFUSED,
    Realm,
    decode_ack,
    decode_number,
    decode_position,
    decode_range,
    encode_position,
    encode_range,
    region_of,
    token,
)
from tests.flushing import flushed
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
        assert (await ask(client, encode_range(2**63 - 1, 2**63 - 1)))[0] == RANGE_EMPTY
        assert (await ask(client, encode_range(2**64 - 2, 2**64 - 1)))[0] == RANGE_REFUSED
        assert (await ask(client, encode_range(1, 2**64 - 1)))[0] is None


async def acknowledge(client: Client, position: int, leaf: str, peer: str = "US") -> None:
    await client.publish(f"ack.EU.{peer}", f'{{"position":{position},"leaf":"{leaf}"}}'.encode())
    await flushed(client)


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
        for position, leaf in ((3, leaves[1]), (4, leaves[2]), (3, "not hex"), (2**63 - 1, leaves[0])):
            await acknowledge(client, position, leaf)
            await eventually(lambda p=position: f"position {p} " in (eu.sql(alarm)[0][0] or ""), world=world)
            assert eu.watermark("us") == 2
        await acknowledge(client, 3, leaves[2])
        await eventually(lambda: eu.sql(alarm) == [(None,)] and eu.watermark("us") == 3, world=world)


async def test_an_acknowledgement_that_is_none_hurts_nobody(world: World) -> None:
    world.relay("eu")
    async with world["eu"].as_itself() as client:
        await ask(client, encode_range(1, 1))
        for junk in (b"", b"[]", b'{"position":"1","leaf":""}', b"\xff", *map(acknowledging, BEYOND)):
            await client.publish("ack.EU.US", junk)
        leaf = bytes(world["eu"].entries("eu")[0][2]).hex()
        await acknowledge(client, 1, leaf, "AP")
        await eventually(lambda: world["eu"].watermark("ap") == 1, world=world)
    assert world["eu"].watermark("us") == -1


async def test_one_regions_false_acknowledgements_do_not_hold_up_anothers(world: World) -> None:
    """A position that PostgreSQL cannot hold, again and again, from a region that may say so in its own name."""
    eu = world["eu"]
    world.relay("eu")
    world.applier("ap", "eu")
    last = eu.append([1])
    await eventually(lambda: eu.watermark("ap") == last, world=world)
    async with world.link("us", "eu") as us:

        async def poison() -> None:
            for each in itertools.cycle(BEYOND):
                await us.publish("ack.EU.US", acknowledging(each))
                await flushed(us)
                await asyncio.sleep(0.01)

        poisoning = asyncio.create_task(poison())
        try:
            with capture_logs() as logs:
                for _ in range(3):
                    last = eu.append([1])
                    await eventually(lambda last=last: eu.watermark("ap") == last, world=world)
                await eventually(lambda: "an acknowledgement that is none" in said(logs), world=world)
        finally:
            poisoning.cancel()
    assert torn(logs) == []
    assert eu.watermark("us") == -1


async def test_what_postgresql_cannot_take_from_one_region_does_not_keep_another_from_being_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    eu = world["eu"]
    acknowledge, refused = store.acknowledge, []

    async def refusing(connection: store.Connection, log: store.Log, peer: str, *what: Any, **how: Any) -> bool:
        if peer == "us":
            refused.append(peer)
            await connection.execute("SELECT 9223372036854775807 + 1")
        return await acknowledge(connection, log, peer, *what, **how)

    monkeypatch.setattr(store, "acknowledge", refusing)
    world.relay("eu")
    world.applier("us", "eu")
    world.applier("ap", "eu")
    with capture_logs() as logs:
        await eventually(lambda: refused, world=world)
        last = eu.append([1])
        await eventually(lambda: eu.watermark("ap") == last, world=world)
    assert eu.watermark("us") == -1
    assert torn(logs) == []


BEYOND = [2**63, 2**64, 10**30, -1]


def acknowledging(position: int) -> bytes:
    return b'{"position":%d,"leaf":""}' % position


def said(logs: list[Any]) -> set[str]:
    return {each["event"] for each in logs}


def torn(logs: list[Any]) -> list[Any]:
    """Why hearing of acknowledgements had to be begun again."""
    return [each for each in logs if each["event"] == "interrupted" and each.get("part") == "acks"]


def test_no_position_beyond_what_a_log_can_have_is_read() -> None:
    largest = 2**63 - 1
    assert decode_ack(acknowledging(largest)).position == largest
    for each in BEYOND:
        with pytest.raises(msgspec.DecodeError):
            decode_ack(acknowledging(each))
    with pytest.raises(msgspec.DecodeError):
        decode_ack(msgspec.json.encode({"position": 1, "leaf": "0" * 65}))
    with pytest.raises(msgspec.DecodeError):
        decode_ack(msgspec.json.encode({"position": 1, "leaf": "0" * 64, "promise": {"epoch": 2}}))
    assert decode_position(encode_position(largest)) == largest
    assert decode_position(encode_position(2**63)) is None
    assert decode_range(encode_range(largest, 2**64 - 1)) == (largest, largest)
    with pytest.raises(FrameError):
        decode_range(encode_range(2**63, 2**64 - 1))


def test_no_number_in_a_header_is_more_than_postgresql_holds_or_python_reads() -> None:
    assert decode_number("0") == 0
    assert decode_number(str(2**63 - 1)) == 2**63 - 1
    for each in ("", "-1", str(2**63), "9" * 5000, "\u00b2", "\u0663", "1.0", " 1"):
        assert decode_number(each) is None, each


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
        told = [int(n.payload.split()[3]) for n in until_told(waiting, f" {last}")]
    assert told == sorted(set(told))
    assert told[-1] == last


def until_told(waiting: psycopg.Connection[Any], end: str) -> Iterator[psycopg.Notify]:
    """What is told until that is, and half a second more."""
    for notice in waiting.notifies(timeout=30):
        yield notice
        if notice.payload.endswith(end):
            break
    yield from waiting.notifies(timeout=0.5)


async def test_a_peer_cannot_acknowledge_in_anothers_name(world: World) -> None:
    eu = world["eu"]
    leaf = bytes(eu.entries("eu")[0][2]).hex()
    world.relay("eu")
    async with eu.as_itself() as client:
        await ask(client, encode_range(1, 1))
    async with world.link("us", "eu") as us:
        async with asyncio.timeout(60):
            while eu.watermark("us") != 1:  # until the link is there
                await acknowledge(us, 1, leaf, "AP")
                await acknowledge(us, 1, leaf, "US")
                await asyncio.sleep(0.1)
    assert eu.watermark("us") == 1
    assert eu.watermark("ap") == -1


@pytest.mark.parametrize("region", ["eu", "eu.2", "us", "a1.10"])
def test_a_region_has_one_name_inside_nats(region: str) -> None:
    assert region_of(token(region)) == region
    assert Realm(region).stream == f"LOG_{token(region)}"
    assert "." not in token(region)
