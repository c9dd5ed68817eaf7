"""Where a log that cannot be repaired ends, by what the copies that answer hold; and how the rest of a closed log is completed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest
from structlog import get_logger

from domain.logs import Continued, Opened
from eventstore.record import genesis, leaf_hash
from eventstore.signer import Signer
from replication import closed, store
from replication.asking import Peer, peer
from replication.closing import Examined, NotClosed, Silent, examine
from replication.comparing import Signed, newest_in
from replication.holders import Others
from replication.link import Link, link
from tests.replication.regions import Region, World, body, eventually, newest_in_stream
from tests.replication.test_heads import copied, guard, published, without_witnesses


@contextlib.asynccontextmanager
async def peers_of(world: World, *others: str) -> AsyncIterator[tuple[Link, list[Peer]]]:
    config = world["eu"].config
    async with contextlib.AsyncExitStack() as stack:
        own = await stack.enter_async_context(link(config, "eu", "closing", get_logger()))
        yield own, [await stack.enter_async_context(peer(own, each)) for each in others]


async def examined(world: World, *others: str, without: tuple[str, ...] = (), patience: int = 40) -> Examined:
    """What is found of eu, whose processes are stopped. Those who answer have just started, perhaps."""
    config = world["eu"].config
    for attempt in range(patience):
        with Signer.open(world.keys.signer("eu"), config.origin("eu")) as signer:
            signed = Signed(signer.size, signer.root)
        async with (
            peers_of(world, *others) as (own, peers),
            await store.connect(config, store.HEADS_ROLE) as connection,
        ):
            log = await store.find_log(connection, config, "eu")
            try:
                stream = await newest_in(own, connection, log)
                return await examine(connection, log, signed, stream, peers, without)
            except Silent:
                if attempt == patience - 1 or "ap" in others:
                    raise
                await asyncio.sleep(0.25)
    raise AssertionError("unreachable")


async def written(world: World, *regions: str, signed: bool = True) -> int:
    """eu has written, and the regions have copied and, if so, cosigned it; then eu's processes end."""
    world.keys.policy  # noqa: B018 — the signer's folder is made with it
    relaying = copied(world, *regions)
    checkpointing = world.checkpointer("eu", *regions) if signed else None
    last = world["eu"].append([1, 2, 1, 3])
    if signed:
        await eventually(lambda: all(published(world[each]) == last for each in regions), world=world)
    await eventually(lambda: all(world[each].position("eu") == last for each in regions), world=world)
    if checkpointing:
        await world.halt(checkpointing)
    await world.halt(relaying)
    return last


async def restored(world: World, positions: int, *more: int) -> Region:
    """eu's database as it was earlier, and written to since, before anybody had compared it."""
    found = await world.restored_with(world["eu"], positions, guarded=False)
    if more:
        found.append(list(more))
    guard(found)
    world["eu"] = found
    return found


async def test_a_fork_is_closed_where_the_copies_end_and_what_only_it_holds_is_stranded(world: World) -> None:
    last = await written(world, "us")
    leaf = bytes(world["us"].entries("eu")[-1][2]).hex()
    forked = await restored(world, 4, 2, 1)
    found = await examined(world, "us")
    assert (found.position, found.leaf, found.common) == (last, leaf, 4)
    assert found.stranded == (5, 7, bytes(forked.entries("eu")[-1][2]).hex())
    assert found.signed == last
    assert "other entries" in found.why


async def test_a_tail_that_was_signed_and_is_nowhere_ends_the_log_where_the_copies_end(world: World) -> None:
    """What was signed after the copies had stopped is lost with the database."""
    last = await written(world, "us")
    checkpointing = world.checkpointer("eu", "us")
    lost = world["eu"].append([2, 1])
    await eventually(lambda: signed_up_to(world, lost), world=world)
    await world.halt(checkpointing)
    await restored(world, 1)
    found = await examined(world, "us")
    assert (found.position, found.common, found.stranded) == (last, 1, None)
    assert f"a head of size {lost} was signed" in found.why


async def test_what_the_own_stream_has_is_waited_for(world: World) -> None:
    """us had stopped copying. What it lacks is in eu's stream, and nowhere else since eu's database was restored."""
    world.keys.policy  # noqa: B018
    relaying = world.relay("eu")
    copying = world.applier("us", "eu")
    world.witness("us", "eu")
    before = world["eu"].append([1, 2])
    await eventually(lambda: world["us"].position("eu") == before, world=world)
    await world.halt(copying)
    checkpointing = world.checkpointer("eu", "us")
    last = world["eu"].append([1, 1])
    await eventually(lambda: signed_up_to(world, last) and newest_in_stream(world["eu"]) == last, world=world)
    await world.halt(checkpointing)
    await world.halt(relaying)
    await restored(world, 1)
    with pytest.raises(Silent, match=f"our own stream has entries up to {last}"):
        await examined(world, "us", patience=1)
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    with pytest.raises(NotClosed, match="can be repaired"):
        await examined(world, "us")


def signed_up_to(world: World, size: int) -> bool:
    return bool(world["eu"].sql("SELECT 1 FROM ledger.checkpoint WHERE size = %s", size))


