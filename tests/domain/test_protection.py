from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from domain import protection
from domain.errors import NotFound, Rejected
from domain.kernel import Intervention, PlayerId
from domain.players import PLAYERS, Player, ProfileRecorded
from domain.protection import (
    PROTECTION,
    ActionBlocked,
    ActionIsBlocked,
    ActionUnblocked,
    EndNotDue,
    Excluded,
    ExclusionEnded,
    Grounds,
    Lifted,
    LiftRefused,
    LiftRequested,
    NotExcluded,
    PlayerExcluded,
    PlayerTimedOut,
    Protection,
    RegisterUnanswered,
    Source,
    Stop,
    TermNotOffered,
    TimedOut,
    TooManyReasons,
)
from domain.protection.events import REASONS_MAX
from policies import gates
from policies import protection as policy
from policies.protection import term
from policies.rules import RULES
from tests.domain.history import NOON, REGISTERED, given

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
GAMBLING = (Stop.DEPOSIT, Stop.FREE_PLAY, Stop.BET, Stop.BONUS, Stop.LOGIN)
WHY = Intervention("complaint", "they called")
OTHER = PlayerId("player_01m81j18g0ehsa2vkkc5hq8c1a")


def living(jurisdiction: str) -> Player:
    return given(PLAYERS, REGISTERED, ProfileRecorded(jurisdiction=jurisdiction))


def excluded(jurisdiction: str, word: str, *, source: Source = Source.PLAYER, at: datetime = NOON) -> Protection:
    made = protection.exclude(Protection(), living(jurisdiction), wanted=term(word), source=source, at=at)
    return given(PROTECTION, *made, at=at)


def only_on_request() -> str:
    """A jurisdiction in which exclusions end on request only."""
    return next(
        rule.jurisdiction for rule in RULES.all if rule.name == "self_exclusion.ends_only_on_request" and rule.value
    )


def closed(state: Protection, at: datetime) -> dict[Stop, str]:
    found = {action: state.refusal(action, at) for action in Stop if action is not Stop.MARKETING}
    return {action: refused.code for action, refused in found.items() if refused}


# Who is shut out


@pytest.mark.parametrize("action", [*GAMBLING, *(each for each in gates.Action if each is not gates.Action.WITHDRAW)])
def test_an_exclusion_closes_everything_at_once_but_the_way_to_ones_money(action: Any) -> None:
    state = excluded("GB", "6_months")
    until = policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    with pytest.raises(PlayerExcluded) as refused:
        state.require(action, NOON)
    assert refused.value.facts == {"until": until}
    state.require(gates.Action.WITHDRAW, NOON)
    state.require(Stop.WITHDRAW, NOON)


def test_a_time_out_closes_the_same_and_ends_by_itself_to_the_microsecond() -> None:
    made = protection.time_out(Protection(), living("GB"), wanted=term("24_hours"), source=Source.PLAYER, at=NOON)
    state = given(PROTECTION, *made)
    for action in GAMBLING:
        with pytest.raises(PlayerTimedOut) as refused:
            state.require(action, NOON + DAY - timedelta(microseconds=1))
        assert refused.value.facts == {"until": NOON + DAY}
        state.require(action, NOON + DAY)
    state.require(Stop.WITHDRAW, NOON)


def test_the_button_asks_nothing_and_lasts_as_long_as_its_row_says() -> None:
    rule = next(rule for rule in RULES.all if rule.name == "time_out.panic_button_hours")
    (made,) = protection.panic(Protection(), living(rule.jurisdiction), at=NOON)
    assert made == TimedOut(until=NOON + rule.value, source=Source.PLAYER, rule=rule.name)  # type: ignore[operator]


def test_a_shorter_time_out_changes_nothing_and_a_longer_one_counts() -> None:
    state = given(PROTECTION, TimedOut(until=NOON + 7 * DAY, source=Source.PLAYER))
    assert protection.panic(state, living("GB"), at=NOON) == []
    (longer,) = protection.time_out(state, living("GB"), wanted=term("2_weeks"), source=Source.OPERATOR, at=NOON)
    assert longer.until == NOON + 14 * DAY  # type: ignore[union-attr]


def test_a_term_that_the_law_does_not_offer_is_refused_with_what_it_offers() -> None:
    rule = next(r for r in RULES.all if (r.jurisdiction, r.name) == ("CA-ON", "self_exclusion.allowed_durations"))
    with pytest.raises(TermNotOffered) as refused:
        protection.exclude(Protection(), living("CA-ON"), wanted=term("7_months"), source=Source.PLAYER, at=NOON)
    assert refused.value.facts == {"allowed": rule.value, "rule": rule.name, "verified": rule.verified}


