"""Raises of limits: by whose clock they wait, who may ask for them, how often, and what a move to another jurisdiction changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from domain import limits
from domain.errors import LimitExceeded, LimitRequired
from domain.kernel import Intervention
from domain.limits import (
    LIMITS,
    Kind,
    Limits,
    NotByHouse,
    Period,
    RaiseConfirmed,
    RaiseNotThePlayers,
    RaiseRequested,
    RaiseTooEarly,
    RaiseTooSoon,
    RaiseUnseen,
    Source,
)
from domain.players import Player
from policies import limits as policy
from tests.domain.history import NOON, euros, fold, given
from tests.domain.test_limits import ANNA, DAY, MONTH, WEEK, confirm, limit_of, player, refuse, set_

HOUR, A_DAY = timedelta(hours=1), timedelta(days=1)
CLOCKS = (timedelta(0), HOUR, -HOUR, A_DAY, -A_DAY)
"""By how much the clock of one process is ahead of the log's."""


def asked_for(state: Limits, amount: int, who: Player, at: datetime = NOON, **of: Any) -> Limits:
    [asked] = set_(state, euros(amount), who, at, **of)
    assert isinstance(asked, RaiseRequested)
    return fold(LIMITS, [asked], at=at, state=state)


def seen(state: Limits, who: Player, *needs: str, at: datetime = NOON, **of: Any) -> Limits:
    wanted = {"kind": Kind.DEPOSIT, "period": DAY} | of
    for need in needs:
        attested = limits.attest_raise(state, who, need=need, at=at, **wanted)
        assert attested, need
        state = fold(LIMITS, attested, at=at, state=state)
    return state


def confirmed(state: Limits, at: datetime, who: Player, **of: Any) -> Limits:
    return fold(LIMITS, confirm(state, at, who, **of), at=at, state=state)


# Clocks


@pytest.mark.parametrize(
    ("jurisdiction", "period"), [("GB", DAY), ("NL", DAY), ("SE", WEEK), ("US-PA", DAY), ("MT", Period.DAYS_7)]
)
@pytest.mark.parametrize("asks", CLOCKS, ids=str)
@pytest.mark.parametrize("confirms", CLOCKS, ids=str)
def test_no_clock_that_is_wrong_in_a_process_shortens_a_cooling_off(
    jurisdiction: str, period: Period, asks: timedelta, confirms: timedelta
) -> None:
    """One process takes the request, another the confirmation; the log has a third clock, by which the wait is counted."""
    who, before = player(jurisdiction), given(LIMITS, limit_of(100, period))
    [right] = set_(before, euros(200), who, period=period)
    [asked] = set_(before, euros(200), who, NOON + asks, period=period)
    state = fold(LIMITS, [asked], state=before)
    own = before.own(Kind.DEPOSIT, period)
    moments = [
        NOON + HOUR,
        right.effective_at - A_DAY,
        right.effective_at - HOUR,
        right.effective_at - timedelta(microseconds=1),
    ]
    for recorded in (each for each in moments if each > NOON):
        try:
            events = confirm(state, max(recorded + confirms, NOON), who, period=period)
        except RaiseTooEarly:
            continue
        state = fold(LIMITS, events, at=recorded, state=state)
        assert state.own(Kind.DEPOSIT, period) == own, recorded
    at = max(right.effective_at, asked.effective_at) + 2 * A_DAY  # by then it is over for every clock
    state = confirmed(state, at, who, period=period)
    found = state.own(Kind.DEPOSIT, period)
    assert found is not None
    assert found.amount == 200


def test_what_was_confirmed_too_early_by_the_log_still_waits() -> None:
    state = asked_for(given(LIMITS, limit_of(100)), 200, ANNA)
    [early] = confirm(state, NOON + A_DAY)
    assert isinstance(early, RaiseConfirmed)
    assert not early.holds(NOON + A_DAY - timedelta(microseconds=1))
    after = fold(LIMITS, [early], at=NOON + HOUR, state=state)
    assert after == state
    assert refuse(confirmed(after, NOON + A_DAY, ANNA), 201, at=NOON + A_DAY)["limit"] == euros(200)


# Who asks


WHY = Intervention("complaint", "she has shown her payslip")


