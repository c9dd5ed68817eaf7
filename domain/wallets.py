"""
Wallets: a player's money, in double entry.

A transfer moves an amount from one account to another and is final; a correction is a new transfer. The player's accounts
are `cash`, `bonus`, `reserved` (for withdrawals under way) and `receivable` (what the player owes, after a chargeback); every
other account ("psp:<provider>", "house:…") is a contra account, whose balance is the sum of its postings and is kept by
projections, never by a stream that all players would share.

Invariants:
    - the postings of a transfer sum to zero by construction, so all books balance in every currency;
    - cash, bonus and reserved are never negative, receivable is never positive;
    - an event carries what the accounts hold after it, so the first answer to a command can be given again from its event alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from domain.errors import InvalidAmount
from domain.kernel import AMOUNT_MAX, STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, TransactionId, parse_id
from policies.spending import Order

CASH: Final = "cash"
BONUS: Final = "bonus"
RESERVED: Final = "reserved"
RECEIVABLE: Final = "receivable"
OWN: Final = (CASH, BONUS, RESERVED, RECEIVABLE)
"""The player's own accounts."""

DEPOSIT: Final = "deposit"
"""The code of the transfers that settle deposits."""

HISTORY: Final = "deposit_history"
"""And of those that settle deposits of the past, which no limit has counted."""


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`money` leaves the account `source` and enters the account `target`."""

    code: str
    source: str
    target: str
    money: Money
    transaction: TransactionId


class Movement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A transfer, perhaps one of a campaign or a bonus. `transaction`: the id of what it is part of, such as an adjustment."""

    code: str
    source: str
    target: str
    money: Money
    transaction: str
    campaign: str = ""
    bonus: str = ""


class Balance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Minor units of one currency, as the events of deposits and withdrawals carry them."""

    cash: int = 0
    reserved: int = 0


class Accounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a player's accounts hold, in minor units of one currency; positive is what the house owes to the player."""

    cash: int = 0
    bonus: int = 0
    reserved: int = 0
    receivable: int = 0


class InsufficientFunds(InvalidAmount):
    code = "insufficient_funds"
    title = "The account does not hold that much"


# Events: the tags and fields are the storage format.


class Credited(Event, frozen=True, tag="wallet.credited"):
    """Money entered from outside."""

    transfer: Transfer
    balance: Balance


class Reserved(Event, frozen=True, tag="wallet.reserved"):
    """Cash was set aside."""

    transfer: Transfer
    balance: Balance


class Released(Event, frozen=True, tag="wallet.released"):
    """What had been set aside is cash again."""

    transfer: Transfer
    balance: Balance


class Debited(Event, frozen=True, tag="wallet.debited"):
    """Money left, from cash or from what was reserved."""

    transfer: Transfer
    balance: Balance


class Moved(Event, frozen=True, tag="wallet.moved"):
    """Money moved otherwise: spent, won, granted, adjusted, charged back. One or more movements of one currency, together."""

    movements: tuple[Movement, ...]
    accounts: Accounts


WalletEvent = Credited | Reserved | Released | Debited | Moved
KINDS: tuple[type[WalletEvent], ...] = (Credited, Reserved, Released, Debited, Moved)


# State


class Wallet(msgspec.Struct, frozen=True):
    """By currency. `deposited`: the sum of all deposits that were ever settled, whatever became of them afterwards; `imported`:
    what of it is of the past.
    """

    balances: dict[str, Accounts] = {}
    deposited: dict[str, int] = {}
    imported: dict[str, int] = {}

    def balance(self, currency: str) -> Accounts:
        return self.balances.get(currency, _NOTHING)

    def after(self, transfer: Transfer) -> Balance:
        """What the transfer would leave. Raises InvalidAmount if it cannot be booked."""
        accounts = _after(self.balance(transfer.money.currency), transfer)
        return Balance(accounts.cash, accounts.reserved)

    def charged_back(self, *, code: str, target: str, money: Money, transaction: str) -> Moved:
        """What somebody outside has taken: from cash as far as there is any; the rest is what the player owes now.

        Raises InvalidAmount only for an amount that cannot be booked, since it is no question any more.
        """
        parts = _split(self, money, CASH, RECEIVABLE)
        return _moved(self, [Movement(code, source, target, part, transaction) for source, part in parts])


_NOTHING = Accounts()


def _after(before: Accounts, transfer: Transfer | Movement) -> Accounts:
    amount, source, target = transfer.money.amount, transfer.source, transfer.target
    if amount <= 0:
        raise InvalidAmount("an amount is positive", amount=amount)
    if source == target:
        raise InvalidAmount("a transfer is between two accounts", account=source)
    held = {name: getattr(before, name) + amount * ((target == name) - (source == name)) for name in OWN}
    owed = held[RECEIVABLE]
    if min(held[CASH], held[BONUS], held[RESERVED]) < 0:
        raise InsufficientFunds("the balance does not cover the amount", amount=amount, account=source)
    if owed > 0:
        raise InsufficientFunds("the player does not owe as much", amount=amount, account=RECEIVABLE)
    if max(held[CASH], held[BONUS], held[RESERVED], -owed) > AMOUNT_MAX:
        raise InvalidAmount("the balance would leave the range of exact integers", amount=amount)
    return Accounts(**held)


