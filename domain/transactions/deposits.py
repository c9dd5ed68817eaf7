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
from datetime import date, datetime

import msgspec

from domain.errors import Conflict, CurrencyMismatch, InvalidAmount, TransactionClosed
from domain.kernel import Money, TransactionId
from domain.kyc import Kyc
from domain.limits import HeadroomConsumed, HeadroomReleased, Limits, LimitsEvent
from domain.players import Player
from domain.transactions.payment import (
    NEXT,
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
    NotSettled,
    Status,
    Transaction,
    TransactionEvent,
    psp,
    refuse_other,
    refuse_range,
)
from domain.wallets import CASH, DEPOSIT, HISTORY, Credited, InsufficientFunds, Transfer, Wallet, WalletEvent
from policies import gates, payments
from policies.limits import LocalDay

_OPEN = frozenset({Status.REQUESTED, Status.AUTHORISED})
_GIVEN_UP = frozenset({Status.FAILED, Status.EXPIRED})
_KEPT = frozenset({Status.SETTLED, Status.REFUNDED, Status.WON})


class NotDisputed(Conflict):
    """Facts: reference."""

    code = "not_disputed"
    title = "There is no such dispute of the deposit"


class DisputeOpen(Conflict):
    """Facts: reference."""

    code = "dispute_open"
    title = "The deposit is disputed; that has to be decided first"


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

    Raises NotFound, PlayerBlocked, PlayerNotActive, CurrencyMismatch, AmountOutOfRange, GateClosed, LimitRequired,
    LimitExceeded, UnderReview.
    """
    money = requested.money
    _refuse(transaction, player, money)
    terms = payments.of(requested.provider, money.currency)
    refuse_range(money, terms.deposit_min, terms.deposit_max)
    before = _so_far(limits, wallet, money.currency)
    kyc.require(player, gates.Action.DEPOSIT, deposited=before + money.amount, at=at)
    limits.refuse_deposit(money, player=player, at=at)
    day, offset = limits.day_at(player, at)
    return [
        msgspec.structs.replace(requested, day=day, utc_offset=offset),
        HeadroomConsumed(transaction_id, money, day, offset),
    ]


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
    return [requested, DepositSettled(), *_credit(wallet, requested.provider, requested.money, transaction_id, HISTORY)]


def authorise_deposit(transaction: Transaction, *, reference: str) -> list[TransactionEvent]:
    """The provider can take the money. Records nothing of a deposit that has gone further already.

    Raises NotFound, WrongKind, TransactionClosed for one that was given up.
    """
    refuse_other(transaction, Kind.DEPOSIT)
    if transaction.status in _GIVEN_UP:
        raise TransactionClosed(ended=transaction.status)
    if transaction.status is not Status.REQUESTED:
        return []
    return [DepositAuthorised(reference)]


def settle_deposit(
    transaction: Transaction,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    money: Money | None = None,
    counted_on: LocalDay | None = None,
) -> list[TransactionEvent | WalletEvent | LimitsEvent]:
    """The money has arrived: book it, `money` if that is another amount than asked for. Never refused by a limit or a block.

    `counted_on`: the day with which what was not counted yet counts, where it touches headroom.

    Raises NotFound, WrongKind, CurrencyMismatch, AmountDiffers.
    """
    refuse_other(transaction, Kind.DEPOSIT, money)
    if transaction.settled:
        _refuse_other_amount(money, transaction.settled)
        return []
    arrived = money or transaction.money
    ended = DepositSettled() if arrived == transaction.money else DepositSettledFor(arrived)
    credited = _credit(wallet, transaction.provider, arrived, transaction_id)
    return [ended, *credited, *_headroom(transaction, transaction_id, arrived, counted_on)]


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

    Raises NotFound, WrongKind, NotSettled, DisputeOpen, TransactionClosed.
    """
    refuse_other(transaction, Kind.DEPOSIT)
    if not transaction.settled:
        raise NotSettled
    if reference == transaction.dispute or reference in transaction.won:
        return []
    _refuse_undecided(transaction)
    return [DepositDisputed(reference, reason)]


def win_dispute(transaction: Transaction, *, reference: str) -> list[TransactionEvent]:
    """The money stays. Of a dispute that was won, perhaps long ago, nothing is recorded.

    Raises NotFound, WrongKind, NotDisputed, TransactionClosed.
    """
    refuse_other(transaction, Kind.DEPOSIT)
    if reference in transaction.won:
        return []
    if transaction.status is Status.LOST:
        raise TransactionClosed(ended=transaction.status)
    _refuse_undisputed(transaction, reference)
    return [DisputeWon()]


