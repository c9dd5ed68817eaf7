"""Given events, a state: what every sentence about a decision begins with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from domain.kernel import Aggregate, Event, Money, PlayerId, TransactionId, suffix, uuid7
from domain.limits import Kind, LimitSet, Period
from domain.players import DataKey, Registered
from domain.wallets import Moved, Movement, Wallet
from policies.spending import Order

S = TypeVar("S")

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOMORROW = NOON + timedelta(days=1)
EUR, USD = "EUR", "USD"
PLAYER = PlayerId("player_" + suffix(uuid7(NOON, bytes(10), 42)))
DEPOSIT = TransactionId("transaction_" + suffix(uuid7(NOON, b"1" * 10, 42)))
OTHER_DEPOSIT = TransactionId("transaction_" + suffix(uuid7(NOON, b"2" * 10, 42)))

REGISTERED = Registered(
    brand="main", country="DE", currency=EUR, key=DataKey("019a8f00-0000-7000-8000-000000000003", "")
)

A_MONTH = LimitSet(kind=Kind.DEPOSIT, period=Period.MONTH, money=Money(10**9, EUR))
"""What the law of DE asks of a player before they deposit."""


def euros(amount: int) -> Money:
    """In cents."""
    return Money(amount, EUR)


def paid(wallet: Wallet, money: Money, order: Order = Order.CASH_FIRST, *, code: str = "bet") -> list[Moved]:
    """Money that went to the house, in this order of accounts. Raises InvalidAmount."""
    parts = wallet.paying(money, order)
    movements = tuple(Movement(code, account, "house:ggr", part, "round_1") for account, part in parts)
    return [Moved(movements, wallet.booked(movements, money.currency))]


def fold(aggregate: Aggregate[S], events: Iterable[Event], *, at: datetime = NOON, state: S | None = None) -> S:
    """The state after `events`, each recorded 1 µs after the other, the first at `at`."""
    folded = aggregate.initial if state is None else state
    for place, event in enumerate(events):
        folded = aggregate.evolve(folded, event, at + timedelta(microseconds=place))
    return folded


def given(aggregate: Aggregate[S], *events: Event, at: datetime = NOON) -> S:
    return fold(aggregate, events, at=at)
