"""
What is lost, repeated, late or damaged between the stream and a copy needs nobody: the origin is asked again.

A proxy between US and its own NATS server mistreats the frames of EU's log (chaos.frames). In the end the copy equals its origin,
byte for byte, nothing has halted, and there is no evidence of anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from structlog.testing import capture_logs

from chaos.frames import WHATS, Frames, What
from replication import fetching
from replication.errors import Interrupted
from replication.fetching import Fetch, Piece, Range, Refuted
from replication.frame import Frame, encode
from tests.replication.regions import World, eventually, frame_of, frames_in_stream, newest_in_stream
from tests.replication.test_refusals import continuation, copied, halted, publish
from verifier.log import genesis

ROUNDS = 6


@pytest.fixture
def frames(world: World) -> Iterator[Frames]:
    """US's processes reach their NATS through the proxy."""
    proxies = Frames(seed=7)
    us = world["us"]
    proxies.start({"us": int(us.config.nats.rpartition(":")[2])})
    world["us"] = replace(us, config=replace(us.config, nats=f"nats://127.0.0.1:{proxies.via['us', 'us']}"))
    yield proxies
    proxies.stop()


def _relayed(world: World, last: int) -> bool:
    return newest_in_stream(world["eu"]) == last


def _acknowledged(world: World, last: int) -> bool:
    return world["eu"].watermark("us") == last


async def all_arrives(world: World, frames: Frames) -> None:
    """One frame after another, each in its own message, until nothing is armed; then the copy is the origin's log."""
    for _ in range(ROUNDS):
        last = world["eu"].append([1, 2])
        await eventually(partial(_relayed, world, last), world=world)
    await asyncio.to_thread(frames.wait_done, "us", 30)
    await copied(world, ("us", "eu"))
    assert world["us"].entries("eu") == world["eu"].entries("eu")
    assert world["us"].state("eu", "applier")[0] == "running"  # type: ignore[index]
    assert world["us"].sql("SELECT id FROM replication.evidence") == []


