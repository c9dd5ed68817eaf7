"""Whatever a copy has missed, and why: it fetches it, from whoever holds the log, and takes only what heads vouch for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from app import joining
from replication import holders, ranges, store
from replication.fetching import Piece, Range, Refuted
from replication.holders import Holder, Vouched
from replication.link import Link, ensure_stream, link
from replication.ranges import Reply
from replication.wire import STRETCH_END, encode_position
from tests.replication.regions import (
    Region,
    World,
    body,
    chained,
    eventually,
    frame_of,
    frames_in_stream,
    fresh_database,
)
from tests.replication.test_heads import (
    cleared_by,
    copied,
    evidence,
    guard,
    heads,
    may_write,
    published,
    waits_for,
    without_witnesses,
)
from verifier.merkle import root as root_of


async def equal(world: World, copy: str, log: str, last: int) -> None:
    await eventually(lambda: world[copy].position(log) == last, world=world)
    assert world[copy].entries(log) == world[log].entries(log)


def caught_up(region: Region, log: str) -> dict[str, object]:
    names = ("source", "first", "position", "target", "vouched")
    found = region.sql(f"SELECT {', '.join(names)} FROM replication.caught_up WHERE log = %s", log)
    return dict(zip(names, found[0], strict=True)) if found else {}


# What is older than the stream, or was in a stream that is lost


async def test_an_outage_longer_than_the_streams_retention_is_fetched_by_range(world: World) -> None:
    eu = world["eu"]
    world["eu"] = replace(eu, config=replace(eu.config, stream_bytes_max=150_000))
    world.relay("eu")
    copying = world.applier("us", "eu")
    before = world["eu"].append([1])
    await equal(world, "us", "eu", before)
    await world.halt(copying)
    last = world["eu"].append_many(1_500)
    await eventually(lambda: asyncio.run(frames_in_stream(world["eu"]))[-1:], world=world)
    world.applier("us", "eu")
    await equal(world, "us", "eu", last)
    told = caught_up(world["us"], "eu")
    assert (told["source"], told["first"]) == ("eu", before + 1)
    assert told["position"] == told["target"]


async def test_what_came_by_range_before_a_false_answer_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = ranges.fetch

    async def few_then_noise(link: Link, first: int, last: int) -> Range | None:
        return await fetch(link, first, 5) if first == 1 else Range(b"noise", 0)

    monkeypatch.setattr(ranges, "fetch", few_then_noise)
    world["eu"].append([1] * 20)
    async with answering(world["eu"]):
        world.applier("us", "eu")
        await eventually(lambda: evidence(world["us"]), world=world)
    assert world["us"].entries("eu") == world["eu"].entries("eu")[:5]


@contextlib.asynccontextmanager
async def answering(region: Region) -> AsyncIterator[None]:
    """The region answers for ranges, and its stream is empty."""
    logger = get_logger()
    async with (
        link(region.config, region.name, "test", logger) as own,
        await store.connect(region.config) as connection,
    ):
        await ensure_stream(own, 1 << 20)
        log = await store.find_log(connection, region.config, region.name)
        serving = asyncio.create_task(ranges.serve(own, connection, log, logger))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.wait([serving])


@pytest.mark.fault
@pytest.mark.parametrize("where", [0.1, 0.5, 0.98])
async def test_a_corrupted_nats_folder_costs_no_entry(world: World, where: float) -> None:
    eu = world["eu"]
    world.relay("eu")
    copying = world.applier("us", "eu")
    await equal(world, "us", "eu", eu.append([1, 2, 3]))
    await world.halt(copying)
    eu.append([2] * 300, filler=500)
    blocks = list((eu.config.seeds / "jetstream").rglob("LOG_EU/msgs/*.blk"))
    assert blocks
    for block in blocks:
        data = bytearray(block.read_bytes())
        data[int(len(data) * where)] ^= 0xFF
        block.write_bytes(data)
    await asyncio.to_thread(world.stack.kill, "eu", "nats")
    await asyncio.to_thread(world.stack.wait_restarted, "eu", "nats")
    world.applier("us", "eu")
    await equal(world, "us", "eu", eu.append([2]))
    assert evidence(world["us"]) == evidence(eu) == []


# From another region than the origin


@contextlib.asynccontextmanager
async def unreachable(world: World, region: str) -> AsyncIterator[None]:
    """The region's NATS is frozen, so nobody hears of it."""
    world.stack.send(region, "nats", signal.SIGSTOP)
    try:
        yield
    finally:
        world.stack.send(region, "nats", signal.SIGCONT)


