"""
Commands on payouts. Nobody asks for them over REST: they are what reactions/payouts.py makes of an approval and of a provider's
answer. A person who has paid by hand sends the withdrawal (commands/transactions/), and there is no payout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from access.policy import Action
from commands.edge import Edge
from commands.plan import Plan
from commands.transactions.telling import its_wallet
from domain import payouts, transactions
from domain.kernel import Event, Stream, TransactionId
from domain.payouts import Payout
from domain.transactions import Status, Transaction
from domain.wallets import Wallet

REASON_CHARACTERS_MAX = 500


class Paid(msgspec.Struct, frozen=True):
    """What is asked of a provider, and what came of it."""

    transaction: TransactionId
    status: payouts.Status


def order(transaction_id: TransactionId, provider: str, edge: Edge) -> Plan:
    """Send an approved withdrawal and have its provider asked. Sent already, by whomever, it is not ordered. Raises NotFound,
    WrongKind, NotApproved, SentAlready, TransactionClosed.
    """

    def decision(_at: datetime, transaction: Transaction, payout: Payout) -> Sequence[Event]:
        sent = transactions.send_withdrawal(transaction, reference=transaction_id)
        if not sent:
            return []
        ordered = payouts.order(payout, player=transaction.player, provider=provider, money=transaction.money)
        return [*sent, *ordered]

    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_SEND,),
        writes=_both(transaction_id),
        decision=decision,
        answer=lambda _facts: Paid(transaction_id, payouts.Status.ORDERED),
    )


def accept(transaction_id: TransactionId, reference: str, edge: Edge) -> Plan:
    """The provider will pay. If the withdrawal has ended without, that is recorded, and a person finds out (that the provider
    has told of the payment before its answer was recorded is well). Raises NotFound, AnsweredOtherwise.
    """
    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_SEND,),
        writes={"payout": payouts.stream(transaction_id)},
        reads={"transaction": transactions.stream(transaction_id)},
        decision=lambda _at, payout, transaction: payouts.accept(
            payout, reference=reference, is_wanted=transaction.status in (Status.SENT, Status.SETTLED)
        ),
        answer=lambda _facts: Paid(transaction_id, payouts.Status.ACCEPTED),
    )


def decline(transaction_id: TransactionId, reason: str, edge: Edge) -> Plan:
    """The provider will not pay: the withdrawal is returned. If that has ended otherwise (the provider has said both), a person
    finds out. Raises NotFound, AnsweredOtherwise.
    """
    said = reason[:REASON_CHARACTERS_MAX] or "declined"

    def decision(_at: datetime, transaction: Transaction, payout: Payout, wallet: Wallet) -> Sequence[Event]:
        if transaction.status is not Status.SENT:
            return payouts.drop(payout)
        declined = payouts.decline(payout, reason=said)
        if not declined:
            return []
        returned = transactions.return_withdrawal(transaction, wallet, transaction_id=transaction_id, reason=said)
        return [*declined, *returned]

    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_SETTLE,),
        writes=_both(transaction_id),
        follow=its_wallet,
        decision=decision,
        answer=lambda _facts: Paid(transaction_id, payouts.Status.DECLINED),
    )


def drop(transaction_id: TransactionId, edge: Edge) -> Plan:
    """The withdrawal has ended: ask no more. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_SEND,),
        writes={"payout": payouts.stream(transaction_id)},
        decision=lambda _at, payout: payouts.drop(payout),
        answer=lambda _facts: Paid(transaction_id, payouts.Status.DROPPED),
    )


def _both(transaction_id: TransactionId) -> Mapping[str, Stream[Any]]:
    return {"transaction": transactions.stream(transaction_id), "payout": payouts.stream(transaction_id)}
