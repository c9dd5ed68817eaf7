"""
Transactions: the life of a payment. Here a deposit: requested → settled | failed.

Invariants:
    - a request consumes the player's headroom, a failure releases it, a settlement is never refused;
    - a transaction ends once; being told the same end again records nothing;
    - imported history is recorded as already settled, and touches no limit.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, CurrencyMismatch, NotFound, PlayerBlocked, TransactionClosed
from domain.kernel import EPOCH, STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, TransactionId, parse_id
from domain.limits import HeadroomConsumed, HeadroomReleased, Limits, LimitsEvent
from domain.players import Player
from domain.players import Status as PlayerStatus
from domain.wallets import CASH, Credited, Transfer, Wallet, WalletEvent

# Events: the tags and fields are the storage format.


class DepositRequested(Event, frozen=True, kw_only=True, tag="transaction.deposit_requested"):
    """A player asked to pay money in. `provider` is who moves it; `reference` is theirs."""

    player: PlayerId
    money: Money
    provider: str
    reference: str = ""


class DepositSettled(Event, frozen=True, tag="transaction.deposit_settled"):
    """The money has arrived; the wallet was credited by the same command."""


class DepositFailed(Event, frozen=True, tag="transaction.deposit_failed"):
    """The money will not come. `reason`: text, in the clear."""

    reason: str


TransactionEvent = DepositRequested | DepositSettled | DepositFailed


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    REQUESTED = "requested"
    SETTLED = "settled"
    FAILED = "failed"


class Transaction(msgspec.Struct, frozen=True):
    status: Status = Status.UNKNOWN
    player: PlayerId = PlayerId("")
    money: Money = Money(0, "")
    provider: str = ""
    requested_at: datetime = EPOCH


def evolve(transaction: Transaction, event: TransactionEvent, at: datetime) -> Transaction:
    match event:
        case DepositRequested():
            return Transaction(Status.REQUESTED, event.player, event.money, event.provider, at)
        case DepositSettled():
            return msgspec.structs.replace(transaction, status=Status.SETTLED)
        case DepositFailed():
            return msgspec.structs.replace(transaction, status=Status.FAILED)


TRANSACTIONS = Aggregate(
    "transaction", initial=Transaction(), evolve=evolve, events=[DepositRequested, DepositSettled, DepositFailed]
)


@lru_cache(STREAMS_CACHED)
def stream(transaction_id: TransactionId) -> Stream[Transaction]:
    return Stream(TRANSACTIONS, parse_id("transaction", transaction_id))


def owner(transaction: Transaction) -> PlayerId:
    """Whose transaction it is. Raises NotFound."""
    if transaction.status is Status.UNKNOWN:
        raise NotFound("no such transaction")
    return transaction.player


# Decisions


def request_deposit(
    transaction: Transaction,
    player: Player,
    limits: Limits,
    *,
    transaction_id: TransactionId,
    requested: DepositRequested,
    at: datetime,
) -> list[TransactionEvent | LimitsEvent]:
    """Ask a provider for money. Raises NotFound, PlayerBlocked, CurrencyMismatch, LimitExceeded."""
    _refuse(transaction, player, requested.money)
    limits.refuse_excess(requested.money, at)
    return [requested, HeadroomConsumed(transaction=transaction_id, money=requested.money)]


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


def settle_deposit(
    transaction: Transaction, wallet: Wallet, *, transaction_id: TransactionId
) -> list[TransactionEvent | WalletEvent]:
    """The money has arrived: book it. Never refused by a limit or a block."""
    if _ended(transaction, Status.SETTLED):
        return []
    return [DepositSettled(), *_credit(wallet, transaction.provider, transaction.money, transaction_id)]


def fail_deposit(
    transaction: Transaction, *, transaction_id: TransactionId, reason: str
) -> list[TransactionEvent | LimitsEvent]:
    """The money will not come: give the headroom back."""
    if _ended(transaction, Status.FAILED):
        return []
    consumed_at = transaction.requested_at + _NEXT  # perhaps on the next day
    released = HeadroomReleased(transaction=transaction_id, money=transaction.money, day=consumed_at.date())
    return [DepositFailed(reason=reason), released]


_NEXT = timedelta(microseconds=1)  # between the events of a command, as the log records them


def _refuse(transaction: Transaction, player: Player, money: Money) -> None:
    if player.status is PlayerStatus.UNKNOWN:
        raise NotFound("no such player")
    if transaction.status is not Status.UNKNOWN:
        raise Conflict("the transaction exists already")
    if player.status is PlayerStatus.BLOCKED:
        raise PlayerBlocked
    if money.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=money.currency)


def _ended(transaction: Transaction, status: Status) -> bool:
    owner(transaction)
    if transaction.status is Status.REQUESTED:
        return False
    if transaction.status is not status:
        raise TransactionClosed(ended=transaction.status)
    return True


def _credit(wallet: Wallet, provider: str, money: Money, transaction_id: TransactionId) -> list[WalletEvent]:
    transfer = Transfer("deposit", f"psp:{provider}", CASH, money, transaction_id)
    return [Credited(transfer, wallet.after(transfer))]
