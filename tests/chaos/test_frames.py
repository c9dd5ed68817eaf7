"""
What the proxy before a NATS server does to messages, and to which: with a real server, whose stream stands for another region's log.

What the product does about it: tests/replication/test_damaged.py.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from chaos.frames import HELD_BACK_S, Frames, Message, NotArmed, What, faults, units
from chaos.schedule import NotCarriedOut, Step
from tests.flushing import flushed
from tests.stack import Servers

REGION = "us"  # the proxy serves processes of US; the server's own log is EU's
STREAM = "LOG_EU"
WAIT_S = 30


@pytest.fixture
def frames(servers: Servers) -> Iterator[Frames]:
    made = Frames(seed=3)
    made.start({REGION: servers.stack.regions[0].ports.nats})
    yield made
    made.stop()


@asynccontextmanager
async def connected(servers: Servers, frames: Frames | None = None) -> AsyncIterator[Client]:
    """A client of the realm's own user, through the proxy or straight."""
    at = servers.endpoints
    url = f"nats://127.0.0.1:{frames.via[REGION, REGION]}" if frames else at.nats
    client = await nats.connect(url, nkeys_seed=str(at.seeds / "own.seed"), allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def log(servers: Servers) -> AsyncIterator[Client]:
    """A straight connection, beside an empty stream."""
    async with connected(servers) as client:
        await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["log.EU"]))
        yield client
        await client.jetstream().delete_stream(STREAM)


def frame(number: int) -> bytes:
    return b"CRF\x01" + bytes([number]) * 100


def number(data: bytes) -> int:
    return data[50]


async def pulled(client: Client, log: Client, count: int, *, expected: int) -> list[Msg]:
    """Publish `count` frames, and pull until `expected` messages have come."""
    inbox = client.new_inbox()
    come: asyncio.Queue[Msg] = asyncio.Queue()
    await client.subscribe(inbox, cb=come.put)
    config = {"name": "copy", "deliver_policy": "all", "ack_policy": "none", "inactive_threshold": 30 * 10**9}
    request = {"stream_name": STREAM, "action": "create", "config": config}
    created = await client.request(
        f"$JS.EU.API.CONSUMER.CREATE.{STREAM}.copy", json.dumps(request).encode(), timeout=30
    )
    assert b"error" not in created.data
    for each in range(1, count + 1):
        await log.jetstream().publish("log.EU", frame(each))
    pull = {"batch": count, "expires": 30 * 10**9}
    await client.publish(f"$JS.EU.API.CONSUMER.MSG.NEXT.{STREAM}.copy", json.dumps(pull).encode(), reply=inbox)
    return [await asyncio.wait_for(come.get(), WAIT_S) for _ in range(expected)]


def numbers(messages: Sequence[Msg]) -> list[int]:
    return [number(message.data) for message in messages]


def delivered(messages: Sequence[Msg]) -> list[int]:
    """The consumer's own count of what it was sent."""
    return [message.metadata.sequence.consumer for message in messages]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("duplicate", [1, 1, 2, 2, 3, 4, 5]),
        ("reorder", [2, 1, 4, 3, 5]),
        ("drop", [3, 4, 5]),
    ],
)
@pytest.mark.parametrize("renumbered", [False, True])
async def test_as_many_frames_as_were_armed_are_mistreated_and_then_none(
    servers: Servers, frames: Frames, log: Client, what: What, expected: list[int], renumbered: bool
) -> None:
    frames.arm(REGION, what, 2, renumbered=renumbered)
    async with connected(servers, frames) as client:
        messages = await pulled(client, log, 5, expected=len(expected))
    assert numbers(messages) == expected
    assert frames.done(REGION) == {f"{what} frame": 2}
    if renumbered:
        assert delivered(messages) == list(range(1, len(expected) + 1))
    else:
        assert delivered(messages) == expected


async def test_a_corrupted_frame_differs_in_one_byte(servers: Servers, frames: Frames, log: Client) -> None:
    frames.arm(REGION, "corrupt", 1)
    async with connected(servers, frames) as client:
        messages = await pulled(client, log, 3, expected=3)
    first, *rest = [message.data for message in messages]
    assert sum(a != b for a, b in zip(first, frame(1), strict=True)) == 1
    assert rest == [frame(2), frame(3)]


async def test_a_frame_that_is_held_back_for_one_that_does_not_come_is_only_late(
    servers: Servers, frames: Frames, log: Client
) -> None:
    frames.arm(REGION, "reorder", 1)
    async with connected(servers, frames) as client:
        began = asyncio.get_running_loop().time()
        messages = await pulled(client, log, 1, expected=1)
        assert asyncio.get_running_loop().time() - began >= HELD_BACK_S
    assert numbers(messages) == [1]


