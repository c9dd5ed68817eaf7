"""
What deposits and withdrawals share: their events, and the state that follows from them.

A deposit: requested → authorised → settled | failed | expired; a settled one may be refunded, or disputed → won | lost.
A withdrawal: requested → under_review → approved → sent → settled | rejected | cancelled | expired | returned.

Invariants:
    - the status is that of the last event which tells one, whatever came before it;
    - what was refunded and lost of a deposit is never more than what was settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from domain.errors import Conflict, CurrencyMismatch, NotFound, RuleRefused
from domain.kernel import (
    EPOCH,
    STREAMS_CACHED,
    Aggregate,
    Event,
    Intervention,
    Money,
    Personal,
    PlayerId,
    Remark,
    Stream,
    TransactionId,
    parse_id,
)
from domain.windows import day_of

SHARED_MAX = 20
"""How many other players an event names."""

NEXT = timedelta(microseconds=1)
"""Between the events of a command, as the log records them."""

# Events: the tags and fields are the storage format.


class DepositRequested(Event, frozen=True, kw_only=True, tag="transaction.deposit_requested"):
    """A player asked to pay money in. `provider` is who moves it; `reference` is theirs. `day`: the local one
    for which limits were asked, `utc_offset` minutes ahead of UTC; history has none.
    """

    player: PlayerId
    money: Money
    provider: str
    reference: str = ""
    day: date | None = None
    utc_offset: int = 0


class DepositAuthorised(Event, frozen=True, tag="transaction.deposit_authorised"):
    """The provider can take the money. `reference`: the provider's."""

    reference: str = ""


class DepositSettled(Event, frozen=True, tag="transaction.deposit_settled"):
    """The money has arrived; the wallet was credited by the same command."""


class DepositSettledFor(Event, frozen=True, tag="transaction.deposit_settled_for"):
    """Another amount has arrived than was asked for; the wallet was credited with it."""

    money: Money


class DepositFailed(Event, frozen=True, tag="transaction.deposit_failed"):
    """The money will not come. `reason`: in the words of whoever says so."""

    reason: Remark | None = None


class DepositExpired(Event, frozen=True, tag="transaction.deposit_expired"):
    """Nobody has told of the money in time."""


class DepositDisputed(Event, frozen=True, tag="transaction.deposit_disputed"):
    """The payer wants the money back from their bank. `reference`: the dispute's; `reason`: in the words of whoever says so."""

    reference: str
    reason: Remark | None = None


class DisputeWon(Event, frozen=True, tag="transaction.dispute_won"):
    """The money stays."""


class DisputeLost(Event, frozen=True, tag="transaction.dispute_lost"):
    """The money was charged back, and taken from the wallet by the same command."""

    money: Money


class DepositRefunded(Event, frozen=True, tag="transaction.deposit_refunded"):
    """So much of the money was given back, and taken from the wallet by the same command. `reference`: the refund's."""

    money: Money
    reference: str


class WithdrawalRequested(Event, frozen=True, kw_only=True, tag="transaction.withdrawal_requested"):
    """A player asked to be paid; the money was reserved by the same command, until `expires_at` if nothing comes of it.

    `instrument`: where it is to go, such as an account number.
    """

    player: PlayerId
    money: Money
    provider: str
    expires_at: datetime
    instrument: Personal | None = None


class WithdrawalHeld(Event, frozen=True, tag="transaction.withdrawal_held"):
    """Somebody has to look at it. `reasons`: words: kyc, threshold, debt, risk."""

    reasons: tuple[str, ...]


class WithdrawalApproved(Event, frozen=True, tag="transaction.withdrawal_approved"):
    """It may be paid."""


class WithdrawalSent(Event, frozen=True, tag="transaction.withdrawal_sent"):
    """From here on only its provider or a person ends it. `reference`: under which the provider is asked, or was told by hand."""

    reference: str


class PayoutHeld(Event, frozen=True, tag="transaction.payout_held"):
    """The withdrawal may be paid, but nobody is asked to for now. `reason`: a word, the code of the refusal that the player would
    meet. It goes on by itself; sending it, or any end, ends that, too.
    """

    reason: str


class PayoutResumed(Event, frozen=True, tag="transaction.payout_resumed"):
    """Nothing holds any more what was sent: its provider is asked."""


class WithdrawalSettled(Event, frozen=True, tag="transaction.withdrawal_settled"):
    """The player was paid; the money has left the wallet by the same command."""


class WithdrawalRejected(Event, frozen=True, tag="transaction.withdrawal_rejected"):
    """It will not be paid. `reason`: in the words of whoever says so. What was reserved is cash again, as after the next two."""

    reason: Remark | None = None


