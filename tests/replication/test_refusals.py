"""What comes from a faulty or hostile origin: the log halts, the evidence is kept, everything else goes on."""

from __future__ import annotations

import pytest

from replication import fetching, ranges, relay
from replication.chain import Head
from replication.fetching import Range
from replication.frame import Frame, encode, parse
from tests.replication.regions import Region, World, body, eventually, frame_of, frames_in_stream, newest_in_stream
from verifier.log import leaf


def head(region: Region, log: str) -> Head:
    position, recorded, last, _ = region.entries(log)[-1]
    return Head(position, recorded, bytes(last))


def continuation(region: Region, *, i: int = 1, n: int = 1) -> Frame:
    """One more entry of the region's log, properly chained, that stands in no PostgreSQL."""
    position, recorded, last = head(region, region.name)
    forged = body(region.name, "forged_1", 1, b"forged forged 16", i, n)
    made = (recorded + 1, leaf(last, position + 1, recorded + 1, forged), forged)
    return frame_of(position + 1, last, [made])


async def publish(region: Region, data: bytes) -> None:
    """Straight into the own stream, by the only user who can: the origin's own."""
    async with region.as_itself() as client:
        answer = await client.request(region.realm.frames, data, timeout=30)
        assert b'"seq"' in answer.data, answer.data


async def copied(world: World, *copies: tuple[str, str]) -> None:
    for region, origin in copies:
        await eventually(lambda r=region, o=origin: world[r].position(o) == world[o].position(o), world=world)


async def both_copied(world: World) -> None:
    """EU and AP are relayed, and copied in US."""
    for origin in ("eu", "ap"):
        world.relay(origin)
        world.applier("us", origin)
        world[origin].append([1, 2])
    await copied(world, ("us", "eu"), ("us", "ap"))


async def halted(world: World, region: str, log: str, role: str = "applier") -> tuple[int | None, str]:
    await eventually(lambda: (world[region].state(log, role) or [""])[0] == "halted", world=world)
    state = world[region].state(log, role)
    assert state
    return state[1], state[2]


async def test_a_forged_leaf_halts_that_log_keeps_the_evidence_and_leaves_other_logs_alone(world: World) -> None:
    await both_copied(world)
    before = world["us"].entries("eu")
    good = continuation(world["eu"])
    forged = encode(Frame(good.first, good.prev_leaf, good.recorded, [bytes(32)], good.bodies))
    await publish(world["eu"], forged)
    position, reason = await halted(world, "us", "eu")
    assert position == good.first
    assert "hashes to" in reason
    [(kept, sequence)] = world["us"].sql("SELECT data, sequence FROM replication.evidence")
    assert bytes(kept) == forged
    assert sequence == len(await frames_in_stream(world["eu"]))
    assert world["us"].entries("eu") == before
    world["ap"].append([2, 2])
    await copied(world, ("us", "ap"))


@pytest.mark.parametrize("what", ["noise", "cut off", "half a command", "nothing"])
async def test_what_is_no_frame_of_whole_commands_halts_the_log(world: World, what: str) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    await copied(world, ("us", "eu"))
    data = {
        "noise": b"CRF\x01" + b"noise" * 20,
        "cut off": encode(continuation(world["eu"]))[:-1],
        "half a command": encode(continuation(world["eu"], n=2)),
        "nothing": b"",
    }[what]
    await publish(world["eu"], data)
    await halted(world, "us", "eu")
    assert [bytes(kept) for (kept,) in world["us"].sql("SELECT data FROM replication.evidence")] == [data]
    assert world["us"].entries("eu") == world["eu"].entries("eu")


async def test_a_halted_log_goes_on_only_when_an_operator_clears_it_and_takes_the_truth_from_the_origin(
    world: World,
) -> None:
    await both_copied(world)
    world["eu"].append([1] * 30, filler=50_000)  # several frames, which the relay will send again
    await copied(world, ("us", "eu"))
    good = continuation(world["eu"])
    await publish(world["eu"], encode(Frame(good.first, good.prev_leaf, good.recorded, [bytes(32)], good.bodies)))
    await halted(world, "us", "eu")
    last = world["eu"].append([1, 3])  # the relay meets the forged message, too
    await halted(world, "eu", "eu", "relay")
    assert world["us"].position("eu") < last

    assert world["us"].sql("SELECT replication.clear_halt('eu', 'an operator')") == [(1,)]
    await copied(world, ("us", "eu"))  # from PostgreSQL, while the stream ends with the forged message
    assert world["eu"].state("eu", "relay")[0] == "halted"  # type: ignore[index]

    assert world["eu"].sql("SELECT replication.clear_halt('eu', 'an operator')") == [(1,)]
    world["eu"].append([2])
    await copied(world, ("us", "eu"))
    assert world["us"].entries("eu") == world["eu"].entries("eu")
    assert world["us"].state("eu", "applier")[0] == "running"  # type: ignore[index]
    assert parse((await frames_in_stream(world["eu"]))[-1]).last == world["eu"].position("eu")


async def test_a_halt_must_be_cleared_by_somebody(world: World) -> None:
    with pytest.raises(Exception, match="must be named"):
        world["us"].sql("SELECT replication.clear_halt('eu', '')")


async def test_the_applier_itself_can_neither_lift_a_halt_nor_change_evidence(world: World) -> None:
    for attempt in (
        "SELECT replication.clear_halt('eu', 'me')",
        "UPDATE replication.evidence SET cleared_at = now()",
        "DELETE FROM replication.evidence",
        "DELETE FROM replication.cursor",
        "INSERT INTO ledger.entry (log, position, recorded, leaf, body) VALUES (1, 99, 99, '', '')",
    ):
        with pytest.raises(Exception, match="permission denied"):
            world["us"].sql(f"SET ROLE countroom_applier; {attempt}")


