"""
Withdrawals: requested → under_review → approved → sent → settled | rejected | cancelled | expired | returned.

Invariants:
    - the money is reserved from the request until the end: it leaves when the provider has paid, or is cash again;
    - a closed KYC gate holds a withdrawal, and never refuses it;
    - once it is sent, only the provider or a person ends it: no timer and no player;
    - whoever may not be paid, as of now, holds their payout, also behind its approval, and ends nothing;
    - money that a provider has paid is booked, even if we have given the payout up before: then the player may owe it;
    - what the provider says has come back is not booked as paid any more, in whatever order it says so.
"""

from __future__ import annotations

from datetime import datetime

from domain.errors import Conflict, CurrencyMismatch, Rejected, TransactionClosed
from domain.kernel import Money, TransactionId
from domain.kyc import Kyc
from domain.limits import LimitsEvent, WithdrawalCounted, WithdrawalUncounted
from domain.players import Player
from domain.protection import Protection, Stop
from domain.transactions.payment import (
    AmountDiffers,
    Kind,
    NotDue,
    NotSettled,
    PayoutHeld,
    PayoutResumed,
    Status,
    Transaction,
    TransactionEvent,
    WithdrawalApproved,
    WithdrawalCancelled,
    WithdrawalExpired,
    WithdrawalHeld,
    WithdrawalRejected,
    WithdrawalRequested,
    WithdrawalReturned,
    WithdrawalSent,
    WithdrawalSettled,
    psp,
    refuse_other,
    refuse_range,
)
from domain.wallets import CASH, RESERVED, Credited, Debited, Released, Reserved, Transfer, Wallet, WalletEvent
from policies import gates, payments
from policies.limits import LocalDay

CODE = "withdrawal"
_RETURN = "withdrawal_return"
_UNDECIDED = frozenset({Status.REQUESTED, Status.UNDER_REVIEW})
_VOIDABLE = _UNDECIDED | {Status.APPROVED}
_APPROVED = frozenset({Status.APPROVED, Status.SENT, Status.SETTLED, Status.RETURNED})

Events = list[TransactionEvent | WalletEvent | LimitsEvent]


class NotApproved(Conflict):
    code = "not_approved"
    title = "The withdrawal is not approved"


class SentAlready(Conflict):
    """Facts: reference."""

    code = "sent_already"
    title = "The withdrawal was sent under another reference"


def request_withdrawal(
    transaction: Transaction,
    player: Player,
    kyc: Kyc,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    requested: WithdrawalRequested,
    at: datetime,
) -> Events:
    """Reserve money to be paid out. Approved at once unless there is a reason to look at it.

    Raises NotFound, PlayerBlocked, CurrencyMismatch, AmountOutOfRange, InsufficientFunds.
    """
    money = requested.money
    player.require_payable()
    if transaction.status is not Status.UNKNOWN:
        raise Conflict("the transaction exists already")
    if money.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=money.currency)
    terms = payments.of(requested.provider, money.currency)
    refuse_range(money, terms.withdrawal_min, terms.withdrawal_max)
    transfer = Transfer(CODE, CASH, RESERVED, money, transaction_id)
    reserved = Reserved(transfer, wallet.after(transfer))
    reasons = _reasons(player, kyc, wallet, requested, at)
    decided = WithdrawalHeld(reasons) if reasons else WithdrawalApproved()
    return [requested, decided, reserved]


def _reasons(player: Player, kyc: Kyc, wallet: Wallet, requested: WithdrawalRequested, at: datetime) -> tuple[str, ...]:
    """Why a person has to look at it."""
    money = requested.money
    terms = payments.of(requested.provider, money.currency)
    automatic = terms.automatic_fast if payments.FAST_PAYOUT in player.tags else terms.automatic
    found = {
        "kyc": _closed_gate(player, kyc, wallet, money.currency, at) is not None,
        "threshold": money.amount > automatic,
        "debt": wallet.balance(money.currency).receivable < 0,
        "risk": not payments.REVIEW_TAGS.isdisjoint(player.tags),
    }
    return tuple(word for word, holds in found.items() if holds)


