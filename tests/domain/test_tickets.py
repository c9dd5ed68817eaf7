from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain import tickets
from domain.errors import Conflict, NotFound, Rejected
from domain.kernel import Event, PlayerId
from domain.players import PLAYERS, Blocked, Player
from domain.tickets import (
    TICKETS,
    Answered,
    Assigned,
    Author,
    Closed,
    Escalated,
    FirstResponseMissed,
    Noted,
    Opened,
    Reopened,
    Resolution,
    ResolutionMissed,
    Ticket,
    TicketClosed,
    TicketEvent,
)
from domain.transactions import TRANSACTIONS, DepositRequested, Transaction
from policies import sla
from policies.sla import SLA, Priority
from tests.domain.history import DEPOSIT, NOON, OTHER_DEPOSIT, PLAYER, REGISTERED, euros, fold, given

ANNA = given(PLAYERS, REGISTERED)
HOUR = timedelta(hours=1)
NORMAL = SLA[Priority.NORMAL]
LATE = NOON + NORMAL.resolution


def opened(priority: Priority = Priority.NORMAL) -> Opened:
    due = sla.due(priority, NOON)
    return Opened(
        player=PLAYER,
        channel="email",
        by=Author.PLAYER,
        subject="Money",
        text="Where is it?",
        priority=priority,
        first_response_due=due.first_response,
        resolution_due=due.resolution,
    )


def open_(
    ticket: Ticket | None = None, player: Player = ANNA, payment: Transaction | None = None, at: datetime = NOON
) -> list[TicketEvent]:
    return tickets.open_(
        ticket or Ticket(),
        player,
        payment,
        player_id=PLAYER,
        channel="email",
        by=Author.PLAYER,
        subject="Money",
        text="Where is it?",
        priority=Priority.NORMAL,
        transaction=DEPOSIT if payment else None,
        at=at,
    )


# Opening


def test_a_ticket_is_opened_with_what_its_priority_promises() -> None:
    assert open_() == [opened()]
    ticket = given(TICKETS, opened())
    assert ticket.first_response_due == NOON + NORMAL.first_response
    assert ticket.resolution_due == NOON + NORMAL.resolution


def test_a_blocked_player_may_still_ask() -> None:
    assert open_(player=fold(PLAYERS, [Blocked(reason="fraud")], state=ANNA)) == [opened()]


def test_nobody_asks_who_is_not_there() -> None:
    with pytest.raises(NotFound):
        open_(player=given(PLAYERS))


def test_a_ticket_is_about_a_payment_of_its_player() -> None:
    requested = DepositRequested(player=PLAYER, money=euros(1), provider="acme")
    assert open_(payment=given(TRANSACTIONS, requested)) == [msgspec.structs.replace(opened(), transaction=DEPOSIT)]
    anothers = DepositRequested(player=PlayerId(OTHER_DEPOSIT), money=euros(1), provider="acme")
    for payment in (given(TRANSACTIONS, anothers), given(TRANSACTIONS)):
        with pytest.raises(NotFound):
            open_(payment=payment)


def test_a_ticket_is_opened_once() -> None:
    with pytest.raises(Conflict):
        open_(given(TICKETS, opened()))


# Working


def test_a_ticket_is_given_to_someone_and_then_to_another() -> None:
    ticket = given(TICKETS, opened(), Assigned("operator:maria"))
    assert tickets.assign(ticket, to="operator:maria") == []
    assert tickets.assign(ticket, to="operator:ben") == [Assigned("operator:ben")]


def test_the_first_answer_is_the_one_that_was_promised() -> None:
    ticket = given(TICKETS, opened())
    assert ticket.due_at == ticket.first_response_due
    ticket = fold(TICKETS, [Answered("Here.")], at=NOON + HOUR, state=ticket)
    ticket = fold(TICKETS, [Answered("And here.")], at=NOON + 2 * HOUR, state=ticket)
    assert ticket.answered_at == NOON + HOUR
    assert ticket.due_at == ticket.resolution_due