async def following(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    world["eu"].append([1])
    await copied(world, ("us", "eu"))


@pytest.mark.parametrize("renumbered", [False, True], ids=["seen by the consumer", "as if the stream held it so"])
@pytest.mark.parametrize("what", ["duplicate", "reorder", "drop"])
async def test_frames_that_come_twice_late_or_never_cost_no_entry(
    world: World, frames: Frames, what: What, renumbered: bool
) -> None:
    await following(world)
    frames.arm("us", what, 2, renumbered=renumbered)
    await all_arrives(world, frames)
    assert frames.done("us") == {f"{what} frame": 2}


async def test_a_hole_in_the_stream_is_fetched_by_range_at_once(world: World, frames: Frames) -> None:
    await following(world)
    frames.arm("us", "drop", 1, renumbered=True)
    with capture_logs() as logs:
        await all_arrives(world, frames)
    assert [each["log"] for each in logs if each["event"] == "fetching"] == ["eu"]
    assert not [each for each in logs if each["event"] == "interrupted"]


async def test_a_frame_that_was_damaged_on_its_way_is_fetched_again_and_halts_nothing(
    world: World, frames: Frames
) -> None:
    await following(world)
    frames.arm("us", "corrupt", 3)
    with capture_logs() as logs:
        await all_arrives(world, frames)
    told = [each for each in logs if each["event"].startswith("a frame is damaged")]
    assert 1 <= len(told) <= 3, "what was fetched for one may hold the others"


async def test_a_damaged_frame_of_what_is_held_already_is_read_again_from_the_stream(
    world: World, frames: Frames
) -> None:
    """The origin's database has nothing new then, and so cannot say whether the frame is right."""
    await following(world)
    origin = world["eu"]
    rows = origin.rows("eu")
    again = encode(frame_of(1, genesis(origin.config.origin("eu")), rows))
    frames.arm("us", "corrupt", 1)
    with capture_logs() as logs:
        await publish(origin, again)
        await asyncio.to_thread(frames.wait_done, "us", 30)
        newest = len(await frames_in_stream(origin))
        await eventually(lambda: world["us"].sql("SELECT sequence FROM replication.cursor") == [(newest,)], world=world)
    assert len([each for each in logs if each["event"].startswith("a frame is damaged")]) == 1
    assert world["us"].rows("eu") == rows
    assert world["us"].sql("SELECT id FROM replication.evidence") == []


async def test_what_the_stream_has_damaged_and_the_database_whole_is_taken_from_there_and_passed_over(
    world: World, frames: Frames
) -> None:
    """As if the frame had been damaged between the origin's relay and its NATS: reading again gives the same."""
    await following(world)
    position = world["eu"].position("eu")
    frames.arm("us", "drop", 1, renumbered=True)
    last = world["eu"].append([1])
    await asyncio.to_thread(frames.wait_done, "us", 30)
    noise = b"CRF\x01" + b"noise" * 20
    with capture_logs() as logs:
        await publish(world["eu"], noise)
        await copied(world, ("us", "eu"))
        newest = len(await frames_in_stream(world["eu"]))
        await eventually(lambda: world["us"].sql("SELECT sequence FROM replication.cursor") == [(newest,)], world=world)
    assert last == position + 1
    assert [each["sequence"] for each in logs if each["event"].startswith("a frame is damaged")] == [newest]
    assert world["us"].entries("eu") == world["eu"].entries("eu")
    assert world["us"].sql("SELECT id FROM replication.evidence") == []


async def test_a_damaged_answer_is_asked_for_again(world: World, frames: Frames) -> None:
    await following(world)
    frames.arm("us", "drop", 1, renumbered=True)
    frames.arm("us", "corrupt", 2, kind="range")
    await all_arrives(world, frames)
    assert frames.done("us") == {"drop frame": 1, "corrupt range": 2}


async def test_what_the_origin_stands_by_halts_the_log(world: World, frames: Frames) -> None:
    """Its stream has it twice, and its database knows nothing of it: no accident of the way."""
    await following(world)
    good = continuation(world["eu"])
    await publish(world["eu"], encode(Frame(good.first, good.prev_leaf, good.recorded, [bytes(32)], good.bodies)))
    position, reason = await halted(world, "us", "eu")
    assert position == good.first
    assert "hashes to" in reason


async def test_a_copy_that_believed_its_stream_would_hold_what_was_damaged(
    world: World, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: nobody checks frames. The ledger's door refuses them, and the log halts: so the other tests can fail."""
    await following(world)
    monkeypatch.setattr(fetching, "verify", lambda _: None)
    frames.arm("us", "corrupt", 1)
    last = world["eu"].append([1])
    await halted(world, "us", "eu")
    assert world["us"].position("eu") < last


async def test_acknowledgements_that_come_twice_late_damaged_or_never_are_made_good_by_the_next(
    world: World,
) -> None:
    proxies = Frames(seed=11)
    eu = world["eu"]
    proxies.start({"eu": int(eu.config.nats.rpartition(":")[2])})
    world["eu"] = replace(eu, config=replace(eu.config, nats=f"nats://127.0.0.1:{proxies.via['eu', 'eu']}"))
    try:
        await following(world)
        for what in WHATS:
            proxies.arm("eu", what, 3, kind="ack")
            last = world["eu"].append([1, 2, 1])
            await asyncio.to_thread(proxies.wait_done, "eu", 30)
            await eventually(partial(_acknowledged, world, last), world=world)
        assert world["eu"].sql("SELECT alarm FROM replication.watermark") == [(None,)]
        assert sum(proxies.done("eu").values()) == 3 * len(WHATS)
    finally:
        proxies.stop()


async def test_answers_that_are_wrong_each_in_its_own_way_are_an_interruption_and_no_evidence() -> None:
    numbers = iter(range(100))

    async def noise(_first: int, _last: int) -> Range:
        return Range(b"noise" * next(numbers), 0)

    with pytest.raises(Interrupted, match="each in its own way"):
        await _fetched(noise, 1, 10)


async def test_an_answer_that_is_wrong_twice_in_the_same_way_is_what_the_other_side_says() -> None:
    asked = []

    async def noise(first: int, _last: int) -> Range:
        asked.append(first)
        return Range(b"noise", 0)

    with pytest.raises(Refuted):
        await _fetched(noise, 7, 10)
    assert asked == [7, 7]


async def _fetched(fetch: Fetch, first: int, last: int) -> list[Piece]:
    async with fetching.pieces(fetch, first, last) as found:
        return [piece async for piece in found]
