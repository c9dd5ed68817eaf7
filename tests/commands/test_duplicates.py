"""Two accounts of one person name each other, whichever process registers them, and in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from commands.alike import Alike
from domain.kernel import PlayerId
from domain.players import PLAYERS, DuplicatesFound, Player, Status
from eventstore.log import Command
from eventstore.writer import Unavailable, Writer
from projections import known
from tests.commands.house import CODEC, House, Process, made

ANNA = {"country": "AT", "currency": "EUR", "email": "anna@example.com", "birth_date": "1990-12-10"}
OTHER = {**ANNA, "email": "other@example.com"}


def player(house: House, id_: str) -> Player:
    """As the log has it."""
    state = PLAYERS.initial
    for entry in house.log.entries:
        read = CODEC.decode(entry)
        if read.body.stream == id_.replace("_", "-"):
            state = PLAYERS.evolve(state, read.event, read.at)
    return state


def named_on_the_card(house: House, id_: str) -> tuple[PlayerId, ...]:
    learnt = known.NOTHING
    for entry in house.log.entries:
        read = CODEC.decode(entry)
        if read.body.stream == id_.replace("_", "-"):
            learnt = known.evolve(learnt, read.event, read.body.id)
    return learnt.duplicates


def name_each_other(house: House, one: str, other: str) -> bool:
    return named_on_the_card(house, one) == (other,) and named_on_the_card(house, other) == (one,)


class Held:
    """Holds a process's appends back until it is let go: what it has decided by then, it has decided."""

    def __init__(self, process: Process) -> None:
        self._writer: Writer = process.decider._writer
        self.came, self.go = asyncio.Event(), asyncio.Event()
        process.decider._writer = self  # type: ignore[assignment]

    async def append(self, commands: Sequence[Command]) -> list[Any]:
        self.came.set()
        await self.go.wait()
        return await self._writer.append(commands)


async def both_decide_then(
    house: House, let_go: Callable[[list[Held], list[asyncio.Task[Any]]], Awaitable[None]]
) -> list[str]:
    """Two processes register one person; each has decided before the other's entry is in the log."""
    processes = [house.another_process() for _ in range(2)]
    held = [Held(process) for process in processes]
    tasks = [asyncio.create_task(process.post("/v1/players", ANNA)) for process in processes]
    for each in held:
        await each.came.wait()
    await let_go(held, tasks)
    return [made(await task) for task in tasks]


async def one_after_the_other(held: list[Held], tasks: list[asyncio.Task[Any]]) -> None:
    for each, task in zip(held, tasks, strict=True):
        each.go.set()
        await task


async def the_other_way_round(held: list[Held], tasks: list[asyncio.Task[Any]]) -> None:
    await one_after_the_other(held[::-1], tasks[::-1])


async def at_once(held: list[Held], _tasks: list[asyncio.Task[Any]]) -> None:
    for each in held:
        each.go.set()


@pytest.mark.parametrize("let_go", [one_after_the_other, the_other_way_round, at_once])
async def test_two_processes_that_register_one_person_at_once_find_each_other(house: House, let_go: Any) -> None:
    one, other = await both_decide_then(house, let_go)
    assert name_each_other(house, one, other)
    first, second = sorted([player(house, one), player(house, other)], key=lambda each: each.registered_at)
    assert first.status is Status.ACTIVE
    assert (second.status, second.awaiting) == (Status.PENDING, ("duplicates",))


async def test_nobody_would_be_found_by_looking_beforehand_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: nobody looks again."""

    async def nobody(_alike: Alike, _ended: object) -> list[Any]:
        return []

    monkeypatch.setattr(Alike, "_introductions", nobody)
    one, other = await both_decide_then(house, at_once)
    assert not name_each_other(house, one, other)


async def test_the_account_that_was_there_first_names_the_later_one_and_goes_on(house: House) -> None:
    first = made(await house.process.post("/v1/players", ANNA))
    second = made(await house.process.post("/v1/players", ANNA))
    assert name_each_other(house, first, second)
    assert (player(house, first).status, player(house, second).status) == (Status.ACTIVE, Status.PENDING)
    assert sum(isinstance(event, DuplicatesFound) for event in house.log.events("player")) == 2


async def test_a_process_that_was_killed_before_it_looked_again_looks_when_it_is_asked_again(house: House) -> None:
    first = made(await house.process.post("/v1/players", ANNA))
    dying = house.another_process()
    held = Held(dying)
    lost = asyncio.create_task(dying.post("/v1/players", {**ANNA, "email": "anna@example.org"}, key="k"))
    await held.came.wait()
    await house.process.post(f"/v1/players/{first}/profile", {"email": "anna@example.org"})
    dying.decider._alike._vault = Away()  # type: ignore[assignment]
    held.go.set()
    with pytest.raises(Unavailable):
        await lost
    again = await house.another_process().post("/v1/players", {**ANNA, "email": "anna@example.org"}, key="k")
    assert again.repeated
    assert name_each_other(house, first, made(again))


class Away:
    """A vault that cannot be reached."""

    async def find_registered(self, *_words: object) -> Any:
        raise Unavailable("the vault cannot be reached")


async def test_two_players_who_become_alike_name_each_other_and_go_on(house: House) -> None:
    one, other = [made(await house.process.post("/v1/players", each)) for each in (ANNA, OTHER)]
    changes = [house.another_process().post(f"/v1/players/{each}/profile", {"phone": "+43 1"}) for each in (one, other)]
    await asyncio.gather(*changes)
    assert name_each_other(house, one, other)
    assert [player(house, each).status for each in (one, other)] == [Status.ACTIVE, Status.ACTIVE]


async def test_who_was_looked_at_by_a_person_is_not_held_again(house: House) -> None:
    await house.process.post("/v1/players", ANNA)
    second = made(await house.process.post("/v1/players", ANNA, key="k"))
    await house.process.post(f"/v1/players/{second}/activate")
    before = len(house.log.entries)
    assert (await house.process.post("/v1/players", ANNA, key="k")).repeated
    assert len(house.log.entries) == before
    assert player(house, second).status is Status.ACTIVE


async def test_a_stranger_is_introduced_to_nobody(house: House) -> None:
    await house.process.post("/v1/players", ANNA)
    await house.process.post("/v1/players", OTHER)
    assert not any(isinstance(event, DuplicatesFound) for event in house.log.events("player"))


async def test_a_registration_in_a_batch_is_answered_once_its_double_was_told(house: House) -> None:
    first = made(await house.process.post("/v1/players", ANNA))
    registered, refused = await house.process.post_batch(
        ("1", "/v1/players", ANNA), ("2", f"/v1/players/{first}/block", {"reason": ""})
    )
    assert isinstance(refused, Exception)
    assert name_each_other(house, first, made(registered))  # type: ignore[arg-type]


async def test_no_account_names_more_than_twenty_others(house: House) -> None:
    ids = [made(await house.process.post("/v1/players", ANNA)) for _ in range(23)]
    assert {len(named_on_the_card(house, each)) for each in ids} == {20}
