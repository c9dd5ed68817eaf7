"""
What commands on transactions share: their bodies' members, their answer, and how one on a single transaction is described.

Invariant: a command that records nothing answers with the status that is, not with the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint, InterventionMissing, Text, Why, intervention, suffix_in
from commands.plan import Fact, Plan
from domain import limits, transactions, wallets
from domain.errors import CurrencyMismatch, InvalidAmount, NotFound, Rejected, TransactionClosed, UnknownCurrency
from domain.kernel import AnyStream, Event, Money, Stream, TransactionId
from domain.transactions import Status, Transaction

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=200, description="The provider's own.")]


class ByHand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`intervention`: why a person does this; people must say it."""

    intervention: Why | None = None


class WithReason(ByHand, frozen=True, forbid_unknown_fields=True):
    reason: Text


class Payment(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status`: the transaction's. `amount`: what the command is about, where it tells one. `balance`: the player's cash
    afterwards, if money has moved. `reasons`: why a withdrawal is under review.
    """

    transaction: str
    status: Status
    amount: Money | None = None
    balance: Money | None = None
    reasons: tuple[str, ...] = ()


def its_wallet(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
    """Raises NotFound."""
    return {"wallet": wallets.stream(transactions.owner(transaction))}


def its_limits(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
    """Raises NotFound."""
    return {"limits": limits.stream(transactions.owner(transaction))}


def telling(
    transaction_id: str,
    edge: Edge,
    require: Action | tuple[Action, ...],
    decision: Callable[..., Sequence[Event]],
    *,
    command: ByHand | None = None,
    reads: Mapping[str, Stream[Any]] | None = None,
    follow: Callable[..., Mapping[str, AnyStream[Any]]] | None = None,
) -> Plan:
    """A command on one transaction. `command`: one that a person gives reasons for. Raises InterventionMissing."""
    why = intervention(command.intervention, edge.context) if command else None
    id_ = TransactionId(transaction_id)
    stood = Status.UNKNOWN  # where the transaction stood when this was last decided

    def decided(at: datetime, transaction: Transaction, **states: Any) -> Sequence[Event]:
        nonlocal stood
        stood = transaction.status
        return transactions.by_hand(decision(at, transaction=transaction, **states), why)

    return Plan(
        edge.context,
        require=require if isinstance(require, tuple) else (require,),
        writes={"transaction": transactions.stream(id_)},
        reads=reads or {},
        follow=follow,
        decision=decided,
        answer=lambda facts: answer(facts) if facts else Payment(id_, stood),
    )


def answer(facts: Sequence[Fact]) -> Payment:
    """Where the transaction stands after these events."""
    transaction = f"transaction_{suffix_in(facts, 'transaction')}"
    status, amount, balance = Status.UNKNOWN, None, None
    reasons: tuple[str, ...] = ()
    for event in (fact.event for fact in facts):
        status = transactions.STATUS_AFTER.get(type(event), status)
        match event:
            case transactions.WithdrawalHeld():
                reasons = event.reasons
            case wallets.Moved():
                balance = Money(event.accounts.cash, wallets.currency_of(event))
            case wallets.Credited() | wallets.Reserved() | wallets.Released() | wallets.Debited():
                balance = Money(event.balance.cash, event.transfer.money.currency)
            case transactions.DepositRequested(money=told) | transactions.WithdrawalRequested(money=told):
                amount = told
            case (
                transactions.DepositSettledFor(told)
                | transactions.DepositRefunded(told)
                | transactions.DisputeLost(told)
            ):
                amount = told
    return Payment(transaction, status, amount, balance, reasons)


TELLING = (NotFound, transactions.WrongKind, TransactionClosed)
AMOUNTS = (CurrencyMismatch, UnknownCurrency, InvalidAmount)


def endpoint(verb: str, handler: Callable[..., Plan], body: type[msgspec.Struct], *errors: type[Rejected]) -> Endpoint:
    said = (InterventionMissing,) if issubclass(body, ByHand) else ()
    return Endpoint(
        f"/v1/transactions/{{transaction_id}}/{verb}", handler, body, Payment, 200, (*TELLING, *said, *errors)
    )
