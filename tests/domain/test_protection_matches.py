"""What an account takes over from the same person's other one, and how that ends."""

from __future__ import annotations

from datetime import datetime

import pytest

from domain import protection
from domain.kernel import PlayerId
from domain.protection import (
    PROTECTION,
    Excluded,
    LiftRefused,
    MatchDismissed,
    NotExcluded,
    Protection,
    Source,
    Stop,
    TimedOut,
    TimeOutDismissed,
)
from policies import protection as policy
from policies.protection import term
from tests.domain.history import NOON, PLAYER, given
from tests.domain.test_protection import DAY, HOUR, OTHER, WHY, closed, excluded, living, only_on_request


def test_another_account_is_excluded_as_the_first_is_and_no_further() -> None:
    theirs = excluded("GB", "1_year")
    (taken,) = protection.exclude_matched(Protection(), living("AT"), of=PLAYER, theirs=theirs, at=NOON + HOUR)
    assert isinstance(taken, Excluded)
    assert (taken.source, taken.of, taken.until, taken.jurisdiction) == (
        Source.MATCHED, PLAYER, policy.term("1_year").after(NOON), "GB",  # type: ignore[union-attr]
    )  # fmt: skip
    matched = given(PROTECTION, taken)
    assert protection.exclude_matched(matched, living("AT"), of=PLAYER, theirs=theirs, at=NOON + HOUR) == []
    assert protection.exclude_matched(Protection(), living("AT"), of=OTHER, theirs=matched, at=NOON) == []
    over = policy.term("1_year").after(NOON)  # type: ignore[union-attr]
    assert protection.exclude_matched(Protection(), living("AT"), of=PLAYER, theirs=theirs, at=over) == []


def test_a_time_out_and_what_a_register_says_are_taken_over_too() -> None:
    theirs = given(
        PROTECTION,
        TimedOut(until=NOON + DAY, source=Source.PLAYER),
        Excluded(source=Source.REGISTER, jurisdiction="NL", on_request=True, register="CRUKS"),
    )
    made = protection.exclude_matched(Protection(), living("AT"), of=PLAYER, theirs=theirs, at=NOON)
    assert [(type(each), each.source, each.of) for each in made] == [  # type: ignore[union-attr]
        (Excluded, Source.MATCHED, PLAYER), (TimedOut, Source.MATCHED, PLAYER)
    ]  # fmt: skip
    with pytest.raises(LiftRefused) as refused:
        protection.lift(given(PROTECTION, *made), source=Source.MATCHED, at=NOON + 1000 * DAY)
    assert refused.value.facts["why"] == "register"


def test_a_match_that_was_another_person_is_dismissed_and_nothing_else_is() -> None:
    own = Excluded(source=Source.PLAYER, jurisdiction="GB", term="6_months", until=NOON + 181 * DAY)
    matched = Excluded(source=Source.MATCHED, jurisdiction="GB", term="6_months", until=NOON + 181 * DAY, of=OTHER)
    both = given(PROTECTION, own, matched)
    assert protection.dismiss_match(both, at=NOON, intervention=WHY) == [MatchDismissed(WHY, OTHER)]
    assert closed(given(PROTECTION, own, matched, MatchDismissed(WHY)), NOON)
    assert not closed(given(PROTECTION, matched, MatchDismissed(WHY)), NOON)
    with pytest.raises(NotExcluded):
        protection.dismiss_match(given(PROTECTION, own), at=NOON, intervention=WHY)


def test_who_was_dismissed_is_not_matched_again_and_another_still_is() -> None:
    theirs, further = excluded("GB", "5_years"), PlayerId("player_01m81j18g0e1pa2yb5e8r30c1b")
    dismissed = given(PROTECTION, MatchDismissed(WHY, OTHER))
    assert protection.exclude_matched(dismissed, living("GB"), of=OTHER, theirs=theirs, at=NOON) == []
    assert protection.exclude_matched(dismissed, living("GB"), of=further, theirs=theirs, at=NOON)


def test_a_time_out_that_was_taken_over_can_be_dismissed_and_ones_own_goes_on() -> None:
    theirs = given(PROTECTION, TimedOut(until=NOON + 9 * DAY, source=Source.PLAYER))
    (taken,) = protection.exclude_matched(Protection(), living("GB"), of=OTHER, theirs=theirs, at=NOON)
    matched = given(PROTECTION, taken)
    assert protection.dismiss_match(matched, at=NOON, intervention=WHY) == [TimeOutDismissed(WHY, OTHER)]
    dismissed = given(PROTECTION, taken, TimeOutDismissed(WHY, OTHER))
    assert not closed(dismissed, NOON)
    assert protection.exclude_matched(dismissed, living("GB"), of=OTHER, theirs=theirs, at=NOON) == []
    own = protection.time_out(matched, living("GB"), wanted=term("24_hours"), source=Source.PLAYER, at=NOON)
    state = given(PROTECTION, taken, *own, TimeOutDismissed(WHY, OTHER))
    assert state.refusal(Stop.BET, NOON).facts == {"until": NOON + DAY}  # type: ignore[union-attr]
    with pytest.raises(NotExcluded):
        protection.dismiss_match(state, at=NOON, intervention=WHY)
    with pytest.raises(NotExcluded):
        protection.dismiss_match(matched, at=NOON + 9 * DAY, intervention=WHY)