async def test_a_new_region_gets_the_log_of_a_lost_one_from_another_copy_as_far_as_it_was_witnessed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "STRETCH", 100)
    monkeypatch.setattr(holders, "LEAVES_MAX", 30)
    copied(world, "us")
    signing = world.checkpointer("eu", "us")
    for _ in range(2):
        last = world["eu"].append([1, 2] * 80)
        await eventually(lambda last=last: published(world["us"]) == last, world=world)
    await world.halt(signing)
    beyond = world["eu"].append([2])
    await eventually(lambda: world["us"].position("eu") == beyond, world=world)
    async with unreachable(world, "eu"):
        world.relay("us")
        copying = world.applier("ap", "eu", "us")
        await eventually(lambda: world["ap"].position("eu") == last, world=world)
        assert world["ap"].entries("eu") == world["us"].entries("eu")[:last]
        told = caught_up(world["ap"], "eu")
        assert (told["source"], told["position"], told["target"], told["vouched"]) == ("us", last, beyond, last)
        await world.halt(copying)
    assert evidence(world["ap"]) == []


@pytest.mark.parametrize(("lacking", "stretch"), [(0, 100), (1, 1_000)])
async def test_a_head_that_was_published_without_its_witnesses_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch, lacking: int, stretch: int
) -> None:
    """Of two heads the older, which is all that is within a stretch; or the newer, and nothing vouches for what lies between them."""
    monkeypatch.setattr(holders, "STRETCH", stretch)
    copied(world, "us")
    world.checkpointer("eu", "us")
    sizes: list[int] = []
    for _ in range(2):
        sizes.append(world["eu"].append([1, 2] * 30))
        await eventually(lambda: published(world["us"]) == sizes[-1], world=world)
    await world.halt_all()
    without_witnesses(world["us"], sizes[lacking])
    async with unreachable(world, "eu"):
        world.relay("us")
        copying = world.applier("ap", "eu", "us")
        wanted = sizes[1 - lacking]
        await eventually(lambda: world["ap"].position("eu") == wanted, world=world)
        await eventually(lambda: caught_up(world["ap"], "eu")["vouched"] == wanted, world=world)
        told = caught_up(world["ap"], "eu")
        assert (told["position"], told["target"]) == (wanted, sizes[1])
        await world.halt(copying)
    assert world["ap"].entries("eu") == world["us"].entries("eu")[:wanted]
    assert evidence(world["ap"]) == []


async def test_one_question_has_some_heads_judged_and_the_next_one_those_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def published(*_: Any) -> AsyncGenerator[tuple[bytes, int]]:
        for size in range(6, 0, -1):
            yield b"%d" % size, size

    judged: list[bytes] = []

    def accepts(note: bytes) -> bool:
        judged.append(note)
        return note == b"1"

    monkeypatch.setattr(store, "published_heads", published)
    monkeypatch.setattr(holders, "_JUDGED_MAX", 2)
    nothing: Any = None
    policy: Any = SimpleNamespace(accepts=accepts)
    judging = holders._Judging(policy)
    told = [(await holders._head(nothing, nothing, judging, encode_position(0)))[0] for _ in range(4)]
    assert told == [b"", b"", b"1", b"1"]
    assert judged == [b"6", b"5", b"4", b"3", b"2", b"1", b"1"]


