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
from commands.edge import Edge, Endpoint, InterventionMissing, PersonalText, Why, intervention, suffix_in
from commands.plan import Fact, Plan
from commands.sealing import KeyNotHeld
from domain import limits, players, transactions, wallets
from domain.errors import CurrencyMismatch, InvalidAmount, NotFound, Rejected, TransactionClosed, UnknownCurrency
from domain.kernel import AnyStream, Event, Money, Stream, TransactionId
from domain.players import Player
from domain.transactions import Status, Transaction

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=200, description="The provider's own.")]


class ByHand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`intervention`: why a person does this; people must say it."""

    intervention: Why | None = None


class WithReason(ByHand, frozen=True, forbid_unknown_fields=True):
    reason: PersonalText


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


def its_limits(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
    """Raises NotFound."""
    return {"limits": limits.stream(transactions.owner(transaction))}


def its_windows(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
    """What counts a payment, and whose days those are. Raises NotFound."""
    whose = transactions.owner(transaction)
    return {"limits": limits.stream(whose), "player": players.stream(whose)}


def with_player(
    follow: Callable[..., Mapping[str, AnyStream[Any]]] | None,
) -> Callable[..., Mapping[str, AnyStream[Any]]]:
    """The same, and the player whose transaction it is as `whose`, for `players_key`."""

    def further(transaction: Transaction, **states: Any) -> Mapping[str, AnyStream[Any]]:
        followed = follow(transaction, **states) if follow else {}
        return {**followed, "whose": players.stream(transactions.owner(transaction))}

    return further


def players_key(whose: Player | None = None, **_states: Any) -> tuple[str, str]:
    """Under which what is said of a player's transaction is sealed, for Plan.key. Raises NotFound."""
    return (whose or Player()).sealing_key()


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
    """A command on one transaction. `command`: one that a person gives reasons for, which are sealed. Raises InterventionMissing."""
    why = intervention(command.intervention, edge.context) if command else None
    says = why is not None or isinstance(command, WithReason)
    id_ = TransactionId(transaction_id)
    stood = Status.UNKNOWN  # where the transaction stood when this was last decided

    def decided(at: datetime, transaction: Transaction, whose: Player | None = None, **states: Any) -> Sequence[Event]:  # noqa: ARG001 — for the key
        nonlocal stood
        stood = transaction.status
        return transactions.by_hand(decision(at, transaction=transaction, **states), why)

    return Plan(
        edge.context,
        require=require if isinstance(require, tuple) else (require,),
        writes={"transaction": transactions.stream(id_)},
        reads=reads or {},
        follow=with_player(follow) if says else follow,
        decision=decided,
        answer=lambda facts: answer(facts) if facts else Payment(id_, stood),
        key=players_key if says else None,
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
    said = (InterventionMissing, KeyNotHeld) if issubclass(body, ByHand) else ()
    return Endpoint(
        f"/v1/transactions/{{transaction_id}}/{verb}", handler, body, Payment, 200, (*TELLING, *said, *errors)
    )
