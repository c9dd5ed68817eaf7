"""Commands on transactions: request a deposit, settle it, fail it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from access.policy import Action
from commands.edge import Amount, Edge, Endpoint, Occurred, Text, Word, money, occurred, suffix_in
from commands.plan import Fact, Plan
from domain import limits, players, transactions, wallets
from domain.errors import (
    CurrencyMismatch,
    InvalidAmount,
    LimitExceeded,
    NotFound,
    PlayerBlocked,
    TransactionClosed,
    UnknownCurrency,
)
from domain.kernel import Money, PlayerId, TransactionId


class RequestDeposit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deposit through `provider`. With `occurred` (history only, needs the import permission) it is one of the past:
    recorded as settled on that day, and no limit is consulted or consumed.
    """

    amount: Amount
    provider: Word
    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""
    occurred: Occurred | None = None


class Deposit(msgspec.Struct, frozen=True, omit_defaults=True):
    """`balance`: the player's cash afterwards, once money has moved."""

    transaction: str
    status: transactions.Status
    amount: Money | None = None
    balance: Money | None = None


class SettleDeposit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say: the money has arrived."""


class FailDeposit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Text


def request_deposit(player_id: str, command: RequestDeposit, edge: Edge) -> Plan:
    """Request a deposit. Raises NotFound, PlayerBlocked, CurrencyMismatch, LimitExceeded (used, remaining, frees_at)."""
    player = players.stream(PlayerId(player_id))
    transaction_id = TransactionId("transaction_" + edge.new_child(player.partition))
    transaction = transactions.stream(transaction_id)
    requested = transactions.DepositRequested(
        player=PlayerId(player_id),
        money=money(command.amount, "/amount"),
        provider=command.provider,
        reference=command.reference,
    )
    happened = occurred(command.occurred, edge.context.now)
    if happened:
        return Plan(
            edge.context,
            require=(Action.DEPOSIT_REQUEST, Action.HISTORY_IMPORT),
            writes={"transaction": transaction, "wallet": wallets.stream(PlayerId(player_id))},
            reads={"player": player},
            fresh=frozenset({"transaction"}),
            decision=lambda _at, transaction, wallet, player: transactions.record_deposit(
                transaction, player, wallet, transaction_id=transaction_id, requested=requested
            ),
            answer=_deposit,
            occurred=happened,
        )
    return Plan(
        edge.context,
        require=(Action.DEPOSIT_REQUEST,),
        writes={"transaction": transaction, "limits": limits.stream(PlayerId(player_id))},
        reads={"player": player},
        fresh=frozenset({"transaction"}),
        decision=lambda at, transaction, limits, player: transactions.request_deposit(
            transaction, player, limits, transaction_id=transaction_id, requested=requested, at=at
        ),
        answer=_deposit,
    )


def settle(transaction_id: str, _command: SettleDeposit, edge: Edge) -> Plan:
    """Book a deposit's money. Never refused by a limit or a block. Raises NotFound, TransactionClosed."""
    id_ = TransactionId(transaction_id)
    return Plan(
        edge.context,
        require=(Action.DEPOSIT_SETTLE,),
        writes={"transaction": transactions.stream(id_)},
        follow=lambda transaction: {"wallet": wallets.stream(transactions.owner(transaction))},
        decision=lambda _at, transaction, wallet: transactions.settle_deposit(transaction, wallet, transaction_id=id_),
        answer=lambda facts: _deposit(facts) if facts else Deposit(id_, transactions.Status.SETTLED),
    )


def fail(transaction_id: str, command: FailDeposit, edge: Edge) -> Plan:
    """Give a deposit up; its headroom is released. Raises NotFound, TransactionClosed."""
    id_ = TransactionId(transaction_id)
    return Plan(
        edge.context,
        require=(Action.DEPOSIT_FAIL,),
        writes={"transaction": transactions.stream(id_)},
        follow=lambda transaction: {"state": limits.stream(transactions.owner(transaction))},
        decision=lambda _at, transaction, **_: transactions.fail_deposit(
            transaction, transaction_id=id_, reason=command.reason
        ),
        answer=lambda facts: _deposit(facts) if facts else Deposit(id_, transactions.Status.FAILED),
    )


def _deposit(facts: Sequence[Fact]) -> Deposit:
    transaction = f"transaction_{suffix_in(facts, 'transaction')}"
    status, amount, balance = transactions.Status.REQUESTED, None, None
    for fact in facts:
        match event := fact.event:
            case transactions.DepositRequested():
                amount = event.money
            case transactions.DepositSettled():
                status = transactions.Status.SETTLED
            case transactions.DepositFailed():
                status = transactions.Status.FAILED
            case wallets.Credited():
                balance = Money(event.balance.cash, event.transfer.money.currency)
    return Deposit(transaction, status, amount, balance)


_REFUSALS = (NotFound, PlayerBlocked, CurrencyMismatch, LimitExceeded, UnknownCurrency, InvalidAmount)

ENDPOINTS = (
    Endpoint("/v1/players/{player_id}/deposits", request_deposit, RequestDeposit, Deposit, 201, _REFUSALS),
    Endpoint(
        "/v1/transactions/{transaction_id}/settle", settle, SettleDeposit, Deposit, 200, (NotFound, TransactionClosed)
    ),
    Endpoint("/v1/transactions/{transaction_id}/fail", fail, FailDeposit, Deposit, 200, (NotFound, TransactionClosed)),
)
