"""What a game provider may rely on, and what a player may rely on when providers err, repeat themselves and come too late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from access.policy import Principal
from commands import games
from domain import play, wallets
from domain.bets import TooManyRounds
from domain.errors import (
    CurrencyMismatch,
    Forbidden,
    GateClosed,
    Invalid,
    InvalidAmount,
    KeyReused,
    LimitExceeded,
    NotFound,
    PlayerBlocked,
    Rejected,
)
from domain.kernel import AMOUNT_MAX, Event, Money, PlayerId
from domain.limits import LimitSet
from domain.players import Blocked
from domain.protection import ActionBlocked, ActionIsBlocked
from domain.tallies import ROUNDS_MAX, TALLIED_MAX
from domain.wallets import (
    Direction,
    InsufficientFunds,
    Played,
    RoundClosed,
    Staked,
    StakeRefused,
    Won,
)
from policies import gates
from policies.limits import Kind, Period
from tests.commands.gaming import STUDIO, WHERE, Games, balance
from tests.commands.house import House


@pytest.fixture
def at_play(house: House) -> Games:
    return Games.of(house)


def last(house: House) -> Event:
    return house.log.events()[-1]


# A bet is taken


async def test_a_bet_takes_cash_first_and_says_who_has_funded_it(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100, bonus=50)
    receipt = await at_play.ask("bet", player, reference="b1", amount=120)
    assert balance(receipt.answer) == (0, 30)
    staked = last(house)
    assert isinstance(staked, Staked)
    assert [(each.source, each.target, each.money.amount) for each in staked.movements] == [
        ("cash", "house:ggr", 100),
        ("bonus", "house:ggr", 20),
    ]
    assert staked.played == Played(STUDIO, **WHERE)


async def test_a_free_round_takes_nothing_and_stands_in_the_log(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=10)
    assert balance((await at_play.ask("bet", player, reference="b1", amount=0)).answer) == (10, 0)
    assert isinstance(last(house), Staked)


@pytest.mark.parametrize(
    ("verb", "left"), [("win", (130, 0)), ("bonus_win", (100, 30)), ("free_win", (100, 30))], ids=str
)
async def test_what_is_won_goes_where_the_policy_says(house: House, at_play: Games, verb: str, left: Any) -> None:
    player = await at_play.player(cash=100)
    assert balance((await at_play.ask(verb, player, reference="w1", amount=30)).answer) == left
    assert balance((await at_play.ask(verb, player, reference="w2", amount=0)).answer) == left
    assert isinstance(last(house), Won)


async def test_a_win_needs_no_bet_no_session_and_no_right_to_play(at_play: Games) -> None:
    player = await at_play.player(session="session_1")
    await at_play.record(
        player, [Blocked("fraud"), ActionBlocked(action=gates.Action.BET, reason="harm"), *ended("session_1")]
    )
    receipt = await at_play.ask("win", player, reference="w1", amount=30, session="", round="never_heard_of")
    assert balance(receipt.answer) == (30, 0)


def ended(session: str) -> list[Event]:
    return [play.SessionEnded(session=session, reason="player")]


async def test_the_close_of_a_round_is_a_fact_and_refuses_nothing_later(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100)
    assert balance((await at_play.ask("close", player, reference="c1")).answer) == (100, 0)
    assert isinstance(last(house), RoundClosed)
    await at_play.ask("bet", player, reference="b1", amount=10)
    assert await at_play.balance(player) == (90, 0)


async def test_a_balance_is_read_from_the_log_and_not_from_a_stale_cache(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100)
    elsewhere = Games(house.another_process().decider, now=at_play.now)
    assert await elsewhere.balance(player) == (100, 0)
    await at_play.ask("bet", player, reference="b1", amount=10)
    entries = len(house.log.entries)
    assert await elsewhere.balance(player) == (90, 0)
    assert len(house.log.entries) == entries


# Said again


async def test_what_is_said_again_has_its_first_answer_though_the_money_has_moved_on(at_play: Games) -> None:
    player = await at_play.player(cash=100)
    for verb, reference in (("bet", "x"), ("win", "x"), ("rollback", "x"), ("close", "x"), ("bonus_win", "x")):
        said = {} if verb in ("rollback", "close") else {"amount": 10}
        first = await at_play.ask(verb, player, reference=reference, **said)
        await at_play.give(player, "cash", 7)
        again = await at_play.ask(verb, player, reference=reference, **said)
        assert (again.answer, again.position, again.repeated) == (first.answer, first.position, True)


async def test_when_and_in_which_session_it_was_said_is_no_content(at_play: Games) -> None:
    player = await at_play.player(cash=100)
    await at_play.ask("win", player, reference="w1", amount=10, at="2026-11-22T12:00:00Z")
    later = {"at": "2026-11-23T12:00:00Z", "session": "", "token": "another"}
    assert (await at_play.ask("win", player, reference="w1", amount=10, **later)).repeated


@pytest.mark.parametrize("other", [{"amount": 11}, {"round": "r2"}, {"game": "other"}, {"currency": "USD"}])
async def test_a_reference_with_another_content_is_refused(at_play: Games, other: dict[str, Any]) -> None:
    player = await at_play.player(cash=100)
    await at_play.ask("bet", player, reference="b1", amount=10)
    with pytest.raises(KeyReused):
        await at_play.ask("bet", player, **({"reference": "b1", "amount": 10} | other))
    with pytest.raises(KeyReused):
        await at_play.ask("bet", await at_play.player(cash=100), reference="b1", amount=10)
    assert await at_play.balance(player) == (90, 0)


async def test_providers_may_use_the_same_references(at_play: Games) -> None:
    player = await at_play.player(cash=100)
    await at_play.record(player, at_play.opened("session_2", "other"))
    await at_play.ask("bet", player, reference="b1", amount=10)
    await at_play.ask("bet", player, reference="b1", amount=10, provider="other", session="session_2")
    assert await at_play.balance(player) == (80, 0)


# A bet is refused


def limited(kind: str, amount: int, period: str = "day") -> list[Event]:
    return [LimitSet(kind=Kind(kind), period=Period(period), money=Money(amount, "EUR"))]


@pytest.mark.parametrize(
    ("before", "said", "error"),
    [
        ([], {"amount": 101}, InsufficientFunds),
        ([], {"currency": "USD"}, CurrencyMismatch),
        ([Blocked("fraud")], {}, PlayerBlocked),
        ([ActionBlocked(action=gates.Action.BET, reason="harm")], {}, ActionIsBlocked),
        ([], {"session": "session_of_another"}, play.SessionClosed),
        ([], {"provider": "another"}, play.SessionClosed),
        (ended("session_1"), {}, play.SessionClosed),
        (limited("wager", 9), {}, LimitExceeded),
        (limited("loss", 9), {}, LimitExceeded),
        (limited("stake", 9, "spin"), {}, LimitExceeded),
    ],
)
async def test_what_stops_a_bet_is_recorded_and_refused_alike_when_it_is_said_again(
    house: House, at_play: Games, before: list[Event], said: dict[str, Any], error: type[Rejected]
) -> None:
    player = await at_play.player(cash=100)
    if before:
        await at_play.record(player, before)
    bet: dict[str, Any] = {"reference": "b1", "amount": 10, **said}
    with pytest.raises(error) as first:
        await at_play.ask("bet", player, **bet)
    refused = last(house)
    assert isinstance(refused, StakeRefused)
    assert refused.code == error.code
    await at_play.give(player, "cash", 1000)
    entries = len(house.log.entries)
    with pytest.raises(error) as again:
        await at_play.ask("bet", player, **bet)
    assert (type(again.value), again.value.facts, str(again.value)) == (
        type(first.value), first.value.facts, str(first.value)
    )  # fmt: skip
    assert len(house.log.entries) == entries


async def test_who_is_not_known_may_not_bet_where_the_law_asks_first(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100, country="GB", known=False)
    with pytest.raises(GateClosed):
        await at_play.ask("bet", player, reference="b1", amount=10)
    assert isinstance(last(house), StakeRefused)


async def test_what_was_rolled_back_or_won_leaves_room_below_the_limit_again(at_play: Games) -> None:
    player = await at_play.player(cash=1000)
    await at_play.record(player, [*limited("loss", 100), *limited("wager", 200)])
    await at_play.ask("bet", player, reference="b1", amount=100)
    with pytest.raises(LimitExceeded):
        await at_play.ask("bet", player, reference="b2", amount=1)
    await at_play.ask("win", player, reference="w1", amount=60)
    await at_play.ask("bet", player, reference="b3", amount=60)
    await at_play.ask("rollback", player, reference="b3")
    await at_play.ask("bet", player, reference="b4", amount=60)
    with pytest.raises(LimitExceeded) as refused:
        await at_play.ask("bet", player, reference="b5", amount=1)
    assert refused.value.facts["kind"] == "loss"


async def test_what_is_staked_in_one_round_counts_together(at_play: Games) -> None:
    player = await at_play.player(cash=1000)
    await at_play.record(player, limited("stake", 100, "spin"))
    await at_play.ask("bet", player, reference="b1", amount=60)
    with pytest.raises(LimitExceeded):
        await at_play.ask("bet", player, reference="b2", amount=41)
    await at_play.ask("bet", player, reference="b3", amount=100, round="r2")
    await at_play.ask("rollback", player, reference="b1", amount=20)
    await at_play.ask("bet", player, reference="b4", amount=60)


async def test_the_stakes_of_a_round_are_known_however_many_others_are_open(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=1_000)
    await at_play.record(player, limited("stake", 100, "spin"))
    for n in range(ROUNDS_MAX):
        await at_play.ask("bet", player, reference=f"b{n}", amount=1, round=f"r{n}")
    with pytest.raises(LimitExceeded):
        await at_play.ask("bet", player, reference="more", amount=100, round="r0")
    for _ in range(2):
        with pytest.raises(TooManyRounds):
            await at_play.ask("bet", player, reference="another", amount=1, round="another")
    refused = last(house)
    assert isinstance(refused, StakeRefused)
    assert (refused.code, refused.facts) == ("too_many_rounds", {"most": ROUNDS_MAX})
    await at_play.ask("win", player, reference="w0", amount=0, round="r0")
    await at_play.ask("bet", player, reference="again", amount=1, round="another")


async def test_the_loss_of_a_session_is_known_however_many_others_come_and_go(at_play: Games) -> None:
    """It stays open, and nothing is staked in it meanwhile."""
    player = await at_play.player(cash=1_000)
    await at_play.record(player, [*at_play.opened("limited", loss=Money(100, "EUR"))])
    await at_play.ask("bet", player, reference="first", amount=60, session="limited")
    for n in range(3 * TALLIED_MAX):
        await at_play.record(player, at_play.opened(f"short_{n}"))
        bet = {"amount": 1, "session": f"short_{n}", "round": f"s{n}"}
        await at_play.ask("bet", player, reference=f"s{n}", **bet)
        await at_play.ask("close", player, reference=f"s{n}", round=f"s{n}")
        await at_play.record(player, ended(f"short_{n}"))
    with pytest.raises(LimitExceeded) as refused:
        await at_play.ask("bet", player, reference="second", amount=41, session="limited")
    assert (refused.value.facts["period"], refused.value.facts["used"]["amount"]) == ("session", 60)
    await at_play.ask("bet", player, reference="third", amount=40, session="limited")
    assert len((await at_play.wallet(player)).sessions) <= TALLIED_MAX


@pytest.mark.parametrize("named", [{"round": "r1"}, {"round": "", "bet": "b1"}], ids=["its round", "its bet"])
async def test_a_win_that_names_no_session_makes_the_loss_of_its_own_smaller(
    house: House, at_play: Games, named: dict[str, str]
) -> None:
    player = await at_play.player(cash=1_000)
    await at_play.ask("bet", player, reference="b1", amount=60)
    receipt = await at_play.ask("win", player, reference="w1", amount=50, session="", **named)
    event = last(house)
    assert isinstance(event, Won)
    assert event.played.session == "session_1"
    assert (await at_play.wallet(player)).lost_in("session_1") == 10
    again = await at_play.ask("win", player, reference="w1", amount=50, session="", **named)
    assert (again.answer, again.repeated) == (receipt.answer, True)


async def test_a_win_of_a_bet_that_is_not_here_or_another_players_is_paid(at_play: Games) -> None:
    player, other = await at_play.player(cash=100), await at_play.player(cash=100, session="session_2")
    await at_play.ask("bet", other, reference="b1", amount=60, session="session_2", round="r2")
    for n, bet in enumerate(("b1", "none")):
        await at_play.ask("win", player, reference=f"w{n}", amount=5, session="", round="r9", bet=bet)
    assert await at_play.balance(player) == (110, 0)


@pytest.mark.parametrize("named", [{"game": "", "round": "", "session": ""}, {"round": ""}, {"game": ""}])
async def test_a_win_is_of_the_game_and_the_round_of_its_bet_and_ends_that_round(
    house: House, at_play: Games, named: dict[str, str]
) -> None:
    player = await at_play.player(cash=1_000)
    for n in range(ROUNDS_MAX + 1):
        await at_play.ask("bet", player, reference=f"b{n}", amount=1, round=f"r{n}")
        said = {"round": f"r{n}", **named}
        await at_play.ask("win", player, reference=f"w{n}", amount=2, bet=f"b{n}", **said)
        assert (await at_play.wallet(player)).rounds.open == ()
    event = last(house)
    assert isinstance(event, Won)
    assert event.played == wallets.Played("studio", "book", f"r{ROUNDS_MAX}", "session_1")


@pytest.mark.parametrize("missing", ["game", "round"])
async def test_a_win_that_names_no_round_waits_for_the_bet_that_does(
    house: House, at_play: Games, missing: str
) -> None:
    player = await at_play.player(cash=100)
    before, said = len(house.log.entries), {"reference": "w1", "amount": 2, "bet": "b1", missing: ""}
    with pytest.raises(Invalid) as refused:
        await at_play.ask("win", player, **said)
    assert refused.value.facts["pointer"] == f"/{missing}"
    assert len(house.log.entries) == before
    await at_play.ask("bet", player, reference="b1", amount=1)
    await at_play.ask("win", player, **said)
    assert await at_play.balance(player) == (101, 0)


async def test_a_balance_is_told_to_whom_the_player_plays_at_and_to_nobody_else(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=100)
    assert balance((await at_play.ask("balance", player)).answer) == (100, 0)
    entries = len(house.log.entries)
    for said in ({"provider": "other"}, {"session": "session_2"}):
        with pytest.raises(play.SessionClosed):
            await at_play.ask("balance", player, **said)
    with pytest.raises(Invalid) as refused:
        await at_play.ask("balance", player, session="")
    assert refused.value.facts == {"pointer": "/session"}
    at_play.now += timedelta(days=4_000)
    with pytest.raises(play.SessionClosed):
        await at_play.ask("balance", player)
    assert len(house.log.entries) == entries


async def test_what_was_used_beyond_exact_integers_is_told_as_the_greatest(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=AMOUNT_MAX)
    for place in range(2):
        await at_play.ask("bet", player, reference=f"b{place}", amount=AMOUNT_MAX)
        await at_play.ask("win", player, reference=f"w{place}", amount=AMOUNT_MAX)
    await at_play.record(player, limited("wager", 9))
    with pytest.raises(LimitExceeded):
        await at_play.ask("bet", player, reference="b9", amount=1)
    refused = last(house)
    assert isinstance(refused, StakeRefused)
    assert refused.facts["used"]["amount"] == AMOUNT_MAX


def test_every_refusal_that_is_recorded_is_told_again_as_what_it_was() -> None:
    assert len({error.code for error in games.REFUSALS}) == len(games.REFUSALS)


# Amounts at the edge


async def test_the_greatest_amount_is_staked_won_and_rolled_back(at_play: Games) -> None:
    player = await at_play.player(cash=AMOUNT_MAX)
    await at_play.ask("bet", player, reference="b1", amount=AMOUNT_MAX)
    await at_play.ask("win", player, reference="w1", amount=AMOUNT_MAX)
    with pytest.raises(InvalidAmount):
        await at_play.ask("rollback", player, reference="b1")
    await at_play.give(player, "cash", AMOUNT_MAX, Direction.DEBIT)
    assert balance((await at_play.ask("rollback", player, reference="b1")).answer) == (AMOUNT_MAX, 0)


async def test_what_no_account_can_hold_is_not_recorded_and_arrives_later(house: House, at_play: Games) -> None:
    player = await at_play.player(cash=AMOUNT_MAX)
    entries = len(house.log.entries)
    with pytest.raises(InvalidAmount):
        await at_play.ask("win", player, reference="w1", amount=1)
    assert len(house.log.entries) == entries
    await at_play.ask("bet", player, reference="b1", amount=1)
    await at_play.ask("win", player, reference="w1", amount=1)


@pytest.mark.parametrize("amount", [-1, AMOUNT_MAX + 1])
def test_what_is_no_amount_does_not_enter(amount: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"amount": amount}, games.GameCall)


@pytest.mark.parametrize("reference", ["", "x" * 101, "a b", "ä", "x\n"])
def test_references_are_short_words_of_the_provider(reference: str) -> None:
    with pytest.raises((Invalid, msgspec.ValidationError)):
        Games().plan("close", "player_1", reference=reference)


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        ("bet", "session"),
        ("bet", "round"),
        ("bet", "game"),
        ("bet", "amount"),
        ("win", "currency"),
        ("win", "game"),
        ("win", "round"),
        ("close", "game"),
        ("close", "round"),
    ],
)
async def test_what_a_verb_needs_is_named(at_play: Games, verb: str, missing: str) -> None:
    player = await at_play.player()
    said: dict[str, Any] = {
        "reference": "x",
        "amount": 1,
        "currency": "EUR",
        missing: None if missing == "amount" else "",
    }
    with pytest.raises(Invalid) as refused:
        await at_play.ask(verb, player, **said)
    assert refused.value.facts["pointer"] == f"/{missing}"


async def test_an_unknown_verb_and_an_unknown_player_are_refused_and_nothing_is_recorded(
    house: House, at_play: Games
) -> None:
    nobody = "player_" + "0" * 24 + "1a"
    with pytest.raises(Invalid):
        at_play.plan("spin", nobody)
    for verb in ("bet", "win", "rollback", "close", "balance"):
        with pytest.raises(NotFound):
            await at_play.ask(verb, nobody, reference="x", **({"amount": 1} if verb in ("bet", "win") else {}))
    assert house.log.entries == []


async def test_only_game_providers_may(at_play: Games) -> None:
    player = await at_play.player(cash=100)
    plan = at_play.plan("bet", player, reference="b1", amount=1)
    stranger = msgspec.structs.replace(plan.context, principal=Principal("provider:studio", frozenset()))
    with pytest.raises(Forbidden):
        await at_play.deciders[0].decide(msgspec.structs.replace(plan, context=stranger))


# The state does not grow


async def test_a_wallet_is_as_large_after_a_thousand_bets_as_after_a_hundred_and_loads_from_its_snapshot(
    house: House, at_play: Games
) -> None:
    player = await at_play.player(cash=10**6)
    sizes = []
    for place in range(1100):
        await at_play.ask("bet", player, reference=f"b{place}", amount=1, round=f"round_{place}")
        await at_play.ask("close", player, reference=f"c{place}", round=f"round_{place}")
        if place in (100, 1099):
            name = wallets.stream(PlayerId(player)).name
            sizes.append(len(msgspec.json.encode(house.process.decider._states[name].state)))
    assert sizes[1] <= sizes[0] + 100
    cold = house.another_process()
    house.log.loaded.clear()
    games_ = Games(cold.decider, now=at_play.now + timedelta(seconds=1))
    assert await games_.balance(player) == (10**6 - 1100, 0)
    (after,) = [version for each in house.log.loaded for name, version in each.items() if name.startswith("wallet-")]
    assert after >= 1000
