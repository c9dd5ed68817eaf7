from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from domain import kyc
from domain.errors import GateClosed, NotFound, Rejected
from domain.kyc import (
    KYC,
    AgeDoubted,
    Approved,
    DeadlineMissed,
    DocumentExpired,
    EnhancedExpired,
    Expired,
    Kyc,
    NotDue,
    Requested,
    Status,
    Submitted,
)
from domain.kyc import (
    Rejected as KycRejected,
)
from domain.players import PLAYERS, Activated, ActivationAwaited, Blocked, Player, ProfileRecorded
from policies.gates import Action, Level
from tests.domain.history import NOON, REGISTERED, TOMORROW, fold, given

ANNA = given(PLAYERS, REGISTERED)
BY_DOCUMENT = Approved(Level.IDENTITY, "document", age_verified=True)
UNTIL_TODAY = Approved(Level.IDENTITY, "document", age_verified=True, document_expires=NOON.date())
HUNDRED_EUROS = 100_00


def in_jurisdiction(jurisdiction: str) -> Player:
    return given(PLAYERS, REGISTERED, ProfileRecorded(jurisdiction=jurisdiction))


def test_a_player_is_asked_once_until_a_deadline() -> None:
    [asked] = kyc.request(Kyc(), ANNA, level=Level.IDENTITY, due_at=None, at=NOON)
    assert asked == Requested(Level.IDENTITY, NOON + timedelta(hours=72))  # GlüStV 2021 § 6a Abs. 4 Satz 2 in rules.csv
    waiting = given(KYC, asked)
    assert waiting.status is Status.PENDING
    assert kyc.request(waiting, ANNA, level=Level.IDENTITY, due_at=None, at=NOON) == []
    assert kyc.request(waiting, ANNA, level=Level.IDENTITY, due_at=asked.due_at, at=NOON) == []
    assert kyc.request(given(KYC, BY_DOCUMENT), ANNA, level=Level.IDENTITY, due_at=None, at=NOON) == []
    with pytest.raises(NotFound):
        kyc.request(Kyc(), Player(), level=Level.IDENTITY, due_at=None, at=NOON)


def test_a_player_is_asked_again_with_another_deadline_and_once_one_was_missed_or_what_came_rejected() -> None:
    asked = Requested(Level.IDENTITY, TOMORROW)
    later = Requested(Level.IDENTITY, NOON + timedelta(days=5))
    ask = {"level": Level.IDENTITY, "due_at": later.due_at}
    assert kyc.request(given(KYC, asked), ANNA, at=NOON, **ask) == [later]  # type: ignore[arg-type]
    for end in (DeadlineMissed(), KycRejected(Level.IDENTITY, "document", "blurred")):
        [again] = kyc.request(given(KYC, asked, end), ANNA, level=Level.IDENTITY, due_at=None, at=NOON)
        assert again == Requested(Level.IDENTITY, NOON + timedelta(hours=72))
        assert not fold(KYC, [again], state=given(KYC, asked, end)).missed
        assert (
            kyc.request(
                fold(KYC, [again], state=given(KYC, asked, end)), ANNA, level=Level.IDENTITY, due_at=None, at=NOON
            )
            == []
        )
    unnoticed = kyc.request(given(KYC, asked), ANNA, level=Level.IDENTITY, due_at=None, at=TOMORROW)
    assert unnoticed == [Requested(Level.IDENTITY, NOON + timedelta(hours=72))]


def test_whoever_owes_more_is_not_asked_for_less_instead() -> None:
    owes = given(KYC, Requested(Level.ENHANCED, TOMORROW), DeadlineMissed())
    assert kyc.request(owes, ANNA, level=Level.IDENTITY, due_at=None, at=NOON) == []


def test_a_level_is_given_to_one_provider_at_a_time_and_the_deadline_does_not_move_with_it() -> None:
    ask = {"level": Level.IDENTITY, "due_at": None}
    [asked] = kyc.request(Kyc(), ANNA, at=NOON, provider="ident", **ask)  # type: ignore[arg-type]
    given_to = given(KYC, asked)
    assert given_to.given == {Level.IDENTITY: "ident"}
    later = NOON + timedelta(hours=1)
    assert kyc.request(given_to, ANNA, at=later, provider="ident", **ask) == []  # type: ignore[arg-type]
    for provider, left in (("other", {Level.IDENTITY: "other"}), ("", {})):
        [again] = kyc.request(given_to, ANNA, at=later, provider=provider, **ask)  # type: ignore[arg-type]
        assert again == Requested(Level.IDENTITY, asked.due_at, provider)  # type: ignore[union-attr]
        assert fold(KYC, [again], state=given_to).given == left


