"""
Commands on payouts. Nobody asks for them over REST: they are what reactions/payouts.py makes of an approval and of a provider's
answer. A person who has paid by hand sends the withdrawal (commands/transactions/), and there is no payout.

Invariants:
    - a command answers where its own events leave the payout, and one that records nothing where the payout stands;
    - whether the player may be paid is asked when the payout is ordered, whoever has approved it before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from access.policy import Action
from commands.edge import Edge
from commands.plan import Fact, Plan
from commands.transactions.telling import its_wallet, players_key, with_player
from domain import payouts, players, protection, transactions
from domain.kernel import AnyStream, Event, TransactionId
from domain.payouts import Payout
from domain.players import Player
from domain.protection import Protection
from domain.transactions import Status, Transaction
from domain.wallets import Wallet

REASON_CHARACTERS_MAX = 500


class Paid(msgspec.Struct, frozen=True):
    """What is asked of a provider, and what came of it."""

    transaction: TransactionId
    status: payouts.Status


def order(transaction_id: TransactionId, provider: str, edge: Edge) -> Plan:
    """Send an approved withdrawal and have its provider asked; or record why the player may not be paid now. Sent already, by
    whomever, it is not ordered. Raises NotFound, WrongKind, NotApproved, SentAlready, TransactionClosed.
    """

    def decision(
        at: datetime, transaction: Transaction, payout: Payout, player: Player, protected: Protection
    ) -> Sequence[Event]:
        if transaction.status is Status.APPROVED and (why := transactions.held_by(player, protected, at)):
            return transactions.hold_payout(transaction, why=why)
        sent = transactions.send_withdrawal(transaction, reference=transaction_id)
        if not sent:
            return []
        ordered = payouts.order(payout, player=transaction.player, provider=provider, money=transaction.money)
        return [*sent, *ordered]

    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_SEND, decision, writes=_transaction(transaction_id), follow=_payee
    )


def hold(transaction_id: TransactionId, edge: Edge) -> Plan:
    """Record why nobody is asked for now to pay what is ordered, or that nothing holds it any more. Raises NotFound, WrongKind."""

    def decision(
        at: datetime, transaction: Transaction, payout: Payout, player: Player, protected: Protection
    ) -> Sequence[Event]:
        if payout.status is not payouts.Status.ORDERED:
            return []
        return transactions.hold_payout(transaction, why=transactions.held_by(player, protected, at))

    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_SEND, decision, writes=_transaction(transaction_id), follow=_payee
    )


def accept(transaction_id: TransactionId, reference: str, edge: Edge) -> Plan:
    """The provider will pay. If the withdrawal has ended without, that is recorded, and a person finds out (that the provider
    has told of the payment before its answer was recorded is well). Raises NotFound, AnsweredOtherwise.
    """

    def decision(_at: datetime, payout: Payout, transaction: Transaction) -> Sequence[Event]:
        is_wanted = transaction.status in (Status.SENT, Status.SETTLED)
        return payouts.accept(payout, reference=reference, is_wanted=is_wanted)

    return _plan(transaction_id, edge, Action.WITHDRAWAL_SEND, decision, reads=_transaction(transaction_id))


def decline(transaction_id: TransactionId, reason: str, edge: Edge) -> Plan:
    """The provider will not pay: the withdrawal is returned. If that has ended otherwise (the provider has said both), a person
    finds out. Raises NotFound, AnsweredOtherwise.
    """
    said = reason[:REASON_CHARACTERS_MAX] or "declined"

    def decision(
        _at: datetime, transaction: Transaction, payout: Payout, wallet: Wallet, **_whose: Any
    ) -> Sequence[Event]:
        if transaction.status is not Status.SENT:
            return payouts.drop(payout)
        declined = payouts.decline(payout, reason=said)
        if not declined:
            return []
        returned = transactions.return_withdrawal(transaction, wallet, transaction_id=transaction_id, reason=said)
        return [*declined, *returned]

    return _plan(
        transaction_id, edge, Action.WITHDRAWAL_SETTLE, decision,
        writes=_transaction(transaction_id), follow=with_player(its_wallet), key=players_key,
    )  # fmt: skip


def drop(transaction_id: TransactionId, edge: Edge) -> Plan:
    """The withdrawal has ended: ask no more. Raises NotFound."""
    return _plan(transaction_id, edge, Action.WITHDRAWAL_SEND, lambda _at, payout: payouts.drop(payout))


Streams = Mapping[str, AnyStream[Any]]
_NONE: Streams = MappingProxyType({})


def _transaction(transaction_id: TransactionId) -> Streams:
    return {"transaction": transactions.stream(transaction_id)}


def _payee(transaction: Transaction, **_states: Any) -> Streams:
    """Who is to be paid, and what keeps them from it. Raises NotFound."""
    whose = transactions.owner(transaction)
    return {"player": players.stream(whose), "protected": protection.stream(whose)}


def _plan(
    transaction_id: TransactionId,
    edge: Edge,
    require: Action,
    decision: Callable[..., Sequence[Event]],
    *,
    writes: Streams = _NONE,
    reads: Streams = _NONE,
    follow: Callable[..., Streams] | None = None,
    key: Callable[..., tuple[str, str]] | None = None,
) -> Plan:
    stood = payouts.Status.UNKNOWN  # where the payout stood when this was last decided

    def decided(at: datetime, payout: Payout, **states: Any) -> Sequence[Event]:
        nonlocal stood
        stood = payout.status
        return decision(at, payout=payout, **states)

    def answer(facts: Sequence[Fact]) -> Paid:
        [status] = [after for fact in facts if (after := payouts.STATUS_AFTER.get(type(fact.event)))] or [stood]
        return Paid(transaction_id, status)

    return Plan(
        edge.context,
        require=(require,),
        writes={"payout": payouts.stream(transaction_id), **writes},
        reads=reads,
        follow=follow,
        decision=decided,
        answer=answer,
        key=key,
    )
