"""Commands on transactions: what players, providers, timers and people do to deposits and withdrawals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands.edge import (
    Amount,
    Edge,
    Endpoint,
    InterventionMissing,
    Occurred,
    PersonalText,
    Text,
    Why,
    Word,
    intervention,
    money,
    occurred,
    suffix_in,
)
from commands.plan import Fact, Plan
from commands.sealing import KeyNotHeld
from domain import kyc, limits, players, transactions, wallets
from domain.errors import (
    CurrencyMismatch,
    GateClosed,
    InvalidAmount,
    LimitExceeded,
    NotFound,
    PlayerBlocked,
    PlayerNotActive,
    Rejected,
    TransactionClosed,
    UnknownCurrency,
)
from domain.kernel import AnyStream, Event, Money, PlayerId, TransactionId
from domain.transactions import Kind, Status, Transaction

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=200, description="The provider's own.")]


class RequestDeposit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deposit through `provider`. With `occurred` (history only, needs the import permission) it is one of the past:
    recorded as settled on that day, and no limit is consulted or consumed.
    """

    amount: Amount
    provider: Word
    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""
    occurred: Occurred | None = None


class RequestWithdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A withdrawal through `provider`. `instrument`: where the money is to go, such as an account number."""

    amount: Amount
    provider: Word
    instrument: PersonalText | None = None


class ByHand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`intervention`: why a person does this; people must say it."""

    intervention: Why | None = None


class AuthoriseDeposit(ByHand, frozen=True, forbid_unknown_fields=True):
    """The provider can take the money."""

    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""


class SettlePayment(ByHand, frozen=True, forbid_unknown_fields=True):
    """`amount`: of the money that has arrived or was paid out, if that may be another than was asked for."""

    amount: Amount | None = None


class WithReason(ByHand, frozen=True, forbid_unknown_fields=True):
    reason: Text


class FailDeposit(WithReason, frozen=True, forbid_unknown_fields=True):
    """The money will not come."""


class RejectWithdrawal(WithReason, frozen=True, forbid_unknown_fields=True):
    """The withdrawal will not be paid."""


class ReturnWithdrawal(WithReason, frozen=True, forbid_unknown_fields=True):
    """The provider could not pay, or the money came back."""


class DisputeDeposit(WithReason, frozen=True, forbid_unknown_fields=True):
    """`reference`: names the dispute."""

    reference: Reference


class LoseDispute(ByHand, frozen=True, forbid_unknown_fields=True):
    """`amount`: what was charged back, by default all that is left of the deposit."""

    amount: Amount | None = None


class RefundDeposit(ByHand, frozen=True, forbid_unknown_fields=True):
    """`amount`: what goes back, by default all that is left of the deposit."""

    amount: Amount | None = None


class SendWithdrawal(ByHand, frozen=True, forbid_unknown_fields=True):
    """The provider was told to pay. `reference`: names the payout."""

    reference: Reference


class CancelWithdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say: the player wants to keep the money."""


class ExpirePayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say: its time is over."""