def test_what_is_submitted_to_nobody_stays_with_whoever_had_it() -> None:
    asked = Requested(Level.IDENTITY, TOMORROW, "ident")
    assert given(KYC, asked, Submitted(Level.IDENTITY, "document")).given == {Level.IDENTITY: "ident"}
    moved = given(KYC, asked, Submitted(Level.IDENTITY, "video", "other"), Requested(Level.ENHANCED, None, "ident"))
    assert moved.given == {Level.IDENTITY: "other", Level.ENHANCED: "ident"}


def test_the_laws_three_days_are_for_the_identity_alone() -> None:
    month = NOON + timedelta(days=30)
    assert kyc.request(Kyc(), ANNA, level=Level.ENHANCED, due_at=None, at=NOON) == [Requested(Level.ENHANCED, month)]
    late = NOON + timedelta(hours=72)
    [asked] = kyc.request(Kyc(), ANNA, level=Level.IDENTITY, due_at=None, at=late)
    assert asked == Requested(Level.IDENTITY, late + timedelta(days=30))


def test_a_player_who_is_known_can_be_asked_for_more() -> None:
    known = given(KYC, BY_DOCUMENT)
    [asked] = kyc.request(known, ANNA, level=Level.ENHANCED, due_at=TOMORROW, at=NOON)
    waiting = fold(KYC, [asked], state=known)
    assert (waiting.status, waiting.level, waiting.wanted) == (Status.PENDING, Level.IDENTITY, Level.ENHANCED)


def test_what_is_submitted_is_pending_until_it_is_decided() -> None:
    sent = Submitted(Level.IDENTITY, "document", "acme-id", "7")
    assert kyc.submit(Kyc(), ANNA, submitted=sent) == [sent]
    assert given(KYC, sent).status is Status.PENDING


def test_an_approval_makes_known_and_saying_so_again_records_nothing() -> None:
    assert kyc.approve(Kyc(), ANNA, approved=BY_DOCUMENT, at=NOON) == [BY_DOCUMENT]
    known = given(KYC, BY_DOCUMENT)
    assert (known.status, known.level, known.age_verified) == (Status.APPROVED, Level.IDENTITY, True)
    assert kyc.approve(known, ANNA, approved=BY_DOCUMENT, at=NOON) == []
    assert kyc.approve(known, ANNA, approved=UNTIL_TODAY, at=NOON) == [UNTIL_TODAY]


def test_an_approval_activates_an_account_that_waits_for_nothing_else() -> None:
    waits = given(PLAYERS, REGISTERED, ActivationAwaited(("kyc",)))
    assert kyc.approve(Kyc(), waits, approved=BY_DOCUMENT, at=NOON) == [BY_DOCUMENT, Activated()]
    for other in (ActivationAwaited(("kyc", "duplicates")), Blocked("fraud")):
        still = given(PLAYERS, REGISTERED, ActivationAwaited(("kyc",)), other)
        assert kyc.approve(Kyc(), still, approved=BY_DOCUMENT, at=NOON) == [BY_DOCUMENT]


def test_a_late_lower_approval_takes_no_level_away() -> None:
    enhanced = Approved(Level.ENHANCED, "documents", age_verified=True)
    assert given(KYC, enhanced, BY_DOCUMENT).level is Level.ENHANCED
    assert given(KYC, UNTIL_TODAY, enhanced, at=NOON).level is Level.ENHANCED


MORE = Approved(Level.ENHANCED, "payslip", age_verified=True)
MORE_UNTIL_TODAY = Approved(Level.ENHANCED, "payslip", age_verified=True, document_expires=NOON.date())


def test_papers_about_money_do_not_make_an_expiring_identity_last() -> None:
    known = given(KYC, UNTIL_TODAY, MORE)
    assert (known.level_at(NOON), known.level_at(TOMORROW)) == (Level.ENHANCED, Level.NONE)
    assert kyc.expire(known, at=TOMORROW) == [Expired()]


def test_papers_about_money_that_expire_take_no_lasting_identity_away() -> None:
    known = given(KYC, BY_DOCUMENT, MORE_UNTIL_TODAY)
    assert (known.level_at(NOON), known.level_at(TOMORROW)) == (Level.ENHANCED, Level.IDENTITY)
    assert kyc.expire(known, at=TOMORROW) == [EnhancedExpired()]
    after = given(KYC, BY_DOCUMENT, MORE_UNTIL_TODAY, EnhancedExpired())
    assert (after.status, after.level, after.document_expires) == (Status.EXPIRED, Level.IDENTITY, None)
    assert kyc.expire(after, at=TOMORROW) == []


