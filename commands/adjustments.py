"""The command on adjustments: give a player money by hand, or take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from access.policy import Action
from commands.edge import Amount, Edge, Endpoint, Why, intervention, money
from commands.plan import Fact, Plan
from commands.sealing import KeyNotHeld
from domain import adjustments, players, tickets, wallets
from domain.adjustments import AdjustmentId, NotTheirTicket
from domain.errors import CurrencyMismatch, InvalidAmount, NotFound, UnknownCurrency
from domain.kernel import Money, PlayerId, Stream, TicketId
from domain.wallets import Accounts, Direction, InsufficientFunds
from policies.approvals import ADJUST


class AdjustMoney(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Money that a player is given, or that is taken, against house:adjustments. `ticket`: to what it belongs."""

    amount: Amount
    direction: Direction
    account: adjustments.Account = adjustments.Account.CASH
    reason_code: adjustments.ReasonCode
    ticket: str | None = None
    intervention: Why | None = None


class Adjusted(msgspec.Struct, frozen=True):
    """`accounts`: what the player's accounts hold afterwards, in minor units of the currency."""

    adjustment: str
    status: str
    amount: Money
    accounts: Accounts


def adjust(player_id: str, command: AdjustMoney, edge: Edge) -> Plan:
    """Give a player money by hand, or take it. Above a threshold another person must approve.

    Raises NotFound, CurrencyMismatch, InsufficientFunds, NotTheirTicket, KeyNotHeld.
    """
    stream = wallets.stream(PlayerId(player_id))
    made = adjustments.Made(
        adjustment=AdjustmentId("adjustment_" + edge.new_child(stream.partition)),
        operator=edge.context.principal.actor,
        person=edge.context.principal.person,
        money=money(command.amount, "/amount"),
        direction=command.direction,
        account=command.account,
        reason_code=command.reason_code,
        ticket=None if command.ticket is None else TicketId(command.ticket),
        intervention=intervention(command.intervention, edge.context),
    )
    reads: dict[str, Stream[Any]] = {"player": players.stream(PlayerId(player_id))}
    if made.ticket is not None:
        reads["ticket"] = _ticket(made.ticket, stream.partition)
    return Plan(
        edge.context,
        require=(Action.MONEY_ADJUST,),
        writes={"adjusted": adjustments.stream(PlayerId(player_id)), "wallet": stream},
        reads=reads,
        decision=lambda _at, wallet, player, ticket=None, **_: [
            *adjustments.adjust(player, ticket, player_id=PlayerId(player_id), made=made),
            *wallets.adjust(
                wallet,
                account=made.account,
                direction=made.direction,
                money=made.money,
                transaction=made.adjustment,
            ),
        ],
        answer=_adjusted,
        about={"amount": made.money.amount, "currency": made.money.currency},
        key=lambda player, **_: player.sealing_key(),
    )


def _ticket(ticket: TicketId, partition: int) -> Stream[Any]:
    """A player's tickets are of the player's partition. Raises InvalidId, NotTheirTicket."""
    stream = tickets.stream(ticket)
    if stream.partition != partition:
        raise NotTheirTicket(ticket=ticket)
    return stream


def _adjusted(facts: Sequence[Fact]) -> Adjusted:
    [made] = [fact.event for fact in facts if isinstance(fact.event, adjustments.Made)]
    [moved] = [fact.event for fact in facts if isinstance(fact.event, wallets.Moved)]
    return Adjusted(made.adjustment, "made", made.money, moved.accounts)


ENDPOINTS = (
    Endpoint(
        ADJUST,
        adjust,
        AdjustMoney,
        Adjusted,
        201,
        (NotFound, CurrencyMismatch, InsufficientFunds, InvalidAmount, UnknownCurrency, NotTheirTicket, KeyNotHeld),
    ),
)
