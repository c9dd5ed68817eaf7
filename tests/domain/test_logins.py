from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from domain import logins
from domain.errors import NotFound
from domain.logins import DEVICES_MAX, LOGINS, SESSIONS_MAX, Ended, Failed, Login, Succeeded
from domain.players import PLAYERS, Blocked, Closed, MadeDormant, Player, PlayerClosed, Reactivated
from tests.domain.history import NOON, REGISTERED, fold, given

ANNA = given(PLAYERS, REGISTERED)
HERE = Succeeded(device="ios", country="AT", session="1")


def test_a_log_in_is_the_last_one_and_ends_a_row_of_failures() -> None:
    assert logins.succeed(Login(), ANNA, succeeded=HERE) == [HERE]
    wrong = Failed(reason="password")
    assert logins.fail(Login(), ANNA, failed=wrong) == [wrong]
    assert given(LOGINS, wrong, wrong).failures == 2
    state = given(LOGINS, wrong, wrong, HERE)
    assert state == Login(NOON + timedelta(microseconds=2), "AT", "ios", 0, ("ios",), ("1",))


def test_a_session_begins_and_ends_once() -> None:
    open_ = given(LOGINS, HERE)
    assert logins.succeed(open_, ANNA, succeeded=HERE) == []
    assert logins.end(open_, ANNA, session="1") == [Ended("1")]
    assert logins.end(given(LOGINS, HERE, Ended("1")), ANNA, session="1") == []
    assert logins.end(Login(), ANNA, session="2") == []


def test_a_log_in_wakes_an_account_that_slept() -> None:
    asleep = given(PLAYERS, REGISTERED, MadeDormant())
    assert logins.succeed(Login(), asleep, succeeded=HERE) == [HERE, Reactivated()]


def test_a_blocked_player_may_come_for_their_money_and_nobody_into_a_closed_account() -> None:
    assert logins.succeed(Login(), given(PLAYERS, REGISTERED, Blocked("x")), succeeded=HERE) == [HERE]
    with pytest.raises(PlayerClosed):
        logins.succeed(Login(), given(PLAYERS, REGISTERED, Closed("x")), succeeded=HERE)


def test_nobody_logs_in_who_is_not_there() -> None:
    for ask in (
        lambda: logins.succeed(Login(), Player(), succeeded=HERE),
        lambda: logins.fail(Login(), Player(), failed=Failed(reason="x")),
        lambda: logins.end(Login(), Player(), session="1"),
    ):
        with pytest.raises(NotFound):
            ask()


@over(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=80))
def test_the_state_stays_small_however_often_somebody_comes(history: list[tuple[int, bool]]) -> None:
    state = Login()
    for number, comes in history:
        events = (
            logins.succeed(state, ANNA, succeeded=Succeeded(device=f"d{number}", session=f"s{number}"))
            if comes
            else logins.end(state, ANNA, session=f"s{number}")
        )
        state = fold(LOGINS, events, state=state)
        assert len(state.devices) <= DEVICES_MAX
        assert len(state.sessions) <= SESSIONS_MAX
        assert (f"s{number}" in state.sessions) == comes
