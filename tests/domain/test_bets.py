"""Bets by themselves: who pays, who is paid back, and what a wallet remembers of them."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain import bets, wallets
from domain.bets import BETS, Claimed, TooManyEarly, TooManyRounds
from domain.kernel import AMOUNT_MAX, Money
from domain.limits import LIMITS, Limits
from domain.players import PLAYERS, Player
from domain.tallies import ROUNDS_MAX, TALLIED_MAX
from domain.wallets import (
    BONUS,
    CASH,
    WALLETS,
    Accounts,
    BonusForfeited,
    Moved,
    Movement,
    Played,
    RolledBack,
    RoundClosed,
    Staked,
    StakeRefused,
    Wallet,
    Won,
)
from policies import spending
from policies.limits import Period
from policies.spending import Order, WinKind
from tests.domain.history import A_MONTH, EUR, NOON, REGISTERED, euros, fold, given

PERSON: Player = given(PLAYERS, REGISTERED)
LIMITED: Limits = given(LIMITS, A_MONTH)
"""Nobody plays in DE who has not set a limit."""
PLAYED = Played("studio", "book", "r1", "session_1")


def holding(cash: int, bonus: int) -> Moved:
    return Moved((Movement("bonus", "house:bonus", BONUS, euros(max(1, bonus)), "x"),), Accounts(cash, bonus))


def stake(wallet: Wallet, amount: int, *, played: Played = PLAYED, reference: str = "b1") -> Staked:
    money = euros(amount)
    parts = bets.paying(wallet, PERSON, money)
    (event,) = bets.stake(
        wallet, LIMITED, PERSON, played=played, reference=reference, money=money, parts=parts, is_slot=False, at=NOON
    )
    return event


def won(wallet: Wallet, amount: int, kind: WinKind = WinKind.WIN, *, played: Played = PLAYED) -> Won:
    (event,) = bets.win(wallet, PERSON, played=played, reference="w1", kind=kind, money=euros(amount), at=NOON)
    return event


def back(wallet: Wallet, bet: Staked, last: RolledBack | None = None, amount: int | None = None) -> RolledBack:
    event, *claims = bets.roll_back(wallet, bet, staked_at=NOON, last=last, reference="rb", amount=amount)
    assert isinstance(event, RolledBack)
    assert claims == ([Claimed()] if event.money.amount else [])
    return event


@for_all(
    cash=st.integers(0, 60), bonus=st.integers(0, 60), share=st.integers(0, 120), parts=st.lists(st.integers(1, 50)),
    order=st.sampled_from(Order),
)  # fmt: skip
def test_what_is_left_of_a_bet_is_as_if_it_had_been_for_less(
    cash: int, bonus: int, share: int, parts: list[int], order: Order
) -> None:
    """In however many parts it is rolled back; and never is more given back than was staked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spending, "DEFAULT", order)
        before = given(WALLETS, holding(cash, bonus))
        amount = min(share, cash + bonus)
        bet = stake(before, amount)
        wallet, last, returned = fold(WALLETS, [bet], state=before), None, 0
        for part in parts:
            event = back(wallet, bet, last, part)
            wallet, last = fold(WALLETS, [event], state=wallet), event if event.part else last
            returned = min(amount, returned + part)
            assert event.total == returned
            assert wallet.balance(EUR) == fold(WALLETS, [stake(before, amount - returned)], state=before).balance(EUR)


def test_a_part_names_the_day_and_the_time_of_its_bet() -> None:
    before = given(WALLETS, holding(100, 0))
    bet = stake(before, 60)
    event = back(fold(WALLETS, [bet], state=before), bet, amount=10)
    assert (event.day, event.staked_at, event.part, event.total) == (bet.day, NOON, 1, 10)


def test_a_bonus_of_another_era_does_not_come_back() -> None:
    before = given(WALLETS, holding(10, 50))
    bet = stake(before, 60)
    wallet = fold(WALLETS, [bet], state=before)
    (forfeited,) = wallets.forfeit_bonus(wallet, currency=EUR, transaction="x")
    assert forfeited == BonusForfeited(euros(0), (), Accounts(0, 0))
    event = back(fold(WALLETS, [forfeited], state=wallet), bet)
    assert [(each.target, each.money.amount) for each in event.movements] == [("house:bonus", 50), (CASH, 10)]


