"""How far copies are behind: by signed heads that were heard of, and unknown where none was."""

from __future__ import annotations

import pytest

from eventstore import postgres
from eventstore.note import SigningKey, checkpoint_text, signed
from queries.lags import Lag, State, lags
from tests.flushing import flushed
from tests.replication.regions import PARTITIONS, Region, World, body, chained, eventually

FORGED = 1_000_000


async def measured(region: Region) -> dict[tuple[str, str], Lag]:
    """By log, and region of the copy."""
    async with await postgres.connect(region.dsn, "countroom_reader") as connection:
        return {(each.log, each.region): each for each in await lags(connection, region.name, list(PARTITIONS))}


async def of_copy(region: Region, log: str = "eu") -> Lag:
    return (await measured(region))[log, region.name]


def heard(region: Region, log: str = "eu") -> int:
    rows = region.sql("SELECT h.size FROM replication.heard h JOIN ledger.log l ON l.id = h.log WHERE l.name = %s", log)
    return rows[0][0] if rows else 0


def hear(region: Region, *sizes: int) -> None:
    for size in sizes:
        region.sql("SELECT replication.hear(id, %s, '') FROM ledger.log WHERE name = 'eu'", size)


def earlier(region: Region, table: str, seconds: int, column: str = "at") -> None:
    """Let what is kept there be older than it is."""
    region.sql(f"UPDATE replication.{table} SET {column} = {column} - make_interval(secs => {seconds})")


async def test_a_copy_lacks_what_was_signed_and_has_not_come_although_no_message_tells_of_it(world: World) -> None:
    world.witness("us", "eu")
    world.checkpointer("eu", "us")
    last = world["eu"].append([1, 3, 2])
    await eventually(lambda: heard(world["us"]) == last, world=world)
    found = await of_copy(world["us"])
    assert (found.state, found.position, found.signed, found.entries) == (State.BEHIND, 0, last, last)
    assert found.seconds is not None
    assert found.seconds < 60

    earlier(world["us"], "lacking", 600)
    found = await of_copy(world["us"])
    assert found.seconds is not None
    assert 600 <= found.seconds < 660

    world.relay("eu")
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    found = await of_copy(world["us"])
    assert (found.state, found.entries, found.seconds) == (State.LEVEL, 0, 0.0)


async def test_a_log_that_rests_is_heard_of_again_and_again(world: World) -> None:
    world.witness("us", "eu")
    world.checkpointer("eu", "us")
    await eventually(lambda: heard(world["us"]) == 1, world=world)
    size_and_time = "SELECT size, at FROM replication.heard"
    first = world["us"].sql(size_and_time)
    await eventually(lambda: world["us"].sql(size_and_time)[0][1] > first[0][1], world=world)
    assert world["us"].sql("SELECT size, at > first_at FROM replication.heard") == [(1, True)]


async def test_without_any_witness_among_the_regions_heads_are_heard_of_as_well(world: World) -> None:
    last = world["eu"].append([2])
    stop = world.checkpointer("eu")
    await eventually(lambda: world["eu"].sql("SELECT max(size) FROM ledger.checkpoint") == [(last,)], world=world)
    await world.halt(stop)
    world.witness("us", "eu")
    world.checkpointer("eu")  # which has nothing new to sign
    await eventually(lambda: heard(world["us"]) == last, world=world)


async def test_a_copy_that_hears_no_head_does_not_know_how_far_behind_it_is(world: World) -> None:
    assert (await of_copy(world["us"])).state is State.UNKNOWN  # before the first
    world.relay("eu")
    world.applier("us", "eu")
    world.witness("us", "eu")
    stop = world.checkpointer("eu", "us")
    await eventually(lambda: heard(world["us"]) == 1 == world["us"].position("eu"), world=world)
    assert (await of_copy(world["us"])).state is State.LEVEL
    await world.halt(stop)
    world["eu"].append([1] * 5)
    earlier(world["us"], "heard", 20)
    found = await of_copy(world["us"])
    assert (found.state, found.entries, found.seconds, found.signed) == (State.UNKNOWN, None, None, 1)
    assert found.heard_at is not None


async def test_a_clock_that_was_set_back_makes_a_lag_unknown_and_no_smaller(world: World) -> None:
    hear(world["us"], 7)
    assert (await of_copy(world["us"])).state is State.BEHIND
    earlier(world["us"], "heard", -3600)
    assert (await of_copy(world["us"])).state is State.UNKNOWN


async def test_a_head_that_the_log_did_not_sign_is_not_heard(world: World) -> None:
    world.witness("us", "eu")
    world.checkpointer("eu", "us")
    await eventually(lambda: heard(world["us"]) == 1, world=world)
    text = checkpoint_text("countroom.test/eu", FORGED, bytes(32))
    forged = signed(text, [SigningKey.generate("countroom.test/eu")])
    async with world.link("eu", "eu") as client:
        for note in (forged, b"no note", b""):
            await client.publish("hint.EU.head", note)
        await flushed(client)
    last = world["eu"].append([1])
    await eventually(lambda: heard(world["us"]) == last, world=world)


