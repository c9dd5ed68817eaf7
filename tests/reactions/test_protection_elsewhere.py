"""The same person's accounts after some were handed over to another region: none is forgotten, and none holds up another."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from commands.safeguards import record, seen_by
from domain import players, protection, safeguards
from domain.kernel import PlayerId, partition_of
from domain.protection import PlayerExcluded, Source
from reactions.protection import Protecting
from reactions.safeguards import TakingUp
from tests.commands.house import CODEC
from tests.reactions.moving import Pair, with_vaults
from tests.reactions.people import account, exclude, kinds, of, refusal
from tests.reactions.region import Region

MAIL = "ada@example.org"


@pytest.fixture
async def pair(pair: Pair) -> Pair:
    return await with_vaults(pair)


async def react(region: Region, steps: int = 3) -> None:
    """What a reactor comes to, as far as protection goes."""
    vault: Any = region.vault
    decider = region.process.decider
    protecting = Protecting(
        region.name, region.pool, region.log, CODEC, vault, decider.decide, decider.look, region.edge,  # type: ignore[arg-type]
        clock=lambda: region.now,
    )  # fmt: skip
    taking_up = TakingUp(
        region.name, region.log, CODEC, decider.decide, decider.look, region.edge, clock=lambda: region.now
    )  # type: ignore[arg-type]
    for _ in range(steps):
        await region.project()
        await taking_up.step()
        await protecting.step()
        await region.wait(hours=2)
    await region.project()


async def apart(region: Region, *brands: str, **more: object) -> list[PlayerId]:
    """One person's accounts, each in a partition of its own."""
    made = [await account(region, email=MAIL, brand=brand, **more) for brand in brands]
    assert len({partition_of(each) for each in made}) == len(made), "they follow from the commands' keys"
    return made


async def test_who_registers_again_is_shut_out_although_another_account_was_handed_over(pair: Pair) -> None:
    excluded, moved = await apart(pair.eu, "first", "second")
    await exclude(pair.eu, excluded)
    await react(pair.eu)
    await pair.hand_over(moved)
    new = await account(pair.eu, email=MAIL, brand="third")
    assert partition_of(new) != partition_of(moved)
    await react(pair.eu)
    assert isinstance(refusal(pair.eu, new), PlayerExcluded)
    assert kinds(pair.eu) & {"protection_duplicates", "protection_matches"} == set()


async def test_who_registers_again_is_shut_out_as_an_account_of_another_region_is(pair: Pair) -> None:
    (moved,) = await apart(pair.eu, "first")
    await pair.hand_over(moved)
    pair.send_keys()
    await exclude(pair.us, moved)
    await pair.replicate()
    new = await account(pair.eu, email=MAIL, brand="second")
    assert partition_of(new) != partition_of(moved)
    await react(pair.eu)
    (matched,) = of(pair.eu, new).exclusions
    assert (matched.source, matched.of) == (Source.MATCHED, moved)
    assert "protection_duplicates" not in kinds(pair.eu)


async def test_an_exclusion_reaches_the_accounts_that_were_handed_over(pair: Pair) -> None:
    one, two, moved = await apart(pair.eu, "a", "b", "c")
    await react(pair.eu)
    await pair.hand_over(moved)
    await exclude(pair.eu, one)
    with structlog.testing.capture_logs() as said:
        await react(pair.eu)
    assert [(each["count"], each["elsewhere"]) for each in said if "shut out too" in each["event"]] == [(2, 1)]
    assert isinstance(refusal(pair.eu, two), PlayerExcluded)
    assert kinds(pair.eu) & {"protection_duplicates", "protection_matches"} == set()
    (noted,) = [each for each in pair.eu.events("protection") if isinstance(each, protection.MatchesShutOut)]
    assert set(noted.players) == {two, moved}
    await pair.replicate()
    assert refusal(pair.us, moved) is None
    await react(pair.us)
    (matched,) = of(pair.us, moved).exclusions
    (own,) = of(pair.eu, one).exclusions
    assert (matched.source, matched.of, matched.until) == (Source.MATCHED, one, own.until)
    assert kinds(pair.us) & {"protection_matches"} == set(), "what was taken over goes no further"


async def test_the_new_owner_shuts_out_all_accounts_that_came_along(pair: Pair) -> None:
    one, two, three = await apart(pair.eu, "a", "b", "c")
    await react(pair.eu)
    await pair.hand_over(one, two, three)
    pair.send_keys()
    await exclude(pair.us, one)
    await react(pair.us)
    for other in (two, three):
        (matched,) = of(pair.us, other).exclusions
        assert (matched.source, matched.of) == (Source.MATCHED, one)
    (noted,) = [each for each in pair.us.events("protection") if isinstance(each, protection.MatchesShutOut)]
    assert set(noted.players) == {two, three}
    assert pair.us.ledger.sql(
        "SELECT count(*) FROM ledger.entry WHERE stream LIKE %s", safeguards.prefix("us") + "%"
    ) == [(0,)]


async def test_the_new_owner_reaches_the_accounts_that_stayed(pair: Pair) -> None:
    one, stayed = await apart(pair.eu, "a", "b")
    await react(pair.eu)
    await pair.hand_over(one)
    pair.send_keys()
    await exclude(pair.us, one)
    await react(pair.us)
    await pair.replicate()
    await react(pair.eu)
    (matched,) = of(pair.eu, stayed).exclusions
    assert (matched.source, matched.of) == (Source.MATCHED, one)


async def test_what_was_begun_before_a_hand_over_goes_on_after_it(pair: Pair) -> None:
    """The exclusion stands in the log of the region that had the account then; nobody has spread it yet."""
    one, two = await apart(pair.eu, "a", "b")
    await react(pair.eu)
    await exclude(pair.eu, one)
    pair.send_keys()
    await pair.hand_over(one, two)
    await react(pair.eu)
    assert not any(isinstance(each, protection.MatchesShutOut) for each in pair.eu.events("protection"))
    await react(pair.us)
    assert isinstance(refusal(pair.us, two), PlayerExcluded)
    assert "protection_matches" not in kinds(pair.us)


async def test_a_new_account_hears_of_those_that_came_from_another_region(pair: Pair) -> None:
    (moved,) = await apart(pair.eu, "a")
    await pair.hand_over(moved)
    pair.send_keys()
    new = await account(pair.us, email=MAIL, brand="b")
    assert pair.us.state(players.stream(new)).duplicates == (moved,)
    assert pair.us.state(players.stream(moved)).duplicates == (new,)


async def test_what_was_recorded_without_the_owner_is_taken_up_by_whoever_owns_the_player_then(pair: Pair) -> None:
    """us has recorded it while eu owned the player, and has looked at it then, and left it to eu."""
    (player,) = await apart(pair.eu, "a")
    await pair.replicate()
    decider = pair.us.process.decider
    plan = pair.us.plan(f"/v1/players/{player}/exclude", {"term": "6_months"})
    logs = await pair.us.log.logs()
    held = await decider.look(seen_by(plan, logs))
    await decider.decide(record(plan, player, "us", logs, held))
    taking_up = TakingUp(
        "us", pair.us.log, CODEC, decider.decide, decider.look, pair.us.edge, clock=lambda: pair.us.now
    )
    await taking_up.step()
    assert of(pair.us, player).exclusions == ()
    await pair.hand_over(player)
    pair.send_keys()
    await taking_up.step()
    assert [each.source for each in of(pair.us, player).exclusions] == [Source.PLAYER]