class WithdrawalCancelled(Event, frozen=True, tag="transaction.withdrawal_cancelled"):
    """The player thought better of it."""


class WithdrawalExpired(Event, frozen=True, tag="transaction.withdrawal_expired"):
    """Nothing came of it in time."""


class WithdrawalReturned(Event, frozen=True, tag="transaction.withdrawal_returned"):
    """The provider could not pay, or the money came back; it is cash again. `reason`: in the words of whoever says so.

    `by_provider`: it said so itself, of whatever it says that it has paid; else we have given the payout up.
    """

    reason: Remark | None = None
    by_provider: bool = False


class Intervened(Event, frozen=True, tag="transaction.intervened"):
    """A person caused the events before this one, of the same command. `kind`: a word; `reason`: their own words."""

    kind: str
    reason: Personal


class InstrumentShared(Event, frozen=True, tag="transaction.instrument_shared"):
    """`players` have named the same card or account before; the first of them, if they are many."""

    players: tuple[PlayerId, ...]


class ProviderRefused(Event, frozen=True, kw_only=True, tag="transaction.provider_refused"):
    """The provider has said what does not fit; nothing was booked, and a person finds out.

    `verb`, `reference`, `money`: what it said; `code`: why that was refused.
    """

    verb: str
    reference: str
    money: Money | None = None
    code: str


TransactionEvent = (
    DepositRequested
    | DepositAuthorised
    | DepositSettled
    | DepositSettledFor
    | DepositFailed
    | DepositExpired
    | DepositDisputed
    | DisputeWon
    | DisputeLost
    | DepositRefunded
    | WithdrawalRequested
    | WithdrawalHeld
    | WithdrawalApproved
    | WithdrawalSent
    | PayoutHeld
    | PayoutResumed
    | WithdrawalSettled
    | WithdrawalRejected
    | WithdrawalCancelled
    | WithdrawalExpired
    | WithdrawalReturned
    | Intervened
    | ProviderRefused
    | InstrumentShared
)

# State


class Kind(StrEnum):
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"


class Status(StrEnum):
    UNKNOWN = "unknown"
    REQUESTED = "requested"
    AUTHORISED = "authorised"
    SETTLED = "settled"
    FAILED = "failed"
    EXPIRED = "expired"
    DISPUTED = "disputed"
    WON = "won"
    LOST = "lost"
    REFUNDED = "refunded"
    UNDER_REVIEW = "under_review"
    APPROVED = "approved"
    SENT = "sent"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    RETURNED = "returned"


STATUS_AFTER: Mapping[type[Event], Status] = {
    DepositRequested: Status.REQUESTED,
    DepositAuthorised: Status.AUTHORISED,
    DepositSettled: Status.SETTLED,
    DepositSettledFor: Status.SETTLED,
    DepositFailed: Status.FAILED,
    DepositExpired: Status.EXPIRED,
    DepositDisputed: Status.DISPUTED,
    DisputeWon: Status.WON,
    DisputeLost: Status.LOST,
    DepositRefunded: Status.REFUNDED,
    WithdrawalRequested: Status.REQUESTED,
    WithdrawalHeld: Status.UNDER_REVIEW,
    WithdrawalApproved: Status.APPROVED,
    WithdrawalSent: Status.SENT,
    WithdrawalSettled: Status.SETTLED,
    WithdrawalRejected: Status.REJECTED,
    WithdrawalCancelled: Status.CANCELLED,
    WithdrawalExpired: Status.EXPIRED,
    WithdrawalReturned: Status.RETURNED,
}
"""What a transaction's status is after an event; no other event changes it."""


class Transaction(msgspec.Struct, frozen=True):
    """A payment. `money` was asked for; `settled`, `refunded` and `lost` are minor units of the same currency.

    `reference`: the provider's, of the authorisation or the payout; `dispute`: that of the last dispute, `won`: those of
    disputes that were won; `refunds`: by reference; `expires_at`: of a withdrawal; `came_back`: so its provider says.
    `day`: with which a deposit's request counts against limits. `held`: why nobody is asked to pay a withdrawal out, a word.
    """

    status: Status = Status.UNKNOWN
    player: PlayerId = PlayerId("")
    money: Money = Money(0, "")
    provider: str = ""
    requested_at: datetime = EPOCH
    kind: Kind = Kind.DEPOSIT
    settled: int = 0
    refunded: int = 0
    lost: int = 0
    reference: str = ""
    dispute: str = ""
    expires_at: datetime | None = None
    won: tuple[str, ...] = ()
    refunds: dict[str, int] = {}
    came_back: bool = False
    day: date | None = None
    held: str = ""

    @property
    def left(self) -> int:
        """How much of what arrived has not gone back."""
        return self.settled - self.refunded - self.lost


