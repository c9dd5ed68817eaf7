"""Streams that a command knows only from other states, while those states change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import pytest

from access.policy import service
from commands import transactions
from commands.edge import Edge, Nothing
from commands.identity import command_id
from commands.plan import Context, Receipt
from domain.kernel import Money
from domain.transactions import Status
from eventstore.log import Resumed
from tests.commands.house import House, Process, SpiedLog, deposit_of

GiveUp = Callable[[Process, str], Awaitable[Receipt]]


async def fail(process: Process, deposit: str) -> Receipt:
    return await process.post(f"/v1/transactions/{deposit}/fail", {"reason": "declined"})


async def expire(process: Process, deposit: str) -> Receipt:
    house = process.house
    reaction = service("reaction:timers", "reaction")
    context = Context(reaction, house.now + timedelta(days=9), command_id(reaction.actor, deposit), None)
    edge = Edge(context, house.vault, [], "eu")  # type: ignore[arg-type]
    return await process.decider.decide(transactions.expire(deposit, Nothing(), edge))


@pytest.mark.parametrize("give_up", [fail, expire])
async def test_a_settlement_consumes_again_what_another_process_has_released(house: House, give_up: GiveUp) -> None:
    deposit = await house.deposit(await house.player(), 50)
    await give_up(house.another_process(), deposit)
    settled = await house.process.post(f"/v1/transactions/{deposit}/settle")
    assert settled.answer == transactions.Payment(deposit, Status.SETTLED, balance=Money(50, "EUR"))
    headroom = [event.tag for event in house.log.events("limits")]
    assert headroom == ["limits.headroom_consumed", "limits.headroom_released", "limits.headroom_consumed"]


class SlowLog(SpiedLog):
    """The next time that it loads, something else happens first."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def resume(self, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        return await super().resume(schemas)


async def test_what_changes_while_a_command_is_followed_is_decided_again(house: House) -> None:
    house.log = house.vault.log = log = SlowLog()
    house.process = house.another_process()
    first, second = await house.player(), await house.player()
    deposit = await house.deposit(first, 50)
    process = house.another_process()
    await process.post(f"/v1/transactions/{deposit}/authorise", {"reference": "pay_1"}, actor="payments:acme")
    log.meanwhile = lambda: fail(process, deposit)
    plans = [
        house.plan(f"/v1/transactions/{deposit}/settle"),
        house.plan(f"/v1/players/{second}/deposits", deposit_of(10)),  # whose streams have to be loaded
    ]
    receipts = await process.decider.run(plans)
    assert [getattr(each, "answer", each).status for each in receipts] == [Status.SETTLED, Status.REQUESTED]
