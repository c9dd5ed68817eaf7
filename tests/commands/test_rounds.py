"""A stuck round is voided by a person: once, whoever else gives back, and without stopping what comes later."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from access.policy import principal
from commands.approvals import ApprovalDecided, AwaitingApproval
from commands.edge import InterventionMissing
from commands.plan import Receipt
from commands.rounds import BETS_MAX, Returned, RoundVoided
from domain.errors import Forbidden, Invalid, NotFound
from domain.kernel import Money
from domain.rounds import BetNotOfRound, RoundNotStuck, Voided
from domain.tallies import ROUNDS_MAX, TALLIED_MAX
from domain.wallets import KINDS, RolledBack, postings
from policies.play import HOUSE_ROUND_STUCK_AFTER, HOUSE_SESSION_LIVES
from tests.commands.gaming import STUDIO, WHERE, Games
from tests.commands.house import House

WHY = {"kind": "complaint", "reason": "the wheel never stopped"}
BO = "supervisor:bo"


@pytest.fixture
def at_play(house: House) -> Games:
    return Games.of(house)


async def somebody(house: House, at_play: Games, cash: int = 1_000, bonus: int = 0) -> str:
    """A player of whom a person's words can be sealed, in an open session."""
    player = await house.player()
    await at_play.record(player, at_play.opened("session_1"))
    for account, amount in (("cash", cash), ("bonus", bonus)):
        if amount:
            await at_play.give(player, account, amount)
    return player


def later(house: House, by: timedelta = HOUSE_ROUND_STUCK_AFTER) -> None:
    house.now += by


async def void(house: House, player: str, *bets: str, process: Any = None, **context: Any) -> Receipt:
    body = {"provider": STUDIO, "game": WHERE["game"], "round": WHERE["round"], "bets": bets, "intervention": WHY}
    given = {"roles": ["cashier"], **context}
    body |= given.pop("body", {})
    return await (process or house.process).post(f"/v1/players/{player}/rounds/void", body, **given)


async def voided(house: House, player: str, *bets: str, **context: Any) -> RoundVoided:
    answer = (await void(house, player, *bets, **context)).answer
    assert isinstance(answer, RoundVoided)
    return answer


def returned_of(house: House, bet: str) -> int:
    events = house.log.events("wallet")
    return sum(event.money.amount for event in events if isinstance(event, RolledBack) and event.bet == bet)


def in_balance(house: House) -> bool:
    """Whether the postings of everything that stands in the log come to nothing."""
    return not sum(
        amount for event in house.log.events("wallet") if isinstance(event, KINDS) for _, amount in postings(event)
    )


async def test_what_is_left_of_each_bet_goes_back_to_who_has_paid(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play, cash=150, bonus=50)
    await at_play.ask("bet", player, reference="b1", amount=100)
    await at_play.ask("bet", player, reference="b2", amount=80)
    await at_play.ask("rollback", player, reference="x1", bet="b1", amount=40, currency="EUR")
    later(house)
    answer = await voided(house, player, "b1", "b2")
    assert (answer.returned, answer.bets) == (Money(140, "EUR"), [Returned("b1", 60), Returned("b2", 80)])
    assert (answer.accounts.cash, answer.accounts.bonus) == await at_play.balance(player) == (150, 50)
    [told] = [event for event in house.opened("round") if isinstance(event, Voided)]
    assert (told.void, told.bets, told.money, told.operator) == (
        answer.void, ("b1", "b2"), Money(140, "EUR"), "operator:maria",
    )  # fmt: skip
    assert told.intervention is not None
    assert told.intervention.reason == WHY["reason"]
    assert b"never stopped" not in b"".join(entry.body for entry in house.log.entries)
    assert in_balance(house)


