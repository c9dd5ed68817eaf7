"""A bet is rolled back: whole or in parts, early, late, twice, and by somebody whose it is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from commands import games
from commands.games import GameAnswer
from domain import play, players, wallets
from domain.bets import BetElsewhere, Claimed, TooManyEarly
from domain.errors import (
    CurrencyMismatch,
    KeyReused,
)
from domain.kernel import Event, Money
from domain.tallies import TALLIED_MAX
from domain.wallets import (
    GameRefused,
    InsufficientFunds,
    RolledBack,
    Staked,
)
from tests.commands.gaming import Games, balance
from tests.commands.house import House


@pytest.fixture
def at_play(house: House) -> Games:
    return Games.of(house)


def last(house: House) -> Event:
    return house.log.events()[-1]


def ended(session: str) -> list[Event]:
    return [play.SessionEnded(session=session, reason="player")]


async def test_a_rollback_gives_back_to_the_accounts_that_have_paid(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100, bonus=50)
    await at_play.ask("bet", player, reference="b1", amount=120)
    receipt = await at_play.ask("rollback", player, reference="rb1", bet="b1")
    assert receipt.answer == GameAnswer(games.GameBalance(100, 50, "EUR"), returned=120)
    assert house.log.events("bet") == [Claimed()]


async def test_parts_are_given_back_last_paid_first_and_never_more_than_the_stake(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100, bonus=50)
    await at_play.ask("bet", player, reference="b1", amount=120)
    left = [
        balance((await at_play.ask("rollback", player, reference=f"rb{place}", bet="b1", amount=50)).answer)
        for place in range(3)
    ]
    assert left == [(30, 50), (80, 50), (100, 50)]
    again = await at_play.ask("rollback", player, reference="rb9", bet="b1")
    assert again.answer == GameAnswer(games.GameBalance(100, 50, "EUR"))
    parts = [(each.part, each.total) for each in house.log.events("wallet") if isinstance(each, RolledBack)]
    assert parts == [(1, 50), (2, 100), (3, 120), (0, 120)]


async def test_a_bet_may_be_rolled_back_in_any_number_of_parts(at_play: Games) -> None:
    player = await at_play.player(cash=20)
    await at_play.ask("bet", player, reference="b1", amount=20)
    for place in range(20):
        receipt = await at_play.ask("rollback", player, reference=f"rb{place}", bet="b1", amount=1)
        assert balance(receipt.answer) == (place + 1, 0)
    assert (await at_play.ask("rollback", player, reference="rb", bet="b1", amount=1)).answer == GameAnswer(
        games.GameBalance(20, 0, "EUR")
    )


async def test_a_rollback_that_comes_first_makes_the_bet_void_for_ever(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100)
    receipt = await at_play.ask("rollback", player, reference="b1")
    assert (balance(receipt.answer), receipt.repeated) == ((100, 0), False)
    assert [type(each) for each in house.log.events()[-2:]] == [RolledBack, Claimed]
    entries = len(house.log.entries)
    for _ in range(2):
        late = await at_play.ask("bet", player, reference="b1", amount=10)
        assert (late.answer, late.repeated) == (GameAnswer(games.GameBalance(100, 0, "EUR"), void=True), True)
    assert len(house.log.entries) == entries
    assert (await at_play.ask("rollback", player, reference="b1")).repeated
    assert (await at_play.ask("rollback", player, reference="rb2", bet="b1")).answer == receipt.answer
    assert await at_play.balance(player) == (100, 0)


async def test_a_late_bet_of_somebody_else_is_not_told_about_the_first_ones_money(at_play: Games) -> None:
    player, other = await at_play.player(cash=100), await at_play.player(cash=50)
    await at_play.ask("rollback", player, reference="b1")
    with pytest.raises(KeyReused):
        await at_play.ask("bet", other, reference="b1", amount=10)
    assert await at_play.balance(other) == (50, 0)


async def test_a_part_that_comes_before_its_bet_is_not_taken_when_that_comes(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100)
    for _ in range(2):
        part = await at_play.ask("rollback", player, reference="rb1", bet="b1", amount=4)
        assert part.answer == GameAnswer(games.GameBalance(100, 0, "EUR"))
    for _ in range(2):
        taken = await at_play.ask("bet", player, reference="b1", amount=10)
        assert taken.answer == GameAnswer(games.GameBalance(94, 0, "EUR"), returned=4)
    staked = [event for event in house.log.events("wallet") if isinstance(event, Staked)]
    assert [(event.money, event.ahead) for event in staked] == [(Money(6, "EUR"), 4)]
    rest = await at_play.ask("rollback", player, reference="rb2", bet="b1", amount=10)
    assert rest.answer == GameAnswer(games.GameBalance(100, 0, "EUR"), returned=6)


@pytest.mark.parametrize("said", [{}, {"amount": 10}, {"amount": 25}], ids=["all of it", "its amount", "more"])
@pytest.mark.parametrize("reference", ["b1", "rb1"])
async def test_a_bet_that_was_rolled_back_before_it_came_takes_nothing_be_an_amount_named_or_not(
    house: House, at_play: Games, said: dict[str, Any], reference: str
) -> None:
    player = await at_play.player(cash=100)
    early = {"reference": reference, "bet": "b1", **said}
    assert balance((await at_play.ask("rollback", player, **early)).answer) == (100, 0)
    for _ in range(2):
        late = await at_play.ask("bet", player, reference="b1", amount=10)
        assert late.answer == GameAnswer(games.GameBalance(100, 0, "EUR"), void=True)
    again = await at_play.ask("rollback", player, reference="rb9", bet="b1", amount=3)
    assert again.answer == GameAnswer(games.GameBalance(100, 0, "EUR"))
    assert not [event for event in house.log.events("wallet") if isinstance(event, Staked)]
    assert await at_play.balance(player) == (100, 0)


async def test_a_bet_that_was_rolled_back_before_it_came_is_answered_so_whoever_may_not_play(at_play: Games) -> None:
    player = await at_play.player(cash=5)
    await at_play.ask("rollback", player, reference="rb1", bet="b1", amount=10)
    await at_play.record(player, ended("session_1"))
    assert (await at_play.ask("bet", player, reference="b1", amount=10)).answer.void  # type: ignore[attr-defined]


async def test_of_a_part_and_a_bet_that_race_no_more_is_taken_than_is_left(house: House) -> None:
    at_both = Games(house.process.decider, house.another_process().decider)
    player = await at_both.player(cash=100)
    for n in range(10):
        bet, part = {"reference": f"b{n}", "amount": 10}, {"reference": f"rb{n}", "bet": f"b{n}", "amount": 10}
        await asyncio.gather(
            at_both.ask("bet", player, by=n % 2, **bet), at_both.ask("rollback", player, by=1 - n % 2, **part)
        )
        assert await at_both.balance(player) == (100, 0)


async def test_a_part_of_one_bet_more_than_are_waited_for_is_said_again_later_and_takes_no_more_than_it_says(
    house: House, at_play: Games
) -> None:
    player = await at_play.player(cash=200)
    for n in range(TALLIED_MAX):
        await at_play.ask("rollback", player, reference=f"rb{n}", bet=f"b{n}", amount=4)
    before, one_more = len(house.log.entries), {"reference": "rb", "bet": f"b{TALLIED_MAX}", "amount": 4}
    for _ in range(2):
        with pytest.raises(TooManyEarly):
            await at_play.ask("rollback", player, **one_more)
    assert len(house.log.entries) == before
    assert (await at_play.ask("bet", player, reference=f"b{TALLIED_MAX}", amount=10)).answer.returned == 0  # type: ignore[attr-defined]
    assert (await at_play.ask("rollback", player, **one_more)).answer.returned == 4  # type: ignore[attr-defined]
    for n in range(TALLIED_MAX):
        assert (await at_play.ask("bet", player, reference=f"b{n}", amount=10)).answer.returned == 4  # type: ignore[attr-defined]
    assert await at_play.balance(player) == (200 - 6 * (TALLIED_MAX + 1), 0)


async def test_a_bet_that_was_refused_has_nothing_to_give_back_and_stays_refused(at_play: Games) -> None:
    player = await at_play.player(cash=5)
    with pytest.raises(InsufficientFunds):
        await at_play.ask("bet", player, reference="b1", amount=10)
    assert balance((await at_play.ask("rollback", player, reference="b1")).answer) == (5, 0)
    await at_play.give(player, "cash", 100)
    with pytest.raises(InsufficientFunds):
        await at_play.ask("bet", player, reference="b1", amount=10)


async def test_a_bonus_that_was_forfeited_meanwhile_goes_to_the_house(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100, bonus=50)
    await at_play.ask("bet", player, reference="b1", amount=120)
    await at_play.record(player, lambda wallet, **_: wallets.forfeit_bonus(wallet, currency="EUR", transaction="x"))
    assert await at_play.balance(player) == (0, 0)
    await at_play.give(player, "bonus", 7)  # of another era, and none of that bet's
    assert balance((await at_play.ask("rollback", player, reference="b1")).answer) == (100, 7)
    event = house.log.events("wallet")[-1]
    assert isinstance(event, RolledBack)
    assert [(each.target, each.money.amount) for each in event.movements] == [("house:bonus", 20), ("cash", 100)]


async def test_nobody_rolls_back_the_bet_of_another_player(house: House, at_play: Games) -> None:
    player, other = await at_play.player(cash=100), await at_play.player(cash=100)
    await at_play.ask("bet", player, reference="b1", amount=10)
    for _ in range(2):
        with pytest.raises(BetElsewhere):
            await at_play.ask("rollback", other, reference="rb1", bet="b1")
    assert [type(each) for each in house.log.events("wallet")].count(GameRefused) == 1
    assert (await at_play.balance(player), await at_play.balance(other)) == ((90, 0), (100, 0))


async def test_another_provider_finds_no_bet_but_its_own(at_play: Games) -> None:
    player = await at_play.player(cash=100)
    await at_play.ask("bet", player, reference="b1", amount=10)
    await at_play.ask("rollback", player, reference="b1", provider="other")
    assert await at_play.balance(player) == (90, 0)
    assert (await at_play.ask("bet", player, reference="b1", amount=10)).repeated


async def test_what_is_won_in_another_currency_is_recorded_as_refused(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100)
    with pytest.raises(CurrencyMismatch):
        await at_play.ask("win", player, reference="w1", amount=10, currency="USD")
    assert isinstance(last(house), GameRefused)


async def test_a_player_who_is_blocked_gets_a_stake_back(at_play: Games) -> None:
    player = await at_play.player(cash=100)
    await at_play.ask("bet", player, reference="b1", amount=10)
    await at_play.record(player, lambda player, **_: players.block(player, reason="fraud"))
    assert balance((await at_play.ask("rollback", player, reference="b1")).answer) == (100, 0)
