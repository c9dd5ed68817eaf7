"""A command that names what it has seen (If-Match) changes that, or nothing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from commands.plan import PreconditionFailed, Receipt
from domain.errors import Forbidden, NotFound
from tests.commands.house import House, deposit_of, euros

BLOCK = {"reason": "fraud"}


async def outcomes(*posts: object) -> list[object]:
    return sorted(
        [type(each).__name__ for each in await asyncio.gather(*posts, return_exceptions=True)]  # type: ignore[call-overload]
    )


async def test_a_command_on_what_was_seen_is_done(house: House) -> None:
    player = await house.player()
    assert await house.process.post(f"/v1/players/{player}/block", BLOCK, seen="1.0.0.0")


@pytest.mark.parametrize("change", ["limits/deposit", "deposits", "block", "history"])
async def test_whatever_changes_a_card_makes_it_another(house: House, change: str) -> None:
    player = await house.player()
    bodies = {
        "limits/deposit": {"limit": euros(900)},
        "deposits": deposit_of(5),
        "block": BLOCK,
        "history": deposit_of(5, occurred="2020-01-01"),
    }
    await house.another_process().post(f"/v1/players/{player}/{change.replace('history', 'deposits')}", bodies[change])
    before = len(house.log.entries)
    with pytest.raises(PreconditionFailed):
        await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(10)}, seen="1.0.0.0")
    assert len(house.log.entries) == before


@pytest.mark.parametrize("tag", ["", "1", "1.0", "1.0.0", "1.0.0.0.0", "01.0.0.0", "0.0.0.0", "2.0.0.0"])
async def test_any_other_tag_is_not_what_is_there(house: House, tag: str) -> None:
    player = await house.player()
    with pytest.raises(PreconditionFailed):
        await house.process.post(f"/v1/players/{player}/block", BLOCK, seen=tag)


async def test_of_two_processes_that_saw_the_same_one_wins(house: House) -> None:
    player = await house.player()
    others = [house.process, house.another_process(), house.another_process()]
    found = await outcomes(
        others[0].post(f"/v1/players/{player}/block", BLOCK, seen="1.0.0.0"),
        others[1].post(f"/v1/players/{player}/limits/deposit", {"limit": euros(10)}, seen="1.0.0.0"),
        others[2].post(f"/v1/players/{player}/deposits", deposit_of(5, occurred="2020-01-01"), seen="1.0.0.0"),
    )
    assert found == ["PreconditionFailed", "PreconditionFailed", "Receipt"]


async def test_of_two_at_the_same_moment_in_one_process_one_wins(house: House) -> None:
    player = await house.player()
    posts = [house.process.post(f"/v1/players/{player}/deposits", deposit_of(5), seen="1.0.0.0") for _ in range(20)]
    assert (await outcomes(*posts)).count("Receipt") == 1
    assert len(house.log.events("transaction")) == 1


async def test_a_stale_cache_neither_refuses_nor_lets_through(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(900)}, seen="1.0.0.0")
    await house.another_process().post(f"/v1/players/{player}/limits/deposit", {"limit": euros(800)})
    with pytest.raises(PreconditionFailed):
        await house.process.post(f"/v1/players/{player}/block", BLOCK, seen="1.0.1")
    await house.another_process().post(f"/v1/players/{player}/limits/deposit", {"limit": euros(700)})
    assert await house.process.post(f"/v1/players/{player}/block", BLOCK, seen="1.0.3.0")


async def test_a_repeat_gets_the_first_answer_whatever_is_there_now(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    first = await house.process.post(path, deposit_of(5), key="k", seen="1.0.0.0")
    assert await house.process.post(path, deposit_of(5), key="k", seen="1.0.0.0") == msgspec.structs.replace(
        first, repeated=True
    )
    assert await house.another_process().post(path, deposit_of(5), key="k", seen="x") == msgspec.structs.replace(
        first, repeated=True
    )


async def test_a_refused_one_takes_no_key(house: House) -> None:
    path = f"/v1/players/{await house.player()}/deposits"
    with pytest.raises(PreconditionFailed):
        await house.process.post(path, deposit_of(5), key="k", seen="9.9.9")
    assert isinstance(await house.process.post(path, deposit_of(5), key="k", seen="1.0.0.0"), Receipt)


async def test_who_is_not_there_or_may_not_hears_that_first(house: House) -> None:
    nobody = "player_01ka7g0000e00800000000001a"
    with pytest.raises(NotFound):
        await house.process.post(f"/v1/players/{nobody}/block", BLOCK, seen="1.0.0.0")
    with pytest.raises(Forbidden):
        await house.process.post(f"/v1/players/{await house.player()}/block", BLOCK, seen="x", roles=["viewer"])


async def test_a_transaction_is_seen_alone(house: House) -> None:
    player = await house.player()
    first, second = await house.deposit(player, 5), await house.deposit(player, 6)
    await house.process.post(f"/v1/transactions/{first}/settle", seen="1")
    await house.process.post(f"/v1/transactions/{second}/settle", seen="1")
    with pytest.raises(PreconditionFailed):
        await house.process.post(f"/v1/transactions/{second}/settle", seen="1")