def test_nobody_who_is_not_there_is_shut_out() -> None:
    for decide in (
        lambda: protection.exclude(Protection(), Player(), wanted=term("1_year"), source=Source.PLAYER, at=NOON),
        lambda: protection.time_out(Protection(), Player(), wanted=term("1_day"), source=Source.PLAYER, at=NOON),
        lambda: protection.panic(Protection(), Player(), at=NOON),
        lambda: protection.stop(Protection(), Player(), action=Stop.BET, reason="harm", intervention=None),
    ):
        with pytest.raises(NotFound):
            decide()


# What a second one does to the first


def test_excluding_again_only_makes_it_longer() -> None:
    state = excluded("GB", "1_year")
    assert protection.exclude(state, living("GB"), wanted=term("6_months"), source=Source.PLAYER, at=NOON) == []
    assert protection.exclude(state, living("GB"), wanted=term("12_months"), source=Source.PLAYER, at=NOON) == []
    (longer,) = protection.exclude(state, living("GB"), wanted=term("2_years"), source=Source.PLAYER, at=NOON)
    assert (longer.term, longer.until) == ("2_years", policy.term("2_years").after(NOON))  # type: ignore[union-attr]
    (endless,) = protection.exclude(state, living("GB"), wanted=term("permanent"), source=Source.PLAYER, at=NOON)
    after = given(PROTECTION, endless)
    assert protection.exclude(after, living("GB"), wanted=term("indefinite"), source=Source.PLAYER, at=NOON) == []


def test_an_exclusion_that_is_over_does_not_make_the_next_one_longer() -> None:
    state = excluded("GB", "1_year")
    at = NOON + 400 * DAY
    (new,) = protection.exclude(state, living("GB"), wanted=term("6_months"), source=Source.PLAYER, at=at)
    assert new.until == policy.term("6_months").after(at)  # type: ignore[union-attr]


def test_moving_to_another_jurisdiction_shortens_nothing() -> None:
    where = only_on_request()
    state = excluded(where, "6_months")
    assert protection.exclude(state, living("DK"), wanted=term("1_month"), source=Source.PLAYER, at=NOON) == []
    with pytest.raises(LiftRefused):
        protection.lift(state, source=Source.PLAYER, at=NOON + 31 * DAY)


def test_the_ends_of_all_that_shuts_out_count() -> None:
    state = excluded("GB", "6_months")
    own = policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    longer = given(PROTECTION, TimedOut(until=own + DAY, source=Source.PLAYER))
    both = Protection(state.exclusions, longer.pauses)
    assert both.refusal(Stop.BET, NOON).facts == {"until": own + DAY}  # type: ignore[union-attr]
    assert isinstance(both.refusal(Stop.BET, own), PlayerTimedOut)


# How it ends


def test_where_it_ends_by_itself_it_does_whether_or_not_anybody_has_noticed() -> None:
    state = excluded("GB", "6_months")
    over = policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    assert set(closed(state, over - HOUR)) == {*GAMBLING, Stop.REGISTER}
    assert closed(state, over) == {}
    with pytest.raises(EndNotDue) as early:
        protection.end(state, at=over - HOUR)
    assert early.value.facts == {"due_at": over}
    (ended,) = protection.end(state, at=over)
    assert isinstance(ended, ExclusionEnded)
    assert protection.end(given(PROTECTION, ended), at=over) == []


def test_nobody_ends_it_early() -> None:
    state = excluded("GB", "6_months")
    over = policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    with pytest.raises(LiftRefused) as refused:
        protection.lift(state, source=Source.PLAYER, at=over - HOUR, intervention=WHY)
    assert refused.value.facts == {"why": "ends_by_itself", "until": over}
    with pytest.raises(NotExcluded):
        protection.lift(state, source=Source.OPERATOR, at=NOON)
    with pytest.raises(NotExcluded):
        protection.lift(state, source=Source.PLAYER, at=over)


def test_where_it_ends_on_request_only_it_goes_on_until_somebody_asks_and_the_delay_is_over() -> None:
    where = only_on_request()
    state = excluded(where, "6_months")
    over = policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    assert state.refusal(Stop.BET, over + 1000 * DAY).facts == {"until": None}  # type: ignore[union-attr]
    assert protection.end(state, at=over + 1000 * DAY) == []
    with pytest.raises(LiftRefused) as early:
        protection.lift(state, source=Source.PLAYER, at=over - HOUR)
    assert early.value.facts == {"why": "too_early", "until": over}
    (asked,) = protection.lift(state, source=Source.PLAYER, at=over, intervention=WHY)
    delay = next(r for r in RULES.all if (r.jurisdiction, r.name) == (where, "self_exclusion.lift_delay"))
    assert asked == LiftRequested(
        source=Source.PLAYER, effective_at=over + delay.value, rule=delay.name, intervention=WHY
    )  # type: ignore[operator]
    waiting = protection.fold(state, [asked], over)
    assert protection.lift(waiting, source=Source.PLAYER, at=over + HOUR) == []
    assert closed(waiting, over + delay.value - HOUR)  # type: ignore[operator]
    assert closed(waiting, over + delay.value) == {}  # type: ignore[operator]
    assert [type(each) for each in protection.end(waiting, at=over + delay.value)] == [Lifted]  # type: ignore[operator]


