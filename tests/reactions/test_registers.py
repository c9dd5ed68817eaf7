"""A silent register is asked again: on a real log, vault and register."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest

from commands.asking import Asking
from commands.plan import Receipt
from domain import players, protection
from domain.kernel import PlayerId
from domain.protection import PlayerExcluded, RegisterAsked, Said
from policies.protection import Moment, Silence
from reactions.protection import Protecting
from reactions.registers import AT_ONCE, Registers
from registers.breaker import FAILURES_MAX, PAUSE_S, Breaker
from registers.http import HttpRegister
from registers.port import Clear, Person
from tests.commands.house import CODEC
from tests.reactions.people import ADA, account, kinds, of, refusal, with_a_vault
from tests.reactions.region import Region
from tests.registers.register import Register, open_register


@pytest.fixture
async def region(region: Region) -> Region:
    return await with_a_vault(region)


@pytest.fixture
def register() -> Iterator[Register]:
    with open_register() as opened:
        yield opened


def reaction(region: Region, asking: Asking, linger_s: float = 60) -> Registers:
    return Registers(
        "eu", region.pool, region.log, CODEC, region.process.decider.decide, region.edge, asking,
        clock=lambda: region.now, linger_s=linger_s,
    )  # fmt: skip


async def react(region: Region, asking: Asking) -> None:
    await region.project()
    await reaction(region, asking).step()
    await region.project()


@pytest.fixture
async def asking(region: Region, register: Register) -> AsyncIterator[Asking]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        adapter = HttpRegister(register.known, client, pause_s=0.001)
        yield Asking({"CRUKS": adapter}, region.log, CODEC, region.vault, configured=True)  # type: ignore[arg-type]


async def spread(region: Region) -> None:
    vault: Any = region.vault
    decide = region.process.decider.decide
    look = region.process.decider.look
    await Protecting(
        "eu", region.pool, region.log, CODEC, vault, decide, look, region.edge, clock=lambda: region.now
    ).step()
    await region.project()


async def dutch(region: Region) -> PlayerId:
    player = await account(region, country="NL", email="ada@example.org", phone="1", postcode="1012", **ADA)
    await region.process.post(f"/v1/players/{player}/profile", {"phone": "2"})
    return player


async def log_in(region: Region, player: PlayerId, asking: Asking) -> Receipt:
    region.unasked, region.asked = asking.unasked, await asking.of_player(player, Moment.LOGIN)
    return await region.process.post(f"/v1/players/{player}/logins", {"session": f"at {region.now}"})


async def test_a_register_hears_who_the_player_is_now_and_nothing_else(
    region: Region, register: Register, asking: Asking
) -> None:
    player = await dutch(region)
    await log_in(region, player, asking)
    (asked,) = register.asked
    assert {**asked, "question": ""} == {
        "question": "", "register": "CRUKS", "name": "Ada Lovelace", "birth_date": "1990-12-10",
        "email": "ada@example.org", "phone": "2", "postcode": "1012",
    }  # fmt: skip
    assert of(region, player).registers["CRUKS"].answer is Said.CLEAR


async def test_a_register_that_was_down_is_asked_again_and_lets_the_player_in(
    region: Region, register: Register, asking: Asking
) -> None:
    player = await dutch(region)
    register.down = True
    with pytest.raises(protection.RegisterUnanswered):
        await log_in(region, player, asking)
    await react(region, asking)
    assert of(region, player).registers["CRUKS"].silence is Silence.DOWN
    assert kinds(region) == {"protection_register"}
    await region.wait(minutes=6)
    await react(region, asking)  # in vain: it is down still
    assert refusal(region, player).code == "register_unanswered"  # type: ignore[union-attr]
    register.down = False
    await region.wait(minutes=11)
    await react(region, asking)
    assert refusal(region, player) is None
    assert kinds(region) == set()


async def test_a_register_that_comes_back_and_names_the_player_shuts_them_out_with_their_other_accounts(
    region: Region, register: Register, asking: Asking
) -> None:
    player = await dutch(region)
    other = await account(region, country="AT", email="ada@example.org")
    register.down = True
    with pytest.raises(protection.RegisterUnanswered):
        await log_in(region, player, asking)
    register.down, register.excluded = False, {("Ada Lovelace", "1990-12-10"): None}
    await region.wait(minutes=6)
    await react(region, asking)
    await spread(region)
    assert isinstance(refusal(region, player), PlayerExcluded)
    assert isinstance(refusal(region, other), PlayerExcluded)


async def test_who_cannot_be_read_here_is_not_asked_about_and_waits(
    region: Region, register: Register, asking: Asking
) -> None:
    player = await dutch(region)
    region.ledger.sql("DELETE FROM vault.data_key")
    region.vault._opened.clear()  # type: ignore[attr-defined]
    with pytest.raises(protection.RegisterUnanswered):
        await log_in(region, player, asking)
    assert of(region, player).registers["CRUKS"].silence is Silence.NOT_ASKED
    assert register.asked == []


async def test_a_jurisdiction_without_an_adapter_or_without_a_row_is_never_silent(
    region: Region, asking: Asking
) -> None:
    german, austrian = await account(region, country="DE"), await account(region, country="AT")
    with pytest.raises(protection.RegisterUnanswered):
        await log_in(region, german, asking)
    await log_in(region, austrian, asking)
    assert of(region, german).registers["OASIS"].silence is Silence.NO_ADAPTER
    assert of(region, austrian).registers[""].silence is Silence.NOT_RESEARCHED


async def test_where_no_row_names_a_register_the_house_may_know_of_one(region: Region, register: Register) -> None:
    player = await account(region, country="AT", **ADA)
    register.excluded["Ada Lovelace", "1990-12-10"] = None
    async with httpx2.AsyncClient(trust_env=False) as client:
        told = {"CRUKS": HttpRegister(register.known, client, pause_s=0.001)}
        vault: Any = region.vault
        asking = Asking(told, region.log, CODEC, vault, configured=True, elsewhere={"AT": "CRUKS"})
        with pytest.raises(PlayerExcluded):
            await log_in(region, player, asking)
    assert isinstance(region.events("player")[0], players.Registered)


# Registers that take their time


class Hanging:
    """A register that answers «clear», once it may. `most`: how many waited for it together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.may_answer = asyncio.Event()
        self.asked = self.waiting = self.most = 0

    async def ask(self, _person: Person) -> Clear:
        self.asked += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.may_answer.wait()
        finally:
            self.waiting -= 1
        return Clear()


