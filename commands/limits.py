"""Commands on limits: set a player's daily deposit limit."""

from __future__ import annotations

import msgspec

from access.policy import Action
from commands.edge import Amount, Edge, Endpoint, money
from commands.plan import Plan
from domain import limits, players
from domain.errors import CurrencyMismatch, InvalidAmount, LimitRaise, NotFound, UnknownCurrency
from domain.kernel import Money, PlayerId


class SetDepositLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that the player may deposit in one `period`, gross."""

    limit: Amount
    period: limits.Period = limits.Period.DAY


class DepositLimitSet(msgspec.Struct, frozen=True):
    player: str
    period: limits.Period
    limit: Money


def set_deposit_limit(player_id: str, command: SetDepositLimit, edge: Edge) -> Plan:
    """Set or cut a deposit limit; a cut acts at once. Raises NotFound, CurrencyMismatch, LimitRaise, Forbidden."""
    limit = money(command.limit, "/limit")
    return Plan(
        edge.context,
        require=(Action.LIMIT_SET,),
        writes={"state": limits.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, state, player: limits.set_deposit_limit(state, player, period=command.period, limit=limit),
        answer=lambda _facts: DepositLimitSet(player_id, command.period, limit),
    )


ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/limits/deposit",
        set_deposit_limit,
        SetDepositLimit,
        DepositLimitSet,
        200,
        (NotFound, CurrencyMismatch, LimitRaise, UnknownCurrency, InvalidAmount),
    ),
)