def test_what_shows_where_the_money_is_from_shows_who_it_is_unless_that_was_shown_by_itself() -> None:
    assert given(KYC, MORE_UNTIL_TODAY).level_at(TOMORROW) is Level.NONE
    assert given(KYC, MORE_UNTIL_TODAY, MORE).level_at(TOMORROW) is Level.ENHANCED
    assert given(KYC, MORE_UNTIL_TODAY, BY_DOCUMENT).level_at(TOMORROW) is Level.IDENTITY
    assert given(KYC, UNTIL_TODAY, MORE_UNTIL_TODAY, MORE).level_at(TOMORROW) is Level.NONE
    rejected = given(KYC, MORE_UNTIL_TODAY, KycRejected(Level.ENHANCED, "payslip", "unclear"))
    assert (rejected.level_at(NOON), rejected.level_at(TOMORROW)) == (Level.IDENTITY, Level.NONE)


def test_a_rejection_does_not_turn_into_an_expiry() -> None:
    forged = KycRejected(Level.IDENTITY, "document", "forged")
    assert kyc.expire(given(KYC, UNTIL_TODAY, forged), at=TOMORROW) == []
    unclear = given(KYC, UNTIL_TODAY, KycRejected(Level.ENHANCED, "payslip", "unclear"))
    assert kyc.expire(unclear, at=TOMORROW) == [Expired()]
    assert fold(KYC, [Expired()], state=unclear).status is Status.REJECTED


@pytest.mark.parametrize(
    ("profile", "doubted"),
    [
        (ProfileRecorded(name="x"), True),
        (ProfileRecorded(birth_date="x"), True),
        (ProfileRecorded(jurisdiction="GB"), True),
        (ProfileRecorded(jurisdiction="DE"), False),
        (ProfileRecorded(email="x", city="y", language="de"), False),
    ],
)
def test_an_age_is_verified_again_when_the_person_becomes_another(profile: ProfileRecorded, doubted: bool) -> None:
    known = given(KYC, BY_DOCUMENT)
    events = kyc.doubt_age(known, ANNA, profile=profile)
    assert events == ([AgeDoubted()] if doubted else [])
    assert kyc.doubt_age(Kyc(), ANNA, profile=profile) == []
    after = fold(KYC, events, state=known)
    assert (after.level, after.age_verified) == (Level.IDENTITY, not doubted)
    assert (after.missing(in_jurisdiction("GB"), Action.DEPOSIT, deposited=1, at=NOON) is not None) == doubted
    assert kyc.approve(after, ANNA, approved=BY_DOCUMENT, at=NOON) == ([BY_DOCUMENT] if doubted else [])


def test_an_expired_document_shows_nothing() -> None:
    gone = Approved(Level.IDENTITY, "document", age_verified=True, document_expires=date(2026, 11, 21))
    with pytest.raises(DocumentExpired):
        kyc.approve(Kyc(), ANNA, approved=gone, at=NOON)


def test_a_document_counts_on_its_last_day_and_not_on_the_next_whether_or_not_a_timer_fires() -> None:
    known = given(KYC, UNTIL_TODAY)
    assert known.level_at(NOON) is Level.IDENTITY
    assert known.level_at(TOMORROW) is Level.NONE
    with pytest.raises(NotDue):
        kyc.expire(known, at=NOON)
    assert kyc.expire(known, at=TOMORROW) == [Expired()]
    expired = given(KYC, UNTIL_TODAY, Expired())
    assert (expired.status, expired.level, expired.age_verified) == (Status.EXPIRED, Level.NONE, True)
    assert kyc.expire(expired, at=TOMORROW) == []
    assert kyc.expire(Kyc(), at=NOON) == []


def test_a_rejection_takes_its_level_and_those_above_it() -> None:
    no = KycRejected(Level.ENHANCED, "documents", "unclear")
    enhanced = Approved(Level.ENHANCED, "documents", age_verified=True)
    assert given(KYC, BY_DOCUMENT, no).level is Level.IDENTITY
    assert given(KYC, enhanced, no).level is Level.IDENTITY
    assert given(KYC, enhanced, KycRejected(Level.IDENTITY, "document", "forged")).level is Level.NONE
    assert kyc.reject(given(KYC, no), ANNA, rejected=no) == []
    assert kyc.reject(given(KYC, enhanced), ANNA, rejected=no) == [no]


