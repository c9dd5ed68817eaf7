"""What is due when, as it follows from events: one row for what is open, none for what is over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import approvals, kyc, players, protection, tickets
from domain.kernel import EPOCH, Event, Money, PlayerId
from domain.protection import Source
from domain.tickets import Author, Resolution
from domain.transactions import (
    DepositAuthorised,
    DepositExpired,
    DepositFailed,
    DepositRequested,
    DepositSettled,
    DepositSettledFor,
    WithdrawalApproved,
    WithdrawalCancelled,
    WithdrawalExpired,
    WithdrawalHeld,
    WithdrawalRejected,
    WithdrawalRequested,
    WithdrawalSent,
)
from eventstore.record import Body, CommandPart, Recorded
from policies import payments
from policies.gates import Level
from policies.sla import Priority
from projections.due import Due
from projections.duties import DUPLICATES, DUTIES, MATCHES, REGISTER
from projections.projection import Events
from reactions.payouts import ORDER, PAY
from reactions.timers import FIRES

SUFFIX = "01m81j18g0ehsa2vkkc5hq8c1a"
PLAYER = PlayerId("player_01m81j18g0e1pa2yb5e8r30c1a")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EUROS = Money(5000, "EUR")


def us(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def recorded(event: Event, version: int, **more: Any) -> Recorded:
    body = Body(
        stream=f"{event.tag.partition('.')[0]}-{SUFFIX}", version=version, type=event.tag, id=f"event {version}",
        actor="x", command=CommandPart(1, 1, "0" * 32), data=msgspec.Raw(b"{}"), partition=42, epoch=1, **more,
    )  # fmt: skip
    return Recorded("eu", version, us(NOON) + version, b"", body, event)


def left(*events: Event, **more: Any) -> dict[str, int]:
    """Kind → when, after these events of one stream."""
    tables: dict[str, Any] = {"due": {}}
    due = Due()
    due.fold(tables, due.changes(Events(recorded(each, n, **more) for n, each in enumerate(events, 1))))
    return {kind: row[2] for (_, kind), row in tables["due"].items()}


DEPOSIT = DepositRequested(player=PLAYER, money=EUROS, provider="acme")
WITHDRAWAL = WithdrawalRequested(player=PLAYER, money=EUROS, provider="acme", expires_at=NOON + timedelta(days=7))
OPENED = tickets.Opened(
    player=PLAYER, channel="email", by=Author.PLAYER, subject="", text="", priority=Priority.LOW,
    first_response_due=NOON + timedelta(hours=8), resolution_due=NOON + timedelta(days=3),
)  # fmt: skip
ASKED = approvals.Requested(
    action="money.adjust", path="/", body="{}", salt="5a" * 16, hash="", player=PLAYER, requester="operator:maria",
    expires_at=NOON + timedelta(days=1), reasons=(),
)  # fmt: skip


def test_everything_that_falls_due_is_done_by_somebody() -> None:
    assert {duty.name for duty in DUTIES} == set(FIRES) | {ORDER, PAY, MATCHES, DUPLICATES, REGISTER}
    assert len({duty.name for duty in DUTIES}) == len(DUTIES)


def test_a_deposit_is_given_up_when_its_method_says() -> None:
    lives = payments.of("acme", "EUR").deposit_lives
    assert left(DEPOSIT) == {"deposit_expiry": us(NOON + lives) + 1}
    assert left(DEPOSIT, DepositAuthorised("a")) == left(DEPOSIT)


@pytest.mark.parametrize("end", [DepositSettled(), DepositSettledFor(EUROS), DepositFailed("x"), DepositExpired()])
def test_a_deposit_that_has_ended_is_not(end: Event) -> None:
    assert left(DEPOSIT, end) == {}


def test_history_is_never_due() -> None:
    assert left(DEPOSIT, occurred="1997-01-01T00:00:00Z") == {}


def test_a_withdrawal_expires_until_it_is_sent() -> None:
    due = {"withdrawal_expiry": us(WITHDRAWAL.expires_at)}
    assert left(WITHDRAWAL) == left(WITHDRAWAL, WithdrawalHeld(("kyc",))) == due
    assert left(WITHDRAWAL, WithdrawalApproved()) == {**due, "payout_order": us(NOON) + 2}
    for end in (WithdrawalSent("r"), WithdrawalCancelled(), WithdrawalExpired(), WithdrawalRejected("x")):
        assert left(WITHDRAWAL, WithdrawalApproved(), end) == {}


def test_an_approval_lapses_unless_somebody_decides() -> None:
    assert left(ASKED) == {"approval_expiry": us(ASKED.expires_at)}
    for end in (approvals.Approved(""), approvals.Declined("no"), approvals.Expired()):
        assert left(ASKED, end) == {}


def test_a_deadline_ends_with_the_level_that_was_asked_for() -> None:
    asked = kyc.Requested(Level.ENHANCED, NOON + timedelta(days=3))
    lower = kyc.Approved(Level.IDENTITY, "passport", age_verified=True)
    due = {"kyc_deadline_enhanced": us(NOON + timedelta(days=3))}
    assert left(asked) == left(asked, lower) == due
    assert left(asked, kyc.Approved(Level.ENHANCED, "bank", age_verified=True)) == {}
    assert left(asked, kyc.DeadlineMissed()) == {}
    later = kyc.Requested(Level.IDENTITY, NOON + timedelta(days=9))
    assert left(asked, later) == {"kyc_deadline_identity": us(NOON + timedelta(days=9))}
    assert left(asked, kyc.Requested(Level.ENHANCED)) == {}


def test_a_document_is_valid_on_its_last_day() -> None:
    approved = kyc.Approved(Level.IDENTITY, "passport", age_verified=True, document_expires=date(2026, 12, 31))
    assert left(approved) == {"kyc_document": us(datetime(2027, 1, 1, tzinfo=UTC))}
    assert left(approved, kyc.Expired()) == {}
    assert left(approved, kyc.Approved(Level.IDENTITY, "bank", age_verified=True)) == {}


def test_a_document_until_the_end_of_the_calendar_never_expires() -> None:
    """As people write it of one that has no last day."""
    assert left(kyc.Approved(Level.IDENTITY, "passport", age_verified=True, document_expires=date.max)) == {}


def test_what_showed_one_level_has_nothing_to_do_with_what_showed_another() -> None:
    document = kyc.Approved(Level.IDENTITY, "passport", age_verified=True, document_expires=date(2030, 12, 31))
    payslip = kyc.Approved(Level.ENHANCED, "payslip", age_verified=True, document_expires=date(2026, 12, 31))
    identity = {"kyc_document": us(datetime(2031, 1, 1, tzinfo=UTC))}
    both = {**identity, "kyc_document_enhanced": us(datetime(2027, 1, 1, tzinfo=UTC))}
    assert left(document, payslip) == left(payslip, document) == both
    assert left(document, payslip, kyc.EnhancedExpired()) == identity
    assert left(document, payslip, kyc.Rejected(Level.ENHANCED, "payslip", "unclear")) == identity
    for end in (kyc.Expired(), kyc.Rejected(Level.IDENTITY, "passport", "forged")):
        assert left(document, payslip, end) == {}


def test_an_exclusion_is_due_at_its_end_and_stays_so_if_that_is_recorded_before_its_time() -> None:
    until, before = NOON + timedelta(days=181), NOON - timedelta(days=1)
    excluded = protection.Excluded(source=Source.MATCHED, jurisdiction="NL", until=until, of=PLAYER)
    by_register = msgspec.structs.replace(excluded, until=None, on_request=True, register="CRUKS")
    due = {"exclusion_matched": us(until)}
    assert left(excluded) == left(excluded, by_register) == due
    early = protection.ExclusionEnded(Source.MATCHED, over_at=until)  # by a clock that is ahead of the log's
    assert left(excluded, early) == due
    for of_register in (
        protection.ExclusionEnded(Source.MATCHED, register="CRUKS"),
        protection.ExclusionEnded(Source.MATCHED, over_at=before, register="CRUKS"),
        protection.MatchDismissed(of=PLAYER, register="CRUKS"),
    ):
        assert left(excluded, by_register, of_register) == due
    late = protection.ExclusionEnded(Source.MATCHED, over_at=before)
    assert left(excluded, late) == left(excluded, protection.MatchDismissed(of=PLAYER)) == {}
    own = msgspec.structs.replace(excluded, source=Source.PLAYER, on_request=True)
    asked = protection.LiftRequested(source=Source.PLAYER, effective_at=until)
    lifts = {name: at for name, at in left(own, asked).items() if name != MATCHES}
    assert lifts == {"exclusion_player": us(until)}
    assert left(own, asked, protection.Lifted(Source.PLAYER, over_at=until)).items() >= lifts.items()
    assert "exclusion_player" not in left(own, asked, protection.Lifted(Source.PLAYER, over_at=before))


def test_who_was_closed_is_to_be_erased_by_the_day_of_the_law_or_on_none() -> None:
    closed = players.Closed("asked", NOON)
    assert left(closed) == {"erasure_due": us(NOON)}
    for end in (players.ErasureDue(), players.Erased("", "asked", NOON, (), "")):
        assert left(closed, end) == {}
    assert left(players.Closed("asked")) == {}


def test_a_tickets_promises_end_one_by_one() -> None:
    first, second = us(OPENED.first_response_due), us(OPENED.resolution_due)
    assert left(OPENED) == {"ticket_first_response": first, "ticket_resolution": second}
    assert (
        left(OPENED, tickets.Answered(""))
        == left(OPENED, tickets.FirstResponseMissed())
        == {"ticket_resolution": second}
    )
    assert left(OPENED, tickets.Closed(Resolution.SOLVED)) == {}
    sooner = tickets.Escalated(priority=Priority.URGENT, reason="vip", resolution_due=NOON + timedelta(days=1))
    assert left(OPENED, sooner) == {"ticket_first_response": first, "ticket_resolution": us(NOON + timedelta(days=1))}
    reopened = tickets.Reopened("again", NOON + timedelta(days=5))
    assert left(OPENED, tickets.Closed(Resolution.SOLVED), reopened) == {
        "ticket_resolution": us(NOON + timedelta(days=5))
    }


TICKET_EVENTS: list[Event] = [
    OPENED, tickets.Answered(""), tickets.FirstResponseMissed(), tickets.ResolutionMissed(), tickets.Noted(""),
    tickets.Closed(Resolution.SOLVED), tickets.Reopened("again", NOON + timedelta(days=5)),
    tickets.Escalated(priority=Priority.HIGH, reason="vip", resolution_due=NOON + timedelta(days=1)),
]  # fmt: skip


@given(events=st.lists(st.sampled_from(TICKET_EVENTS), max_size=12), cut=st.integers(0, 12))
def test_it_does_not_matter_where_batches_end(events: list[Event], cut: int) -> None:
    """In one batch what was set and is over is left out; in two it is written and taken away."""
    due, whole, parts = Due(), {"due": {}}, {"due": {}}
    read = [recorded(each, n) for n, each in enumerate(events, 1)]
    due.fold(whole, due.changes(Events(read)))
    for part in (read[:cut], read[cut:]):
        due.fold(parts, due.changes(Events(part)))
    assert whole == parts


def test_what_begins_and_ends_in_a_batch_costs_nothing() -> None:
    due = Due()
    assert due.changes(Events([recorded(DEPOSIT, 1), recorded(DepositSettled(), 2)])) == {}
    assert due.changes(Events([recorded(DepositSettled(), 2)])) == {(f"transaction-{SUFFIX}", "deposit_expiry"): None}