def test_an_answer_in_time_is_an_answer_and_nothing_more() -> None:
    just_before = NOON + NORMAL.first_response - timedelta(microseconds=1)
    assert tickets.answer(given(TICKETS, opened()), text="Here.", at=just_before) == [Answered("Here.")]


def test_an_answer_that_is_late_says_so_unless_it_was_said() -> None:
    late = NOON + NORMAL.first_response
    assert tickets.answer(given(TICKETS, opened()), text="Here.", at=late) == [
        FirstResponseMissed(),
        Answered("Here."),
    ]
    known = given(TICKETS, opened(), FirstResponseMissed())
    assert tickets.answer(known, text="Here.", at=late) == [Answered("Here.")]


def test_a_note_is_no_answer() -> None:
    ticket = given(TICKETS, opened(), Noted("Asked the provider."))
    assert ticket == given(TICKETS, opened())
    assert tickets.note(ticket, text="Again.") == [Noted("Again.")]


# Escalating


def test_escalating_brings_the_due_times_nearer() -> None:
    (event,) = tickets.escalate(given(TICKETS, opened()), to=Priority.URGENT, reason="complaint", at=NOON + HOUR)
    due = sla.due(Priority.URGENT, NOON + HOUR)
    assert event == Escalated(
        priority=Priority.URGENT,
        reason="complaint",
        first_response_due=due.first_response,
        resolution_due=due.resolution,
    )


def test_escalating_late_leaves_the_due_times_where_they_were() -> None:
    ticket = given(TICKETS, opened())
    late = ticket.resolution_due - timedelta(minutes=1)
    (event,) = tickets.escalate(ticket, to=Priority.URGENT, reason="complaint", at=late)
    after = fold(TICKETS, [event], at=late, state=ticket)
    assert (after.first_response_due, after.resolution_due) == (ticket.first_response_due, ticket.resolution_due)


def test_what_is_not_waited_for_any_more_gets_no_due_time() -> None:
    ticket = given(TICKETS, opened(), Answered("Here."), ResolutionMissed())
    assert tickets.escalate(ticket, to=Priority.HIGH, reason="complaint", at=NOON) == [
        Escalated(priority=Priority.HIGH, reason="complaint")
    ]


@pytest.mark.parametrize("to", [Priority.LOW, Priority.NORMAL, Priority.HIGH])
def test_escalating_to_no_more_than_it_is_records_nothing(to: Priority) -> None:
    assert tickets.escalate(given(TICKETS, opened(Priority.HIGH)), to=to, reason="complaint", at=NOON) == []


# Closing and reopening


CLOSED = given(TICKETS, opened(), Answered("Here."), Closed(Resolution.SOLVED))


def test_closing_again_records_nothing_and_closing_otherwise_is_refused() -> None:
    assert tickets.close(CLOSED, resolution=Resolution.SOLVED, at=LATE) == []
    with pytest.raises(TicketClosed):
        tickets.close(CLOSED, resolution=Resolution.SPAM, at=NOON)


@pytest.mark.parametrize(
    "decision",
    [
        lambda ticket: tickets.assign(ticket, to="operator:maria"),
        lambda ticket: tickets.answer(ticket, text="Here.", at=NOON),
        lambda ticket: tickets.note(ticket, text="Hm."),
        lambda ticket: tickets.escalate(ticket, to=Priority.URGENT, reason="complaint", at=NOON),
    ],
)
def test_a_closed_ticket_changes_only_by_being_reopened(decision: Callable[[Ticket], object]) -> None:
    with pytest.raises(TicketClosed):
        decision(CLOSED)
    (event,) = tickets.reopen(CLOSED, reason="not_solved", at=NOON)
    decision(fold(TICKETS, [event], state=CLOSED))


def test_a_closed_ticket_misses_nothing() -> None:
    assert tickets.miss(CLOSED, at=LATE) == []


def test_an_end_that_is_late_says_so() -> None:
    assert tickets.close(given(TICKETS, opened()), resolution=Resolution.SOLVED, at=LATE) == [
        FirstResponseMissed(),
        ResolutionMissed(),
        Closed(Resolution.SOLVED),
    ]