def evolve(wallet: Wallet, event: WalletEvent, _at: datetime) -> Wallet:
    change = msgspec.structs.replace
    if isinstance(event, Moved):
        return change(wallet, balances={**wallet.balances, currency_of(event): event.accounts})
    currency, balance, transfer = event.transfer.money.currency, event.balance, event.transfer
    before = wallet.balance(currency)
    after = Accounts(balance.cash, before.bonus, balance.reserved, before.receivable)
    deposited, imported = wallet.deposited, wallet.imported
    if isinstance(event, Credited) and transfer.code in (DEPOSIT, HISTORY):
        deposited = {**deposited, currency: deposited.get(currency, 0) + transfer.money.amount}
        if transfer.code == HISTORY:
            imported = {**imported, currency: imported.get(currency, 0) + transfer.money.amount}
    return Wallet({**wallet.balances, currency: after}, deposited, imported)


WALLETS = Aggregate("wallet", initial=Wallet(), evolve=evolve, events=KINDS)


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Wallet]:
    return Stream(WALLETS, parse_id("player", player_id))


def currency_of(event: WalletEvent) -> str:
    return (event.movements[0] if isinstance(event, Moved) else event.transfer).money.currency


def postings(event: WalletEvent) -> list[tuple[str, int]]:
    """The two postings of each of its transfers: (account, minor units of its one currency)."""
    transfers = event.movements if isinstance(event, Moved) else (event.transfer,)
    return [
        posting
        for transfer in transfers
        for posting in ((transfer.source, -transfer.money.amount), (transfer.target, transfer.money.amount))
    ]


# Decisions


def spend(
    wallet: Wallet, *, code: str, target: str, money: Money, transaction: str, order: Order, campaign: str = ""
) -> list[WalletEvent]:
    """Pay for a game, in the order that the policy says. Each account pays by a movement of its own: that is who funded it."""
    first, second = (CASH, BONUS) if order is Order.CASH_FIRST else (BONUS, CASH)
    parts = _split(wallet, money, first, second)
    return [_moved(wallet, [Movement(code, source, target, part, transaction, campaign) for source, part in parts])]


def grant_bonus(
    wallet: Wallet, *, money: Money, transaction: str, campaign: str = "", bonus: str = "", code: str = "bonus"
) -> list[WalletEvent]:
    """Give bonus money."""
    return [_moved(wallet, [Movement(code, "house:bonus", BONUS, money, transaction, campaign, bonus)])]


class Direction(StrEnum):
    CREDIT = "credit"
    DEBIT = "debit"


def adjust(
    wallet: Wallet, *, account: str, direction: Direction, money: Money, transaction: str, code: str = "adjustment"
) -> list[WalletEvent]:
    """Correct an account by hand, against house:adjustments. `account`: cash, bonus or receivable."""
    if account not in (CASH, BONUS, RECEIVABLE):
        raise InvalidAmount("this account is not corrected by hand", account=account)
    house = "house:adjustments"
    source, target = (house, account) if direction is Direction.CREDIT else (account, house)
    return [_moved(wallet, [Movement(code, source, target, money, transaction)])]


def reverse(wallet: Wallet, movements: Sequence[Movement], *, code: str, transaction: str) -> list[WalletEvent]:
    """Undo earlier movements by new ones, each the other way: what was paid goes back to the account that paid it."""
    change = msgspec.structs.replace
    return [
        _moved(
            wallet,
            [change(m, code=code, source=m.target, target=m.source, transaction=transaction) for m in movements],
        )
    ]


def _split(wallet: Wallet, money: Money, first: str, second: str) -> list[tuple[str, Money]]:
    """As much as there is from the first account, the rest from the second."""
    part = min(money.amount, getattr(wallet.balance(money.currency), first))
    rest = money.amount - part
    return [(account, Money(amount, money.currency)) for account, amount in ((first, part), (second, rest)) if amount]


def _moved(wallet: Wallet, movements: Sequence[Movement]) -> Moved:
    if not movements:
        raise InvalidAmount("an amount is positive")
    currency = movements[0].money.currency
    accounts = wallet.balance(currency)
    for movement in movements:
        if movement.money.currency != currency:
            raise InvalidAmount("movements of one event are in one currency", currency=movement.money.currency)
        accounts = _after(accounts, movement)
    return Moved(tuple(movements), accounts)