def test_of_two_accounts_with_which_one_was_matched_one_is_dismissed_and_the_other_counts() -> None:
    further = PlayerId("player_01m81j18g0e1pa2yb5e8r30c1b")
    until = NOON + 181 * DAY
    both = given(
        PROTECTION,
        Excluded(source=Source.MATCHED, jurisdiction="GB", term="6_months", until=until, of=OTHER),
        TimedOut(until=NOON + DAY, source=Source.MATCHED, of=further),
    )
    assert protection.dismiss_match(both, at=NOON, intervention=WHY) == [MatchDismissed(WHY, OTHER)]
    assert protection.dismiss_match(both, of=further, at=NOON, intervention=WHY) == [TimeOutDismissed(WHY, further)]
    state = protection.fold(both, [TimeOutDismissed(WHY, further)], NOON)
    assert state.refusal(Stop.BET, NOON).facts == {"until": until}  # type: ignore[union-attr]
    with pytest.raises(NotExcluded):
        protection.dismiss_match(state, of=further, at=NOON, intervention=WHY)


def taking_over(theirs: Protection, state: Protection = PROTECTION.initial, at: datetime = NOON) -> Protection:
    made = protection.exclude_matched(state, living("GB"), of=OTHER, theirs=theirs, at=at)
    return protection.fold(state, made, at)


def test_a_match_is_shut_out_as_long_as_a_lift_that_was_asked_for_takes() -> None:
    where = only_on_request()
    asked_at = NOON + 2000 * DAY
    theirs = excluded(where, "6_months")
    (asked,) = protection.lift(theirs, source=Source.PLAYER, at=asked_at)
    lifting = protection.fold(theirs, [asked], asked_at)
    over = lifting.exclusions[0].ends_at
    assert over is not None
    state = taking_over(lifting, at=asked_at)
    assert closed(state, over - HOUR)
    assert not closed(state, over)
    assert not protection.exclude_matched(state, living("GB"), of=OTHER, theirs=lifting, at=asked_at)


def test_a_lift_that_was_asked_for_elsewhere_neither_shortens_nor_renews_what_was_taken_over_before() -> None:
    where = only_on_request()
    asked_at = NOON + 2000 * DAY
    theirs = excluded(where, "6_months")
    taken = taking_over(theirs)
    lifting = protection.fold(theirs, protection.lift(theirs, source=Source.PLAYER, at=asked_at), asked_at)
    assert taking_over(lifting, taken, asked_at) == taken
    own = protection.lift(taken, source=Source.MATCHED, at=asked_at + HOUR)
    both = protection.fold(taken, own, asked_at + HOUR)
    assert taking_over(lifting, both, asked_at + HOUR) == both


def test_what_was_taken_over_from_the_houses_exclusion_is_not_lifted_by_the_players_rule() -> None:
    for sources in ([Source.OPERATOR], [Source.PLAYER, Source.OPERATOR], [Source.OPERATOR, Source.PLAYER]):
        state = Protection()
        for source in sources:
            state = taking_over(excluded("DE", "3_months", source=source), state)
        with pytest.raises(LiftRefused) as refused:
            protection.lift(state, source=Source.MATCHED, at=NOON + 200 * DAY)
        assert refused.value.facts["why"] == "not_researched"
    assert protection.lift(taking_over(excluded("DE", "3_months")), source=Source.MATCHED, at=NOON + 200 * DAY)


def test_a_time_out_that_was_taken_over_goes_no_further() -> None:
    matched = given(PROTECTION, TimedOut(until=NOON + DAY, source=Source.MATCHED, of=OTHER))
    assert protection.exclude_matched(Protection(), living("GB"), of=PLAYER, theirs=matched, at=NOON) == []


def test_own_shut_outs_are_counted_and_taken_over_ones_are_not() -> None:
    matched = Excluded(source=Source.MATCHED, jurisdiction="GB", until=NOON + DAY, of=OTHER)
    own = TimedOut(until=NOON + DAY, source=Source.PLAYER)
    assert given(PROTECTION, matched, own, matched).shut_outs == 1