def test_a_reopened_ticket_is_promised_an_end_anew_and_no_first_answer() -> None:
    unanswered = given(TICKETS, opened(), ResolutionMissed(), Closed(Resolution.SPAM))
    assert tickets.reopen(unanswered, reason="not_spam", at=LATE) == [Reopened("not_spam", LATE + NORMAL.resolution)]
    again = fold(TICKETS, [Reopened("not_spam", LATE + NORMAL.resolution)], at=LATE, state=unanswered)
    assert again.due_at == LATE + NORMAL.resolution
    assert tickets.miss(again, at=LATE) == []
    assert tickets.miss(again, at=again.due_at) == [ResolutionMissed()]
    assert tickets.reopen(again, reason="not_spam", at=LATE) == []


# Missing


def test_a_missed_promise_is_recorded_once() -> None:
    ticket = given(TICKETS, opened())
    assert tickets.miss(ticket, at=ticket.first_response_due - timedelta(microseconds=1)) == []
    assert tickets.miss(ticket, at=ticket.first_response_due) == [FirstResponseMissed()]
    known = fold(TICKETS, [FirstResponseMissed()], state=ticket)
    assert tickets.miss(known, at=ticket.first_response_due) == []
    assert tickets.miss(known, at=LATE) == [ResolutionMissed()]


@pytest.mark.parametrize(
    "decision",
    [
        lambda: tickets.assign(Ticket(), to="operator:maria"),
        lambda: tickets.answer(Ticket(), text="Here.", at=NOON),
        lambda: tickets.note(Ticket(), text="Hm."),
        lambda: tickets.escalate(Ticket(), to=Priority.URGENT, reason="complaint", at=NOON),
        lambda: tickets.close(Ticket(), resolution=Resolution.SOLVED, at=NOON),
        lambda: tickets.reopen(Ticket(), reason="not_solved", at=NOON),
        lambda: tickets.miss(Ticket(), at=NOON),
    ],
)
def test_no_ticket_is_there(decision: Callable[[], object]) -> None:
    with pytest.raises(NotFound):
        decision()


def test_every_priority_promises_more_than_the_one_below() -> None:
    for lower, higher in zip(list(Priority), list(Priority)[1:], strict=False):
        assert higher.exceeds(lower)
        assert not lower.exceeds(higher)
        assert SLA[higher] < SLA[lower]
        assert SLA[lower].first_response < SLA[lower].resolution


# The laws, whatever happens


