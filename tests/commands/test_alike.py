"""Who is like whom, and what is kept of commands that came to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from commands.alike import Alike
from commands.plan import Receipt
from domain.eligibility import Underage
from domain.errors import Forbidden, KeyReused
from eventstore.log import Command, Outcome
from eventstore.writer import Unavailable
from tests.commands.house import House, made

ANNA = {"country": "AT", "currency": "EUR", "email": "anna@example.com", "birth_date": "1990-12-10"}
CHILD = {**ANNA, "birth_date": "2015-01-01"}


async def waits(house: House, **more: object) -> bool:
    return status(await house.process.post("/v1/players", {**ANNA, **more})) == "pending"


def status(receipt: Receipt | Exception) -> str:
    assert isinstance(receipt, Receipt)
    return str(receipt.answer.status)  # type: ignore[attr-defined]


class Lost:
    """A writer that reaches no log."""

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        raise Unavailable("the log cannot be reached")


# What is kept


async def test_who_may_not_leaves_no_words_about_another_player(house: House) -> None:
    ben = await house.player()
    with pytest.raises(Forbidden):
        await house.process.post(f"/v1/players/{ben}/profile", {"email": "anna@example.com"}, roles=["viewer"])
    with pytest.raises(Forbidden):
        await house.process.post("/v1/players", ANNA, roles=["viewer"])
    assert await house.vault.find("email", "anna@example.com") == []
    assert len(house.vault.kept) == 1, "that of the player who is registered"
    assert not await waits(house)


async def test_a_registration_that_is_refused_leaves_neither_key_nor_words(house: House) -> None:
    with pytest.raises(Underage):
        await house.process.post("/v1/players", CHILD)
    assert house.vault.kept == {}
    assert await house.vault.find("email", "anna@example.com") == []


async def test_one_who_is_refused_beside_others_is_heard_by_none_of_them(house: House) -> None:
    plans = [house.plan("/v1/players", body) for body in (CHILD, ANNA)]
    refused, registered = await house.process.decider.run(plans)
    assert isinstance(refused, Underage)
    assert status(registered) == "active"
    assert len(house.vault.kept) == 1


async def test_a_registration_that_was_lost_and_is_sent_again_is_no_duplicate_of_itself(house: House) -> None:
    process = house.another_process()
    process.decider._writer = Lost()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await process.post("/v1/players", ANNA, key="k")
    assert await house.vault.find("email", "anna@example.com"), "its words are there"
    assert status(await house.process.post("/v1/players", ANNA, key="k")) == "active"


async def test_keys_are_kept_once_although_a_race_was_lost(house: House) -> None:
    """Two tasks change one player; the one that loses decides again."""
    player = await house.player()
    other = house.another_process()
    await other.post(f"/v1/players/{player}/tags", {"tag": "vip"})
    house.vault.before_keeping.clear()
    await house.process.post(f"/v1/players/{player}/profile", {"email": "anna@example.com"})
    assert len(house.vault.before_keeping) == 1
    assert await house.vault.find("email", "anna@example.com") == [player.removeprefix("player_")]


# Who is heard


async def test_of_two_alike_in_one_batch_at_least_one_waits(house: House) -> None:
    written_otherwise = {**ANNA, "email": " ANNA@example.com"}
    plans = [house.plan("/v1/players", body) for body in (ANNA, written_otherwise)]
    assert "pending" in map(status, await house.process.decider.run(plans))


async def test_one_who_registers_while_another_is_under_way_hears_of_them(house: House) -> None:
    """The first has decided, and its entry is not in the log yet."""
    writer, came, go = house.process.decider._writer, asyncio.Semaphore(0), asyncio.Event()

    class Slow:
        async def append(self, commands: Sequence[Command]) -> Any:
            came.release()
            await go.wait()
            return await writer.append(commands)

    house.process.decider._writer = Slow()  # type: ignore[assignment]
    first = asyncio.create_task(house.process.decider.run([house.plan("/v1/players", ANNA)]))
    await came.acquire()
    second = asyncio.create_task(house.process.decider.run([house.plan("/v1/players", ANNA)]))
    await came.acquire()
    go.set()
    assert [status(each) for each in (*await first, *await second)] == ["active", "pending"]


async def test_a_registration_that_is_sent_twice_at_once_is_like_nobody(house: House) -> None:
    plans = [house.plan("/v1/players", ANNA, key="k") for _ in range(2)]
    receipts = await asyncio.gather(*(house.process.decider.run([plan]) for plan in plans))
    assert {status(each) for [each] in receipts} == {"active"}


async def test_nothing_is_under_way_once_everybody_has_an_answer(house: House) -> None:
    assert not await waits(house)
    with pytest.raises(Underage):
        await house.process.post("/v1/players", CHILD)
    house.process.decider._writer = Lost()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await house.process.post("/v1/players", ANNA)
    assert house.process.decider._alike._under_way == {}


async def test_a_registration_asks_the_servers_four_times_beside_its_append(house: House) -> None:
    asked: list[str] = []
    decider = house.process.decider

    class Counting:
        def __init__(self, of: Any) -> None:
            self.of = of

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(self.of, name)

    await house.player()  # and now the epochs are known
    vault: Any = Counting(house.vault)
    decider._streams, decider._vault, decider._alike = Counting(house.log), vault, Alike(vault)  # type: ignore[assignment]
    player = made(await house.process.post("/v1/players", ANNA))
    assert asked == ["find", "find_registered", "keep", "find_registered"]
    asked.clear()
    await house.process.post(f"/v1/players/{player}/tags", {"tag": "vip"})
    assert asked == []


# Rehearsals


async def test_a_rehearsal_of_what_was_done_comes_to_the_first_answer(house: House) -> None:
    first = await house.process.post("/v1/players", ANNA, key="k")
    [again] = await house.process.decider.rehearse([house.plan("/v1/players", ANNA, key="k")])
    assert again == msgspec.structs.replace(first, repeated=True)
    other, new = await house.process.decider.rehearse(
        [house.plan("/v1/players", {**ANNA, "country": "DE"}, key="k"), house.plan("/v1/players", ANNA)]
    )
    assert isinstance(other, KeyReused)
    assert status(new) == "pending", "another command about somebody alike"
    assert len(house.log.entries) == 1
    assert len(house.vault.kept) == 1