def evolve(transaction: Transaction, event: TransactionEvent, at: datetime) -> Transaction:  # noqa: C901, PLR0912 — one case an event
    match event:
        case DepositRequested():
            counted = day_of(event.day, event.utc_offset, at + NEXT) if event.day else None
            return Transaction(Status.REQUESTED, event.player, event.money, event.provider, at, day=counted)
        case WithdrawalRequested():
            return Transaction(
                Status.REQUESTED, event.player, event.money, event.provider, at, Kind.WITHDRAWAL, expires_at=event.expires_at
            )  # fmt: skip
        case Intervened() | ProviderRefused() | InstrumentShared():
            return transaction
        case PayoutHeld(reason):
            return msgspec.structs.replace(transaction, held=reason)
        case PayoutResumed():
            return msgspec.structs.replace(transaction, held="")
    learnt: dict[str, Any] = {}
    match event:
        case DepositSettled() | WithdrawalSettled():
            learnt["settled"] = transaction.money.amount
        case DepositSettledFor(money):
            learnt["settled"] = money.amount
        case DepositAuthorised(reference) | WithdrawalSent(reference):
            learnt["reference"] = reference
        case DepositDisputed(reference):
            learnt["dispute"] = reference
        case DisputeWon():
            learnt["won"] = (*transaction.won, transaction.dispute)
        case DisputeLost(money):
            learnt["lost"] = transaction.lost + money.amount
        case DepositRefunded(money, reference):
            learnt["refunded"] = transaction.refunded + money.amount
            learnt["refunds"] = {**transaction.refunds, reference: money.amount}
        case WithdrawalReturned(_, by_provider):
            learnt["came_back"] = transaction.came_back or by_provider
    return msgspec.structs.replace(transaction, status=STATUS_AFTER[type(event)], held="", **learnt)


TRANSACTIONS = Aggregate(
    "transaction",
    initial=Transaction(),
    evolve=evolve,
    events=[*STATUS_AFTER, PayoutHeld, PayoutResumed, Intervened, ProviderRefused, InstrumentShared],
)


@lru_cache(STREAMS_CACHED)
def stream(transaction_id: TransactionId) -> Stream[Transaction]:
    return Stream(TRANSACTIONS, parse_id("transaction", transaction_id))


def owner(transaction: Transaction) -> PlayerId:
    """Whose transaction it is. Raises NotFound."""
    if transaction.status is Status.UNKNOWN:
        raise NotFound("no such transaction")
    return transaction.player


# What decisions share


class WrongKind(Conflict):
    """Facts: kind."""

    code = "wrong_kind"
    title = "The transaction is a payment the other way"


class AmountDiffers(Conflict):
    """Facts: booked (Money)."""

    code = "amount_differs"
    title = "Another amount is booked already"


class AmountOutOfRange(RuleRefused):
    """Facts: minimum, maximum (Money)."""

    code = "amount_out_of_range"
    title = "The method does not carry this amount"


class NotSettled(Conflict):
    code = "not_settled"
    title = "The payment is not settled"


class NotDue(Conflict):
    """Facts: due_at."""

    code = "not_due"
    title = "It is not time yet"


def refuse_other(transaction: Transaction, kind: Kind, money: Money | None = None) -> None:
    """Raise NotFound, WrongKind, or CurrencyMismatch for money of another currency."""
    owner(transaction)
    if transaction.kind is not kind:
        raise WrongKind(kind=str(transaction.kind))
    if money is not None and money.currency != transaction.money.currency:
        raise CurrencyMismatch(expected=transaction.money.currency, got=money.currency)


def refuse_range(money: Money, minimum: int, maximum: int) -> None:
    """Raise AmountOutOfRange."""
    if not minimum <= money.amount <= maximum:
        raise AmountOutOfRange(minimum=Money(minimum, money.currency), maximum=Money(maximum, money.currency))


def psp(provider: str) -> str:
    """The account of what a payment provider owes to the house (or, negative, is owed)."""
    return f"psp:{provider}"


def by_hand(events: Sequence[Event], intervention: Intervention | None) -> Sequence[Event]:
    """The events, and if they are any and a person caused them, why."""
    if not events or intervention is None:
        return events
    return [*events, Intervened(intervention.kind, intervention.reason)]


def shared(others: Sequence[str]) -> InstrumentShared:
    """Who has named the same instrument. `others`: suffixes of players."""
    return InstrumentShared(tuple(PlayerId(f"player_{suffix}") for suffix in sorted(set(others))[:SHARED_MAX]))
