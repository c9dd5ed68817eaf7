"""
Wallets: a player's money, in double entry.

A transfer moves an amount from one account to another and is final; a correction is a new transfer. The player's accounts
are `cash` and `reserved`; every other account ("psp:<provider>", "house:…") is a contra account, whose balance is the sum of
its postings and is kept by projections, never by a stream that all players would share.

Invariants:
    - the postings of a transfer sum to zero by construction, so all books balance in every currency;
    - cash and reserved are never negative;
    - an event carries the balance after it, so the first answer to a command can be given again from its event alone.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec

from domain.errors import InvalidAmount
from domain.kernel import AMOUNT_MAX, STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, TransactionId, parse_id

CASH = "cash"
RESERVED = "reserved"


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`money` leaves the account `source` and enters the account `target`."""

    code: str
    source: str
    target: str
    money: Money
    transaction: TransactionId


class Balance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Minor units of one currency."""

    cash: int = 0
    reserved: int = 0


# Events: the tags and fields are the storage format.


class Credited(Event, frozen=True, tag="wallet.credited"):
    """Money entered from outside."""

    transfer: Transfer
    balance: Balance


class Reserved(Event, frozen=True, tag="wallet.reserved"):
    """Cash was set aside."""

    transfer: Transfer
    balance: Balance


class Debited(Event, frozen=True, tag="wallet.debited"):
    """Money left, from cash or from what was reserved."""

    transfer: Transfer
    balance: Balance


WalletEvent = Credited | Reserved | Debited


# State


class Wallet(msgspec.Struct, frozen=True):
    balances: dict[str, Balance] = {}

    def balance(self, currency: str) -> Balance:
        return self.balances.get(currency, Balance())

    def after(self, transfer: Transfer) -> Balance:
        """The balance that the transfer would leave. Raises InvalidAmount if it cannot be booked."""
        amount = transfer.money.amount
        if amount <= 0:
            raise InvalidAmount("an amount is positive", amount=amount)
        before = self.balance(transfer.money.currency)
        after = Balance(
            cash=before.cash + amount * _sign(transfer, CASH),
            reserved=before.reserved + amount * _sign(transfer, RESERVED),
        )
        if after.cash < 0 or after.reserved < 0:
            raise InvalidAmount("the balance does not cover the amount", amount=amount)
        if after.cash > AMOUNT_MAX or after.reserved > AMOUNT_MAX:
            raise InvalidAmount("the balance would leave the range of exact integers", amount=amount)
        return after


def _sign(transfer: Transfer, account: str) -> int:
    return (transfer.target == account) - (transfer.source == account)


def evolve(wallet: Wallet, event: WalletEvent, _at: datetime) -> Wallet:
    return Wallet({**wallet.balances, event.transfer.money.currency: event.balance})


WALLETS = Aggregate("wallet", initial=Wallet(), evolve=evolve, events=[Credited, Reserved, Debited])


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Wallet]:
    return Stream(WALLETS, parse_id("player", player_id))


def postings(event: WalletEvent) -> list[tuple[str, int]]:
    """The two postings of a transfer: (account, minor units)."""
    transfer = event.transfer
    return [(transfer.source, -transfer.money.amount), (transfer.target, transfer.money.amount)]


# Decisions


def credit(wallet: Wallet, *, code: str, source: str, money: Money, transaction: TransactionId) -> list[WalletEvent]:
    """Book money that came in from the contra account `source`."""
    transfer = Transfer(code, source, CASH, money, transaction)
    return [Credited(transfer, wallet.after(transfer))]


def reserve(wallet: Wallet, *, code: str, money: Money, transaction: TransactionId) -> list[WalletEvent]:
    """Set cash aside."""
    transfer = Transfer(code, CASH, RESERVED, money, transaction)
    return [Reserved(transfer, wallet.after(transfer))]


def debit(
    wallet: Wallet, *, code: str, source: str, target: str, money: Money, transaction: TransactionId
) -> list[WalletEvent]:
    """Pay `money` out of `source` (cash or reserved) to the contra account `target`."""
    transfer = Transfer(code, source, target, money, transaction)
    return [Debited(transfer, wallet.after(transfer))]
