"""Commands that deposits and withdrawals both know: the money has moved, or its time is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from access.policy import Action
from commands.edge import Amount, Edge, Nothing, money
from commands.plan import Plan
from commands.transactions.telling import ByHand, its_limits, its_wallet, its_windows, telling
from domain import transactions, wallets
from domain.errors import Forbidden
from domain.kernel import AnyStream, Event, Money, TransactionId
from domain.limits import Limits
from domain.players import Player
from domain.transactions import Kind, Transaction
from policies.limits import LocalDay


class SettlePayment(ByHand, frozen=True, forbid_unknown_fields=True):
    """`amount`: of the money that has arrived or was paid out, if that may be another than was asked for."""

    amount: Amount | None = None


class MoreThanAsked(Forbidden):
    """Facts: asked (Money)."""

    code = "more_than_asked"
    title = "A person books no more than was asked for; the rest is an adjustment"


def settle(transaction_id: str, command: SettlePayment, edge: Edge) -> Plan:
    """Book a deposit's money, or that a withdrawal was paid. Never refused by a limit or a block. Raises NotFound,
    CurrencyMismatch, AmountDiffers, NotApproved, TransactionClosed, and of a person MoreThanAsked.
    """
    id_ = TransactionId(transaction_id)
    moved = money(command.amount, "/amount") if command.amount else None

    def follow(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        wallet = its_wallet(transaction)
        counts = transaction.kind is Kind.WITHDRAWAL or transactions.touches_headroom(transaction, moved)
        return {**wallet, **its_windows(transaction)} if counts else wallet

    def decision(
        at: datetime,
        transaction: Transaction,
        wallet: wallets.Wallet,
        limits: Limits | None = None,
        player: Player | None = None,
    ) -> Sequence[Event]:
        day = limits.day_at(player, at) if limits and player else LocalDay(at.date(), 0)
        if transaction.kind is Kind.WITHDRAWAL:
            return transactions.settle_withdrawal(transaction, wallet, transaction_id=id_, money=moved, counted_on=day)
        settled = transactions.settle_deposit(transaction, wallet, transaction_id=id_, money=moved, counted_on=day)
        if settled and edge.context.principal.by_hand:
            _refuse_more(transaction, moved)
        return settled

    both = (Action.DEPOSIT_SETTLE, Action.WITHDRAWAL_SETTLE)
    return telling(id_, edge, both, decision, command=command, follow=follow)


def _refuse_more(transaction: Transaction, moved: Money | None) -> None:
    """So that nobody makes money alone: the rest needs a second person, as every adjustment. Raises MoreThanAsked."""
    if moved is not None and moved.amount > transaction.money.amount:
        raise MoreThanAsked(asked=transaction.money)


def expire(transaction_id: str, _command: Nothing, edge: Edge) -> Plan:
    """A payment's time is over: headroom, or what was reserved, is given back. Raises NotFound, TransactionClosed, NotDue."""
    id_ = TransactionId(transaction_id)

    def follow(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        return its_wallet(transaction) if transaction.kind is Kind.WITHDRAWAL else its_limits(transaction)

    def decision(at: datetime, transaction: Transaction, **further: Any) -> Sequence[Event]:
        if transaction.kind is Kind.WITHDRAWAL:
            return transactions.expire_withdrawal(transaction, further["wallet"], transaction_id=id_, at=at)
        return transactions.expire_deposit(transaction, transaction_id=id_, at=at)

    return telling(transaction_id, edge, Action.TIMER_FIRE, decision, follow=follow)
