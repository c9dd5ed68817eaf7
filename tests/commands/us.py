"""Two regions in memory: the other one beside the House, copies that come when they are let, and partitions that go from one to the other."""

from __future__ import annotations

import asyncio
from typing import Any

from commands import safeguards
from commands.decider import Decider
from commands.plan import Plan, Receipt
from domain.kernel import PlayerId
from domain.logs import LogEvent, Opened, Released, spans
from domain.protection import Stop
from eventstore.log import Appended, Command, Log
from eventstore.memory import MemoryLog
from eventstore.writer import Writer
from tests import ledger
from tests.commands.house import CODEC, NOON, House
from tests.ledger import EU, US, Clock


class Us:
    """The other region: its log, and copies of each other's, which come when they are let."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.log = MemoryLog(US, clock=Clock(int(NOON.timestamp()) * 1_000_000), partitions=range(128, 256))
        self.log.ownership.fold("eu", 0, "", Opened(EU, 1, ((0, 127),)))
        house.log.ownership.fold("us", 0, "", Opened(US, 1, ((128, 255),)))
        self.log.copy([])
        self.writer = Writer(self._connect)
        self.decider = Decider("us", self.writer, self.log, house.vault, CODEC, house.times())  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.writer.run())
        self._sent, self._received = 0, 0

    async def _connect(self) -> Log:
        return self.log

    def receive(self) -> None:
        """What EU has recorded since."""
        entries = self.house.log.entries
        self.log._copies.setdefault("eu", [])
        self.log.copy(entries[self._received :])
        self._received = len(entries)

    def send(self) -> None:
        """What US has recorded since."""
        self.house.log._copies.setdefault("us", [])
        self.house.log.copy(self.log.entries[self._sent :])
        self._sent = len(self.log.entries)

    async def record(self, plan: Plan) -> Receipt:
        logs = await self.decider.logs()
        player = safeguards.player_of(plan)
        assert player is not None
        held = await self.decider.look(safeguards.seen_by(plan, logs))
        return await self.decider.decide(safeguards.record(plan, player, "us", logs, held))

    async def refusal(self, action: Stop, player: str) -> Any:
        held = await safeguards.look_here([PlayerId(player)], await self.decider.logs(), self.decider.look)
        return held[PlayerId(player)].refusal(action, self.house.now) if held else None

    def recorded(self) -> list[str]:
        return [CODEC.decode(entry).event.tag for entry in self.log.entries]


async def player_of_both(house: House, us: Us, **more: object) -> str:
    player = await house.player(**more)
    await house.process.post(f"/v1/players/{player}/logins", {"session": "at home"})
    us.receive()
    return player


async def hand_over(house: House, epochs: dict[int, int], to: str) -> None:
    outcome = await house.log.append([ownership_event(house.log, Released(spans(epochs), to))])
    assert isinstance(outcome[0], Appended)


def ownership_event(log: MemoryLog, event: LogEvent) -> Command:
    """What a log says of ownership next."""
    id_, name = ledger.new_id(), f"region-{log.name}-log"
    version = sum(entry.body.startswith(f'{{"stream":"{name}"'.encode()) for entry in log.entries) + 1
    return Command(id_, [ledger.body(name, version, id_, data=event, type=event.tag)])
