"""
What there is to be done in time: for each duty, which events set its time and which end it. One row each.

A time follows from the event alone, and from the policies of this release where the event names none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any, NamedTuple

from domain import approvals, contacts, kyc, notices, payouts, play, players, protection, tickets, transactions
from domain.kernel import EPOCH, Event
from domain.protection import Source
from eventstore.record import Recorded
from policies import payments
from policies.gates import Level

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)


class Leave(Enum):
    """The event changes nothing about the duty."""

    LEAVE = "leave"


LEAVE = Leave.LEAVE

When = Callable[[Recorded, Any], int | Leave | None]
"""(envelope, event) → when it is due, in µs since 1970 UTC; None: there is nothing to do any more."""


class Duty(NamedTuple):
    """`events`: what each event that concerns the duty says of its time."""

    name: str
    events: Mapping[type[Event], When]


def at(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def now(recorded: Recorded, _event: Event) -> int:
    """At once."""
    return recorded.recorded


def over(_recorded: Recorded, _event: Event) -> None:
    return None


def field(name: str, without: Leave | None = None) -> When:
    """At the time that the event names in this field; `without`: what it means that it names none."""

    def when(_recorded: Recorded, event: Event) -> int | Leave | None:
        moment: datetime | None = getattr(event, name)
        return without if moment is None else at(moment)

    return when


# Payments


def _deposit_is_given_up(recorded: Recorded, event: transactions.DepositRequested) -> int | None:
    if recorded.body.occurred is not None:  # history: it was settled long ago
        return None
    lives = payments.of(event.provider, event.money.currency).deposit_lives
    return recorded.recorded + lives // _MICROSECOND


_PAYMENTS = (
    Duty(
        "deposit_expiry",
        {
            transactions.DepositRequested: _deposit_is_given_up,
            transactions.DepositSettled: over,
            transactions.DepositSettledFor: over,
            transactions.DepositFailed: over,
            transactions.DepositExpired: over,
        },
    ),
    Duty(
        "withdrawal_expiry",
        {
            transactions.WithdrawalRequested: field("expires_at"),
            transactions.WithdrawalSent: over,
            transactions.WithdrawalSettled: over,
            transactions.WithdrawalRejected: over,
            transactions.WithdrawalCancelled: over,
            transactions.WithdrawalExpired: over,
            transactions.WithdrawalReturned: over,
        },
    ),
    Duty(
        "payout_order",
        {
            transactions.WithdrawalApproved: now,
            transactions.WithdrawalSent: over,
            transactions.WithdrawalSettled: over,
            transactions.WithdrawalRejected: over,
            transactions.WithdrawalCancelled: over,
            transactions.WithdrawalExpired: over,
            transactions.WithdrawalReturned: over,
        },
    ),
    Duty(
        "payout",
        {
            payouts.PayoutOrdered: now,
            payouts.PayoutAccepted: over,
            payouts.PayoutDeclined: over,
            payouts.PayoutDropped: over,
            payouts.PayoutDisputed: over,
        },
    ),
    Duty(
        "approval_expiry",
        {
            approvals.Requested: field("expires_at"),
            approvals.Approved: over,
            approvals.Declined: over,
            approvals.Expired: over,
        },
    ),
)


# Players


def _deadline(level: Level) -> Duty:
    """What was asked for is one level; being known at a lower one does not do."""

    def requested(_recorded: Recorded, event: kyc.Requested) -> int | None:
        return at(event.due_at) if event.level is level and event.due_at is not None else None

    def approved(_recorded: Recorded, event: kyc.Approved) -> Leave | None:
        return None if event.level.reaches(level) else LEAVE

    return Duty(
        f"kyc_deadline_{level.value}",
        {kyc.Requested: requested, kyc.Approved: approved, kyc.DeadlineMissed: over},
    )


def _document(name: str, level: Level, *ends: type[Event]) -> Duty:
    """The last day of what showed a level; what shows another is a duty of its own."""

    def approved(_recorded: Recorded, event: kyc.Approved) -> int | Leave | None:
        last: date | None = event.document_expires
        if event.level is not level:
            return LEAVE
        if last is None or last == date.max:  # the calendar's last day stands for none
            return None
        return at(datetime.combine(last + _DAY, time(), UTC))

    def rejected(_recorded: Recorded, event: kyc.Rejected) -> Leave | None:
        return None if level.reaches(event.level) else LEAVE

    return Duty(name, {kyc.Approved: approved, kyc.Rejected: rejected, **dict.fromkeys(ends, over)})


KYC_DEADLINES = tuple(_deadline(level) for level in Level if level is not Level.NONE)
KYC_DOCUMENTS = (
    _document("kyc_document", Level.IDENTITY, kyc.Expired),
    _document("kyc_document_enhanced", Level.ENHANCED, kyc.Expired, kyc.EnhancedExpired),
)
SESSION_END = Duty("session_end", dict.fromkeys(play.PLAY.events.values(), field("due_at")))
"""When something of a player's play ends by itself: each event of play says it anew."""