def _closed_gate(player: Player, kyc: Kyc, wallet: Wallet, currency: str, at: datetime) -> gates.Missing | None:
    deposited = wallet.deposited.get(currency, 0)
    return kyc.missing(player, gates.Action.WITHDRAW, deposited=deposited, at=at)


def approve_withdrawal(
    transaction: Transaction, player: Player, kyc: Kyc, wallet: Wallet, *, at: datetime
) -> list[TransactionEvent]:
    """Let it be paid. The conditions are looked at again; asking again records nothing.

    Raises NotFound, WrongKind, TransactionClosed, PlayerBlocked, GateClosed.
    """
    refuse_other(transaction, Kind.WITHDRAWAL)
    if transaction.status in _APPROVED:
        return []
    if transaction.status not in _UNDECIDED:
        raise TransactionClosed(ended=transaction.status)
    player.require_payable()
    deposited = wallet.deposited.get(transaction.money.currency, 0)
    kyc.require(player, gates.Action.WITHDRAW, deposited=deposited, at=at)
    return [WithdrawalApproved()]


def require_payable(player: Player, protected: Protection, at: datetime) -> None:
    """That the player may be paid now. Who is merely excluded may be: their money is theirs.

    Raises NotFound, UnderReview, PlayerBlocked, ActionIsBlocked.
    """
    player.require_payable()
    protected.require(Stop.WITHDRAW, at)


def held_by(player: Player, protected: Protection, at: datetime) -> str:
    """Why the player may not be paid now: the code of the refusal; empty if they may. Raises NotFound."""
    player.require()
    try:
        require_payable(player, protected, at)
    except Rejected as refused:
        return refused.code
    return ""


def hold_payout(transaction: Transaction, *, why: str) -> list[TransactionEvent]:
    """Nobody is asked to pay for now; or, without `why`, nothing holds it any more. What is known, and what has ended, records
    nothing. Raises NotFound, WrongKind.
    """
    refuse_other(transaction, Kind.WITHDRAWAL)
    if transaction.status not in {Status.APPROVED, Status.SENT} or why == transaction.held:
        return []
    return [PayoutHeld(why)] if why else [PayoutResumed()]


def send_withdrawal(transaction: Transaction, *, reference: str) -> list[TransactionEvent]:
    """The provider was told to pay. Records nothing if that is known, or if the provider has told the end already.

    Raises NotFound, WrongKind, NotApproved, SentAlready, TransactionClosed.
    """
    refuse_other(transaction, Kind.WITHDRAWAL)
    match transaction.status:
        case Status.APPROVED:
            return [WithdrawalSent(reference)]
        case Status.SENT if reference != transaction.reference:
            raise SentAlready(reference=transaction.reference)
        case Status.SENT | Status.SETTLED | Status.RETURNED:
            return []
        case Status.REQUESTED | Status.UNDER_REVIEW:
            raise NotApproved
    raise TransactionClosed(ended=transaction.status)


def settle_withdrawal(
    transaction: Transaction,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    counted_on: LocalDay,
    money: Money | None = None,
) -> Events:
    """The player was paid: the money leaves what was reserved, or, if that was given up, cash, and then they owe the rest.
    What its provider has returned itself is closed: it has paid nothing, or has it back. `counted_on`: the day whose net deposits
    are less by that.

    Raises NotFound, WrongKind, CurrencyMismatch, AmountDiffers, NotApproved, TransactionClosed.
    """
    refuse_other(transaction, Kind.WITHDRAWAL, money)
    if money not in (None, transaction.money):
        raise AmountDiffers(booked=transaction.money)
    target, paid = psp(transaction.provider), transaction.money
    counted = WithdrawalCounted(transaction_id, paid, *counted_on)
    match transaction.status:
        case Status.SETTLED:
            return []
        case Status.APPROVED | Status.SENT:
            transfer = Transfer(CODE, RESERVED, target, paid, transaction_id)
            return [WithdrawalSettled(), Debited(transfer, wallet.after(transfer)), counted]
        case Status.RETURNED if transaction.settled:
            return []
        case Status.RETURNED if transaction.came_back:
            raise TransactionClosed(ended=transaction.status)
        case Status.REJECTED | Status.CANCELLED | Status.EXPIRED | Status.RETURNED:
            taken = wallet.charged_back(code=CODE, target=target, money=paid, transaction=transaction_id)
            return [WithdrawalSettled(), taken, counted]
    raise NotApproved