@pytest.mark.parametrize("kind", WinKind)
def test_only_cash_that_is_won_makes_a_loss_smaller(kind: WinKind) -> None:
    wallet = given(WALLETS, holding(100, 0))
    wallet = fold(WALLETS, [stake(wallet, 60)], state=wallet)
    wallet = fold(WALLETS, [won(wallet, 20, kind)], state=wallet)
    day = date(2026, 11, 22)
    assert wallet.lost.within(Period.DAY, day=day, at=NOON) == (40 if kind is WinKind.WIN else 60)
    assert wallet.wagered.within(Period.DAY, day=day, at=NOON) == 60
    assert wallet.lost_in("session_1") == (40 if kind is WinKind.WIN else 60)


def test_the_local_day_is_that_of_the_players_jurisdiction() -> None:
    """It is past midnight in Germany, and not yet in UTC."""
    wallet = given(WALLETS, holding(100, 0))
    late = NOON + timedelta(hours=11, minutes=30)
    (event,) = bets.win(wallet, PERSON, played=PLAYED, reference="w1", kind=WinKind.WIN, money=euros(1), at=late)
    assert (event.day, event.utc_offset) == (date(2026, 11, 23), 60)


def test_what_was_decided_by_a_clock_that_lags_counts_on_the_day_of_its_recording() -> None:
    """And is taken back from that day."""
    before = given(WALLETS, holding(100, 0))
    bet, recorded = stake(before, 60), NOON + timedelta(days=1)
    wallet = fold(WALLETS, [bet], state=before, at=recorded)
    day = recorded.date()
    assert (bet.day, wallet.wagered.within(Period.DAY, day=day, at=recorded)) == (NOON.date(), 60)
    (event, _) = bets.roll_back(wallet, bet, staked_at=recorded, last=None, reference="rb", amount=10)
    assert isinstance(event, RolledBack)
    assert event.day == day
    after = fold(WALLETS, [event], state=wallet, at=recorded)
    assert after.wagered.within(Period.DAY, day=day, at=recorded) == 50


def test_a_day_that_goes_back_counts_with_the_newest() -> None:
    wallet = given(WALLETS, holding(100, 0))
    tomorrow = wallet.lost.add(0, day=date(2026, 11, 23), at=NOON)
    wallet = msgspec.structs.replace(wallet, lost=tomorrow)
    assert stake(wallet, 10).day == date(2026, 11, 23)


def closed(place: int) -> RoundClosed:
    return RoundClosed(played=in_round(place), reference=f"c{place}", currency=EUR, accounts=Accounts())


def in_round(place: int, session: str = "session_1") -> Played:
    return Played("studio", "book", f"r{place}", session)


def test_of_rounds_that_are_over_only_the_newest_are_remembered() -> None:
    wallet = given(WALLETS, holding(100, 0))
    for place in range(TALLIED_MAX + 5):
        wallet = fold(WALLETS, [stake(wallet, 1, played=in_round(place)), closed(place)], state=wallet)
    assert (len(wallet.rounds.open), len(wallet.rounds.over)) == (0, TALLIED_MAX)
    assert wallet.round(in_round(0)) is None
    found = wallet.round(in_round(TALLIED_MAX + 4))
    assert found is not None
    assert (found.staked, found.is_open) == (1, False)
    assert wallet.round(Played("studio", "another", f"r{TALLIED_MAX + 4}")) is None


def test_an_open_round_is_not_forgotten_and_whoever_has_too_many_begins_no_other() -> None:
    wallet = given(WALLETS, holding(1_000, 0))
    for place in range(ROUNDS_MAX):
        wallet = fold(WALLETS, [stake(wallet, 1, played=in_round(place))], state=wallet)
    assert stake(wallet, 1, played=in_round(0)).money == euros(1), "a round that has begun goes on"
    with pytest.raises(TooManyRounds):
        stake(wallet, 1, played=in_round(ROUNDS_MAX))
    wallet = fold(WALLETS, [closed(7)], state=wallet)
    wallet = fold(WALLETS, [stake(wallet, 1, played=in_round(ROUNDS_MAX))], state=wallet)
    with pytest.raises(TooManyRounds):
        stake(wallet, 1, played=in_round(ROUNDS_MAX + 1))
    assert {each.name for each in wallet.rounds.open} == {
        f"studio\nbook\nr{place}" for place in range(ROUNDS_MAX + 1) if place != 7
    }


