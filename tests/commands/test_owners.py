"""Whose player it is: what a decider knows of it, and what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from commands.plan import WrongRegion
from domain import players
from domain.errors import NotFound
from domain.kernel import PlayerId, suffix, uuid7
from domain.logs import Adopted, LogEvent, Opened, Released, spans
from eventstore.log import Appended, Command
from eventstore.memory import MemoryLog
from tests import ledger
from tests.commands.house import NOON, House

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


async def hand_over(house: House, epochs: dict[int, int], to: str) -> None:
    outcome = await house.log.append([ownership_event(house.log, Released(spans(epochs), to))])
    assert isinstance(outcome[0], Appended)


def ownership_event(log: MemoryLog, event: LogEvent) -> Command:
    """What a log says of ownership next."""
    id_, name = ledger.new_id(), f"region-{log.name}-log"
    version = sum(entry.body.startswith(f'{{"stream":"{name}"'.encode()) for entry in log.entries) + 1
    return Command(id_, [ledger.body(name, version, id_, data=event, type=event.tag)])
