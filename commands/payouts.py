"""
Commands on payouts. Nobody asks for them over REST: they are what reactions/payouts.py makes of an approval and of a provider's
answer. A person who has paid by hand sends the withdrawal (commands/transactions.py), and there is no payout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from access.policy import Action
from commands import transactions
from commands.edge import Edge
from commands.plan import Fact, Plan, RefusedFact
from commands.transactions import ReturnWithdrawal, SendWithdrawal
from domain import payouts
from domain.kernel import AnyStream, Event, TransactionId
from domain.transactions import Status

REASON_CHARACTERS_MAX = 500


_Decision = Callable[..., Sequence[Event] | RefusedFact]


class Paid(msgspec.Struct, frozen=True):
    """What is asked of a provider, and what came of it."""

    transaction: TransactionId
    status: payouts.Status


def order(transaction_id: TransactionId, provider: str, edge: Edge) -> Plan:
    """Send an approved withdrawal and have its provider asked. Sent already, by whomever, it is not ordered."""
    sent = transactions.send(transaction_id, SendWithdrawal(reference=transaction_id), edge)

    def decision(at: datetime, payout: payouts.Payout, **states: Any) -> Sequence[Event] | RefusedFact:
        decided = sent.decision(at, **states)
        if isinstance(decided, RefusedFact) or not decided:
            return decided
        of = states["transaction"]
        return [*decided, *payouts.order(payout, player=of.player, provider=provider, money=of.money)]

    return _with_payout(sent, transaction_id, decision, payouts.Status.ORDERED)


def accept(transaction_id: TransactionId, reference: str, edge: Edge) -> Plan:
    """The provider will pay. Raises NotFound, AnsweredOtherwise."""
    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_SEND,),
        writes={"payout": payouts.stream(transaction_id)},
        decision=lambda _at, payout: payouts.accept(payout, reference=reference),
        answer=lambda _facts: Paid(transaction_id, payouts.Status.ACCEPTED),
    )


def decline(transaction_id: TransactionId, reason: str, edge: Edge) -> Plan:
    """The provider will not pay: the withdrawal is returned. If that has ended otherwise (the provider has said both), a person
    finds out. Raises NotFound, AnsweredOtherwise.
    """
    said = reason[:REASON_CHARACTERS_MAX] or "declined"
    returned = transactions.return_(transaction_id, ReturnWithdrawal(reason=said), edge)

    def decision(at: datetime, payout: payouts.Payout, **states: Any) -> Sequence[Event] | RefusedFact:
        if states["transaction"].status is not Status.SENT:
            return payouts.drop(payout)
        declined = payouts.decline(payout, reason=said)
        decided = returned.decision(at, **states) if declined else ()
        return decided if isinstance(decided, RefusedFact) else [*declined, *decided]

    return _with_payout(returned, transaction_id, decision, payouts.Status.DECLINED)


def drop(transaction_id: TransactionId, edge: Edge) -> Plan:
    """The withdrawal has ended: ask no more. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.WITHDRAWAL_SEND,),
        writes={"payout": payouts.stream(transaction_id)},
        decision=lambda _at, payout: payouts.drop(payout),
        answer=lambda _facts: Paid(transaction_id, payouts.Status.DROPPED),
    )


def _with_payout(plan: Plan, transaction_id: TransactionId, decision: _Decision, status: payouts.Status) -> Plan:
    """The plan of the withdrawal, which also writes its payout."""

    def answer(_facts: Sequence[Fact]) -> Paid:
        return Paid(transaction_id, status)

    def follow(payout: payouts.Payout, **states: Any) -> Mapping[str, AnyStream[Any]]:  # noqa: ARG001 — it has no part in it
        return plan.follow(**states) if plan.follow else {}

    writes = {**plan.writes, "payout": payouts.stream(transaction_id)}
    return msgspec.structs.replace(plan, writes=writes, decision=decision, answer=answer, follow=follow)
