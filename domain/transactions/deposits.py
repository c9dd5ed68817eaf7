"""
Deposits: requested → authorised → settled | failed | expired; a settled one may be refunded, or disputed → won | lost.

Invariants:
    - a request consumes the player's headroom, a failure or expiry releases it, a settlement is never refused: one that comes
      after a failure settles all the same, and consumes headroom again;
    - the same money is booked once: told again nothing is recorded, and another amount is refused;
    - imported history is recorded as already settled, and touches no limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from domain.errors import Conflict, CurrencyMismatch, InvalidAmount, TransactionClosed
from domain.kernel import Money, TransactionId
from domain.kyc import Kyc
from domain.limits import HeadroomConsumed, HeadroomReleased, Limits, LimitsEvent
from domain.players import Player
from domain.transactions.payment import (
    AmountDiffers,
    DepositAuthorised,
    DepositDisputed,
    DepositExpired,
    DepositFailed,
    DepositRefunded,
    DepositRequested,
    DepositSettled,
    DepositSettledFor,
    DisputeLost,
    DisputeWon,
    Kind,
    NotDue,
    Status,
    Transaction,
    TransactionEvent,
    psp,
    refuse_other,
    refuse_range,
)
from domain.wallets import CASH, DEPOSIT, Credited, InsufficientFunds, Transfer, Wallet, WalletEvent
from policies import gates, payments

_OPEN = frozenset({Status.REQUESTED, Status.AUTHORISED})
_GIVEN_UP = frozenset({Status.FAILED, Status.EXPIRED})
_KEPT = frozenset({Status.SETTLED, Status.REFUNDED, Status.WON})
_NEXT = timedelta(microseconds=1)  # between the events of a command, as the log records them


class NotSettled(Conflict):
    code = "not_settled"
    title = "The deposit's money has not arrived"


class NotDisputed(Conflict):
    code = "not_disputed"
    title = "Nobody disputes the deposit"


class RefundExceeds(Conflict):
    """Facts: left (Money)."""

    code = "refund_exceeds"
    title = "Not so much of the deposit is left"


def request_deposit(
    transaction: Transaction,
    player: Player,
    kyc: Kyc,
    limits: Limits,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    requested: DepositRequested,
    at: datetime,
) -> list[TransactionEvent | LimitsEvent]:
    """Ask a provider for money.

    Raises NotFound, PlayerBlocked, PlayerNotActive, CurrencyMismatch, AmountOutOfRange, GateClosed, LimitExceeded.
    """
    money = requested.money
    _refuse(transaction, player, money)
    terms = payments.of(requested.provider, money.currency)
    refuse_range(money, terms.deposit_min, terms.deposit_max)
    before = max(limits.requested, wallet.deposited.get(money.currency, 0))
    kyc.require(player, gates.Action.DEPOSIT, deposited=before + money.amount, at=at)
    limits.refuse_excess(money, at)
    return [requested, HeadroomConsumed(transaction=transaction_id, money=money)]


def record_deposit(
    transaction: Transaction,
    player: Player,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    requested: DepositRequested,
) -> list[TransactionEvent | WalletEvent]:
    """Record a deposit of the past, requested and settled before this ledger was there."""
    _refuse(transaction, player, requested.money)
    return [requested, DepositSettled(), *_credit(wallet, requested.provider, requested.money, transaction_id)]


def authorise_deposit(transaction: Transaction, *, reference: str) -> list[TransactionEvent]:
    """The provider can take the money. Records nothing of a deposit that has gone further already."""
    refuse_other(transaction, Kind.DEPOSIT)
    if transaction.status is not Status.REQUESTED:
        return []
    return [DepositAuthorised(reference)]


def settle_deposit(
    transaction: Transaction, wallet: Wallet, *, transaction_id: TransactionId, money: Money | None = None
) -> list[TransactionEvent | WalletEvent | LimitsEvent]:
    """The money has arrived: book it, `money` if that is another amount than asked for. Never refused by a limit or a block.

    Raises NotFound, WrongKind, CurrencyMismatch, AmountDiffers.
    """
    refuse_other(transaction, Kind.DEPOSIT, money)
    if transaction.settled:
        _refuse_other_amount(money, transaction.settled)
        return []
    arrived = money or transaction.money
    ended = DepositSettled() if arrived == transaction.money else DepositSettledFor(arrived)
    credited = _credit(wallet, transaction.provider, arrived, transaction_id)
    return [ended, *credited, *_headroom(transaction, transaction_id, arrived)]


def touches_headroom(transaction: Transaction, money: Money | None) -> bool:
    """Whether settling the deposit changes what is left of the player's limits."""
    return transaction.status in _GIVEN_UP or money not in (None, transaction.money)


def fail_deposit(
    transaction: Transaction, *, transaction_id: TransactionId, reason: str
) -> list[TransactionEvent | LimitsEvent]:
    """The money will not come: give the headroom back, unless that was done. Raises NotFound, WrongKind, TransactionClosed."""
    refuse_other(transaction, Kind.DEPOSIT)
    match transaction.status:
        case Status.FAILED:
            return []
        case Status.EXPIRED:
            return [DepositFailed(reason=reason)]
        case Status.REQUESTED | Status.AUTHORISED:
            return [DepositFailed(reason=reason), _released(transaction, transaction_id, transaction.money)]
    raise TransactionClosed(ended=transaction.status)