_ERASURE = Duty(
    "erasure_due",
    {players.Closed: field("erase_by"), players.ErasureDue: over, players.Erased: over},
)

_PLAYERS = (*KYC_DEADLINES, *KYC_DOCUMENTS, SESSION_END, _ERASURE)


# Protection


def _exclusion(source: Source) -> Duty:
    """The end of the exclusion that there is by one source, where its time is settled."""

    def excluded(_recorded: Recorded, event: protection.Excluded) -> int | Leave | None:
        if event.source is not source or (source is Source.MATCHED and event.register):
            return LEAVE
        return None if event.on_request or event.until is None else at(event.until)

    def lifts(_recorded: Recorded, event: protection.LiftRequested) -> int | Leave:
        return at(event.effective_at) if event.source is source else LEAVE

    def ended(recorded: Recorded, event: protection.Lifted | protection.ExclusionEnded) -> int | Leave | None:
        if event.source is not source or event.over_at is None:  # what a register has said has no time
            return LEAVE
        if source is Source.MATCHED and isinstance(event, protection.ExclusionEnded) and event.register:
            return LEAVE
        return at(event.over_at) if recorded.recorded < at(event.over_at) else None

    def dismissed(_recorded: Recorded, event: protection.MatchDismissed) -> Leave | None:
        return LEAVE if event.register else None

    return Duty(
        f"exclusion_{source.value}",
        {
            protection.Excluded: excluded,
            protection.LiftRequested: lifts,
            protection.Lifted: ended,
            protection.ExclusionEnded: ended,
            **({protection.MatchDismissed: dismissed} if source is Source.MATCHED else {}),
        },
    )


def _unless_matched(recorded: Recorded, event: protection.Excluded | protection.TimedOut) -> int | Leave:
    """What was taken over from another account goes no further."""
    return LEAVE if event.source is Source.MATCHED else recorded.recorded


MATCHES, DUPLICATES, REGISTER = "protection_matches", "protection_duplicates", "protection_register"

EXCLUSIONS = tuple(_exclusion(source) for source in Source if source is not Source.REGISTER)
_PROTECTION = (
    *EXCLUSIONS,
    Duty(
        MATCHES,
        {
            protection.Excluded: _unless_matched,
            protection.TimedOut: _unless_matched,
            protection.MatchesShutOut: over,
        },
    ),
    Duty(
        DUPLICATES,
        {players.DuplicatesFound: now, players.ComparisonAwaited: now, players.DuplicatesCompared: over},
    ),
    Duty(REGISTER, {protection.RegisterAsked: field("ask_again_at")}),
)


# Tickets

_TICKETS = (
    Duty(
        "ticket_first_response",
        {
            tickets.Opened: field("first_response_due"),
            tickets.Escalated: field("first_response_due", without=LEAVE),
            tickets.Answered: over,
            tickets.Closed: over,
            tickets.FirstResponseMissed: over,
        },
    ),
    Duty(
        "ticket_resolution",
        {
            tickets.Opened: field("resolution_due"),
            tickets.Escalated: field("resolution_due", without=LEAVE),
            tickets.Reopened: field("resolution_due"),
            tickets.Closed: over,
            tickets.ResolutionMissed: over,
        },
    ),
)

# Notices and contacts

_NOTICES = (
    Duty("notice_release", {notices.Raised: field("until"), notices.Released: over}),
    Duty(
        "contact_reply",
        {
            contacts.Opened: field("reply_due"),
            contacts.Made: over,
            contacts.Unanswered: over,
        },
    ),
)

DUTIES: Sequence[Duty] = (*_NOTICES, *_PAYMENTS, *_PLAYERS, *_PROTECTION, *_TICKETS)
