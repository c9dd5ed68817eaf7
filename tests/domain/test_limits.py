from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain import limits
from domain.errors import CurrencyMismatch, LimitExceeded, LimitRaise, NotFound
from domain.kernel import Money
from domain.limits import LIMITS, DepositLimitSet, HeadroomConsumed, HeadroomReleased, Period
from domain.players import PLAYERS
from tests.domain.history import DEPOSIT, EUR, NOON, OTHER_DEPOSIT, REGISTERED, TOMORROW, USD, euros, fold, given

ANNA = given(PLAYERS, REGISTERED)
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


def limit_of(amount: int) -> DepositLimitSet:
    return DepositLimitSet(period=Period.DAY, limit=euros(amount))


def consumed(amount: int) -> HeadroomConsumed:
    return HeadroomConsumed(transaction=DEPOSIT, money=euros(amount))


def released(amount: int, at: datetime) -> HeadroomReleased:
    return HeadroomReleased(transaction=DEPOSIT, money=euros(amount), day=at.date())


# Setting


def test_a_limit_is_set() -> None:
    events = limits.set_deposit_limit(given(LIMITS), ANNA, period=Period.DAY, limit=euros(100))
    assert events == [limit_of(100)]


def test_a_limit_is_cut_at_once() -> None:
    events = limits.set_deposit_limit(given(LIMITS, limit_of(100)), ANNA, period=Period.DAY, limit=euros(0))
    assert events == [limit_of(0)]
    with pytest.raises(LimitExceeded):
        fold(LIMITS, [limit_of(100), *events]).refuse_excess(euros(1), NOON)


def test_the_same_limit_again_records_nothing() -> None:
    assert limits.set_deposit_limit(given(LIMITS, limit_of(100)), ANNA, period=Period.DAY, limit=euros(100)) == []


def test_a_raise_is_refused() -> None:
    with pytest.raises(LimitRaise) as refused:
        limits.set_deposit_limit(given(LIMITS, limit_of(100)), ANNA, period=Period.DAY, limit=euros(101))
    assert refused.value.facts == {"limit": euros(100)}


def test_a_limit_is_in_the_players_currency() -> None:
    with pytest.raises(CurrencyMismatch):
        limits.set_deposit_limit(given(LIMITS), ANNA, period=Period.DAY, limit=Money(100, USD))


def test_nobody_has_a_limit_who_is_not_there() -> None:
    with pytest.raises(NotFound):
        limits.set_deposit_limit(given(LIMITS), given(PLAYERS), period=Period.DAY, limit=euros(100))


# Using


def test_a_deposit_may_use_a_limit_up_and_not_exceed_it() -> None:
    state = given(LIMITS, limit_of(100), consumed(60))
    state.refuse_excess(euros(40), NOON)
    with pytest.raises(LimitExceeded) as refused:
        state.refuse_excess(euros(41), NOON)
    assert refused.value.facts == {
        "limit": euros(100),
        "used": euros(60),
        "remaining": euros(40),
        "frees_at": MIDNIGHT,
    }


def test_a_limit_that_was_set_at_noon_counts_the_morning() -> None:
    with pytest.raises(LimitExceeded) as refused:
        given(LIMITS, consumed(70), limit_of(50)).refuse_excess(euros(1), NOON)
    assert (refused.value.facts["used"], refused.value.facts["remaining"]) == (euros(70), euros(0))


def test_without_a_limit_nothing_is_refused() -> None:
    given(LIMITS, consumed(10**12)).refuse_excess(Money(10**12, EUR), NOON)


def test_a_new_day_has_the_whole_limit() -> None:
    state = given(LIMITS, limit_of(100), consumed(100))
    with pytest.raises(LimitExceeded):
        state.refuse_excess(euros(1), MIDNIGHT - timedelta(microseconds=1))
    state.refuse_excess(euros(100), MIDNIGHT)
    assert fold(LIMITS, [consumed(30)], at=TOMORROW, state=state).used_on(TOMORROW.date()) == 30


# Releasing


def test_a_release_gives_back_what_was_consumed_that_day() -> None:
    state = given(LIMITS, limit_of(100), consumed(60), consumed(30), released(60, NOON))
    assert state.used_on(NOON.date()) == 30


def test_a_release_of_yesterdays_use_gives_nothing_back_today() -> None:
    state = fold(LIMITS, [consumed(30), released(60, NOON)], at=TOMORROW, state=given(LIMITS, consumed(60)))
    assert state.used_on(TOMORROW.date()) == 30


def test_a_day_that_went_back_counts_on_the_later_day() -> None:
    """Two regions' clocks may differ around a takeover; nobody gets a day twice."""
    state = given(LIMITS, consumed(60), at=TOMORROW)
    back = fold(LIMITS, [HeadroomConsumed(transaction=OTHER_DEPOSIT, money=euros(30))], at=NOON, state=state)
    assert back.used_on(TOMORROW.date()) == 90