def asking_of(region: Region, *registers: Any) -> Asking:
    vault: Any = region.vault
    return Asking({each.name: each for each in registers}, region.log, CODEC, vault, configured=True)  # type: ignore[arg-type]


async def waiting(region: Region, country: str = "NL", **known: object) -> PlayerId:
    """A player for whom a register was not asked when they logged in."""
    player = await account(region, country=country, birth_date="1980-01-01", **known)
    region.unasked, region.asked = Silence.NOT_ASKED, ()
    with pytest.raises(protection.RegisterUnanswered):
        await region.process.post(f"/v1/players/{player}/logins", {"session": "s"})
    return player


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 — of a log, which tells nobody
            await asyncio.sleep(0.01)


async def test_a_register_that_hangs_holds_up_neither_another_one_nor_the_spreading_of_exclusions(
    region: Region,
) -> None:
    hanging, prompt = Hanging("CRUKS"), Hanging("ROFUS")
    prompt.may_answer.set()
    asking = asking_of(region, hanging, prompt)
    dutchman, dane = await waiting(region), await waiting(region, "DK")
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await region.process.post(f"/v1/players/{first}/exclude", {"term": "6_months"})
    await region.wait(minutes=6)
    await region.project()
    asks = reaction(region, asking, linger_s=0)
    await asks.step()
    await until(lambda: hanging.waiting == 1 and prompt.asked == 1)
    await spread(region)
    assert isinstance(refusal(region, second), PlayerExcluded)
    await until(lambda: refusal(region, dane) is None)
    assert refusal(region, dutchman) is not None
    await region.wait(minutes=6)
    await asks.step()
    assert hanging.asked == 1, "it is asked already"
    hanging.may_answer.set()
    await until(lambda: refusal(region, dutchman) is None)
    await asks.close()


async def test_of_one_register_so_much_is_asked_at_once_and_no_more(region: Region) -> None:
    hanging = Hanging("CRUKS")
    players_ = [await waiting(region) for _ in range(AT_ONCE + 4)]
    await region.wait(minutes=6)
    await region.project()
    asks = reaction(region, asking_of(region, hanging), linger_s=0)
    await asks.step()
    await until(lambda: hanging.waiting == AT_ONCE)
    hanging.may_answer.set()
    await until(lambda: all(refusal(region, each) is None for each in players_))
    assert (hanging.most, hanging.asked) == (AT_ONCE, len(players_))
    await asks.close()


async def test_nobody_is_asked_about_who_was_asked_about_since(region: Region) -> None:
    prompt = Hanging("CRUKS")
    prompt.may_answer.set()
    asking = asking_of(region, prompt)
    player = await waiting(region)
    await region.project()  # which does not hear of the next log-in
    await log_in(region, player, asking)
    assert prompt.asked == 1
    await region.wait(minutes=6)
    await reaction(region, asking).step()
    assert prompt.asked == 1


async def test_killed_while_a_register_is_asked_another_process_asks_and_the_answer_stands_once(
    region: Region,
) -> None:
    hanging = Hanging("CRUKS")
    player = await waiting(region)
    await region.wait(minutes=6)
    await region.project()
    killed = reaction(region, asking_of(region, hanging), linger_s=0)
    await killed.step()
    await until(lambda: hanging.waiting == 1)
    await killed.close()
    hanging.may_answer.set()
    region.process = region.another_process()
    await react(region, asking_of(region, hanging))
    await react(region, asking_of(region, hanging))
    assert refusal(region, player) is None
    answers = [each.answer for each in region.events("protection") if isinstance(each, RegisterAsked)]
    assert answers == [Said.UNANSWERED, Said.CLEAR]
    assert kinds(region) == set()


async def test_while_a_register_is_known_not_to_answer_a_log_in_is_refused_at_once_as_if_it_had_been_asked(
    region: Region, register: Register
) -> None:
    now = 0.0
    async with httpx2.AsyncClient(trust_env=False) as client:
        breaker = Breaker(HttpRegister(register.known, client, pause_s=0.001), clock=lambda: now)
        asking = asking_of(region, breaker)
        player = await dutch(region)
        register.down = True
        for _ in range(FAILURES_MAX):
            assert (await asking.of_player(player, Moment.LOGIN))[0].silence is Silence.DOWN
        asked = len(register.asked)
        register.down = False
        with pytest.raises(protection.RegisterUnanswered):
            await log_in(region, player, asking)
        assert len(register.asked) == asked
        assert of(region, player).registers["CRUKS"].silence is Silence.DOWN
        now += PAUSE_S
        await log_in(region, player, asking)
        assert len(register.asked) == asked + 1