def test_an_outcome_that_overtakes_its_bet_is_that_of_the_round() -> None:
    wallet = given(WALLETS, holding(100, 0))
    wallet = fold(WALLETS, [won(wallet, 0), stake(wallet, 60)], state=wallet)
    assert wallet.rounds.open == ()
    found = wallet.round(PLAYED)
    assert found is not None
    assert (found.staked, found.is_open) == (60, False)


def test_a_win_without_a_session_is_of_the_session_of_its_round() -> None:
    wallet = given(WALLETS, holding(100, 0))
    wallet = fold(WALLETS, [stake(wallet, 60)], state=wallet)
    event = won(wallet, 50, played=in_round(1, session=""))
    assert event.played == PLAYED
    assert fold(WALLETS, [event], state=wallet).lost_in("session_1") == 10
    assert won(wallet, 50, played=in_round(2, session="")).played.session == ""
    assert won(wallet, 50, played=in_round(1, session="session_2")).played.session == "session_2"


def take_back(
    wallet: Wallet, bet: str = "b1", *, before: StakeRefused | None = None, amount: int | None = None
) -> list[RolledBack | Claimed]:
    return bets.roll_back_nothing(wallet, PERSON, played=PLAYED, reference="rb", bet=bet, before=before, amount=amount)


def test_who_takes_back_what_moved_nothing_moves_nothing() -> None:
    wallet = given(WALLETS, holding(100, 0))
    refused = StakeRefused(
        played=PLAYED, reference="b1", money=euros(1), currency=EUR, accounts=Accounts(), code="insufficient_funds"
    )
    (event,) = take_back(wallet, before=refused, amount=5)
    assert isinstance(event, RolledBack)
    assert (event.part, event.money, event.movements, event.accounts) == (0, Money(0, EUR), (), wallet.balance(EUR))
    assert event.ahead == 0
    assert take_back(wallet)[1:] == [Claimed()]


def test_parts_that_come_before_their_bet_wait_for_it_until_it_comes_or_all_of_it_is_taken_back() -> None:
    wallet = given(WALLETS, holding(100, 0))
    for amount, together in ((30, 30), (25, 55)):
        (event,) = take_back(wallet, amount=amount)
        assert isinstance(event, RolledBack)
        wallet = fold(WALLETS, [event], state=wallet)
        assert wallet.early_of(PLAYED, "b1") == together
    arrived = msgspec.structs.replace(stake(wallet, 5), ahead=55)
    refused = StakeRefused(
        played=PLAYED, reference="b1", money=euros(60), currency=EUR, accounts=Accounts(), code="insufficient_funds"
    )
    for settles in ([arrived], [refused], take_back(wallet)[:1]):
        assert fold(WALLETS, settles, state=wallet).early == ()


def test_of_bets_that_never_come_only_a_few_are_waited_for_and_a_part_of_another_comes_again_later() -> None:
    wallet = given(WALLETS, holding(100, 0))
    for place in range(TALLIED_MAX):
        wallet = fold(WALLETS, take_back(wallet, f"b{place}", amount=5), state=wallet)
    assert len(wallet.early) == TALLIED_MAX
    with pytest.raises(TooManyEarly) as refused:
        take_back(wallet, "one more", amount=5)
    assert refused.value.facts == {"most": TALLIED_MAX}
    assert take_back(wallet, "one more")[1:] == [Claimed()], "all of it waits for nothing"
    assert take_back(wallet, "one more", amount=AMOUNT_MAX + 1)[1:] == [Claimed()]
    (more,) = take_back(wallet, "b3", amount=7)
    assert fold(WALLETS, [more], state=wallet).early_of(PLAYED, "b3") == 12
    assert take_back(wallet, "b3", amount=AMOUNT_MAX)[1:] == [Claimed()], "nobody bets more than that"


def test_the_stream_of_claims_counts_them_and_keeps_no_more() -> None:
    assert given(BETS, Claimed(), Claimed()) == bets.Bets(2)