async def test_a_provider_that_comes_late_finds_nothing_left(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    await at_play.ask("bet", player, reference="b2", amount=20)
    later(house)
    await voided(house, player, "b1", "b2")
    for reference in ("b2", "b1"):
        receipt = await at_play.ask("rollback", player, reference=reference)
        assert receipt.answer.returned == 0  # type: ignore[attr-defined]
    assert await at_play.balance(player) == (1_000, 0)


async def test_what_a_provider_has_given_back_is_not_given_back_again(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    await at_play.ask("rollback", player, reference="b1")
    later(house)
    before = len(house.log.entries)
    answer = await voided(house, player, "b1")
    assert (answer.void, answer.returned, answer.accounts.cash) == ("", Money(0, "EUR"), 1_000)
    assert len(house.log.entries) == before, "there is nothing to record"


async def test_a_win_that_comes_later_is_paid(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    later(house)
    await voided(house, player, "b1")
    await at_play.ask("win", player, reference="w1", amount=700)
    await at_play.ask("bet", player, reference="b2", amount=10)
    assert await at_play.balance(player) == (1_690, 0)


async def test_the_same_request_is_one_void_and_another_one_none(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    later(house)
    first = await void(house, player, "b1", key="one")
    again = await void(house, player, "b1", key="one", process=house.another_process())
    assert (again.answer, again.repeated) == (first.answer, True)
    assert (await voided(house, player, "b1", "b1")).returned.amount == 0
    assert returned_of(house, "b1") == 100


async def test_the_order_of_void_rollback_win_and_close_does_not_matter(house: House, at_play: Games) -> None:
    later(house)
    for number, order in enumerate(itertools.permutations(["rollback", "part", "win", "close", "void"])):
        bet = f"b{number}"
        told: dict[str, dict[str, Any]] = {
            "rollback": {"reference": bet},
            "part": {"reference": f"x{number}", "bet": bet, "amount": 30, "currency": "EUR"},
            "win": {"reference": f"w{number}", "amount": 50},
            "close": {"reference": f"c{number}"},
        }
        player = await somebody(house, at_play)
        await at_play.ask("bet", player, reference=bet, amount=100)
        for place, act in enumerate(order):
            if act == "void":
                before = set(order[:place])
                is_over = before & {"win", "close"} and "rollback" not in before
                with pytest.raises(RoundNotStuck) if is_over else nullcontext():
                    await void(house, player, bet)
            else:
                await at_play.ask("rollback" if act == "part" else act, player, **told[act])
        assert await at_play.balance(player) == (1_050, 0), order
    assert in_balance(house)


async def test_void_and_rollback_at_the_same_moment_give_back_once(house: House, at_play: Games) -> None:
    other = house.another_process()
    at_both = Games(house.process.decider, other.decider)
    player = await somebody(house, at_play)
    later(house)
    for number in range(10):
        bet = f"b{number}"
        await at_both.ask("bet", player, reference=bet, amount=50)
        await asyncio.gather(
            void(house, player, bet, roles=["supervisor"], actor=f"operator:{number}"),
            at_both.ask("rollback", player, by=1, reference=bet),
        )
        assert returned_of(house, bet) == 50
    assert await at_play.balance(player) == (1_000, 0)


@pytest.mark.parametrize("what", ["another round", "another game", "another player", "never placed", "refused", "void"])
async def test_only_bets_of_that_round_are_given_back(house: House, at_play: Games, what: str) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    whose = player
    match what:
        case "another round":
            await at_play.ask("bet", player, reference="b2", amount=10, round="r2")
        case "another game":
            await at_play.ask("bet", player, reference="b2", amount=10, game="wheel")
        case "another player":
            whose = await somebody(house, at_play)
            await at_play.ask("bet", whose, reference="b2", amount=10)
        case "refused":
            with pytest.raises(Invalid):
                await at_play.ask("bet", player, reference="b2", amount=5_000)
        case "void":
            await at_play.ask("rollback", player, reference="b2")
        case _:
            pass
    later(house)
    with pytest.raises(BetNotOfRound) as refused:
        await void(house, player, "b1", "b2")
    assert refused.value.facts == {"bet": "b2"}
    assert returned_of(house, "b1") == 0, "all of it, or nothing"


async def test_a_round_that_may_only_be_slow_is_left_alone(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    later(house, HOUSE_ROUND_STUCK_AFTER - timedelta(seconds=1))
    with pytest.raises(RoundNotStuck):
        await void(house, player, "b1")
    later(house, timedelta(seconds=2))
    assert (await voided(house, player, "b1")).returned.amount == 100


async def test_a_round_of_which_its_provider_has_said_something_lately_is_left_alone(
    house: House, at_play: Games
) -> None:
    """Be the bets that are named as old as they may."""
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    for verb, said in (
        ("bet", {"reference": "b2", "amount": 10}),
        ("rollback", {"reference": "x1", "bet": "b2", "amount": 4, "currency": "EUR"}),
    ):
        later(house)
        house.log.clock.now = int(house.now.timestamp()) * 1_000_000
        await at_play.ask(verb, player, **said)
        with pytest.raises(RoundNotStuck) as refused:
            await void(house, player, "b1")
        stuck_at = refused.value.facts["stuck_at"]
        assert timedelta() < stuck_at - house.now <= HOUSE_ROUND_STUCK_AFTER
    house.now = stuck_at + timedelta(milliseconds=1)
    assert (await voided(house, player, "b1", "b2")).returned == Money(106, "EUR")


@pytest.mark.parametrize(
    ("verb", "said"), [("close", {}), ("win", {"amount": 0}), ("win", {"amount": 50}), ("bonus_win", {"amount": 5})]
)
async def test_a_round_that_is_over_is_not_voided(
    house: House, at_play: Games, verb: str, said: dict[str, Any]
) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    await at_play.ask(verb, player, reference="over", **said)
    later(house)
    with pytest.raises(RoundNotStuck) as refused:
        await void(house, player, "b1")
    assert refused.value.facts == {"stuck_at": None}
    for n in range(2 * TALLIED_MAX):  # until the wallet has forgotten it
        await at_play.ask("bet", player, reference=f"b2{n}", amount=1, round=f"r2{n}")
        await at_play.ask("close", player, reference=f"c2{n}", round=f"r2{n}")
    with pytest.raises(RoundNotStuck):
        await void(house, player, "b1")
    assert returned_of(house, "b1") == 0


async def others_end(at_play: Games, player: str, rounds: int) -> None:
    for n in range(rounds):
        await at_play.ask("bet", player, reference=f"other{n}", amount=1, round=f"other{n}")
        await at_play.ask("win", player, reference=f"other{n}", amount=1, round=f"other{n}")


@pytest.mark.parametrize(("verb", "said"), [("win", {"amount": 700}), ("close", {})])
async def test_a_round_whose_outcome_has_overtaken_its_bet_is_not_voided_whatever_else_has_ended_since(
    house: House, at_play: Games, verb: str, said: dict[str, Any]
) -> None:
    player = await somebody(house, at_play)
    await at_play.ask(verb, player, reference="w1", **said)
    await others_end(at_play, player, 2 * TALLIED_MAX)
    await at_play.ask("bet", player, reference="b1", amount=100)
    assert (await at_play.wallet(player)).rounds.open == ()
    later(house)
    with pytest.raises(RoundNotStuck) as refused:
        await void(house, player, "b1")
    assert refused.value.facts == {"stuck_at": None}
    assert returned_of(house, "b1") == 0


async def test_nor_is_one_whose_outcome_was_forgotten_for_as_long_as_its_bet_may_come(
    house: House, at_play: Games
) -> None:
    player = await somebody(house, at_play)
    for n in range(ROUNDS_MAX + 1):
        await at_play.ask("win", player, reference=f"w{n}", amount=7, round="r1" if n == 0 else f"r1.{n}")
    await at_play.ask("bet", player, reference="b1", amount=100)
    assert len((await at_play.wallet(player)).rounds.open) == 1
    later(house)
    with pytest.raises(RoundNotStuck) as refused:
        await void(house, player, "b1")
    assert refused.value.facts == {"stuck_at": None}
    await at_play.ask("rollback", player, reference="b1")
    house.log.clock.now = int((house.now + HOUSE_SESSION_LIVES).timestamp()) * 1_000_000
    await at_play.ask("bet", player, reference="b2", amount=40, round="r2")
    later(house, HOUSE_SESSION_LIVES + 2 * HOUSE_ROUND_STUCK_AFTER)
    assert (await voided(house, player, "b2", body={"round": "r2"})).returned == Money(40, "EUR")


async def test_a_bet_from_before_its_round_was_over_and_forgotten_is_not_voided_with_those_after(
    house: House, at_play: Games
) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    await at_play.ask("win", player, reference="w1", amount=700)
    await others_end(at_play, player, TALLIED_MAX)
    await at_play.ask("bet", player, reference="b2", amount=5)
    later(house)
    for bets in (("b1",), ("b1", "b2")):
        with pytest.raises(RoundNotStuck) as refused:
            await void(house, player, *bets)
        assert refused.value.facts == {"stuck_at": None}
    await at_play.ask("rollback", player, reference="b1")
    [found] = (await at_play.wallet(player)).rounds.open
    assert found.staked == 5
    assert (await voided(house, player, "b2")).returned == Money(5, "EUR")


async def test_a_free_round_is_voided_and_is_over_then(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="free", amount=0)
    later(house)
    answer = await voided(house, player, "free")
    assert answer.void
    assert (answer.returned, answer.bets) == (Money(0, "EUR"), [Returned("free", 0)])
    assert (await at_play.wallet(player)).rounds.open == ()
    [told] = [event for event in house.log.events("round") if isinstance(event, Voided)]
    assert told.bets == ("free",)
    with pytest.raises(RoundNotStuck):
        await void(house, player, "free")
    assert (await at_play.ask("rollback", player, reference="free")).answer.returned == 0  # type: ignore[attr-defined]


async def test_free_bets_and_others_of_a_round_are_voided_together(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    for bet, amount in (("free", 0), ("b1", 100), ("free2", 0), ("b2", 40)):
        await at_play.ask("bet", player, reference=bet, amount=amount)
    later(house)
    answer = await voided(house, player, "free", "b1", "free2", "b2")
    assert [each.amount for each in answer.bets] == [0, 100, 0, 40]
    assert (returned_of(house, "b1"), returned_of(house, "b2")) == (100, 40)
    late = [(await at_play.ask("rollback", player, reference=bet)).answer for bet in ("b1", "b2", "free")]
    assert [each.returned for each in late] == [0, 0, 0]  # type: ignore[attr-defined]
    assert in_balance(house)


async def test_a_round_of_many_bets_is_voided_by_several_commands_one_after_the_other(
    house: House, at_play: Games
) -> None:
    """That a person has given something back is no news of its provider's."""
    player = await somebody(house, at_play)
    for n in range(BETS_MAX + 1):
        await at_play.ask("bet", player, reference=f"b{n}", amount=1)
    later(house)
    house.log.clock.now = int(house.now.timestamp()) * 1_000_000
    assert (await voided(house, player, *(f"b{n}" for n in range(BETS_MAX)))).returned.amount == BETS_MAX
    assert (await voided(house, player, f"b{BETS_MAX}")).returned.amount == 1


# Four eyes


async def test_above_the_threshold_a_second_person_approves_and_the_void_runs_as_it_is_then(
    house: House, at_play: Games
) -> None:
    player = await somebody(house, at_play, cash=50_000)
    await at_play.ask("bet", player, reference="b1", amount=6_000)
    await at_play.ask("bet", player, reference="b2", amount=6_000)
    later(house)
    asked = (await void(house, player, "b1", "b2")).answer
    assert isinstance(asked, AwaitingApproval)
    assert await at_play.balance(player) == (38_000, 0)
    await at_play.ask("rollback", player, reference="x1", bet="b1", amount=1_000, currency="EUR")
    house.known["operator:maria"] = principal("operator:maria", ["cashier"])
    for process in (house.process, house.another_process()):  # the second time it is the first answer
        receipt = await process.post(
            f"/v1/approvals/{asked.approval}/approve", {"hash": asked.hash}, actor=BO, roles=["supervisor"], key="a1"
        )
        assert isinstance(receipt.answer, ApprovalDecided)
    assert (returned_of(house, "b1"), returned_of(house, "b2")) == (6_000, 6_000)
    assert await at_play.balance(player) == (50_000, 0)
    assert (await at_play.ask("rollback", player, reference="b2")).answer.returned == 0  # type: ignore[attr-defined]
    [told] = [event for event in house.log.events("round") if isinstance(event, Voided)]
    assert (told.operator, told.money.amount) == ("operator:maria", 11_000)


async def test_many_small_voids_of_a_day_are_one_large_one(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play, cash=50_000)
    for number in range(3):
        await at_play.ask("bet", player, reference=f"b{number}", amount=4_000)
    later(house)
    answers = [(await void(house, player, f"b{number}")).answer for number in range(3)]
    assert [type(answer) for answer in answers] == [RoundVoided, RoundVoided, AwaitingApproval]


# Who may, and what must be said


async def test_who_may_not_move_money_by_hand_voids_nothing(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    with pytest.raises(Forbidden):
        await void(house, player, "b1", roles=["operator"])
    with pytest.raises(InterventionMissing):
        await void(house, player, "b1", body={"intervention": None})
    for body in ({"bets": []}, {"bets": ["b"] * (BETS_MAX + 1)}, {"round": ""}):
        with pytest.raises(Invalid):
            await void(house, player, "b1", body=body)
    with pytest.raises(NotFound):
        await void(house, f"player_{26 * '0'}"[:-1] + "1", "b1")


async def test_the_answer_follows_from_the_log_alone(house: House, at_play: Games) -> None:
    player = await somebody(house, at_play)
    await at_play.ask("bet", player, reference="b1", amount=100)
    later(house)
    first = await void(house, player, "b1", key="one")
    await at_play.give(player, "cash", 77)
    again = await void(house, player, "b1", key="one")
    assert again.answer == first.answer