class HelpDesk(RuleBasedStateMachine):
    """A ticket's life, told by decisions; what was promised and kept is counted here a second time, from the events alone."""

    @initialize(priority=st.sampled_from(Priority))
    def begin(self, priority: Priority) -> None:
        self.at = NOON
        self.ticket = Ticket()
        self.events: list[tuple[datetime, Event]] = []
        self._record([opened(priority)])

    @rule(minutes=st.sampled_from([29, 30, 8 * 60, 7 * 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.at += timedelta(minutes=minutes)

    @rule(to=st.sampled_from(["operator:maria", "operator:ben"]))
    def assign(self, to: str) -> None:
        self._twice(lambda: tickets.assign(self.ticket, to=to))

    @rule()
    def answer(self) -> None:
        self._decide(lambda: tickets.answer(self.ticket, text="Here.", at=self.at))

    @rule()
    def note(self) -> None:
        self._decide(lambda: tickets.note(self.ticket, text="Hm."))

    @rule(to=st.sampled_from(Priority))
    def escalate(self, to: Priority) -> None:
        self._twice(lambda: tickets.escalate(self.ticket, to=to, reason="complaint", at=self.at))

    @rule(resolution=st.sampled_from([Resolution.SOLVED, Resolution.SPAM]))
    def close(self, resolution: Resolution) -> None:
        self._twice(lambda: tickets.close(self.ticket, resolution=resolution, at=self.at))

    @rule()
    def reopen(self) -> None:
        self._twice(lambda: tickets.reopen(self.ticket, reason="not_solved", at=self.at))

    @rule()
    def miss(self) -> None:
        self._twice(lambda: tickets.miss(self.ticket, at=self.at))

    def _twice(self, decision: Callable[[], list[TicketEvent]]) -> None:
        self._decide(decision)
        before = len(self.events)
        self._decide(decision)
        assert len(self.events) == before, "asking again records nothing"

    def _decide(self, decision: Callable[[], list[TicketEvent]]) -> None:
        try:
            self._record(decision())
        except Rejected:
            return

    def _record(self, events: list[TicketEvent]) -> None:
        before = self.ticket
        for event in events:
            self.events.append((self.at, event))
        self.ticket = fold(TICKETS, events, at=self.at, state=before)
        if not isinstance(events[-1] if events else None, Reopened | Opened):
            assert self.ticket.first_response_due <= before.first_response_due, "a due time moved later"
            assert self.ticket.resolution_due <= before.resolution_due, "a due time moved later"

    @invariant()
    def a_closed_ticket_changes_only_by_being_reopened(self) -> None:
        closed = False
        for _, event in getattr(self, "events", ()):
            assert not closed or isinstance(event, Reopened)
            closed = isinstance(event, Closed)

    @invariant()
    def what_came_too_late_is_recorded_once_and_what_came_in_time_never(self) -> None:
        said: list[type[Event]] = []
        answer_due: datetime | None = None
        end_due = NOON
        for at, event in getattr(self, "events", ()):
            match event:
                case Opened():
                    answer_due, end_due = event.first_response_due, event.resolution_due
                case Escalated():
                    answer_due = event.first_response_due or answer_due
                    end_due = event.resolution_due or end_due
                case Reopened():
                    end_due = event.resolution_due
                    said = [kind for kind in said if kind is not ResolutionMissed]
                case FirstResponseMissed():
                    assert FirstResponseMissed not in said
                    assert answer_due is not None
                    assert at >= answer_due
                    said.append(FirstResponseMissed)
                case ResolutionMissed():
                    assert ResolutionMissed not in said
                    assert at >= end_due
                    said.append(ResolutionMissed)
                case Answered() | Closed():
                    if answer_due is not None:
                        assert (at >= answer_due) == (FirstResponseMissed in said), "an answer that was late"
                        answer_due = None
                    if isinstance(event, Closed):
                        assert (at >= end_due) == (ResolutionMissed in said), "an end that was late"
                case _:
                    pass


LAWS = settings(
    max_examples=150,
    stateful_step_count=20,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.generate],
)


def test_the_laws_of_a_ticket_hold_whatever_happens() -> None:
    run_state_machine_as_test(HelpDesk, settings=LAWS)


def moves_later(ticket: Ticket, *, to: Priority, reason: str, at: datetime) -> list[TicketEvent]:
    if ticket.closed_at or not to.exceeds(ticket.priority):
        return []
    due = sla.due(to, at)
    return [Escalated(priority=to, reason=reason, first_response_due=due.first_response, resolution_due=due.resolution)]


def forgets_to_say_so(ticket: Ticket, *, text: str, at: datetime) -> list[TicketEvent]:
    return [] if ticket.closed_at else [Answered(text)]


def does_not_remember(ticket: Ticket, *, at: datetime) -> list[TicketEvent]:
    return [ResolutionMissed()] if not ticket.closed_at and at >= ticket.resolution_due else []


def too_early(ticket: Ticket, *, at: datetime) -> list[TicketEvent]:
    return [] if ticket.closed_at or ticket.resolution_missed else [ResolutionMissed()]


BUGS: list[tuple[str, Any]] = [
    ("escalate", moves_later),
    ("answer", forgets_to_say_so),
    ("answer", lambda _ticket, *, text, at: [Answered(text)]),
    ("assign", lambda ticket, *, to: [] if ticket.closed_at else [Assigned(to)]),
    ("close", lambda ticket, *, resolution, at: [] if ticket.closed_at else [Closed(resolution)]),
    ("miss", does_not_remember),
    ("miss", too_early),
]


@pytest.mark.parametrize(("decision", "bug"), BUGS)
def test_a_planted_bug_breaks_a_law(decision: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, decision, bug)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(HelpDesk, settings=LAWS)
