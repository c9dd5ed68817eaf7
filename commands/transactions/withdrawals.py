"""Commands on withdrawals: what players ask for, what people review, and what providers, or people for them, tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from access.policy import Action
from commands.edge import Amount, Edge, Nothing, PersonalText, Word, money
from commands.instruments import naming
from commands.plan import Plan
from commands.protection import guarded
from commands.registers import paying_prize
from commands.transactions.telling import ByHand, Reference, WithReason, answer, its_wallet, its_windows, telling
from domain import kyc, payouts, players, protection, transactions, wallets
from domain.kernel import AnyStream, Event, PlayerId, TransactionId
from domain.kyc import Kyc
from domain.limits import Limits
from domain.players import Player
from domain.protection import Protection, Stop
from domain.transactions import Transaction
from domain.wallets import Wallet


class RequestWithdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A withdrawal through `provider`. `instrument`: where the money is to go, such as an account number."""

    amount: Amount
    provider: Word
    instrument: PersonalText | None = None


class RejectWithdrawal(WithReason, frozen=True, forbid_unknown_fields=True):
    """The withdrawal will not be paid."""


class SendWithdrawal(ByHand, frozen=True, forbid_unknown_fields=True):
    """The provider was told to pay. `reference`: names the payout."""

    reference: Reference


class ReturnWithdrawal(WithReason, frozen=True, forbid_unknown_fields=True):
    """The provider could not pay, or the money came back."""


def request(player_id: str, command: RequestWithdrawal, edge: Edge) -> Plan:
    """Request a withdrawal: the money is reserved. It is approved at once, or under review for the `reasons`. Raises NotFound,
    PlayerBlocked, CurrencyMismatch, AmountOutOfRange, InsufficientFunds, ActionIsBlocked. Nothing else that protects the player
    holds their money. Where the law has a register asked about whoever is paid, its answer is recorded, and acts on what follows.
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

    plan = Plan(
        edge.context,
        require=(Action.WITHDRAWAL_REQUEST,),
        writes={"transaction": transactions.stream(transaction_id), "wallet": wallets.stream(id_)},
        reads={"player": player, "kyc": kyc.stream(id_)},
        fresh=frozenset({"transaction"}),
        decision=decision,
        answer=answer,
        key=(lambda player, **_: (player.key, player.commitment)) if command.instrument else None,
    )
    return paying_prize(guarded(naming(plan, id_, command.instrument), id_, Stop.WITHDRAW), id_, edge)


def cancel(transaction_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Cancel a withdrawal that is not sent yet. Raises NotFound, WrongKind, TransactionClosed."""
    return telling(
        transaction_id, edge, Action.WITHDRAWAL_CANCEL,
        lambda _at, transaction, wallet: transactions.cancel_withdrawal(
            transaction, wallet, transaction_id=TransactionId(transaction_id)
        ),
        follow=its_wallet,
    )  # fmt: skip


# People review


def approve(transaction_id: str, command: ByHand, edge: Edge) -> Plan:
    """Let a withdrawal be paid; its conditions are looked at again. Raises NotFound, WrongKind, PlayerBlocked, GateClosed,
    TransactionClosed, ActionIsBlocked.
    """

    def follow(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        whose = transactions.owner(transaction)
        return {**_payee(transaction), "kyc": kyc.stream(whose), "wallet": wallets.stream(whose)}

    def decision(
        at: datetime, transaction: Transaction, player: Player, kyc: Kyc, wallet: Wallet, protected: Protection
    ) -> Sequence[Event]:
        made = transactions.approve_withdrawal(transaction, player, kyc, wallet, at=at)
        if made:
            protected.require(Stop.WITHDRAW, at)
        return made

    return telling(transaction_id, edge, Action.WITHDRAWAL_REVIEW, decision, command=command, follow=follow)


def reject(transaction_id: str, command: RejectWithdrawal, edge: Edge) -> Plan:
    """Refuse a withdrawal that is not sent yet: the money is cash again. Raises NotFound, WrongKind, TransactionClosed."""
    return telling(
        transaction_id, edge, Action.WITHDRAWAL_REVIEW,
        lambda _at, transaction, wallet: transactions.reject_withdrawal(
            transaction, wallet, transaction_id=TransactionId(transaction_id), reason=command.reason
        ),
        command=command, follow=its_wallet,
    )  # fmt: skip


# It is paid, or not


def send(transaction_id: str, command: SendWithdrawal, edge: Edge) -> Plan:
    """An approved withdrawal is on its way: only its provider or a person ends it now. Raises NotFound, WrongKind, NotApproved,
    SentAlready, TransactionClosed, UnderReview, PlayerBlocked, ActionIsBlocked.
    """

    def decision(at: datetime, transaction: Transaction, player: Player, protected: Protection) -> Sequence[Event]:
        made = transactions.send_withdrawal(transaction, reference=command.reference)
        if made:
            transactions.require_payable(player, protected, at)
        return made

    return telling(transaction_id, edge, Action.WITHDRAWAL_SEND, decision, command=command, follow=_payee)


def _payee(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
    """Who is to be paid, and what keeps them from it. Raises NotFound."""
    whose = transactions.owner(transaction)
    return {"player": players.stream(whose), "protected": protection.stream(whose)}


def return_(transaction_id: str, command: ReturnWithdrawal, edge: Edge) -> Plan:
    """The provider could not pay a withdrawal, or the money came back: it is cash again. A person says so only where no
    provider is being asked. Raises NotFound, WrongKind, NotApproved, NotSettled, UnderWay.
    """
    by_provider = not edge.context.principal.by_hand

    def follow(transaction: Transaction, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        return {**its_wallet(transaction), **its_windows(transaction)}

    def decision(
        at: datetime,
        transaction: Transaction,
        wallet: wallets.Wallet,
        payout: payouts.Payout,
        limits: Limits,
        player: Player,
    ) -> Sequence[Event]:
        if not by_provider:
            payouts.require_answered(payout)
        return transactions.return_withdrawal(
            transaction,
            wallet,
            transaction_id=TransactionId(transaction_id),
            reason=command.reason,
            by_provider=by_provider,
            counted_on=limits.day_at(player, at),
        )

    return telling(
        transaction_id, edge, Action.WITHDRAWAL_SETTLE, decision,
        command=command, reads={"payout": payouts.stream(TransactionId(transaction_id))}, follow=follow,
    )  # fmt: skip