def reject_withdrawal(
    transaction: Transaction, wallet: Wallet, *, transaction_id: TransactionId, reason: str
) -> Events:
    """It will not be paid: give the money back. Raises NotFound, WrongKind, TransactionClosed."""
    return _void(transaction, wallet, transaction_id, WithdrawalRejected(reason), Status.REJECTED)


def cancel_withdrawal(transaction: Transaction, wallet: Wallet, *, transaction_id: TransactionId) -> Events:
    """The player thought better of it: give the money back. Raises NotFound, WrongKind, TransactionClosed."""
    return _void(transaction, wallet, transaction_id, WithdrawalCancelled(), Status.CANCELLED)


def expire_withdrawal(
    transaction: Transaction, wallet: Wallet, *, transaction_id: TransactionId, at: datetime
) -> Events:
    """Nothing came of it in time: give the money back. Raises NotFound, WrongKind, TransactionClosed, NotDue."""
    refuse_other(transaction, Kind.WITHDRAWAL)
    due_at = transaction.expires_at
    if transaction.status in _VOIDABLE and due_at is not None and at < due_at:
        raise NotDue(due_at=due_at)
    return _void(transaction, wallet, transaction_id, WithdrawalExpired(), Status.EXPIRED)


def _void(
    transaction: Transaction, wallet: Wallet, transaction_id: TransactionId, event: TransactionEvent, ended: Status
) -> Events:
    refuse_other(transaction, Kind.WITHDRAWAL)
    if transaction.status is ended:
        return []
    if transaction.status not in _VOIDABLE:
        raise TransactionClosed(ended=transaction.status)
    return [event, _released(transaction, wallet, transaction_id)]


def _released(transaction: Transaction, wallet: Wallet, transaction_id: TransactionId) -> Released:
    transfer = Transfer(CODE, RESERVED, CASH, transaction.money, transaction_id)
    return Released(transfer, wallet.after(transfer))


def return_withdrawal(
    transaction: Transaction,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    reason: str,
    by_provider: bool = False,
    counted_on: LocalDay | None = None,
) -> Events:
    """The provider could not pay, or what was paid came back: it is cash again. `by_provider`: it says so itself, which is
    recorded also if we knew, since nothing that it says it has paid is booked after that. `counted_on`: the day whose net
    deposits are more by what came back; nobody needs it of what is not settled.

    Raises NotFound, WrongKind, NotApproved, NotSettled (given up by us, and nothing was paid).
    """
    refuse_other(transaction, Kind.WITHDRAWAL)
    returned = WithdrawalReturned(reason, by_provider)
    match transaction.status:
        case Status.RETURNED:
            return [returned] if by_provider and not transaction.came_back else []
        case Status.APPROVED | Status.SENT:
            return [returned, _released(transaction, wallet, transaction_id)]
        case Status.SETTLED:
            paid, day = transaction.money, counted_on or (transaction.requested_at.date(),)
            transfer = Transfer(_RETURN, psp(transaction.provider), CASH, paid, transaction_id)
            credited = Credited(transfer, wallet.after(transfer))
            return [returned, credited, WithdrawalUncounted(transaction_id, paid, *day)]
        case Status.REQUESTED | Status.UNDER_REVIEW:
            raise NotApproved
    raise NotSettled


def withdrawal_due(provider: str, currency: str, at: datetime) -> datetime:
    """Until when a withdrawal that is requested at `at` keeps its money reserved."""
    return at + payments.of(provider, currency).withdrawal_lives