def test_a_deadline_is_missed_once_and_not_before_its_time() -> None:
    asked = given(KYC, Requested(Level.IDENTITY, TOMORROW))
    with pytest.raises(NotDue):
        kyc.miss_deadline(asked, at=NOON)
    assert kyc.miss_deadline(asked, at=TOMORROW) == [DeadlineMissed()]
    assert kyc.miss_deadline(given(KYC, Requested(Level.IDENTITY, TOMORROW), DeadlineMissed()), at=TOMORROW) == []
    assert kyc.miss_deadline(given(KYC, Requested(Level.IDENTITY, TOMORROW), BY_DOCUMENT), at=TOMORROW) == []
    assert kyc.miss_deadline(Kyc(), at=NOON) == []


def test_whoever_is_asked_and_does_not_answer_cannot_go_on_but_may_take_their_money() -> None:
    asked = given(KYC, Requested(Level.ENHANCED, TOMORROW))
    anna = in_jurisdiction("AT")
    assert asked.missing(anna, Action.BET, deposited=0, at=NOON) is None
    closed = asked.missing(anna, Action.BET, deposited=0, at=TOMORROW)
    assert closed is not None
    assert (closed.level, closed.reason) == (Level.ENHANCED, "kyc.requested")
    assert asked.missing(anna, Action.WITHDRAW, deposited=0, at=TOMORROW) is None


def test_in_germany_an_unverified_player_deposits_a_hundred_euros_in_three_days() -> None:
    Kyc().require(ANNA, Action.DEPOSIT, deposited=HUNDRED_EUROS, at=NOON)
    with pytest.raises(GateClosed) as refused:
        Kyc().require(ANNA, Action.DEPOSIT, deposited=HUNDRED_EUROS + 1, at=NOON)
    assert refused.value.facts == {
        "action": "deposit",
        "level": "identity",
        "reason": "kyc.deposit_max_before_verification",
        "verified": True,
    }
    with pytest.raises(GateClosed):
        Kyc().require(ANNA, Action.DEPOSIT, deposited=1, at=NOON + timedelta(hours=72))
    given(KYC, BY_DOCUMENT).require(ANNA, Action.DEPOSIT, deposited=HUNDRED_EUROS + 1, at=NOON + timedelta(hours=72))


# However providers, people and timers come in


def ask(state: Kyc, verb: str, at: datetime) -> list[kyc.KycEvent | Activated]:
    """What the decision of a verb records."""
    until = (at + timedelta(days=1)).date()
    level = Level.ENHANCED if verb.endswith(" more") else Level.IDENTITY
    decisions: dict[str, Callable[[], Any]] = {
        "ask": lambda: kyc.request(state, ANNA, level=level, due_at=at + timedelta(days=2), at=at),
        "submit": lambda: kyc.submit(state, ANNA, submitted=Submitted(level, "document")),
        "approve": lambda: kyc.approve(state, ANNA, approved=Approved(level, "document", True, until), at=at),
        "reject": lambda: kyc.reject(state, ANNA, rejected=KycRejected(Level.IDENTITY, "document", "no")),
        "expire": lambda: kyc.expire(state, at=at),
        "miss": lambda: kyc.miss_deadline(state, at=at),
    }
    try:
        return decisions[verb.removesuffix(" more")]()
    except Rejected:
        return []


VERBS = ["ask", "ask more", "submit", "approve", "approve more", "reject", "expire", "miss", "wait"]


@over(st.lists(st.sampled_from(VERBS), max_size=25))
def test_saying_it_again_records_nothing_and_no_level_is_held_without_a_valid_approval(verbs: list[str]) -> None:
    state, at, valid_until, due = Kyc(), NOON, date.min, NOON
    for verb in verbs:
        if verb == "wait":
            at += timedelta(days=2)
        else:
            events = ask(state, verb, at)
            state = fold(KYC, events, state=state, at=at)
            assert verb == "submit" or ask(state, verb, at) == []
            if verb.startswith("ask") and events:
                due = at + timedelta(days=2)
            elif verb.startswith("approve"):
                valid_until = (at + timedelta(days=1)).date()
            elif verb == "reject":
                valid_until = date.min
            assert verb != "miss" or not events or at >= due
        assert (state.level_at(at) is not Level.NONE) == (at.date() <= valid_until)


FAULTS: list[tuple[str, Any]] = [
    ("valid", lambda self, _at: self.shown),
    ("level_at", lambda self, _at: self.level),
    ("is_overdue", lambda _self, _at: True),
]


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=[name for name, _ in FAULTS])
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, name: str, fault: Any) -> None:
    monkeypatch.setattr(Kyc, name, fault)
    with pytest.raises((AssertionError, ExceptionGroup)):
        test_saying_it_again_records_nothing_and_no_level_is_held_without_a_valid_approval()