async def test_an_older_head_that_is_repeated_hides_nothing(world: World) -> None:
    hear(world["us"], 9)
    earlier(world["us"], "lacking", 300)
    hear(world["us"], 4)
    found = await of_copy(world["us"])
    assert (found.signed, found.entries) == (9, 9)
    assert found.seconds is not None
    assert found.seconds >= 300


async def test_seconds_are_those_of_the_oldest_head_that_the_copy_has_not_come_to(world: World) -> None:
    hear(world["us"], 1)
    earlier(world["us"], "lacking", 100)
    hear(world["us"], 2)
    earlier(world["us"], "lacking", 100)
    hear(world["us"], 5)
    for copied, least in ((0, 200), (1, 100), (2, 0)):
        if copied > world["us"].position("eu"):
            await copy_of(world, copied)
        found = await of_copy(world["us"])
        assert found.entries == 5 - copied
        assert found.seconds is not None
        assert least <= found.seconds < least + 60


async def copy_of(world: World, position: int) -> None:
    """Let the copy in us go on to this position of eu's log."""
    while world["eu"].position("eu") < position:
        world["eu"].append([1])
    rows = world["eu"].rows("eu")[:position][world["us"].position("eu") :]
    recorded, leaves, bodies = (list(each) for each in zip(*rows, strict=True))
    log = "(SELECT id FROM ledger.log WHERE name = 'eu')"
    first = world["us"].position("eu") + 1
    world["us"].sql(f"SELECT ledger.append_copy({log}, %s, %s, %s, %s)", first, recorded, leaves, bodies)


async def test_heads_that_a_copy_lacks_for_long_are_kept_far_apart_and_removed_when_it_has_come(world: World) -> None:
    count = "SELECT count(*) FROM replication.lacking"
    hear(world["us"], 3)
    earlier(world["us"], "lacking", 86_400)
    hear(world["us"], *range(4, 300))
    assert world["us"].sql(count) == [(2,)]
    assert (await of_copy(world["us"])).entries == 299
    await copy_of(world, 4)
    hear(world["us"], 299)
    assert world["us"].sql(count) == [(0,)]
    found = await of_copy(world["us"])
    assert found.entries == 295
    assert found.seconds is not None
    assert found.seconds < 60  # since the newest head came: nothing nearer is kept


async def test_the_origin_knows_its_copies_by_what_they_acknowledge(world: World) -> None:
    world.checkpointer("eu")
    last = world["eu"].append([1, 1])
    await eventually(lambda: world["eu"].sql("SELECT max(size) FROM ledger.checkpoint") == [(last,)], world=world)
    assert (await measured(world["eu"]))["eu", "us"].state is State.UNKNOWN
    acknowledge(world["eu"], "us", 1)
    found = (await measured(world["eu"]))["eu", "us"]
    assert (found.state, found.position, found.entries) == (State.BEHIND, 1, last - 1)
    acknowledge(world["eu"], "us", last)
    assert (await measured(world["eu"]))["eu", "us"].state is State.LEVEL
    earlier(world["eu"], "watermark", 20)
    assert (await measured(world["eu"]))["eu", "us"].state is State.UNKNOWN
    acknowledge(world["eu"], "us", last, leaf=bytes(32))
    assert (await measured(world["eu"]))["eu", "us"].state is State.DIFFERS


def acknowledge(region: Region, peer: str, position: int, leaf: bytes | None = None) -> None:
    leaf = leaf or region.rows("eu")[position - 1][1]
    log = "(SELECT id FROM ledger.log WHERE name = 'eu')"
    region.sql(f"SELECT replication.acknowledge({log}, %s, %s, %s, true, false)", peer, position, leaf)


@pytest.mark.parametrize("role", ["applier", "witness"])
async def test_a_copy_that_halted_says_so_and_how_much_it_lacks(world: World, role: str) -> None:
    hear(world["us"], 6)
    halt = "SELECT replication.halt(id, %s, 1, 'a test', NULL, NULL, '') FROM ledger.log WHERE name = 'eu'"
    world["us"].sql(halt, role)
    found = await of_copy(world["us"])
    assert (found.state, found.entries) == (State.HALTED, 6)


async def test_of_a_log_that_another_one_continues_nothing_is_to_come_but_what_counts(world: World) -> None:
    world["eu"].append([1] * 4)
    us = world["us"]
    continues = {"log": "eu", "position": 3, "leaf": world["eu"].rows("eu")[2][1].hex()}
    opening = {"origin": "countroom.test/eu.2", "epoch": 1, "partitions": [], "continues": continues}
    first = body("eu.2", "log", 1, bytes(16), 1, 1, opening, type="log.opened")
    [(recorded, leaf, data)] = chained([first], origin="countroom.test/eu.2")
    us.sql("SELECT ledger.register_log('eu.2', 'countroom.test/eu.2', false)")
    log = "(SELECT id FROM ledger.log WHERE name = 'eu.2')"
    us.sql(f"SELECT ledger.append_copy({log}, 1, %s, %s, %s)", [recorded], [leaf], [data])
    found = await of_copy(us)
    assert (found.state, found.entries) == (State.BEHIND, 3)
    await copy_of(world, 3)
    found = await of_copy(us)
    assert (found.state, found.entries, found.seconds) == (State.CLOSED, 0, 0.0)
    assert ("us", "eu") not in await measured(us)
    assert ("us", "ap") in await measured(us)