def lifts_definite() -> tuple[str, timedelta]:
    """A jurisdiction that has a delay of lifting a definite exclusion, and how long that is."""
    row = next(rule for rule in RULES.all if rule.name == "self_exclusion.lift_delay_definite")
    assert isinstance(row.value, timedelta)
    return row.jurisdiction, row.value


def test_where_a_row_delays_the_lift_of_a_definite_exclusion_it_may_be_lifted_once_the_least_is_over() -> None:
    where, delay = lifts_definite()
    state = excluded(where, "2_years")
    least, over = policy.HOUSE_EXCLUSION_MINIMUM.after(NOON), policy.term("2_years").after(NOON)  # type: ignore[union-attr]
    with pytest.raises(LiftRefused) as early:
        protection.lift(state, source=Source.PLAYER, at=least - HOUR)
    assert early.value.facts == {"why": "too_early", "until": least}
    (asked,) = protection.lift(state, source=Source.PLAYER, at=least, intervention=WHY)
    assert asked == LiftRequested(
        source=Source.PLAYER, effective_at=least + delay, rule="self_exclusion.lift_delay_definite", intervention=WHY
    )
    waiting = protection.fold(state, [asked], least)
    assert closed(waiting, least + delay - HOUR)
    assert closed(waiting, least + delay) == {}
    assert closed(state, over - HOUR), "nobody has asked"
    assert closed(state, over) == {}
    with pytest.raises(LiftRefused) as late:
        protection.lift(state, source=Source.PLAYER, at=over - delay)
    assert late.value.facts == {"why": "ends_by_itself", "until": over}, "a lift makes nothing longer"


def test_only_a_players_own_exclusion_and_only_of_such_a_jurisdiction_ends_before_its_term() -> None:
    where, _ = lifts_definite()
    over = policy.term("2_years").after(NOON)  # type: ignore[union-attr]
    for state in (excluded(where, "2_years", source=Source.OPERATOR), moved(where, "1_year", "GB", "2_years")):
        (runs,) = state.exclusions
        with pytest.raises(LiftRefused) as refused:
            protection.lift(state, source=runs.source, at=over - 40 * DAY)
        assert refused.value.facts == {"why": "ends_by_itself", "until": over}


def test_moving_to_where_a_lift_is_possible_leaves_what_was_there_as_it_is() -> None:
    where, delay = lifts_definite()
    state, first = moved("GB", "1_year", where, "2_years"), policy.term("1_year").after(NOON)  # type: ignore[union-attr]
    with pytest.raises(LiftRefused) as refused:
        protection.lift(state, source=Source.PLAYER, at=first - HOUR)
    assert refused.value.facts == {"why": "too_early", "until": first}
    (asked,) = protection.lift(state, source=Source.PLAYER, at=first)
    assert isinstance(asked, LiftRequested)
    assert (asked.effective_at, asked.rule) == (first + delay, "self_exclusion.lift_delay_definite")


def moved(first: str, one: str, then: str, other: str) -> Protection:
    """Excluded by themselves in one jurisdiction, and then in another."""
    state = excluded(first, one)
    more = protection.exclude(state, living(then), wanted=term(other), source=Source.PLAYER, at=NOON)
    return protection.fold(state, more, NOON)


def test_excluding_again_where_a_lift_is_possible_holds_for_its_own_least() -> None:
    where, _ = lifts_definite()
    state, at = excluded(where, "2_years"), NOON + 100 * DAY
    (again,) = protection.exclude(state, living(where), wanted=term("6_months"), source=Source.PLAYER, at=at)
    assert isinstance(again, Excluded)
    assert again.until == policy.term("2_years").after(NOON)  # type: ignore[union-attr]
    assert (again.term, again.not_before) == ("2_years", policy.HOUSE_EXCLUSION_MINIMUM.after(at))


def test_excluding_again_forgets_the_lift_that_was_asked_for() -> None:
    where = only_on_request()
    over = policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    state = excluded(where, "6_months")
    waiting = protection.fold(state, protection.lift(state, source=Source.PLAYER, at=over), over)
    (again,) = protection.exclude(waiting, living(where), wanted=term("3_months"), source=Source.PLAYER, at=over)
    state = protection.fold(waiting, [again], over)
    assert closed(state, over + 1000 * DAY)


