"""Whose player it is: what a decider knows of it, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from commands.keys import Held, Seeing
from commands.plan import WrongRegion
from domain import limits, players
from domain.errors import NotFound
from domain.kernel import PlayerId, instant, suffix, uuid7
from domain.limits import LIMITS
from domain.logs import Adopted, Opened, Released
from domain.ownership import Owner
from eventstore.memory import MemoryLog
from tests import ledger
from tests.commands.house import NOON, House, deposit_of
from tests.commands.us import Us, hand_over, ownership_event, player_of_both

BLOCK = {"reason": "fraud"}


async def test_a_player_of_another_region_is_not_decided_here(house: House) -> None:
    elsewhere = "player_" + suffix(uuid7(NOON, bytes(10), 200))
    with pytest.raises(WrongRegion) as refused:
        await house.process.post(f"/v1/players/{elsewhere}/block", BLOCK)
    assert refused.value.facts == {"partition": 200, "owner": ""}
    assert house.log.appended == []


async def test_a_partition_that_was_lost_meanwhile_is_noticed(house: House) -> None:
    player = await house.player()
    await house.deposit(player, 1)
    partition = players.stream(PlayerId(player)).partition
    assert partition is not None
    await hand_over(house, {partition: 1}, to="us")
    with pytest.raises(WrongRegion) as refused:
        await house.deposit(player, 1)
    assert refused.value.facts == {"partition": partition, "owner": "us"}


async def test_a_partition_that_was_taken_over_meanwhile_is_noticed(house: House) -> None:
    await house.player()
    stranger = "player_" + suffix(uuid7(NOON, bytes(10), 200))
    with pytest.raises(WrongRegion):
        await house.process.post(f"/v1/players/{stranger}/block", BLOCK)
    us = MemoryLog(ledger.US, clock=ledger.Clock(), partitions=range(200, 201))
    await us.append([ownership_event(us, Released(((200, 200, 1),), "eu"))])
    house.log.ownership.fold("us", 0, "", Opened(ledger.US, 1, ((200, 200),)))
    house.log.copy(us.entries)
    await asyncio.sleep(0.25)  # for so long the last answer holds
    waiting = asyncio.create_task(house.process.post(f"/v1/players/{stranger}/block", BLOCK))
    await asyncio.sleep(0.3)
    assert not waiting.done(), "it is on its way here, and is waited for"
    [released] = await house.log.released("eu")
    adopted = Adopted(((200, 200, 2),), released.of, released.cut)
    await house.log.append([ownership_event(house.log, adopted)])
    with pytest.raises(NotFound):
        await waiting


async def test_what_is_lost_takes_no_other_partition_along(house: House) -> None:
    one, other = await two_partitions(house)
    decider = house.process.decider
    went_on, reached = asyncio.Event(), asyncio.Event()
    held = decider._keys.held

    async def slow_held(needing: Seeing) -> Held:
        if not reached.is_set():
            reached.set()
            await went_on.wait()
        return await held(needing)

    decider._keys.held = slow_held  # type: ignore[method-assign]
    between_loading_and_deciding = asyncio.create_task(house.deposit(other, 2))
    await reached.wait()
    await hand_over(house, {partition_of_player(one): 1}, to="us")
    owners = house.log.owners

    async def slow_owners() -> Mapping[int, Owner]:
        went_on.set()
        await between_loading_and_deciding
        return await owners()

    house.log.owners = slow_owners  # type: ignore[method-assign]
    with pytest.raises(WrongRegion):
        await house.deposit(one, 3)


async def test_time_does_not_go_back_after_a_region_whose_clock_was_ahead(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    house.log._clock.now += 3_600_000_000  # type: ignore[attr-defined]
    house.now += timedelta(hours=1)
    await house.deposit(player, 100)
    latest = house.log.entries[-1].recorded
    house.now -= timedelta(hours=1)
    partition = partition_of_player(player)
    await hand_over(house, {partition: 1}, to="us")
    us.receive()
    [released] = await us.log.released("us")
    adopted = Adopted(((partition, partition, 2),), released.of, released.cut)
    await us.log.append([ownership_event(us.log, adopted)])
    await us.decider.decide(house.plan(f"/v1/players/{player}/deposits", deposit_of(1)))
    assert us.log.entries[-1].recorded < latest
    stream = limits.stream(PlayerId(player)).name
    loaded = await us.decider._fold({stream: LIMITS})
    assert us.decider._states[stream].at == loaded[stream].at == instant(latest)


async def two_partitions(house: House) -> tuple[str, str]:
    """Players of two different ones, who have paid."""
    one = other = await house.player()
    while partition_of_player(other) == partition_of_player(one):
        other = await house.player()
    await house.deposit(one, 1)
    await house.deposit(other, 1)
    return one, other


def partition_of_player(player: str) -> int:
    partition = players.stream(PlayerId(player)).partition
    assert partition is not None
    return partition