async def test_a_well_made_fork_is_seen_by_the_origin_in_the_acknowledged_leaf(world: World) -> None:
    """Whoever has the origin's NATS key can show copies an entry that the origin never wrote, but not unnoticed."""
    await both_copied(world)
    await publish(world["eu"], encode(continuation(world["eu"])))
    await eventually(lambda: world["us"].position("eu") == world["eu"].position("eu") + 1, world=world)
    alarm = "SELECT alarm FROM replication.watermark WHERE peer = 'us' AND alarm IS NOT NULL"
    await eventually(lambda: world["eu"].sql(alarm), world=world)
    last = world["eu"].append([1])
    position, reason = await halted(world, "eu", "eu", "relay")
    assert position == last
    assert "in our stream" in reason


async def test_a_fork_after_an_overlap_is_refused_by_the_copy(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    world["eu"].append([1, 1, 1])
    await copied(world, ("us", "eu"))
    _, recorded, _, _ = world["eu"].entries("eu")[0]
    prev = bytes(world["eu"].entries("eu")[0][2])
    other = body("eu", "forged_1", 1, b"forged forged 16", 1, 1)
    frame = frame_of(2, prev, [(recorded + 1, leaf(prev, 2, recorded + 1, other), other)])
    await publish(world["eu"], encode(frame))
    position, reason = await halted(world, "us", "eu")
    assert (position, reason[:16]) == (2, "fork: position 2")


async def test_what_the_copy_has_already_is_compared_and_skipped(world: World) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    world["eu"].append([1, 2, 1])
    await copied(world, ("us", "eu"))
    stored = await frames_in_stream(world["eu"])
    await publish(world["eu"], stored[0])
    rows = world["eu"].rows("eu")
    await publish(world["eu"], encode(frame_of(2, rows[0][1], rows[1:])))
    await eventually(
        lambda: world["us"].sql("SELECT sequence FROM replication.cursor") == [(len(stored) + 2,)], world=world
    )
    assert world["us"].state("eu", "applier")[0] == "running"  # type: ignore[index]
    assert world["us"].entries("eu") == world["eu"].entries("eu")


async def test_with_its_own_check_broken_the_copy_is_still_guarded_at_the_ledgers_door(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: the applier believes every frame. Good frames that came with the bad one are kept."""
    world.relay("eu")
    running = world.applier("us", "eu")
    await copied(world, ("us", "eu"))
    await world.halt(running)
    world["eu"].append([1, 2, 1])
    good = continuation(world["eu"])
    forged = encode(Frame(good.first, good.prev_leaf, good.recorded, [bytes(32)], good.bodies))
    await eventually(lambda: newest_in_stream(world["eu"]) == good.first - 1, world=world)
    await publish(world["eu"], forged)
    monkeypatch.setattr(fetching, "verify", lambda _: None)
    world.applier("us", "eu")
    position, reason = await halted(world, "us", "eu")
    assert position == good.first
    assert "CR009" in reason
    assert world["us"].entries("eu") == world["eu"].entries("eu")
    assert [bytes(kept) for (kept,) in world["us"].sql("SELECT data FROM replication.evidence")] == [forged]


@pytest.mark.parametrize("bad", [b'{"stream":1}', b"\xff\xfe"])
async def test_a_body_that_the_ledger_cannot_read_is_evidence_and_no_reason_to_try_for_ever(
    world: World, bad: bytes
) -> None:
    world.relay("eu")
    world.applier("us", "eu")
    await copied(world, ("us", "eu"))
    position, recorded, last = head(world["eu"], "eu")
    each = (
        b'{"command":{"id":"'
        + bytes(16).hex().encode()
        + b'","i":1,"n":1},"stream":"'
        + bad.replace(b'"', b'\\"')
        + b'"}'
    )
    each = each.replace(b'"stream"', b'"stream":"a","stream"') if bad.startswith(b"{") else each
    frame = frame_of(position + 1, last, [(recorded + 1, leaf(last, position + 1, recorded + 1, each), each)])
    await publish(world["eu"], encode(frame))
    await halted(world, "us", "eu")


async def test_a_range_that_does_not_join_is_evidence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    good = encode(continuation(world["eu"]))

    async def lie(*_: object) -> Range:
        return Range(good, 0)  # position 2 where position 1 was asked for

    monkeypatch.setattr(ranges, "fetch", lie)
    monkeypatch.setattr(relay, "BEHIND_MAX", 2)
    world["eu"].append([1, 1, 1, 1])
    world.relay("eu")
    world.applier("us", "eu")
    _, reason = await halted(world, "us", "eu")
    assert "asked for 1" in reason
    assert world["us"].sql("SELECT data, sequence FROM replication.evidence") == [(good, None)]


async def test_a_log_that_was_restored_to_its_past_is_not_relayed_over_its_own_stream(world: World) -> None:
    """The stream holds what PostgreSQL has lost: to go on would fork the log."""
    running = world.relay("eu")
    world.applier("us", "eu")
    world["eu"].append([1, 1])
    await copied(world, ("us", "eu"))
    await world.halt(running)
    restored = await world.restored_to_its_opening("eu")
    world["eu"] = restored
    world.relay("eu")
    position, reason = await halted(world, "eu", "eu", "relay")
    assert position == 3
    assert "none in our log" in reason