def lose_dispute(
    transaction: Transaction,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    reference: str,
    money: Money | None = None,
) -> list[TransactionEvent | WalletEvent]:
    """The money was charged back: all that is left of it, or `money`. What the player's cash does not cover they owe.

    Raises NotFound, WrongKind, CurrencyMismatch, NotDisputed, TransactionClosed, AmountDiffers, RefundExceeds.
    """
    refuse_other(transaction, Kind.DEPOSIT, money)
    if reference in transaction.won:
        raise TransactionClosed(ended=Status.WON)
    if transaction.status is Status.LOST:
        if reference != transaction.dispute:
            raise TransactionClosed(ended=transaction.status)
        _refuse_other_amount(money, transaction.lost)
        return []
    _refuse_undisputed(transaction, reference)
    gone = money or Money(transaction.left, transaction.money.currency)
    _refuse_beyond(transaction, gone)
    return [DisputeLost(gone), *_take_back(wallet, "chargeback", transaction, gone, transaction_id)]


def refund_deposit(
    transaction: Transaction,
    wallet: Wallet,
    *,
    transaction_id: TransactionId,
    reference: str,
    money: Money | None = None,
    has_happened: bool = False,
) -> list[TransactionEvent | WalletEvent]:
    """Give back what is left, or `money` of it, from the player's cash; what a provider says `has_happened` they may then owe.

    Of a `reference` that was refunded, by whomever, nothing is recorded.
    Raises NotFound, WrongKind, CurrencyMismatch, AmountDiffers, NotSettled, DisputeOpen, TransactionClosed, RefundExceeds,
    InsufficientFunds.
    """
    refuse_other(transaction, Kind.DEPOSIT, money)
    if reference in transaction.refunds:
        _refuse_other_amount(money, transaction.refunds[reference])
        return []
    if not transaction.settled:
        raise NotSettled
    _refuse_undecided(transaction)
    if money is None and not transaction.left:
        return []
    back = money or Money(transaction.left, transaction.money.currency)
    _refuse_beyond(transaction, back)
    if not has_happened and back.amount > wallet.balance(back.currency).cash:
        raise InsufficientFunds("the player's cash does not cover the refund", amount=back.amount)
    return [DepositRefunded(back, reference), *_take_back(wallet, "refund", transaction, back, transaction_id)]


def _refuse(transaction: Transaction, player: Player, money: Money) -> None:
    player.require()
    if transaction.status is not Status.UNKNOWN:
        raise Conflict("the transaction exists already")
    player.require_active()
    if money.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=money.currency)


def _refuse_undecided(transaction: Transaction) -> None:
    """Raises DisputeOpen, TransactionClosed."""
    if transaction.status is Status.DISPUTED:
        raise DisputeOpen(reference=transaction.dispute)
    if transaction.status not in _KEPT:
        raise TransactionClosed(ended=transaction.status)


def _refuse_undisputed(transaction: Transaction, reference: str) -> None:
    """Raises NotDisputed unless it is the open dispute."""
    if transaction.status is not Status.DISPUTED or reference != transaction.dispute:
        raise NotDisputed(reference=reference)


def _refuse_beyond(transaction: Transaction, money: Money) -> None:
    if money.amount <= 0:
        raise InvalidAmount("an amount is positive", amount=money.amount)
    if money.amount > transaction.left:
        raise RefundExceeds(left=Money(transaction.left, money.currency))


def _refuse_other_amount(money: Money | None, booked: int) -> None:
    if money is not None and money.amount != booked:
        raise AmountDiffers(booked=Money(booked, money.currency))


def _so_far(limits: Limits, wallet: Wallet, currency: str) -> int:
    """What the player has deposited, imports included, and what is still on its way. (The first release did not tell imports
    from other deposits; of those at least what was settled counts.)
    """
    return max(limits.requested + wallet.imported.get(currency, 0), wallet.deposited.get(currency, 0))


def _credit(
    wallet: Wallet, provider: str, money: Money, transaction_id: TransactionId, code: str = DEPOSIT
) -> list[WalletEvent]:
    transfer = Transfer(code, psp(provider), CASH, money, transaction_id)
    return [Credited(transfer, wallet.after(transfer))]


def _take_back(
    wallet: Wallet, code: str, transaction: Transaction, money: Money, transaction_id: TransactionId
) -> list[WalletEvent]:
    target = psp(transaction.provider)
    return [wallet.charged_back(code=code, target=target, money=money, transaction=transaction_id)]


def _headroom(
    transaction: Transaction, transaction_id: TransactionId, arrived: Money, counted_on: LocalDay | None
) -> Sequence[LimitsEvent]:
    """So that what counts against the limits is what has arrived: after a failure all of it, otherwise the difference."""
    counted = 0 if transaction.status in _GIVEN_UP else transaction.money.amount
    more = arrived.amount - counted
    if more > 0:
        money = Money(more, arrived.currency)
        return [HeadroomConsumed(transaction_id, money, *(counted_on or (_day_of(transaction),)))]
    if more < 0:
        return [_released(transaction, transaction_id, Money(-more, arrived.currency))]
    return []


def _released(transaction: Transaction, transaction_id: TransactionId, money: Money) -> HeadroomReleased:
    counted_at = transaction.requested_at + NEXT  # perhaps in the next hour
    return HeadroomReleased(transaction_id, money, _day_of(transaction), counted_at)


def _day_of(transaction: Transaction) -> date:
    return transaction.day or transaction.requested_at.date()
