"""The same person's other accounts are shut out too: on a real log and vault."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from commands.plan import Plan, Receipt
from domain import players
from domain.errors import NotFound
from domain.players import DUPLICATES_MAX
from domain.protection import Excluded, PlayerExcluded, PlayerTimedOut, Source
from reactions import protection as reaction
from reactions.protection import Protecting
from tests.commands.house import CODEC
from tests.reactions.people import ADA, WHY, account, erased, exclude, kinds, of, refusal, with_a_vault
from tests.reactions.region import Region


class Killed(BaseException):
    """The reactor dies here."""


@pytest.fixture
async def region(region: Region) -> Region:
    return await with_a_vault(region)


def protecting(region: Region, decide: Any = None) -> Protecting:
    vault: Any = region.vault
    return Protecting(
        region.name, region.pool, region.log, CODEC, vault, decide or region.process.decider.decide,
        region.process.decider.look, region.edge,  # type: ignore[arg-type]
        clock=lambda: region.now,
    )  # fmt: skip


async def react(region: Region) -> None:
    await region.project()
    await protecting(region).step()
    await region.project()


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


async def test_an_exclusion_of_one_who_was_erased_is_done_with_at_once(region: Region) -> None:
    """Who they were cannot be known any more, so there is nobody to be found, and nothing to try again."""
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await erased(region, first)
    await exclude(region, first)
    await react(region)
    assert isinstance(refusal(region, second), PlayerExcluded), "as the log names the first as its duplicate"
    assert "protection_matches" not in kinds(region)


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


async def test_who_is_dismissed_of_one_excluded_account_is_shut_out_again_by_another_one(region: Region) -> None:
    first, second = await account(region, email="a@example.org"), await account(region, phone="1")
    both = await account(region, email="a@example.org", phone="1", brand="second")
    await exclude(region, first, term="1_year")
    await react(region)
    (matched,) = of(region, both).exclusions
    assert matched.of == first
    await exclude(region, second)
    await react(region)
    dismissed = await region.process.post(
        f"/v1/players/{both}/exclusion/dismiss-match", {"of": of(region, both).exclusions[0].of, "intervention": WHY}
    )
    assert dismissed.position
    assert refusal(region, both) is None
    assert region.tags("player")[-1] == "player.comparison_awaited"
    await react(region)
    (again,) = of(region, both).exclusions
    assert {again.of, *of(region, both).dismissed} == {first, second}
    assert isinstance(refusal(region, both), PlayerExcluded)
    assert region.tags("player")[-1] == "player.duplicates_compared"
    assert kinds(region) == set()


async def test_a_time_out_of_somebody_elses_is_dismissed_and_stays_so(region: Region) -> None:
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await region.process.post(f"/v1/players/{first}/panic")
    await react(region)
    assert isinstance(refusal(region, second), PlayerTimedOut)
    await region.process.post(f"/v1/players/{second}/exclusion/dismiss-match", {"intervention": WHY})
    for _ in range(2):
        await react(region)
    assert refusal(region, second) is None
    assert isinstance(refusal(region, first), PlayerTimedOut)


async def test_one_match_that_is_refused_holds_up_no_other_and_is_tried_again(region: Region) -> None:
    first = await account(region, email="a@example.org")
    others = [await account(region, email="a@example.org", brand=brand) for brand in ("two", "three", "four")]
    await react(region)
    await exclude(region, first)
    await region.project()
    refused = min(others)

    async def decide(plan: Plan) -> Receipt:
        if plan.writes["state"].name == f"protection-{refused.partition('_')[2]}":
            raise NotFound
        return await region.process.decider.decide(plan)

    await protecting(region, decide=decide).step()
    shut_out = {other for other in others if isinstance(refusal(region, other), PlayerExcluded)}
    assert shut_out == {*others} - {refused}
    assert "protection.matches_shut_out" not in region.tags("protection")
    await react(region)
    assert isinstance(refusal(region, refused), PlayerExcluded)
    assert region.tags("protection")[-1] == "protection.matches_shut_out"


async def test_a_read_model_that_lags_ends_nothing_that_it_has_not_heard_of(region: Region) -> None:
    """The first exclusion was dealt with and not noted; the row is still its, and a second one stands in the log."""
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    await react(region)
    await exclude(region, first)
    await region.project()
    done = 0

    async def decide(plan: Plan) -> Receipt:
        nonlocal done
        if done:
            raise Killed
        done += 1
        return await region.process.decider.decide(plan)

    with suppress(Killed):
        await protecting(region, decide=decide).step()
    await exclude(region, first, term="1_year")
    await protecting(region).step()
    await react(region)
    (own,), (matched,) = of(region, first).exclusions, of(region, second).exclusions
    assert (matched.term, matched.until) == ("1_year", own.until)
    assert kinds(region) == set()


async def test_with_many_matches_a_step_takes_some_and_the_next_ones_go_on(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaction, "SPREAD_MAX", 2)
    first = await account(region, email="a@example.org")
    others = [await account(region, email="a@example.org", brand=f"b{number}") for number in range(5)]
    await react(region)
    other = await account(region, phone="1")
    further = await account(region, phone="1", brand="second")
    await react(region)
    await exclude(region, first)
    await exclude(region, other)
    await region.project()
    running = protecting(region)
    for count in (2, 4, 5):
        await running.step()
        assert sum(isinstance(refusal(region, each), PlayerExcluded) for each in others) == count
        assert isinstance(refusal(region, further), PlayerExcluded), "many matches hold up no other"
    await region.project()
    assert kinds(region) == set()


async def test_who_may_be_the_same_person_as_many_is_compared_with_all_of_them(region: Region) -> None:
    """An account's own stream names twenty of them, and the one that is excluded is not among these."""
    many = [await account(region, email="a@example.org", brand=f"b{number}") for number in range(DUPLICATES_MAX + 2)]
    running = protecting(region)
    await exclude(region, many[-1])
    await region.project()
    await running.step()
    new = await account(region, email="a@example.org", brand="new")
    assert many[-1] not in region.state(players.stream(new)).duplicates
    await region.project()
    await running.step()
    assert refusal(region, new) is None
    assert ("protection_duplicates", players.stream(new).name) in region.due()
    await running.step()
    assert isinstance(refusal(region, new), PlayerExcluded)
    await region.project()
    assert kinds(region) == set()


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
    first, second = await account(region), await account(region)
    over = region.now - timedelta(days=1)
    for player, source in ((first, Source.PLAYER), (second, Source.MATCHED)):
        plan = region.plan(f"/v1/players/{player}/exclude", {"term": "6_months"})
        excluded = Excluded(source=source, jurisdiction="GB", term="6_months", until=over)
        await region.process.decider.decide(
            msgspec.structs.replace(plan, decision=lambda *_, made=excluded, **__: [made])
        )
    await region.project()
    assert {kind for kind, _ in region.due()} >= {"exclusion_player", "exclusion_matched"}
    await region.timers().step()
    await region.project()
    assert (of(region, first).exclusions, of(region, second).exclusions) == ((), ())
    assert not {kind for kind, _ in region.due()} & {"exclusion_player", "exclusion_matched"}


async def test_the_end_of_an_exclusion_that_is_noted_too_early_stays_due(region: Region) -> None:
    """By a process whose clock is half a year ahead of PostgreSQL's, and that knows nothing of the log's time yet."""
    first, second = await account(region, email="a@example.org"), await account(region, email="a@example.org")
    receipt = await exclude(region, first)
    await react(region)
    due = {each for each in region.due() if each[0] in {"exclusion_player", "exclusion_matched"}}
    assert len(due) == 2
    excluded = of(region, first), of(region, second)
    region.now = receipt.answer.until + timedelta(seconds=1)  # type: ignore[attr-defined]
    await region.timers().step()
    await region.project()
    assert region.tags("protection").count("protection.exclusion_ended") == 2
    assert (of(region, first), of(region, second)) == excluded
    assert {each for each in region.due() if each[0] in {"exclusion_player", "exclusion_matched"}} == due
