"""The life of notices, of contacts with players, and of suppressed rules; and laws that hold whatever is done in which order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain import contacts, notices, suppressions
from domain.contacts import (
    CONTACTS,
    Attempted,
    Channel,
    Contact,
    ContactDone,
    ContactMade,
    ContactNotMade,
    FollowedUp,
    FollowUpPast,
    Made,
    NotYetUnanswered,
    Opened,
    Unanswered,
)
from domain.errors import Conflict, NotFound, Rejected
from domain.findings import Finding
from domain.kernel import ContactId, Event, NoticeId, personal_fields
from domain.notices import (
    LINKS_MAX,
    NOTICES,
    Acknowledged,
    Assigned,
    Closed,
    Linked,
    Notice,
    NoticeClosed,
    NotYetReleased,
    Outcome,
    Raised,
    Released,
    TooManyLinks,
)
from domain.players import PLAYERS, Player
from domain.suppressions import (
    LONGEST,
    SUPPRESSIONS,
    Begun,
    Ended,
    NotSuppressible,
    Scope,
    Suppressions,
    SuppressionTooLong,
    UnknownRule,
    Withheld,
)
from policies.findings import Kind, Severity, Step
from tests.domain.history import NOON, PLAYER, REGISTERED, TOMORROW, fold, given

ANNA = given(PLAYERS, REGISTERED)
HOUR = timedelta(hours=1)
NOTICE = NoticeId("notice_01m81j18g0f858m2ga1850m2ha")
FOUND = Finding(
    "deposit_velocity", 3, Kind.OPERATIONS, Severity.MEDIUM, "e-6", ("e-1", "e-6"), {"count": 6, "at_least": 6}
)
RAISED = Raised(
    player=PLAYER, rule="deposit_velocity", rule_version=3, kind=Kind.OPERATIONS, severity=Severity.MEDIUM,
    events=("e-1", "e-6"), facts={"count": 6, "at_least": 6}, due_at=TOMORROW,
)  # fmt: skip
OPENED = Opened(player=PLAYER, channel=Channel.ANY, due_at=TOMORROW, reason="harm_losses")


# Notices


def test_a_notice_names_the_version_of_its_rule_and_the_exact_events() -> None:
    assert notices.raise_(Notice(), ANNA, player_id=PLAYER, finding=FOUND, due_at=TOMORROW) == [RAISED]


def test_a_notice_is_raised_once_and_of_somebody_who_is_there() -> None:
    with pytest.raises(Conflict):
        notices.raise_(given(NOTICES, RAISED), ANNA, player_id=PLAYER, finding=FOUND, due_at=TOMORROW)
    with pytest.raises(NotFound):
        notices.raise_(Notice(), Player(), player_id=PLAYER, finding=FOUND, due_at=TOMORROW)


def test_no_event_of_a_notice_or_a_suppression_has_room_for_anything_personal() -> None:
    assert not any(personal_fields(event) for event in (*NOTICES.events.values(), *SUPPRESSIONS.events.values()))
    assert [event for event in CONTACTS.events.values() if personal_fields(event)] == [Attempted, Made, FollowedUp]


WORK: list[tuple[Callable[[Notice], list[Any]], Event]] = [
    (notices.acknowledge, Acknowledged()),
    (lambda notice: notices.assign(notice, to="operator:bo"), Assigned("operator:bo")),
    (lambda notice: notices.link(notice, to="ticket_1", itself=NOTICE), Linked("ticket_1")),
    (lambda notice: notices.close(notice, outcome=Outcome.EXPLAINED), Closed(Outcome.EXPLAINED)),
]


@pytest.mark.parametrize(("decision", "event"), WORK)
def test_asking_for_the_same_again_records_nothing(decision: Callable[[Notice], list[Any]], event: Event) -> None:
    notice = given(NOTICES, RAISED)
    assert decision(notice) == [event]
    assert decision(given(NOTICES, RAISED, event)) == []
    with pytest.raises(NotFound):
        decision(Notice())


@pytest.mark.parametrize("decision", [decision for decision, _ in WORK[:3]])
def test_a_closed_notice_does_not_change(decision: Callable[[Notice], list[Any]]) -> None:
    closed = given(NOTICES, RAISED, Closed(Outcome.EXPLAINED))
    with pytest.raises(NoticeClosed):
        decision(closed)
    with pytest.raises(NoticeClosed):
        notices.close(closed, outcome=Outcome.FALSE_ALARM)


def test_links_are_bounded_and_never_to_itself() -> None:
    full = given(NOTICES, RAISED, *(Linked(f"ticket_{n}") for n in range(LINKS_MAX)))
    with pytest.raises(TooManyLinks):
        notices.link(full, to="ticket_x", itself=NOTICE)
    with pytest.raises(Conflict):
        notices.link(given(NOTICES, RAISED), to=NOTICE, itself=NOTICE)


def test_what_was_stopped_for_a_time_is_released_then_and_once() -> None:
    stopped = notices.raise_(
        Notice(),
        ANNA,
        player_id=PLAYER,
        finding=FOUND,
        due_at=TOMORROW,
        steps=(Step.DEPOSIT_THIS_MONTH,),
        until=TOMORROW,
    )
    notice = given(NOTICES, *stopped, Closed(Outcome.ACTED_ON))
    with pytest.raises(NotYetReleased):
        notices.release(notice, at=TOMORROW - HOUR)
    assert notices.release(notice, at=TOMORROW) == [Released()]
    assert notices.release(fold(NOTICES, [Released()], state=notice), at=TOMORROW) == []


# Contacts


def test_a_contact_is_made_followed_up_and_over() -> None:
    made = Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED, follow_up_due=TOMORROW)
    followed = FollowedUp(outcome=contacts.Outcome.NO_CONCERN)
    contact = given(CONTACTS, OPENED)
    assert contacts.make(contact, made=made, at=NOON) == [made]
    contact = given(CONTACTS, OPENED, made)
    assert (contact.status, contact.due_at) == (contacts.Status.FOLLOWING_UP, TOMORROW)
    assert contacts.follow_up(contact, followed=followed, at=NOON) == [followed]
    contact = given(CONTACTS, OPENED, made, followed)
    assert (contact.status, contact.due_at, contact.outcome) == (
        contacts.Status.DONE,
        None,
        contacts.Outcome.NO_CONCERN,
    )


def test_what_does_not_fit_a_contact_is_refused() -> None:
    made = Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED)
    followed = FollowedUp(outcome=contacts.Outcome.NO_CONCERN)
    with pytest.raises(ContactNotMade):
        contacts.follow_up(given(CONTACTS, OPENED), followed=followed, at=NOON)
    with pytest.raises(ContactDone):
        contacts.follow_up(given(CONTACTS, OPENED, made), followed=followed, at=NOON)
    for decision in (
        lambda contact: contacts.make(contact, made=made, at=NOON),
        lambda contact: contacts.attempt(contact, attempted=Attempted(Channel.PHONE)),
    ):
        with pytest.raises(ContactMade):
            decision(given(CONTACTS, OPENED, made))
        with pytest.raises(NotFound):
            decision(Contact())
    with pytest.raises(FollowUpPast):
        contacts.make(
            given(CONTACTS, OPENED),
            made=Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED, follow_up_due=NOON),
            at=NOON,
        )
    with pytest.raises(FollowUpPast):
        contacts.open_(Contact(), ANNA, opened=OPENED, at=TOMORROW)


def test_who_could_not_be_reached_in_the_laws_time_is_recorded_once_and_may_be_reached_later() -> None:
    urgent = Opened(player=PLAYER, channel=Channel.ANY, due_at=TOMORROW, reason="harm_losses", reply_due=TOMORROW)
    with pytest.raises(NotYetUnanswered):
        contacts.leave_unanswered(given(CONTACTS, urgent), at=NOON)
    assert contacts.leave_unanswered(given(CONTACTS, urgent), at=TOMORROW) == [Unanswered()]
    left = given(CONTACTS, urgent, Unanswered())
    assert contacts.leave_unanswered(left, at=TOMORROW) == []
    assert contacts.leave_unanswered(given(CONTACTS, OPENED), at=TOMORROW) == []
    made = Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED)
    assert contacts.make(left, made=made, at=TOMORROW) == [made]


# Suppressions


def test_a_suppressed_rule_is_counted_by_the_narrower_scope_and_ends_by_itself() -> None:
    holds = given(SUPPRESSIONS, Begun("deposit_velocity", TOMORROW, "known"))
    assert suppressions.withheld(holds, holds, finding=FOUND, at=NOON) == [
        Withheld("deposit_velocity", 3, Scope.PLAYER)
    ]
    assert suppressions.withheld(Suppressions(), holds, finding=FOUND, at=NOON) == [
        Withheld("deposit_velocity", 3, Scope.ALL)
    ]
    assert suppressions.withheld(holds, holds, finding=FOUND, at=TOMORROW) == []
    ended = fold(SUPPRESSIONS, [Ended("deposit_velocity", "done")], state=holds)
    assert suppressions.withheld(ended, Suppressions(), finding=FOUND, at=NOON) == []
    counted = given(SUPPRESSIONS, *[Withheld("deposit_velocity", 3, Scope.ALL)] * 3)
    assert counted.withheld == {"deposit_velocity": 3}


def test_what_stands_on_the_law_and_what_lasts_too_long_is_not_suppressed() -> None:
    def begin(name: str, until: datetime) -> list[Any]:
        return suppressions.begin(Suppressions(), ANNA, rule=name, until=until, reason="known", at=NOON)

    assert begin("large_win", NOON + LONGEST) == [Begun("large_win", NOON + LONGEST, "known")]
    with pytest.raises(NotSuppressible):
        begin("net_deposit_month", TOMORROW)
    with pytest.raises(UnknownRule):
        begin("no_such_rule", TOMORROW)
    for until in (NOON, NOON - HOUR, NOON + LONGEST + HOUR):
        with pytest.raises(SuppressionTooLong):
            begin("large_win", until)
    with pytest.raises(NotFound):
        suppressions.begin(Suppressions(), Player(), rule="large_win", until=TOMORROW, reason="known", at=NOON)


def test_ending_what_is_over_records_nothing() -> None:
    holds = given(SUPPRESSIONS, Begun("large_win", TOMORROW, "known"))
    assert suppressions.end(holds, None, rule="large_win", reason="done", at=NOON) == [Ended("large_win", "done")]
    assert suppressions.end(holds, None, rule="large_win", reason="done", at=TOMORROW) == []
    assert suppressions.end(Suppressions(), None, rule="large_win", reason="done", at=NOON) == []


# Laws


class Desk(RuleBasedStateMachine):
    """A marker of harm, its notice and its contact. What must hold is told here from the events alone."""

    @initialize(until=st.sampled_from([None, 2, 30]), reply=st.sampled_from([None, 1, 72]))
    def begin(self, until: int | None, reply: int | None) -> None:
        self.at = NOON
        self.notice, self.contact = Notice(), Contact()
        self.noticed: list[tuple[datetime, Event]] = []
        self.contacted: list[tuple[datetime, Event]] = []
        ends = None if until is None else NOON + HOUR * until
        due = None if reply is None else NOON + HOUR * reply
        raised = notices.raise_(
            Notice(), ANNA, player_id=PLAYER, finding=FOUND, due_at=TOMORROW, until=ends, contact=ContactId("c")
        )
        opened = Opened(player=PLAYER, channel=Channel.ANY, due_at=TOMORROW, reason="harm_losses", reply_due=due)
        self._notice(lambda: raised)
        self._contact(lambda: contacts.open_(Contact(), ANNA, opened=opened, at=NOON))

    @rule(hours=st.sampled_from([1, 2, 24, 72]))
    def wait(self, hours: int) -> None:
        self.at += HOUR * hours

    @rule(which=st.integers(0, len(WORK) - 1))
    def work(self, which: int) -> None:
        self._twice(lambda: self._notice(lambda: WORK[which][0](self.notice)), self.noticed)

    @rule(outcome=st.sampled_from(Outcome))
    def close(self, outcome: Outcome) -> None:
        self._twice(lambda: self._notice(lambda: notices.close(self.notice, outcome=outcome)), self.noticed)

    @rule()
    def release(self) -> None:
        self._twice(lambda: self._notice(lambda: notices.release(self.notice, at=self.at)), self.noticed)

    @rule()
    def attempt(self) -> None:
        self._contact(lambda: contacts.attempt(self.contact, attempted=Attempted(Channel.PHONE)))

    @rule(hours=st.sampled_from([None, -1, 24]))
    def make(self, hours: int | None) -> None:
        due = None if hours is None else self.at + HOUR * hours
        made = Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED, follow_up_due=due)
        self._contact(lambda: contacts.make(self.contact, made=made, at=self.at))

    @rule(hours=st.sampled_from([None, -1, 24]))
    def follow_up(self, hours: int | None) -> None:
        due = None if hours is None else self.at + HOUR * hours
        followed = FollowedUp(outcome=contacts.Outcome.LIMITS_SET, follow_up_due=due)
        self._contact(lambda: contacts.follow_up(self.contact, followed=followed, at=self.at))

    @rule()
    def lapse(self) -> None:
        self._twice(lambda: self._contact(lambda: contacts.leave_unanswered(self.contact, at=self.at)), self.contacted)

    def _twice(self, work: Callable[[], None], events: list[tuple[datetime, Event]]) -> None:
        work()
        before = len(events)
        work()
        assert len(events) == before, "asking again records nothing"

    def _notice(self, decision: Callable[[], list[Any]]) -> None:
        self.notice = self._decide(decision, NOTICES, self.notice, self.noticed)

    def _contact(self, decision: Callable[[], list[Any]]) -> None:
        self.contact = self._decide(decision, CONTACTS, self.contact, self.contacted)

    def _decide(self, decision: Callable[[], list[Any]], aggregate: Any, state: Any, told: list[Any]) -> Any:
        try:
            events = decision()
        except Rejected:
            return state
        told += [(self.at, event) for event in events]
        return fold(aggregate, events, at=self.at, state=state)

    @invariant()
    def of_a_closed_notice_only_what_ends_by_itself_ends(self) -> None:
        kinds = [type(event) for _, event in getattr(self, "noticed", ())]
        if Closed in kinds:
            assert set(kinds[kinds.index(Closed) + 1 :]) <= {Released}

    @invariant()
    def what_was_stopped_ends_once_and_not_before_its_time(self) -> None:
        ends = [at for at, event in getattr(self, "noticed", ()) if isinstance(event, Released)]
        until = [event.until for _, event in getattr(self, "noticed", ()) if isinstance(event, Raised)]
        assert not ends or (len(ends) == 1 and until[0] is not None and ends[0] >= until[0])

    @invariant()
    def a_contact_is_made_once_and_followed_up_only_then(self) -> None:
        kinds = [type(event) for _, event in getattr(self, "contacted", ())]
        assert kinds.count(Made) <= 1
        if FollowedUp in kinds:
            assert Made in kinds[: kinds.index(FollowedUp)]
        if Made in kinds:
            assert not {Attempted, Unanswered} & set(kinds[kinds.index(Made) + 1 :])

    @invariant()
    def who_was_not_reached_had_the_laws_whole_time(self) -> None:
        due = None
        for at, event in getattr(self, "contacted", ()):
            if isinstance(event, Opened):
                due = event.reply_due
            if isinstance(event, Unanswered):
                assert due is not None
                assert at >= due
                due = None

    @invariant()
    def after_the_last_follow_up_nothing_is_due(self) -> None:
        if events := getattr(self, "contacted", ()):
            last = [event for _, event in events if isinstance(event, Opened | Made | FollowedUp)][-1]
            waits = last.due_at if isinstance(last, Opened) else last.follow_up_due
            assert self.contact.due_at == waits


def test_whatever_is_done_the_laws_of_notices_and_contacts_hold() -> None:
    run_state_machine_as_test(Desk, settings=settings(max_examples=50, stateful_step_count=20))


def closed_again(notice: Notice, *, outcome: Outcome) -> list[Any]:
    notices.owner(notice)
    return [Closed(outcome)]


def released_early(notice: Notice, *, at: datetime) -> list[Any]:
    return [Released()] if notice.until else []


def worked_on_when_closed(notice: Notice, *, to: str) -> list[Any]:
    return [] if notice.assignee == to else [Assigned(to)]


def made_again(contact: Contact, *, made: Made, at: datetime) -> list[Any]:
    contacts.owner(contact)
    return [made]


def left_early(contact: Contact, *, at: datetime) -> list[Any]:
    return [Unanswered()] if contact.status is contacts.Status.OPEN and contact.reply_due else []


def left_again(contact: Contact, *, at: datetime) -> list[Any]:
    return [Unanswered()] if contact.reply_due and at >= contact.reply_due else []


def followed_from_nowhere(contact: Contact, *, followed: FollowedUp, at: datetime) -> list[Any]:
    return [followed]


@pytest.mark.parametrize(
    ("module", "name", "planted"),
    [
        (notices, "close", closed_again),
        (notices, "release", released_early),
        (notices, "assign", worked_on_when_closed),
        (contacts, "make", made_again),
        (contacts, "leave_unanswered", left_early),
        (contacts, "leave_unanswered", left_again),
        (contacts, "follow_up", followed_from_nowhere),
    ],
)
def test_a_planted_fault_is_noticed(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, planted: Any) -> None:
    monkeypatch.setattr(module, name, planted)
    quick = settings(
        max_examples=300,
        stateful_step_count=20,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Desk, settings=quick)
