"""Commands on deposits: what players ask for, and what their providers, or people for them, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from access.policy import Action
from commands.edge import PERSONAL, Amount, Edge, Occurred, Word, money, occurred
from commands.instruments import naming
from commands.plan import Fact, Plan, RefusedFact
from commands.protection import guarded
from commands.transactions.telling import (
    ByHand,
    Payment,
    Reference,
    WithReason,
    answer,
    its_limits,
    its_wallet,
    telling,
)
from domain import kyc, limits, players, transactions, wallets
from domain.errors import LimitExceeded, LimitRequired, UnderReview
from domain.kernel import Event, Money, PlayerId, TransactionId
from domain.protection import Stop

Instrument = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=500,
        description="The card or account that pays. Not kept, but for a keyed fingerprint by which others who name it are found.",
        extra=PERSONAL,
    ),
]


class RequestDeposit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deposit through `provider`. With `occurred` (history only, needs the import permission) it is one of the past:
    recorded as settled on that day, and no limit is consulted or consumed.
    """

    amount: Amount
    provider: Word
    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""
    occurred: Occurred | None = None
    instrument: Instrument | None = None


class AuthoriseDeposit(ByHand, frozen=True, forbid_unknown_fields=True):
    """The provider can take the money."""

    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""


class FailDeposit(WithReason, frozen=True, forbid_unknown_fields=True):
    """The money will not come."""


class DisputeDeposit(WithReason, frozen=True, forbid_unknown_fields=True):
    """`reference`: names the dispute."""

    reference: Reference


class WinDispute(ByHand, frozen=True, forbid_unknown_fields=True):
    """`reference`: of the dispute."""

    reference: Reference


class LoseDispute(ByHand, frozen=True, forbid_unknown_fields=True):
    """`reference`: of the dispute; `amount`: what was charged back, by default all that is left of the deposit."""

    reference: Reference
    amount: Amount | None = None


class RefundDeposit(ByHand, frozen=True, forbid_unknown_fields=True):
    """`reference`: names the refund, which is booked once; `amount`: what goes back, by default all that is left."""

    reference: Reference
    amount: Amount | None = None


def request(player_id: str, command: RequestDeposit, edge: Edge) -> Plan:
    """Request a deposit. Raises NotFound, PlayerBlocked, PlayerNotActive, CurrencyMismatch, AmountOutOfRange, GateClosed
    (action, level, reason), LimitRequired, LimitExceeded (used, remaining, frees_at), UnderReview, PlayerExcluded (until), PlayerTimedOut (until),
    ActionIsBlocked, RegisterUnanswered. What limits and protection refuse is recorded.
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
            answer=answer,
            occurred=happened,
        )
    plan = Plan(
        edge.context,
        require=(Action.DEPOSIT_REQUEST,),
        writes={"transaction": transaction, "limits": limits.stream(id_)},
        reads={"player": player, "kyc": kyc.stream(id_), "wallet": wallets.stream(id_)},
        fresh=frozenset({"transaction"}),
        decision=lambda at, **states: _or_refused(
            requested.money,
            lambda: transactions.request_deposit(**states, transaction_id=transaction_id, requested=requested, at=at),
        ),
        answer=_answer,
    )
    return guarded(naming(plan, id_, command.instrument), id_, Stop.DEPOSIT)


def _or_refused(money: Money, decision: Callable[[], Sequence[Event]]) -> Sequence[Event] | RefusedFact:
    """What is decided; a refusal by a limit is one that a regulator must see."""
    try:
        return decision()
    except (LimitExceeded, LimitRequired, UnderReview) as error:
        return RefusedFact(error, [limits.deposit_refused(money, error)])


def _answer(facts: Sequence[Fact]) -> Payment:
    match facts:
        case [Fact(_, limits.DepositRefused() as refused)]:
            raise limits.refused_by(refused)
    return answer(facts)


def authorise(transaction_id: str, command: AuthoriseDeposit, edge: Edge) -> Plan:
    """The provider can take a deposit's money. Raises NotFound, WrongKind, TransactionClosed."""
    return telling(
        transaction_id, edge, Action.DEPOSIT_AUTHORISE,
        lambda _at, transaction: transactions.authorise_deposit(transaction, reference=command.reference),
        command=command,
    )  # fmt: skip


def fail(transaction_id: str, command: FailDeposit, edge: Edge) -> Plan:
    """Give a deposit up; its headroom is released. Raises NotFound, WrongKind, TransactionClosed."""
    return telling(
        transaction_id, edge, Action.DEPOSIT_FAIL,
        lambda _at, transaction, **_: transactions.fail_deposit(
            transaction, transaction_id=TransactionId(transaction_id), reason=command.reason
        ),
        command=command, follow=its_limits,
    )  # fmt: skip


def dispute(transaction_id: str, command: DisputeDeposit, edge: Edge) -> Plan:
    """The payer wants a deposit back from their bank. Raises NotFound, WrongKind, NotSettled, DisputeOpen, TransactionClosed."""
    return telling(
        transaction_id, edge, Action.DEPOSIT_DISPUTE,
        lambda _at, transaction: transactions.dispute_deposit(
            transaction, reference=command.reference, reason=command.reason
        ),
        command=command,
    )  # fmt: skip


def win(transaction_id: str, command: WinDispute, edge: Edge) -> Plan:
    """A dispute is won: the money stays. Raises NotFound, WrongKind, NotDisputed, TransactionClosed."""
    return telling(
        transaction_id, edge, Action.DEPOSIT_DISPUTE,
        lambda _at, transaction: transactions.win_dispute(transaction, reference=command.reference),
        command=command,
    )  # fmt: skip


def lose(transaction_id: str, command: LoseDispute, edge: Edge) -> Plan:
    """A dispute is lost: the money is charged back, and what cash does not cover the player owes. Raises NotFound, WrongKind,
    CurrencyMismatch, NotDisputed, AmountDiffers, RefundExceeds, TransactionClosed.
    """
    gone = money(command.amount, "/amount") if command.amount else None
    return telling(
        transaction_id, edge, Action.DEPOSIT_DISPUTE,
        lambda _at, transaction, wallet: transactions.lose_dispute(
            transaction, wallet, transaction_id=TransactionId(transaction_id), reference=command.reference, money=gone
        ),
        command=command, follow=its_wallet,
    )  # fmt: skip


def refund(transaction_id: str, command: RefundDeposit, edge: Edge) -> Plan:
    """Give a deposit back, or a part of it; each reference once. Raises NotFound, WrongKind, CurrencyMismatch, AmountDiffers,
    NotSettled, DisputeOpen, RefundExceeds (left), InsufficientFunds, TransactionClosed.
    """
    back = money(command.amount, "/amount") if command.amount else None
    return telling(
        transaction_id, edge, Action.DEPOSIT_REFUND,
        lambda _at, transaction, wallet: transactions.refund_deposit(
            transaction, wallet,
            transaction_id=TransactionId(transaction_id), reference=command.reference, money=back,
            has_happened=not edge.context.principal.by_hand,
        ),
        command=command, follow=its_wallet,
    )  # fmt: skip
