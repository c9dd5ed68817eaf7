"""What registers of the excluded say, and whether marketing may write."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from domain import protection
from domain.players import Verdict
from domain.protection import (
    PROTECTION,
    ActionBlocked,
    Answer,
    Excluded,
    LiftRefused,
    PlayerExcluded,
    Protection,
    RegisterAsked,
    RegisterUnanswered,
    Said,
    Source,
    Stop,
    TimedOut,
)
from policies import protection as policy
from policies.protection import Moment, Silence
from policies.rules import RULES
from tests.domain.history import NOON, given
from tests.domain.test_protection import DAY, GAMBLING, HOUR, OTHER, closed, excluded, living

CLEAR = Answer("CRUKS", Moment.LOGIN, Said.CLEAR)
IN_IT = Answer("CRUKS", Moment.LOGIN, Said.EXCLUDED)
DOWN = Answer("CRUKS", Moment.LOGIN, Said.UNANSWERED, silence=Silence.DOWN)


def hear(state: Protection, *answers: Answer, at: datetime = NOON) -> Protection:
    for answer in answers:
        state = protection.fold(state, protection.hear(state, "NL", answer, at=at), at)
    return state


def test_a_clear_lets_the_player_in_and_each_one_is_recorded() -> None:
    state = hear(Protection(), CLEAR)
    assert closed(state, NOON) == {}
    assert protection.hear(state, "NL", CLEAR, at=NOON) == [
        RegisterAsked(register="CRUKS", moment=Moment.LOGIN, answer=Said.CLEAR)
    ]


def test_who_is_in_the_register_is_excluded_until_it_says_otherwise_whatever_its_date() -> None:
    until = NOON + 200 * DAY
    state = hear(Protection(), IN_IT._replace(until=until))
    assert set(closed(state, until + DAY)) == {*GAMBLING, Stop.REGISTER}
    assert protection.end(state, at=until + DAY) == []
    assert len(protection.hear(state, "NL", IN_IT._replace(until=until), at=NOON)) == 1
    assert closed(hear(state, CLEAR, at=until), until) == {}
    with pytest.raises(LiftRefused) as refused:
        protection.lift(state, source=Source.REGISTER, at=until)
    assert refused.value.facts["why"] == "register"


def test_what_one_register_says_does_not_end_what_another_has_said() -> None:
    state = hear(hear(Protection(), IN_IT), Answer("OASIS", Moment.LOGIN, Said.CLEAR))
    assert closed(state, NOON)


def test_a_silence_and_a_move_do_not_make_a_register_forget_what_it_has_said() -> None:
    """It was silent last, and the register of the new home knows nobody."""
    state = hear(Protection(), IN_IT, DOWN, Answer("ROFUS", Moment.LOGIN, Said.CLEAR))
    assert state.of(Source.REGISTER)
    assert hear(state, CLEAR).of(Source.REGISTER) is None


def test_a_register_that_is_not_asked_any_more_holds_up_nobody() -> None:
    state = hear(Protection(), DOWN)
    assert closed(state, NOON)
    assert not closed(hear(state, Answer("GAMSTOP", Moment.LOGIN, Said.CLEAR)), NOON)


def test_what_was_taken_over_from_a_register_ends_when_it_says_clear_of_this_account_too() -> None:
    state = protection.fold(
        Protection(),
        protection.exclude_matched(Protection(), living("NL"), of=OTHER, theirs=hear(Protection(), IN_IT), at=NOON),
        NOON,
    )
    assert closed(state, NOON)
    assert not closed(hear(state, CLEAR), NOON)


@pytest.mark.parametrize("register_first", [False, True])
def test_what_a_register_says_of_another_account_and_its_own_exclusion_end_by_themselves(register_first: bool) -> None:
    """Whichever came first: the register's word ends with the register's, the term when it is over."""
    own = protection.exclude(Protection(), living("NL"), wanted=policy.term("6_months"), source=Source.PLAYER, at=NOON)
    over = own[0].until  # type: ignore[union-attr]
    in_it = protection.hear(Protection(), "NL", IN_IT, at=NOON)
    theirs, state = Protection(), Protection()
    for events in (in_it, own) if register_first else (own, in_it):
        theirs = protection.fold(theirs, events, NOON)
        taken = protection.exclude_matched(state, living("NL"), of=OTHER, theirs=theirs, at=NOON)
        state = protection.fold(state, taken, NOON)
    assert closed(hear(state, CLEAR, at=over - HOUR), over - HOUR), "the other account's own goes on"
    assert closed(state, over), "the register has not said otherwise"
    assert not closed(hear(state, CLEAR, at=over - HOUR), over)
    with pytest.raises(LiftRefused) as refused:
        protection.lift(state, source=Source.MATCHED, at=over)
    assert refused.value.facts["why"] == "register"
    dismissed = protection.fold(state, protection.dismiss_match(state, at=NOON, intervention=None), NOON)
    assert not closed(dismissed, NOON)


def test_the_end_of_what_a_register_has_said_of_another_account_ends_nothing_else() -> None:
    """The account's own exclusion there has no end; the register's word had one, as it stood in the account that was matched."""
    forever = Excluded(source=Source.MATCHED, jurisdiction="NL", term="permanent", of=OTHER)
    until = Excluded(source=Source.MATCHED, jurisdiction="NL", until=NOON + DAY, register="CRUKS", of=OTHER)
    state = given(PROTECTION, forever, until)
    ended = protection.end(state, at=NOON + DAY)
    assert [each.register for each in ended] == ["CRUKS"]  # type: ignore[union-attr]
    state = protection.fold(state, ended, NOON + DAY)
    assert [each.term for each in state.exclusions] == ["permanent"]
    assert closed(state, NOON + 1000 * DAY)


def test_what_one_register_says_of_another_account_does_not_end_what_another_has_said() -> None:
    theirs, state = Protection(), Protection()
    for register in ("CRUKS", "OASIS"):
        theirs = hear(theirs, IN_IT._replace(register=register))
        taken = protection.exclude_matched(state, living("NL"), of=OTHER, theirs=theirs, at=NOON)
        state = protection.fold(state, taken, NOON)
    state = hear(state, CLEAR)
    assert closed(state, NOON)
    assert not closed(hear(state, CLEAR._replace(register="OASIS")), NOON)


def test_where_the_wait_for_an_end_is_the_players_alone_the_houses_exclusion_is_not_lifted_by_it() -> None:
    state = excluded("DE", "3_months", source=Source.OPERATOR)
    with pytest.raises(LiftRefused) as refused:
        protection.lift(state, source=Source.OPERATOR, at=NOON + 200 * DAY)
    assert refused.value.facts["why"] == "not_researched"


def test_a_register_that_is_down_is_never_clear_and_is_asked_again() -> None:
    (asked,) = protection.hear(Protection(), "NL", DOWN, at=NOON)
    assert asked == RegisterAsked(
        register="CRUKS", moment=Moment.LOGIN, answer=Said.UNANSWERED, silence=Silence.DOWN, holds=True,
        ask_again_at=NOON + policy.HOUSE_ASK_AGAIN,
    )  # fmt: skip
    state = given(PROTECTION, asked)
    for action in GAMBLING:
        with pytest.raises(RegisterUnanswered):
            state.require(action, NOON)
    state.require(Stop.WITHDRAW, NOON)
    (again,) = protection.hear(state, "NL", DOWN, at=NOON + 2 * HOUR)
    assert again.ask_again_at == NOON + 4 * HOUR  # type: ignore[union-attr]
    assert closed(hear(state, CLEAR), NOON) == {}


def test_a_clear_of_today_still_counts_while_the_register_is_down() -> None:
    state = hear(Protection(), CLEAR)
    at = NOON + policy.HOUSE_CLEAR_COUNTS
    assert closed(hear(state, DOWN, at=at), at) == {}
    assert closed(hear(state, DOWN, at=at + HOUR), at + HOUR)


@pytest.mark.parametrize("silence", [Silence.NOT_CONFIGURED, Silence.NOT_RESEARCHED])
def test_a_register_of_which_the_house_was_told_nothing_is_recorded_once_and_holds_up_nobody(silence: Silence) -> None:
    answer = Answer("CRUKS", Moment.LOGIN, Said.UNANSWERED, silence=silence)
    state = hear(Protection(), answer)
    assert state.registers["CRUKS"].answer is Said.UNANSWERED
    assert closed(state, NOON) == {}
    assert protection.hear(state, "NL", answer, at=NOON + DAY) == []


def test_being_down_does_not_let_in_who_is_in_the_register() -> None:
    state = hear(Protection(), IN_IT, DOWN)
    assert isinstance(state.refusal(Stop.LOGIN, NOON), PlayerExcluded)


# Marketing


def test_marketing_is_silent_while_somebody_is_shut_out() -> None:
    assert Protection().may_contact("AT", NOON) == Verdict(allowed=True)
    for state, reason in (
        (excluded("AT", "6_months"), "excluded"),
        (given(PROTECTION, TimedOut(until=NOON + DAY, source=Source.PLAYER)), "timed_out"),
        (given(PROTECTION, ActionBlocked(action=Stop.MARKETING, reason="harm")), "stopped"),
    ):
        assert state.may_contact("AT", NOON) == Verdict(allowed=False, reason=reason)


def test_marketing_stays_silent_after_an_exclusion_for_the_time_of_its_row() -> None:
    rule = next(r for r in RULES.all if r.name == "marketing.after_exclusion" and isinstance(r.value, timedelta))
    where, over = rule.jurisdiction, policy.term("6_months").after(NOON)  # type: ignore[union-attr]
    state = excluded(where, "6_months")
    ended = protection.fold(state, protection.end(state, at=over), over)
    for each in (state, ended):
        assert each.may_contact("AT", over + rule.value - HOUR) == Verdict(allowed=False, reason="excluded_lately")  # type: ignore[operator]
        assert each.may_contact("AT", over + rule.value) == Verdict(allowed=True)  # type: ignore[operator]


def test_where_there_is_a_register_marketing_waits_for_a_clear_that_is_new_enough() -> None:
    rule = next(r for r in RULES.all if r.name == "marketing.register_check_within")
    register = RULES.of(rule.jurisdiction, NOON)["self_exclusion.register"].value
    silent = Verdict(allowed=False, reason="register_not_asked")
    assert Protection().may_contact(rule.jurisdiction, NOON) == silent
    state = hear(Protection(), Answer(str(register), Moment.MARKETING, Said.CLEAR))
    assert state.may_contact(rule.jurisdiction, NOON + rule.value) == Verdict(allowed=True)  # type: ignore[operator]
    assert state.may_contact(rule.jurisdiction, NOON + rule.value + HOUR) == silent  # type: ignore[operator]
    down = hear(
        state, Answer(str(register), Moment.MARKETING, Said.UNANSWERED, silence=Silence.DOWN), at=NOON + 30 * HOUR
    )
    assert down.may_contact(rule.jurisdiction, NOON + 30 * HOUR) == silent