class Payment(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status`: the transaction's. `amount`: what the command is about, where it tells one. `balance`: the player's cash
    afterwards, if money has moved. `reasons`: why a withdrawal is under review.
    """

    transaction: str
    status: Status
    amount: Money | None = None
    balance: Money | None = None
    reasons: tuple[str, ...] = ()


# Players ask


def request_deposit(player_id: str, command: RequestDeposit, edge: Edge) -> Plan:
    """Request a deposit. Raises NotFound, PlayerBlocked, PlayerNotActive, CurrencyMismatch, AmountOutOfRange, GateClosed
    (action, level, reason), LimitExceeded (used, remaining, frees_at).
    """
    id_ = PlayerId(player_id)
    player = players.stream(id_)
    transaction_id = TransactionId("transaction_" + edge.new_child(player.partition))
    transaction = transactions.stream(transaction_id)
    requested = transactions.DepositRequested(
        player=id_,
        money=money(command.amount, "/amount"),
        provider=command.provider,
        reference=command.reference,
    )
    happened = occurred(command.occurred, edge.context.now)
    if happened:
        return Plan(
            edge.context,
            require=(Action.DEPOSIT_REQUEST, Action.HISTORY_IMPORT),
            writes={"transaction": transaction, "wallet": wallets.stream(id_)},
            reads={"player": player},
            fresh=frozenset({"transaction"}),
            decision=lambda _at, transaction, wallet, player: transactions.record_deposit(
                transaction, player, wallet, transaction_id=transaction_id, requested=requested
            ),
            answer=_answer,
            occurred=happened,
        )
    return Plan(
        edge.context,
        require=(Action.DEPOSIT_REQUEST,),
        writes={"transaction": transaction, "limits": limits.stream(id_)},
        reads={"player": player, "kyc": kyc.stream(id_), "wallet": wallets.stream(id_)},
        fresh=frozenset({"transaction"}),
        decision=lambda at, transaction, limits, player, kyc, wallet: transactions.request_deposit(
            transaction, player, kyc, limits, wallet, transaction_id=transaction_id, requested=requested, at=at
        ),
        answer=_answer,
    )


def request_withdrawal(player_id: str, command: RequestWithdrawal, edge: Edge) -> Plan:
    """Request a withdrawal: the money is reserved. It is approved at once, or under review for the `reasons`. Raises NotFound,
    PlayerBlocked, CurrencyMismatch, AmountOutOfRange, InsufficientFunds.
    """
    id_, player = PlayerId(player_id), players.stream(PlayerId(player_id))
    transaction_id = TransactionId("transaction_" + edge.new_child(player.partition))
    wanted = money(command.amount, "/amount")

    def decision(at: datetime, transaction: Transaction, **states: Any) -> Sequence[Event]:
        requested = transactions.WithdrawalRequested(
            player=id_,
            money=wanted,
            provider=command.provider,
            expires_at=transactions.withdrawal_due(command.provider, wanted.currency, at),
            instrument=command.instrument,
        )
        return transactions.request_withdrawal(
            transaction, transaction_id=transaction_id, requested=requested, at=at, **states
        )

    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_REQUEST,),
        writes={"transaction": transactions.stream(transaction_id), "wallet": wallets.stream(id_)},
        reads={"player": player, "kyc": kyc.stream(id_)},
        fresh=frozenset({"transaction"}),
        decision=decision,
        answer=_answer,
        key=(lambda player, **_: (player.key, player.commitment)) if command.instrument else None,
    )


def cancel(transaction_id: str, _command: CancelWithdrawal, edge: Edge) -> Plan:
    """Cancel a withdrawal that is not sent yet. Raises NotFound, WrongKind, TransactionClosed."""
    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_CANCEL, Status.CANCELLED,
        lambda _at, transaction, wallet: transactions.cancel_withdrawal(
            transaction, wallet, transaction_id=TransactionId(transaction_id)
        ),
        follow=_wallet,
    )  # fmt: skip


# Providers tell, or people for them


def authorise(transaction_id: str, command: AuthoriseDeposit, edge: Edge) -> Plan:
    """The provider can take a deposit's money. Raises NotFound, WrongKind."""
    return _plan(
        transaction_id, edge, Action.DEPOSIT_AUTHORISE, Status.AUTHORISED,
        lambda _at, transaction: transactions.authorise_deposit(transaction, reference=command.reference),
        command=command,
    )  # fmt: skip


def settle(transaction_id: str, command: SettlePayment, edge: Edge) -> Plan:
    """Book a deposit's money, or that a withdrawal was paid. Never refused by a limit or a block. Raises NotFound,
    CurrencyMismatch, AmountDiffers, NotApproved, TransactionClosed.
    """
    id_ = TransactionId(transaction_id)
    moved = money(command.amount, "/amount") if command.amount else None

    def follow(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
        wallet = _wallet(transaction)
        if transaction.kind is Kind.WITHDRAWAL or not transactions.touches_headroom(transaction, moved):
            return wallet
        return {**wallet, "limits": limits.stream(transaction.player)}

    def decision(_at: datetime, transaction: Transaction, wallet: wallets.Wallet, **_: object) -> Sequence[Event]:
        if transaction.kind is Kind.WITHDRAWAL:
            return transactions.settle_withdrawal(transaction, wallet, transaction_id=id_, money=moved)
        return transactions.settle_deposit(transaction, wallet, transaction_id=id_, money=moved)

    both = (Action.DEPOSIT_SETTLE, Action.WITHDRAWAL_SETTLE)
    return _plan(id_, edge, both, Status.SETTLED, decision, command=command, follow=follow)


def fail(transaction_id: str, command: FailDeposit, edge: Edge) -> Plan:
    """Give a deposit up; its headroom is released. Raises NotFound, WrongKind, TransactionClosed."""
    return _plan(
        transaction_id, edge, Action.DEPOSIT_FAIL, Status.FAILED,
        lambda _at, transaction, **_: transactions.fail_deposit(
            transaction, transaction_id=TransactionId(transaction_id), reason=command.reason
        ),
        command=command, follow=_limits,
    )  # fmt: skip


def dispute(transaction_id: str, command: DisputeDeposit, edge: Edge) -> Plan:
    """The payer wants a deposit back from their bank. Raises NotFound, WrongKind, NotSettled, TransactionClosed."""
    return _plan(
        transaction_id, edge, Action.DEPOSIT_DISPUTE, Status.DISPUTED,
        lambda _at, transaction: transactions.dispute_deposit(
            transaction, reference=command.reference, reason=command.reason
        ),
        command=command,
    )  # fmt: skip


def win(transaction_id: str, command: ByHand, edge: Edge) -> Plan:
    """A dispute is won: the money stays. Raises NotFound, WrongKind, NotDisputed, TransactionClosed."""
    return _plan(
        transaction_id, edge, Action.DEPOSIT_DISPUTE, Status.WON,
        lambda _at, transaction: transactions.win_dispute(transaction),
        command=command,
    )  # fmt: skip


def lose(transaction_id: str, command: LoseDispute, edge: Edge) -> Plan:
    """A dispute is lost: the money is charged back, and what cash does not cover the player owes. Raises NotFound, WrongKind,
    CurrencyMismatch, NotDisputed, AmountDiffers, RefundExceeds, TransactionClosed.
    """
    gone = money(command.amount, "/amount") if command.amount else None
    return _plan(
        transaction_id, edge, Action.DEPOSIT_DISPUTE, Status.LOST,
        lambda _at, transaction, wallet: transactions.lose_dispute(
            transaction, wallet, transaction_id=TransactionId(transaction_id), money=gone
        ),
        command=command, follow=_wallet,
    )  # fmt: skip


def refund(transaction_id: str, command: RefundDeposit, edge: Edge) -> Plan:
    """Give a deposit back, or a part of it. Raises NotFound, WrongKind, CurrencyMismatch, NotSettled, RefundExceeds (left),
    InsufficientFunds, TransactionClosed.
    """
    back = money(command.amount, "/amount") if command.amount else None
    has_happened = not edge.context.principal.human
    return _plan(
        transaction_id, edge, Action.DEPOSIT_REFUND, Status.REFUNDED,
        lambda _at, transaction, wallet: transactions.refund_deposit(
            transaction, wallet, transaction_id=TransactionId(transaction_id), money=back, has_happened=has_happened
        ),
        command=command, follow=_wallet,
    )  # fmt: skip


def send(transaction_id: str, command: SendWithdrawal, edge: Edge) -> Plan:
    """An approved withdrawal is on its way: only its provider or a person ends it now. Raises NotFound, WrongKind, NotApproved,
    SentAlready, TransactionClosed.
    """
    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_SEND, Status.SENT,
        lambda _at, transaction: transactions.send_withdrawal(transaction, reference=command.reference),
        command=command,
    )  # fmt: skip


def return_(transaction_id: str, command: ReturnWithdrawal, edge: Edge) -> Plan:
    """The provider could not pay a withdrawal, or the money came back: it is cash again. Raises NotFound, WrongKind, NotApproved,
    TransactionClosed.
    """
    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_SETTLE, Status.RETURNED,
        lambda _at, transaction, wallet: transactions.return_withdrawal(
            transaction, wallet, transaction_id=TransactionId(transaction_id), reason=command.reason
        ),
        command=command, follow=_wallet,
    )  # fmt: skip


# People review


def approve(transaction_id: str, command: ByHand, edge: Edge) -> Plan:
    """Let a withdrawal be paid; its conditions are looked at again. Raises NotFound, WrongKind, PlayerBlocked, GateClosed,
    TransactionClosed.
    """

    def follow(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
        whose = transactions.owner(transaction)
        return {"player": players.stream(whose), "kyc": kyc.stream(whose), "wallet": wallets.stream(whose)}

    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_REVIEW, Status.APPROVED,
        lambda at, transaction, player, kyc, wallet: transactions.approve_withdrawal(
            transaction, player, kyc, wallet, at=at
        ),
        command=command, follow=follow,
    )  # fmt: skip


def reject(transaction_id: str, command: RejectWithdrawal, edge: Edge) -> Plan:
    """Refuse a withdrawal that is not sent yet: the money is cash again. Raises NotFound, WrongKind, TransactionClosed."""
    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_REVIEW, Status.REJECTED,
        lambda _at, transaction, wallet: transactions.reject_withdrawal(
            transaction, wallet, transaction_id=TransactionId(transaction_id), reason=command.reason
        ),
        command=command, follow=_wallet,
    )  # fmt: skip


# Timers


def expire(transaction_id: str, _command: ExpirePayment, edge: Edge) -> Plan:
    """A payment's time is over: headroom, or what was reserved, is given back. Raises NotFound, TransactionClosed, NotDue."""
    id_ = TransactionId(transaction_id)

    def follow(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
        return _wallet(transaction) if transaction.kind is Kind.WITHDRAWAL else _limits(transaction)

    def decision(at: datetime, transaction: Transaction, **further: Any) -> Sequence[Event]:
        if transaction.kind is Kind.WITHDRAWAL:
            return transactions.expire_withdrawal(transaction, further["wallet"], transaction_id=id_, at=at)
        return transactions.expire_deposit(transaction, transaction_id=id_, at=at)

    return _plan(transaction_id, edge, Action.TIMER_FIRE, Status.EXPIRED, decision, follow=follow)


# What they share


def _wallet(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
    return {"wallet": wallets.stream(transactions.owner(transaction))}


def _limits(transaction: Transaction) -> Mapping[str, AnyStream[Any]]:
    return {"limits": limits.stream(transactions.owner(transaction))}


def _plan(
    transaction_id: str,
    edge: Edge,
    require: Action | tuple[Action, ...],
    asked: Status,
    decision: Callable[..., Sequence[Event]],
    *,
    command: ByHand | None = None,
    follow: Callable[..., Mapping[str, AnyStream[Any]]] | None = None,
) -> Plan:
    """A command on one transaction. `asked`: the status that it leads to, which is the answer if nothing was recorded.
    `command`: one that a person gives reasons for. Raises InterventionMissing.
    """
    why = intervention(command.intervention, edge.context) if command else None
    id_ = TransactionId(transaction_id)
    return Plan(
        edge.context,
        require=require if isinstance(require, tuple) else (require,),
        writes={"transaction": transactions.stream(id_)},
        follow=follow,
        decision=decision if why is None else lambda at, **states: transactions.by_hand(decision(at, **states), why),
        answer=lambda facts: _answer(facts) if facts else Payment(id_, asked),
    )


def _answer(facts: Sequence[Fact]) -> Payment:
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


_TELLING = (NotFound, transactions.WrongKind, TransactionClosed)
_AMOUNTS = (CurrencyMismatch, UnknownCurrency, InvalidAmount)
_ASKING = (NotFound, PlayerBlocked, *_AMOUNTS, transactions.AmountOutOfRange)


def _endpoint(verb: str, handler: Callable[..., Plan], body: type[msgspec.Struct], *errors: type[Rejected]) -> Endpoint:
    said = (InterventionMissing,) if issubclass(body, ByHand) else ()
    return Endpoint(
        f"/v1/transactions/{{transaction_id}}/{verb}", handler, body, Payment, 200, (*_TELLING, *said, *errors)
    )


ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/deposits", request_deposit, RequestDeposit, Payment, 201,
        (*_ASKING, PlayerNotActive, GateClosed, LimitExceeded),
    ),
    Endpoint(
        "/v1/players/{player_id}/withdrawals", request_withdrawal, RequestWithdrawal, Payment, 201,
        (*_ASKING, wallets.InsufficientFunds, KeyNotHeld),
    ),
    _endpoint("authorise", authorise, AuthoriseDeposit),
    _endpoint("settle", settle, SettlePayment, *_AMOUNTS, transactions.AmountDiffers, transactions.NotApproved),
    _endpoint("fail", fail, FailDeposit),
    _endpoint("expire", expire, ExpirePayment, transactions.NotDue),
    _endpoint("dispute", dispute, DisputeDeposit, transactions.NotSettled),
    _endpoint("dispute/win", win, ByHand, transactions.NotDisputed),
    _endpoint(
        "dispute/lose", lose, LoseDispute,
        *_AMOUNTS, transactions.NotDisputed, transactions.AmountDiffers, transactions.RefundExceeds,
    ),
    _endpoint(
        "refund", refund, RefundDeposit,
        *_AMOUNTS, transactions.NotSettled, transactions.RefundExceeds, wallets.InsufficientFunds,
    ),
    _endpoint("approve", approve, ByHand, PlayerBlocked, GateClosed),
    _endpoint("reject", reject, RejectWithdrawal),
    _endpoint("cancel", cancel, CancelWithdrawal),
    _endpoint("send", send, SendWithdrawal, transactions.NotApproved, transactions.SentAlready),
    _endpoint("return", return_, ReturnWithdrawal, transactions.NotApproved),
)  # fmt: skip