def expire_deposit(
    transaction: Transaction, *, transaction_id: TransactionId, at: datetime
) -> list[TransactionEvent | LimitsEvent]:
    """Nobody has told of the money in time: give the headroom back. Raises NotFound, WrongKind, TransactionClosed, NotDue."""
    refuse_other(transaction, Kind.DEPOSIT)
    if transaction.status is Status.EXPIRED:
        return []
    if transaction.status not in _OPEN:
        raise TransactionClosed(ended=transaction.status)
    due_at = deposit_due(transaction.provider, transaction.money.currency, transaction.requested_at)
    if at < due_at:
        raise NotDue(due_at=due_at)
    return [DepositExpired(), _released(transaction, transaction_id, transaction.money)]


def deposit_due(provider: str, currency: str, requested_at: datetime) -> datetime:
    """When a deposit that was recorded at `requested_at` is given up."""
    return requested_at + payments.of(provider, currency).deposit_lives


def dispute_deposit(transaction: Transaction, *, reference: str, reason: str) -> list[TransactionEvent]:
    """The payer wants the money back from their bank. The same dispute again, even a decided one, records nothing.

    Raises NotFound, WrongKind, NotSettled, TransactionClosed.
    """
    refuse_other(transaction, Kind.DEPOSIT)
    if not transaction.settled:
        raise NotSettled
    if transaction.dispute == reference and transaction.dispute:
        return []
    if transaction.status not in _KEPT:
        raise TransactionClosed(ended=transaction.status)
    return [DepositDisputed(reference, reason)]


def win_dispute(transaction: Transaction) -> list[TransactionEvent]:
    """The money stays. Raises NotFound, WrongKind, NotDisputed, TransactionClosed."""
    refuse_other(transaction, Kind.DEPOSIT)
    match transaction.status:
        case Status.DISPUTED:
            return [DisputeWon()]
        case Status.WON:
            return []
        case Status.LOST:
            raise TransactionClosed(ended=transaction.status)
    raise NotDisputed


def lose_dispute(
    transaction: Transaction, wallet: Wallet, *, transaction_id: TransactionId, money: Money | None = None
) -> list[TransactionEvent | WalletEvent]:
    """The money was charged back: all that is left of it, or `money`. What the player's cash does not cover they owe.

    Raises NotFound, WrongKind, CurrencyMismatch, NotDisputed, TransactionClosed, AmountDiffers, RefundExceeds.
    """
    refuse_other(transaction, Kind.DEPOSIT, money)
    match transaction.status:
        case Status.LOST:
            _refuse_other_amount(money, transaction.lost)
            return []
        case Status.WON:
            raise TransactionClosed(ended=transaction.status)
        case Status.DISPUTED:
            pass
        case _:
            raise NotDisputed
    gone = money or Money(transaction.left, transaction.money.currency)
    _refuse_beyond(transaction, gone)
    return [DisputeLost(gone), *_take_back(wallet, "chargeback", transaction, gone, transaction_id)]


def refund_deposit(
    transaction: Transaction,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    money: Money | None = None,
    has_happened: bool = False,
) -> list[TransactionEvent | WalletEvent]:
    """Give back what is left, or `money` of it, from the player's cash; what a provider says `has_happened` they may then owe.

    Raises NotFound, WrongKind, CurrencyMismatch, NotSettled, TransactionClosed, RefundExceeds, InsufficientFunds.
    """
    refuse_other(transaction, Kind.DEPOSIT, money)
    if not transaction.settled:
        raise NotSettled
    if transaction.status not in _KEPT:
        raise TransactionClosed(ended=transaction.status)
    if money is None and not transaction.left:
        return []
    back = money or Money(transaction.left, transaction.money.currency)
    _refuse_beyond(transaction, back)
    if not has_happened and back.amount > wallet.balance(back.currency).cash:
        raise InsufficientFunds("the player's cash does not cover the refund", amount=back.amount)
    return [DepositRefunded(back), *_take_back(wallet, "refund", transaction, back, transaction_id)]


def _refuse(transaction: Transaction, player: Player, money: Money) -> None:
    player.require()
    if transaction.status is not Status.UNKNOWN:
        raise Conflict("the transaction exists already")
    player.require_active()
    if money.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=money.currency)


def _refuse_beyond(transaction: Transaction, money: Money) -> None:
    if money.amount <= 0:
        raise InvalidAmount("an amount is positive", amount=money.amount)
    if money.amount > transaction.left:
        raise RefundExceeds(left=Money(transaction.left, money.currency))


def _refuse_other_amount(money: Money | None, booked: int) -> None:
    if money is not None and money.amount != booked:
        raise AmountDiffers(booked=Money(booked, money.currency))


def _credit(wallet: Wallet, provider: str, money: Money, transaction_id: TransactionId) -> list[WalletEvent]:
    transfer = Transfer(DEPOSIT, psp(provider), CASH, money, transaction_id)
    return [Credited(transfer, wallet.after(transfer))]


def _take_back(
    wallet: Wallet, code: str, transaction: Transaction, money: Money, transaction_id: TransactionId
) -> list[WalletEvent]:
    target = psp(transaction.provider)
    return [wallet.charged_back(code=code, target=target, money=money, transaction=transaction_id)]


def _headroom(transaction: Transaction, transaction_id: TransactionId, arrived: Money) -> Sequence[LimitsEvent]:
    """So that what counts against the limits is what has arrived: after a failure all of it, otherwise the difference."""
    counted = 0 if transaction.status in _GIVEN_UP else transaction.money.amount
    more = arrived.amount - counted
    if more > 0:
        return [HeadroomConsumed(transaction=transaction_id, money=Money(more, arrived.currency))]
    if more < 0:
        return [_released(transaction, transaction_id, Money(-more, arrived.currency))]
    return []


def _released(transaction: Transaction, transaction_id: TransactionId, money: Money) -> HeadroomReleased:
    consumed_at = transaction.requested_at + _NEXT  # perhaps on the next day
    return HeadroomReleased(transaction=transaction_id, money=money, day=consumed_at.date())