async def test_what_can_be_repaired_is_not_closed(world: World) -> None:
    await written(world, "us")
    guard(world["eu"])
    with pytest.raises(NotClosed, match="nothing is wrong with the log"):
        await examined(world, "us")
    await restored(world, 1)
    with pytest.raises(NotClosed, match="fetches 7 entries back from us"):
        await examined(world, "us")


async def test_a_log_that_may_be_written_is_not_closed(world: World) -> None:
    await written(world, "us")
    with pytest.raises(NotClosed, match="may be written"):
        await examined(world, "us")


async def test_a_copy_that_is_not_what_was_signed_closes_nothing(world: World) -> None:
    """Ours is what was signed. The copy of us was made anew from somebody else's history."""
    await written(world, "us")
    guard(world["eu"])
    us = world["us"]
    rows = us.rows("eu")
    leaf, made = genesis(us.config.origin("eu")), []
    for position, (recorded, _, raw) in enumerate(rows, 1):
        changed = raw.replace(b'"n":1', b'"n": 1') if position > 1 else raw
        leaf = leaf_hash(leaf, position, recorded, changed)
        made.append((recorded, leaf, changed))
    us.sql(
        "SET session_replication_role = replica; DELETE FROM ledger.ownership WHERE log = (SELECT id FROM ledger.log WHERE name = 'eu'); DELETE FROM ledger.entry WHERE log = (SELECT id FROM ledger.log WHERE name = 'eu')"
    )
    us.sql(
        "SELECT ledger.append_copy(id, 1, %s::bigint[], %s::bytea[], %s::bytea[]) FROM ledger.log WHERE name = 'eu'",
        *map(list, zip(*made, strict=True)),
    )
    with pytest.raises(NotClosed, match=r"is what was signed .* and the copy of us is not from position 2 on"):
        await examined(world, "us")


async def test_nothing_is_closed_in_silence(world: World) -> None:
    await written(world, "us")
    await restored(world, 1, 1)
    with pytest.raises(Silent, match="no copy of the log answers"):
        await examined(world, "ap")
    with pytest.raises(Silent, match="--without ap"):
        await examined(world, "us", "ap")
    assert (await examined(world, "us", "ap", without=("ap",))).regions == ["us"]


# The rest of a closed log


def opens_next(region: Region, position: int, leaf: bytes) -> None:
    """eu.2 begins, in this region's copy of it."""
    name, origin = "eu.2", region.config.origin("eu.2")
    region.sql("SELECT ledger.register_log(%s, %s, false)", name, origin)
    said = Opened(origin, 1, (), Continued("eu", position, leaf.hex()))
    id_ = hashlib.sha256(b"eu.2").digest()[:16]
    raw = body("eu.2", "log", 1, id_, 1, 1, said, type=Opened.tag)
    recorded = 1_000
    region.sql(
        "SELECT ledger.append_copy(id, 1, %s::bigint[], %s::bytea[], %s::bytea[]) FROM ledger.log WHERE name = 'eu.2'",
        [recorded],
        [leaf_hash(genesis(origin), 1, recorded, raw)],
        [raw],
    )


@contextlib.asynccontextmanager
async def completing(world: World, region: str, *holders: str) -> AsyncIterator[None]:
    stop = asyncio.Event()
    work = asyncio.create_task(closed.run_closed(world[region].config, "eu", stop, Others(holders, world.keys.policy)))
    try:
        yield
    finally:
        stop.set()
        await work


async def test_a_closed_log_is_completed_from_who_holds_it_beyond_the_last_witnessed_head(world: World) -> None:
    """ap holds nothing. The head covers all but the last commands; those are taken because eu.2 names the last leaf."""
    await written(world, "us")
    relaying = world.relay("eu")
    last = world["eu"].append([2, 1])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    await world.halt(relaying)
    world.relay("us")
    opens_next(world["ap"], last, bytes(world["us"].entries("eu")[-1][2]))
    async with completing(world, "ap", "us"):
        await eventually(lambda: world["ap"].position("eu") == last, world=world)
    assert world["ap"].entries("eu") == world["us"].entries("eu")


@pytest.mark.parametrize("with_policy", [True, False])
async def test_a_closed_log_is_completed_although_its_newest_head_lacks_its_witnesses(
    world: World, with_policy: bool
) -> None:
    """Whoever has no policy gives it for a witnessed one, and is asked for the rest all the same."""
    last = await written(world, "us")
    without_witnesses(world["us"], last)
    world.relay("us", with_policy=with_policy)
    opens_next(world["ap"], last, bytes(world["us"].entries("eu")[-1][2]))
    async with completing(world, "ap", "us"):
        await eventually(lambda: world["ap"].position("eu") == last, world=world)
    assert world["ap"].entries("eu") == world["us"].entries("eu")


async def test_a_rest_that_leads_elsewhere_is_not_taken(world: World, caplog: pytest.LogCaptureFixture) -> None:
    last = await written(world, "us", signed=False)
    world.relay("us")
    opens_next(world["ap"], last, bytes(32))
    async with completing(world, "ap", "us"):
        await asyncio.sleep(3)
    assert world["ap"].position("eu") == 0