async def test_who_waits_for_a_copy_is_told_that_it_is_witnessed_when_it_is(world: World) -> None:
    copied(world, "us")
    world.checkpointer("eu", "us")
    last = world["eu"].append([1, 2])
    await eventually(lambda: published(world["us"]) == last, world=world)
    await world.halt_all()
    with psycopg.connect(world["us"].dsn, autocommit=True) as connection:
        assert joining._far(connection, "eu", last, world.keys.policy) == (last, last)
        without_witnesses(world["us"], last)
        assert joining._far(connection, "eu", last, world.keys.policy).vouched < last


@pytest.fixture
async def far(world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    """us holds a log of eu with a single head, much farther away than leaves are kept for in memory; eu is gone. Its size."""
    monkeypatch.setattr(holders, "STRETCH", 100)
    copied(world, "us")
    last = world["eu"].append([1, 2, 3] * 100)
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    world.checkpointer("eu", "us")
    await eventually(lambda: published(world["us"]) == last, world=world)
    assert [size for size, *_ in heads(world["us"])] == [last]
    await world.halt_all()
    world.relay("us")
    return last


async def test_a_head_far_away_is_reached_in_stretches_that_are_each_proven_to_lead_to_it(
    world: World, far: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Vouched] = []
    vouched = Holder.vouched

    async def noted(self: Holder, connection: store.Connection, held: int) -> Vouched | None:
        found = await vouched(self, connection, held)
        given.extend([found] if found else [])
        return found

    monkeypatch.setattr(Holder, "vouched", noted)
    async with unreachable(world, "eu"):
        copying = world.applier("ap", "eu", "us")
        await eventually(lambda: world["ap"].position("eu") == far, world=world)
        await world.halt(copying)
    assert world["ap"].entries("eu") == world["us"].entries("eu")
    assert max(len(each.leaves) for each in given) <= 100
    assert [each.size for each in given][-1] == far
    assert len(given) >= far // 100
    assert evidence(world["ap"]) == []


FALSE: dict[str, tuple[str, Callable[[Reply], Reply], str]] = {
    "all_at_once": ("_head", lambda reply: (reply[0], {}), "cannot be asked for"),
    "beyond_the_stretch": ("_head", lambda reply: (reply[0], {STRETCH_END: "101"}), "cannot be asked for"),
    "nowhere": ("_head", lambda reply: (reply[0], {STRETCH_END: "9" * 5000}), "cannot be asked for"),
    "backwards": ("_head", lambda reply: (reply[0], {STRETCH_END: "0"}), "cannot be asked for"),
    "no_proof": ("_proof", lambda _: (b"", {}), "do not lead to the root"),
    "another_proof": ("_proof", lambda reply: (reply[0][:-32] + b"\0" * 32, {}), "do not lead to the root"),
    "a_torn_proof": ("_proof", lambda reply: (reply[0][:-1], {}), "do not lead to the root"),
}


@pytest.mark.parametrize("what", FALSE)
async def test_a_holder_does_not_choose_how_much_is_kept_in_memory_nor_what_a_proof_is(
    world: World, far: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change, why = FALSE[what]
    true = getattr(holders, name)

    async def false(*arguments: Any) -> Reply:
        return change(await true(*arguments))

    monkeypatch.setattr(holders, name, false)
    async with unreachable(world, "eu"):
        with capture_logs() as logs:
            copying = world.applier("ap", "eu", "us")
            reasons = lambda: [each["reason"] for each in logs if each.get("holder") == "us"]  # noqa: E731
            await eventually(lambda: any(why in reason for reason in reasons()), world=world)
            await world.halt(copying)
    assert world["ap"].position("eu") == 0 < far
    assert evidence(world["ap"]) == []


async def test_what_another_region_made_up_is_not_taken_and_halts_nothing(world: World) -> None:
    copied(world, "us")
    world.checkpointer("eu", "us")
    last = world["eu"].append([1, 2] * 10)
    await eventually(lambda: published(world["us"]) == last, world=world)
    *_, (size, root, note, _) = heads(world["us"])
    liar = await made_up(world, "us", world["eu"], size, root, note)
    async with unreachable(world, "eu"):
        world["us"] = liar
        world.relay("us")
        copying = world.applier("ap", "eu", "us")
        await eventually(lambda: asked(liar), world=world)
        await asyncio.sleep(0.5)
        assert world["ap"].position("eu") == 0
        await world.halt(copying)
    assert evidence(world["ap"]) == []


async def made_up(world: World, name: str, origin: Region, size: int, root: bytes, note: bytes) -> Region:
    """The region with a copy of `origin` that is well chained and false, beside the true head."""
    dsn = await asyncio.to_thread(fresh_database, world.stack, name, f"liar_{world[name].dsn.rpartition('_')[2]}")
    liar = replace(world[name], config=replace(world[name].config, postgres=dsn), dsn=dsn)
    liar.open()
    bodies = [bytes(each) for *_, each in origin.entries("eu")]
    false = body("eu", f"test_{9:026}", 1, b"\7" * 16, 1, 1, {"amount": "1000000"})
    rows = chained([bodies[0], *(renamed(false, n) for n in range(1, size))])
    assert root_of(leaf for _, leaf, _ in rows) != root
    liar.sql(
        "SELECT ledger.append_copy(id, 1, %s::bigint[], %s::bytea[], %s::bytea[]) FROM ledger.log WHERE name = 'eu'",
        *map(list, zip(*rows, strict=True)),
    )
    liar.sql("SELECT ledger.keep_checkpoint(id, %s, %s, %s, true) FROM ledger.log WHERE name = 'eu'", size, root, note)
    return liar


def renamed(each: bytes, number: int) -> bytes:
    """The same as the command of another number."""
    command = (b"\7" * 16).hex().encode()
    return each.replace(command, b"%032x" % number).replace(b'"version":1', b'"version":%d' % number)


def asked(region: Region) -> bool:
    """Whether the leaves of the copy were read after it was made."""
    [(scans,)] = region.sql("SELECT sum(seq_scan + idx_scan) FROM pg_stat_user_tables WHERE relname = 'checkpoint'")
    return int(scans) > 2


# A restored backup


async def test_a_restored_backup_is_repaired_without_a_lost_region_when_an_operator_says_so(world: World) -> None:
    copied(world, "ap")
    checkpointing = world.checkpointer("eu", "us", "ap")
    last = world["eu"].append([1, 2, 1] * 50)
    await eventually(lambda: published(world["ap"]) == last, world=world)
    await world.halt(checkpointing)
    unsigned = world["eu"].append([3])
    await eventually(lambda: world["ap"].position("eu") == unsigned, world=world)
    before = world["eu"].entries("eu")
    restored = await world.restored_with(world["eu"], 6)
    guard(restored)
    world["eu"] = restored
    world.checkpointer("eu", "us", "ap")
    await eventually(lambda: "us does not answer" in waits_for(restored), world=world)
    assert restored.position("eu") == 6
    restored.sql("SELECT replication.excuse(id, 'us', 'Ann, incident 12') FROM ledger.log WHERE own")
    await eventually(lambda: may_write(restored), world=world)
    lost = unsigned - 6
    assert (
        cleared_by(restored)
        == f"compared with ap; {lost} entries fetched back; us was not waited for, by Ann, incident 12"
    )
    assert restored.entries("eu") == before
    assert evidence(restored) == evidence(world["ap"]) == []


def test_entries_are_not_taken_for_others_that_are_vouched_for() -> None:
    true, false = (chained([body("eu", "log", n, bytes([n]) * 16, 1, 1, word) for n in range(1, 9)]) for word in "ab")
    leaves = [leaf for _, leaf, _ in true]
    vouched = Vouched(3, 8, leaves[2:], b"")
    vouched.demand(Piece(frame_of(5, leaves[3], true[4:7]), b"", 8))
    with pytest.raises(Refuted, match="size 8 vouches"):
        vouched.demand(Piece(frame_of(5, leaves[3], [*true[4:6], false[6]]), b"", 8))
