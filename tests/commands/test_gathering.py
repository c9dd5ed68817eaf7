from __future__ import annotations

import asyncio

import msgspec
import pytest

from commands.gathering import Gathering, Results
from commands.plan import Receipt
from tests.commands.house import House, deposit_of


async def test_what_is_asked_at_one_moment_is_appended_together_in_two_halves(house: House) -> None:
    people = [await house.player() for _ in range(8)]
    house.log.appended.clear()
    await asyncio.gather(*(house.deposit(player, 1) for player in people))
    assert [len(commands) for commands in house.log.appended] == [4, 4]


async def test_a_defect_is_its_own_callers_and_nobody_elses(house: House) -> None:
    player, other = await house.player(), await house.player()
    good = house.plan(f"/v1/players/{player}/deposits", deposit_of(1))
    bad = house.plan(f"/v1/players/{other}/deposits", deposit_of(1))
    first, defect, third = await asyncio.gather(
        house.process.decider.decide(good),
        house.process.decider.decide(msgspec.structs.replace(bad, decision=lambda _at, **_: {}["no such thing"])),
        house.process.post(f"/v1/players/{other}/deposits", deposit_of(1)),
        return_exceptions=True,
    )
    assert isinstance(first, Receipt)
    assert isinstance(defect, KeyError)
    assert isinstance(third, Receipt)


async def test_whoever_has_a_result_does_not_wait_for_the_others() -> None:
    gate = asyncio.Event()

    async def work(questions: list[int], results: Results[int]) -> None:
        results[0] = questions[0] * 10
        await gate.wait()
        raise LookupError("no more")

    gathering = Gathering(work)
    patient = [gathering.ask(number) for number in (1, 2, 3, 4)]
    assert (await patient[0], await patient[2]) == (10, 30), "the first of each half"
    assert not patient[1].done()
    gate.set()
    for task in (patient[1], patient[3]):
        with pytest.raises(LookupError):
            await task


async def test_whoever_gives_up_disturbs_nobody() -> None:
    async def work(questions: list[int], results: Results[int]) -> None:
        await asyncio.sleep(0)
        for place, question in enumerate(questions):
            results[place] = question

    gathering = Gathering(work)
    first, second = (gathering.ask(number) for number in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    with pytest.raises(asyncio.CancelledError):
        await first