def test_who_asks_for_a_raise_stands_in_the_event_and_the_house_says_why() -> None:
    before = given(LIMITS, limit_of(100))
    [by_player], [by_house] = (
        set_(before, euros(200)),
        set_(before, euros(200), source=Source.OPERATOR, intervention=WHY),
    )
    assert (by_player.source, by_player.intervention) == (Source.PLAYER, None)
    assert (by_house.source, by_house.intervention) == (Source.OPERATOR, WHY)
    waits = fold(LIMITS, [by_house], state=before)
    assert set_(waits, euros(200), source=Source.OPERATOR, intervention=WHY) == []
    assert waits.raises[0].source is Source.OPERATOR
    [again] = set_(waits, euros(200))  # now she asks herself: that begins anew
    theirs = fold(LIMITS, [again], state=waits)
    assert theirs.raises[0].source is Source.PLAYER
    assert set_(theirs, euros(200), source=Source.OPERATOR, intervention=WHY) == []


def test_in_ontario_nobody_but_the_player_asks_for_a_raise() -> None:
    """AGCO 2.24(1): «must not relax or eliminate a gaming limit without a request from the player»."""
    who, before = player("CA-ON"), given(LIMITS, limit_of(100))
    for most in (euros(200), None):
        with pytest.raises(RaiseNotThePlayers) as refused:
            set_(before, most, who, source=Source.OPERATOR, intervention=WHY)
        assert refused.value.facts == {"rule": "deposit_limit.raise_needs_player_request", "verified": True}
        assert set_(before, most, who)


def test_what_the_house_asked_for_elsewhere_does_not_hold_in_ontario() -> None:
    state = asked_for(given(LIMITS, limit_of(100)), 200, ANNA, source=Source.OPERATOR, intervention=WHY)
    with pytest.raises(RaiseNotThePlayers):
        confirm(state, NOON + A_DAY, player("CA-ON"))
    assert confirm(state, NOON + A_DAY)


def test_the_house_cuts_by_a_limit_of_its_own() -> None:
    for state in (given(LIMITS), given(LIMITS, limit_of(100))):
        with pytest.raises(NotByHouse):
            set_(state, euros(50), source=Source.OPERATOR, intervention=WHY)


# How often (ES)


ABOVE = ("test", "no_risk_behaviour")
SPAIN = player("ES")


def raised_in_spain(state: Limits, amount: int, at: datetime, period: Period = DAY) -> Limits:
    state = seen(asked_for(state, amount, SPAIN, at, period=period), SPAIN, *ABOVE, at=at, period=period)
    return confirmed(state, at + A_DAY, SPAIN, period=period)


def test_only_raises_above_what_the_law_presets_count_for_the_three_months() -> None:
    """«desde el último aumento de dichos límites» (RD 1614/2011 art. 36.4): of those above annex II."""
    state = asked_for(given(LIMITS, limit_of(100_00)), 500_00, SPAIN)  # below the law's 600: her own affair
    state = confirmed(state, NOON + A_DAY, SPAIN)
    state = raised_in_spain(state, 700_00, NOON + 2 * A_DAY)
    with pytest.raises(RaiseTooSoon):
        set_(state, euros(800_00), SPAIN, NOON + 30 * A_DAY)
    cut = fold(LIMITS, set_(state, euros(100_00), SPAIN, NOON + 30 * A_DAY), at=NOON + 30 * A_DAY, state=state)
    assert set_(cut, euros(500_00), SPAIN, NOON + 31 * A_DAY)


def test_the_three_months_are_asked_for_again_when_a_raise_is_confirmed() -> None:
    state = given(LIMITS)
    for period, amount in ((DAY, 700_00), (WEEK, 2_000_00)):
        state = seen(asked_for(state, amount, SPAIN, period=period), SPAIN, *ABOVE, period=period)
    state = confirmed(state, NOON + A_DAY, SPAIN)
    with pytest.raises(RaiseTooSoon) as refused:
        confirm(state, NOON + 2 * A_DAY, SPAIN, period=WEEK)
    assert refused.value.facts["earliest"] == datetime.fromisoformat("2027-02-23T12:00Z")


def test_a_cut_of_what_was_raised_above_the_law_is_no_return_to_its_preset() -> None:
    state, at = raised_in_spain(given(LIMITS), 700_00, NOON), NOON + 2 * A_DAY
    state = fold(LIMITS, set_(state, euros(650_00), SPAIN, at), at=at, state=state)
    assert refuse(state, 650_01, SPAIN, at)["limit"] == euros(650_00)
    lower = fold(LIMITS, set_(state, euros(100_00), SPAIN, at), at=at, state=state)
    assert set_(lower, euros(650_00), SPAIN, at + 100 * A_DAY)[0].needs == ABOVE