async def test_acknowledgements_and_answers_are_met_by_kind(servers: Servers, frames: Frames, log: Client) -> None:
    async def answer(request: Msg) -> None:
        await log.publish(request.reply, frame(7))

    await log.subscribe("rpc.EU.range", cb=answer)
    await flushed(log)
    come: asyncio.Queue[Msg] = asyncio.Queue()
    async with connected(servers, frames) as client:
        await client.subscribe("ack.US.EU", cb=come.put)
        await flushed(client)
        frames.arm(REGION, "drop", 1, kind="ack")
        frames.arm(REGION, "corrupt", 1, kind="range")
        for each in (b"first", b"second"):
            await log.publish("ack.US.EU", each)
        assert (await asyncio.wait_for(come.get(), WAIT_S)).data == b"second"
        assert (await client.request("rpc.EU.range", b"", timeout=30)).data != frame(7)
        assert (await client.request("rpc.EU.range", b"", timeout=30)).data == frame(7)
    assert frames.done(REGION) == {"drop ack": 1, "corrupt range": 1}


async def test_what_is_no_frame_passes_unchanged_however_long_and_whatever_it_holds(
    servers: Servers, frames: Frames, log: Client
) -> None:
    dice = random.Random(5)
    sent = [b"", b"\r\n", b"MSG a 1 3\r\nabc\r\n", b"PING\r\n", dice.randbytes(1_000_000), dice.randbytes(70_000)]
    come: asyncio.Queue[Msg] = asyncio.Queue()
    frames.arm(REGION, "drop", 1)
    async with connected(servers, frames) as client:
        await client.subscribe("hint.*", cb=come.put)
        await flushed(client)
        for each in sent:
            await log.publish("hint.plain", each)
            await log.publish("hint.headed", each, headers={"A": "b", "Nats-Msg-Id": "7"})
        got = [await asyncio.wait_for(come.get(), WAIT_S) for _ in range(2 * len(sent))]
        await client.publish("hint.back", frame(1))  # of one's own realm, and not from JetStream
        assert (await asyncio.wait_for(come.get(), WAIT_S)).data == frame(1)
    assert [message.data for message in got if message.subject == "hint.plain"] == sent
    headed = [message for message in got if message.subject == "hint.headed"]
    assert [message.data for message in headed] == sent
    assert all(message.headers == {"A": "b", "Nats-Msg-Id": "7"} for message in headed)


async def test_a_server_that_is_not_there_refuses_through_the_proxy_as_well() -> None:
    frames = Frames()
    frames.start({REGION: 1})
    try:
        with pytest.raises(nats.errors.Error):
            await nats.connect(f"nats://127.0.0.1:{frames.via[REGION, REGION]}", allow_reconnect=False)
    finally:
        frames.stop()


def test_what_did_not_come_about_is_an_error_and_forgotten(frames: Frames) -> None:
    frames.arm(REGION, "drop", 3)
    with pytest.raises(NotArmed, match="3 messages"):
        frames.wait_done(REGION, 0.1)
    frames.wait_done(REGION, 0.1)


class Before(NamedTuple):
    """As much of a site as these faults see."""

    frames: Frames


@pytest.mark.parametrize("fault", sorted(faults()))
def test_a_step_that_meets_no_message_could_not_be_carried_out(
    frames: Frames, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("chaos.frames.WAIT_S", 0.05)
    with pytest.raises(NotCarriedOut):
        faults()[fault](Before(frames), Step(0.0, fault, REGION))  # type: ignore[arg-type]
    assert frames.disarm(REGION) == 0


words = st.text(alphabet="abc.*>$_-0", min_size=1).map(str.encode)
messages = st.builds(
    Message,
    verb=st.just(b"HMSG"),
    subject=words,
    sid=words,
    reply=st.one_of(st.just(b""), words),
    head=st.just(b"NATS/1.0\r\nA: b\r\n\r\n"),
    data=st.binary(max_size=300),
)
plain = messages.map(lambda message: Message(b"MSG", message.subject, message.sid, message.reply, b"", message.data))
lines = st.sampled_from([b"PING\r\n", b"+OK\r\n", b"-ERR 'x'\r\n", b"INFO {" + b" " * 200_000 + b"}\r\n", b"\r\n"])


@given(st.lists(st.one_of(messages, plain, lines), max_size=8))
def test_whatever_a_server_sends_is_read_as_what_it_is_and_written_as_it_came(sent: list[bytes | Message]) -> None:
    async def read() -> list[bytes | Message]:
        reader = asyncio.StreamReader(limit=65536)
        reader.feed_data(b"".join(each if isinstance(each, bytes) else each.encode() for each in sent))
        reader.feed_eof()
        return [each async for each in units(reader)]

    assert asyncio.run(read()) == sent


def test_a_consumers_number_is_changed_in_both_forms_of_the_reply() -> None:
    for reply in (b"$JS.ACK.LOG_EU.copy.1.7.%d.99.0", b"$JS.ACK.EU.acc.LOG_EU.copy.1.7.%d.99.0.x"):
        message = Message(b"MSG", b"log.EU", b"1", reply % 5, b"", frame(1))
        assert message.kind("US") == "frame"
        assert message.kind("EU") is None
        assert message.consumer.endswith(b".copy")
        assert message.shifted(-1).reply == reply % 4
