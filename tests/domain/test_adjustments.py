from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain import adjustments
from domain.adjustments import ADJUSTMENTS, Account, AdjustmentId, Made, NotTheirTicket, ReasonCode
from domain.errors import CurrencyMismatch, NotFound
from domain.kernel import Intervention, Money, PlayerId
from domain.players import PLAYERS, Blocked, Player
from domain.tickets import Ticket
from domain.wallets import Direction
from policies.approvals import ADJUST, ALWAYS, RULES, Rule, reasons
from policies.currencies import EXPONENTS
from tests.domain.history import NOON, PLAYER, REGISTERED, TOMORROW, USD, euros, fold, given

MADE = Made(
    adjustment=AdjustmentId("adjustment_01m81j18g0gs6r2yb5e8r30c1a"),
    operator="operator:maria",
    money=euros(2500),
    direction=Direction.CREDIT,
    account=Account.CASH,
    reason_code=ReasonCode.GOODWILL,
    intervention=Intervention("complaint", "the game froze"),
)
TODAY = NOON.date()


def made(amount: int, operator: str = "operator:maria", direction: Direction = Direction.CREDIT) -> Made:
    return msgspec.structs.replace(MADE, money=euros(amount), operator=operator, direction=direction)


def adjust(player: Player, ticket: Ticket | None = None, made: Made = MADE) -> list[Made]:
    return adjustments.adjust(player, ticket, player_id=PLAYER, made=made)


def test_an_adjustment_says_why_money_moves() -> None:
    assert adjust(given(PLAYERS, REGISTERED)) == [MADE]


def test_a_blocked_players_books_can_be_put_right() -> None:
    assert adjust(given(PLAYERS, REGISTERED, Blocked(reason="fraud"))) == [MADE]


def test_a_ticket_that_it_names_is_the_players() -> None:
    player = given(PLAYERS, REGISTERED)
    assert adjust(player, Ticket(player=PLAYER)) == [MADE]
    for other in (Ticket(), Ticket(player=PlayerId("player_01ka7g0000e00800000000001a"))):
        with pytest.raises(NotTheirTicket):
            adjust(player, other)


def test_nobodys_books_and_another_currency_are_refused() -> None:
    with pytest.raises(NotFound):
        adjust(given(PLAYERS))
    with pytest.raises(CurrencyMismatch):
        adjust(given(PLAYERS, REGISTERED), made=msgspec.structs.replace(MADE, money=Money(1, USD)))


def test_sums_are_of_each_operator_and_of_all_and_gross() -> None:
    state = given(ADJUSTMENTS, made(100), made(30, direction=Direction.DEBIT), made(7, "operator:olga"))
    assert (state.by("operator:maria", TODAY), state.by("operator:olga", TODAY), state.on(TODAY)) == (130, 7, 137)


def test_a_new_day_begins_at_nothing() -> None:
    yesterday = given(ADJUSTMENTS, made(100))
    assert (yesterday.on(TOMORROW.date()), yesterday.by("operator:maria", TOMORROW.date())) == (0, 0)
    assert fold(ADJUSTMENTS, [made(5)], at=TOMORROW, state=yesterday).sums == {"operator:maria": 5}


@for_all(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 10**6), st.integers(0, 40)), max_size=30),
)
def test_the_state_holds_one_day_and_its_sums(acts: list[tuple[str, int, int]]) -> None:
    state, at = ADJUSTMENTS.initial, NOON
    expected: dict[object, dict[str, int]] = {}
    for operator, amount, hours in acts:
        at += timedelta(hours=hours)
        state = fold(ADJUSTMENTS, [made(amount, operator)], at=at, state=state)
        sums = expected.setdefault(at.date(), {})
        sums[operator] = sums.get(operator, 0) + amount
    assert state.sums == expected.get(at.date(), {})
    assert state.on(at.date()) == sum(expected.get(at.date(), {}).values())


# The policy


def test_what_goes_alone_is_up_to_the_threshold_and_not_beyond() -> None:
    rule = RULES[ADJUST]
    assert reasons(rule, "EUR", {"operator_day": 10_000, "player_day": 25_000}) == ()
    assert reasons(rule, "EUR", {"operator_day": 10_001, "player_day": 25_000}) == ("operator_day",)
    assert reasons(rule, "EUR", {"operator_day": 1, "player_day": 25_001}) == ("player_day",)


@pytest.mark.parametrize(("currency", "alone"), [("JPY", 15_000), ("EUR", 10_000), ("KWD", 100_000)])
def test_thresholds_are_whole_units_of_currencies_with_no_two_or_three_decimals(currency: str, alone: int) -> None:
    rule = RULES[ADJUST]
    assert reasons(rule, currency, {"operator_day": alone, "player_day": alone}) == ()
    assert reasons(rule, currency, {"operator_day": alone + 1, "player_day": alone}) == ("operator_day",)


def test_every_currency_has_a_threshold() -> None:
    for currency in EXPONENTS:
        assert reasons(RULES[ADJUST], currency, {"operator_day": 2**53, "player_day": 2**53})


def test_a_rule_without_windows_always_asks_and_what_is_not_measured_does_not_go_alone() -> None:
    assert reasons(Rule(1), "EUR", {}) == (ALWAYS,)
    assert reasons(RULES[ADJUST], "EUR", {"operator_day": 1}) == ("player_day",)