# Moves


@pytest.mark.parametrize(
    ("then", "now", "period", "effective"),
    [
        ("AT", "NL", DAY, "2026-11-29T12:00Z"),
        ("NL", "AT", DAY, "2026-11-29T12:00Z"),
        ("GB", "SE", WEEK, "2026-11-25T12:00Z"),
        ("US-PA", "GB", DAY, "2026-11-23T12:00Z"),
        ("GB", "US-PA", MONTH, "2026-12-01T05:00Z"),
    ],
)
def test_who_has_moved_waits_for_the_longer_of_both(then: str, now: str, period: Period, effective: str) -> None:
    state = asked_for(given(LIMITS, limit_of(100, period)), 200, player(then), period=period)
    over = datetime.fromisoformat(effective)
    with pytest.raises(RaiseTooEarly) as refused:
        confirm(state, over - timedelta(microseconds=1), player(now), period=period)
    assert refused.value.facts == {"effective_at": over}
    assert confirm(state, over, player(now), period=period)


def test_who_has_moved_needs_what_both_ask_for_to_be_seen() -> None:
    at, holland = NOON + 8 * A_DAY, player("NL")
    of: Any = {"period": MONTH}
    state = asked_for(given(LIMITS, limit_of(10_00, MONTH)), 4_000_00, holland, **of)
    for who, needs in ((ANNA, ("contact",)), (holland, ("contact",)), (SPAIN, ("contact", *ABOVE))):
        with pytest.raises(RaiseUnseen) as refused:
            confirm(state, at, who, **of)
        assert refused.value.facts == {"needs": list(needs)}
    state = seen(state, SPAIN, "contact", "test", at=at, **of)
    with pytest.raises(RaiseUnseen):
        confirm(state, at, SPAIN, **of)
    confirmed(state, at, ANNA, **of).refuse_deposit(euros(4_000_00), player=ANNA, at=at)


def test_a_raise_of_elsewhere_does_not_lift_what_the_law_presets_here() -> None:
    """She has raised her limit where nothing is preset; in Spain she has passed no test for it."""
    state = confirmed(asked_for(given(LIMITS, limit_of(100_00)), 5_000_00, ANNA), NOON + A_DAY, ANNA)
    at = NOON + 2 * A_DAY
    state.refuse_deposit(euros(5_000_00), player=ANNA, at=at)
    assert refuse(state, 600_01, SPAIN, at)["rule"] == "deposit_limit.default_day"
    [asked] = set_(state, euros(700_00), SPAIN, at)  # below her own, and above the law's
    assert asked.needs == ABOVE
    for most in (600_00, 50_00):
        assert set_(state, euros(most), SPAIN, at) == [limit_of(most)]
    there = raised_in_spain(state, 700_00, at)
    there.refuse_deposit(euros(700_00), player=SPAIN, at=at + A_DAY)
    month = fold(LIMITS, [limit_of(10_000_00, MONTH)], state=there)
    assert refuse(month, 350_01, player("NL"), at + A_DAY)["rule"] == "deposit_limit.contact_threshold_month"


def test_a_bet_asks_for_the_laws_limits_where_they_are_a_condition_of_play_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    right = policy.required

    def required(jurisdiction: str, *of: Any) -> Any:
        asked.append(jurisdiction)
        return right(jurisdiction, *of)

    monkeypatch.setattr(policy, "required", required)
    for where in ("AT", "GB", "ES"):
        given(LIMITS).refuse_unset(player(where), NOON)
    assert asked == []
    for where in ("DE", "DK", "NL", "SE"):
        with pytest.raises(LimitRequired):
            given(LIMITS).refuse_unset(player(where), NOON)
    assert asked == ["DE", "DK", "NL", "SE"]


def test_to_end_a_limit_leaves_the_laws_preset() -> None:
    state = given(LIMITS, limit_of(100_00))
    [asked] = set_(state, None, SPAIN)
    state = confirmed(fold(LIMITS, [asked], state=state), NOON + A_DAY, SPAIN)
    with pytest.raises(LimitExceeded) as refused:
        state.refuse_deposit(euros(600_01), player=SPAIN, at=NOON + A_DAY)
    assert refused.value.facts["source"] == "system"
    assert set_(state, None, SPAIN, NOON + A_DAY) == []
