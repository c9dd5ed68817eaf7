"""The same person's other accounts are shut out too, and a silent register is asked again: on a real log, vault and register."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from commands.asking import Asking
from commands.plan import Plan, Receipt
from domain import players, protection
from domain.errors import Rejected
from domain.kernel import PlayerId
from domain.protection import PlayerExcluded, Protection, Said, Source, Stop
from eventstore.vault import RegionKey, Vault
from policies.protection import Moment, Silence
from reactions.protection import Protecting
from registers.http import HttpRegister
from tests.commands.house import CODEC
from tests.reactions.region import Region
from tests.registers.register import Register, open_register

ADA = {"name": "Ada Lovelace", "birth_date": "1990-12-10"}
WHY = {"kind": "correction", "reason": "her sister"}


class Killed(BaseException):
    """The reactor dies here."""


@pytest.fixture
async def region(region: Region) -> Region:
    """With the vault as it is: matched accounts are found by its blind index."""
    await region.close()
    region.vault = Vault(region.pool, RegionKey(os.urandom(32)))  # type: ignore[assignment]
    region.process = region.another_process()
    return region


@pytest.fixture
async def register() -> AsyncIterator[Register]:
    with open_register() as opened:
        yield opened


def protecting(region: Region, asking: Asking | None = None, decide: Any = None) -> Protecting:
    vault: Any = region.vault
    nobody = Asking({}, region.log, CODEC, vault, configured=False)  # type: ignore[arg-type]
    return Protecting(
        "eu", region.pool, region.log, CODEC, vault, decide or region.process.decider.decide, region.edge,  # type: ignore[arg-type]
        asking or nobody, clock=lambda: region.now,
    )  # fmt: skip


async def react(region: Region, asking: Asking | None = None) -> None:
    await region.project()
    await protecting(region, asking).step()
    await region.project()


async def account(region: Region, **known: object) -> PlayerId:
    return PlayerId(await region.player(**known))


async def exclude(region: Region, player: str, **body: object) -> Receipt:
    return await region.process.post(f"/v1/players/{player}/exclude", {"term": "6_months", **body})


def of(region: Region, player: PlayerId) -> Protection:
    found: Protection = region.state(protection.stream(player))
    return found


def refusal(region: Region, player: PlayerId) -> Rejected | None:
    return of(region, player).refusal(Stop.BET, region.now)


def kinds(region: Region) -> set[str]:
    return {kind for kind, _ in region.due() if kind.startswith("protection_")}


# Other accounts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"email": "ada@example.org"}, {"email": " Ada@Example.ORG", "brand": "second"}),
        ({"phone": "+43 1 99"}, {"phone": "+43 1 99", "brand": "second", "country": "DE"}),
        (ADA, {**ADA, "name": "ADA  lovelace", "brand": "third"}),
    ],
    ids=["e-mail", "phone", "person"],
)
async def test_the_same_persons_other_account_is_excluded_whatever_its_brand(
    region: Region, one: dict[str, object], other: dict[str, object]
) -> None:
    first, second = await account(region, **one), await account(region, **other)
    stranger = await account(region, email="bob@example.org", phone="1", name="Ada Lovelace", birth_date="1991-12-10")
    await exclude(region, first)
    assert refusal(region, second) is None
    await react(region)
    assert isinstance(refusal(region, second), PlayerExcluded)
    assert refusal(region, stranger) is None
    (matched,) = of(region, second).exclusions
    (own,) = of(region, first).exclusions
    assert (matched.source, matched.of, matched.until) == (Source.MATCHED, first, own.until)
    assert "protection_matches" not in kinds(region)
    assert region.tags("protection")[-1] == "protection.matches_shut_out"


async def test_an_address_of_long_ago_still_finds_the_other_account(region: Region) -> None:
    first = await account(region, email="old@example.org")
    await region.process.post(f"/v1/players/{first}/profile", {"email": "new@example.org"})
    second = await account(region, email="old@example.org", brand="second")
    await exclude(region, first)
    await react(region)
    assert isinstance(refusal(region, second), PlayerExcluded)


async def test_a_time_out_reaches_the_other_account_too(region: Region) -> None:
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await region.process.post(f"/v1/players/{first}/panic")
    await react(region)
    assert refusal(region, second).facts == refusal(region, first).facts  # type: ignore[union-attr]


async def test_who_registers_again_while_excluded_is_excluded_there_too(region: Region) -> None:
    first = await account(region, email="a@example.org")
    await exclude(region, first)
    await react(region)
    second = await account(region, email="a@example.org", brand="second")
    await react(region)
    assert isinstance(refusal(region, second), PlayerExcluded)
    assert kinds(region) == set()


async def test_what_was_taken_over_goes_no_further(region: Region) -> None:
    first = await account(region, email="a@example.org")
    second = await account(region, email="a@example.org", phone="1")
    third = await account(region, phone="1")
    await exclude(region, first)
    for _ in range(3):
        await react(region)
    assert isinstance(refusal(region, second), PlayerExcluded)
    assert refusal(region, third) is None
    assert kinds(region) == set()


async def test_a_match_that_a_person_has_dismissed_stays_dismissed(region: Region) -> None:
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await exclude(region, first)
    await react(region)
    await region.process.post(f"/v1/players/{second}/exclusion/dismiss-match", {"intervention": WHY})
    for _ in range(2):
        await react(region)
    assert refusal(region, second) is None
    assert isinstance(refusal(region, first), PlayerExcluded)


async def test_one_that_comes_while_the_first_is_dealt_with_is_dealt_with_as_well(region: Region) -> None:
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await exclude(region, first)

    async def decide(plan: Plan) -> Receipt:
        receipt = await region.process.decider.decide(plan)
        if any(name.startswith("protection-" + second.partition("_")[2]) for name in written(plan)):
            await exclude(region, first, term="1_year")
        return receipt

    await region.project()
    await protecting(region, decide=decide).step()
    assert "protection.matches_shut_out" not in region.tags("protection")
    await react(region)
    (own,), (matched,) = of(region, first).exclusions, of(region, second).exclusions
    assert (matched.term, matched.until) == ("1_year", own.until)
    assert kinds(region) == set()


def written(plan: Plan) -> list[str]:
    return [stream.name for stream in plan.writes.values()]


@pytest.mark.parametrize("survives", range(4))
async def test_killed_between_two_commands_it_goes_on_and_each_has_one_effect(region: Region, survives: int) -> None:
    first = await account(region, email="a@example.org")
    others = [await account(region, email="a@example.org", brand=brand) for brand in ("two", "three", "four")]
    await react(region)
    await exclude(region, first)
    await region.project()
    done = 0

    async def decide(plan: Plan) -> Receipt:
        nonlocal done
        if done == survives:
            raise Killed
        done += 1
        return await region.process.decider.decide(plan)

    with suppress(Killed):
        await protecting(region, decide=decide).step()
    assert sum(isinstance(refusal(region, other), PlayerExcluded) for other in others) == min(survives, 3)
    region.process = region.another_process()
    await react(region)
    await react(region)
    assert all(isinstance(refusal(region, other), PlayerExcluded) for other in others)
    assert region.tags("protection").count("protection.excluded") == 1 + len(others)
    assert region.tags("protection").count("protection.matches_shut_out") == 1


async def test_the_due_time_of_an_exclusion_ends_it_on_each_account(region: Region) -> None:
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    receipt = await exclude(region, first)
    await react(region)
    assert {kind for kind, _ in region.due()} >= {"exclusion_player", "exclusion_matched"}
    region.now = receipt.answer.until + timedelta(seconds=1)  # type: ignore[attr-defined]
    await region.timers().step()
    await region.project()
    assert (of(region, first).exclusions, of(region, second).exclusions) == ((), ())
    assert not {kind for kind, _ in region.due()} & {"exclusion_player", "exclusion_matched"}


# Registers


@pytest.fixture
async def asking(region: Region, register: Register) -> AsyncIterator[Asking]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        adapter = HttpRegister(register.known, client, pause_s=0.001)
        yield Asking({"CRUKS": adapter}, region.log, CODEC, region.vault, configured=True)  # type: ignore[arg-type]


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
    register.down, register.excluded = False, {("Ada Lovelace", "1990-12-10"): "2027-05-01T00:00:00Z"}
    await region.wait(minutes=6)
    await react(region, asking)
    await react(region, asking)
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