def test_a_permanent_exclusion_without_a_rule_for_its_end_has_none() -> None:
    with pytest.raises(LiftRefused) as refused:
        protection.lift(excluded("GB", "permanent"), source=Source.PLAYER, at=NOON + 20_000 * DAY)
    assert refused.value.facts == {"why": "permanent", "until": None}


# What the house stops


def test_what_the_house_stops_is_closed_by_name_and_nothing_else_is() -> None:
    grounds = Grounds("complaint", "they called")
    (stopped,) = protection.stop(Protection(), living("GB"), action=Stop.WITHDRAW, reason="fraud", intervention=grounds)
    state = given(PROTECTION, stopped)
    assert stopped == ActionBlocked(action=Stop.WITHDRAW, reason="fraud", intervention=grounds)
    assert closed(state, NOON) == {Stop.WITHDRAW: "action_blocked"}
    assert state.refusal(Stop.WITHDRAW, NOON).facts == {"action": Stop.WITHDRAW}  # type: ignore[union-attr]
    assert stop(state, "fraud") == []
    assert allow(state, "harm") == []
    (allowed,) = allow(state, "fraud")
    assert allowed == ActionUnblocked(action=Stop.WITHDRAW, reason="fraud", intervention=WHY)
    assert closed(given(PROTECTION, stopped, allowed), NOON) == {}
    assert allow(given(PROTECTION, stopped, allowed), "fraud") == []


def allow(state: Protection, reason: str) -> list[protection.ProtectionEvent]:
    return protection.allow(state, living("GB"), action=Stop.WITHDRAW, reason=reason, intervention=WHY)


def test_what_is_stopped_for_two_reasons_is_possible_again_after_both() -> None:
    blocked = [ActionBlocked(action=Stop.WITHDRAW, reason=reason) for reason in ("fraud", protection.HARM_MARKER)]
    for first, second in (("fraud", protection.HARM_MARKER), (protection.HARM_MARKER, "fraud")):
        state = given(PROTECTION, *blocked)
        state = protection.fold(state, allow(state, first), NOON)
        assert state.stopped == {Stop.WITHDRAW: (second,)}
        assert closed(state, NOON) == {Stop.WITHDRAW: "action_blocked"}
        assert closed(protection.fold(state, allow(state, second), NOON), NOON) == {}


def test_reasons_are_bounded_and_a_marker_of_harm_always_finds_room() -> None:
    state = Protection()
    for number in range(REASONS_MAX):
        state = protection.fold(state, stop(state, f"reason-{number}"), NOON)
    assert stop(state, "reason-0") == []
    with pytest.raises(TooManyReasons):
        stop(state, "one more")
    for reason in (protection.HARM_MARKER, protection.NO_REPLY):
        state = protection.fold(state, stop(state, reason), NOON)
    assert len(state.stopped[Stop.WITHDRAW]) == REASONS_MAX + 2
    with pytest.raises(TooManyReasons):
        stop(state, "one more")


def stop(state: Protection, reason: str) -> list[protection.ProtectionEvent]:
    return protection.stop(state, living("GB"), action=Stop.WITHDRAW, reason=reason, intervention=None)


def test_allowing_what_was_stopped_does_not_end_an_exclusion() -> None:
    state = excluded("GB", "6_months")
    state = protection.fold(
        state, protection.stop(state, living("GB"), action=Stop.BET, reason="x", intervention=None), NOON
    )
    allowed = protection.allow(state, living("GB"), action=Stop.BET, reason="x", intervention=None)
    state = protection.fold(state, allowed, NOON)
    assert isinstance(state.refusal(Stop.BET, NOON), PlayerExcluded)


@pytest.mark.parametrize(
    "error",
    [PlayerExcluded(until=None), PlayerTimedOut(until=NOON), ActionIsBlocked(action=Stop.BET), RegisterUnanswered()],
)
def test_a_refusal_can_be_told_again_from_the_log(error: Rejected) -> None:
    again = protection.refusal_of(protection.refused(Stop.BET, error))
    assert (type(again), again.facts) == (type(error), error.facts)


# Clocks that are wrong


@pytest.mark.parametrize("lifted", [False, True])
def test_an_end_that_was_recorded_before_its_time_changes_nothing(lifted: bool) -> None:
    """By a process whose clock is ahead of the log's."""
    where = only_on_request() if lifted else "GB"
    state, at = excluded(where, "6_months"), NOON + 2000 * DAY
    if lifted:
        state = protection.fold(state, protection.lift(state, source=Source.PLAYER, at=at), at)
    over = state.exclusions[0].ends_at
    assert over is not None
    ended = protection.end(state, at=over + HOUR)
    assert protection.fold(state, ended, over - timedelta(microseconds=1)) == state
    assert not protection.fold(state, ended, over).exclusions
