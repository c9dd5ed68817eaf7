"""
Commands on limits: what players set, cut, raise, confirm and withdraw, and what the house sets and attests.

Invariant: a cut acts at once; a raise is asked for, and asked for again once its time has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands.edge import Amount, Edge, Endpoint, Word, money
from commands.plan import Fact, Plan
from domain import limits, players
from domain.errors import CurrencyMismatch, InvalidAmount, LimitRaise, NotFound, Rejected, UnknownCurrency
from domain.kernel import Money, PlayerId
from domain.limits import Kind, LimitsEvent, Period
from policies.limits import CONTACT, NO_RISK, TEST

_Seconds = Annotated[int, msgspec.Meta(ge=0, le=31 * 86_400)]


class SetDepositLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that the player may deposit in one `period`, gross."""

    limit: Amount
    period: Period = Period.DAY


class DepositLimitSet(msgspec.Struct, frozen=True):
    player: str
    period: Period
    limit: Money


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of the player's limits: deposits (gross), net deposits, loss, wager, the stake of a spin, or time in games."""

    kind: Kind
    period: Period


class SetLimit(Which, frozen=True, forbid_unknown_fields=True):
    """The most in one `period`: `limit`, or `seconds` of time; with neither, that there be no limit."""

    limit: Amount | None = None
    seconds: _Seconds | None = None


class SetOperatorLimit(SetLimit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The house's own limit for this player; with neither `limit` nor `seconds` it is lifted. `reason`: a word."""

    reason: Word


class Need(StrEnum):
    TEST = TEST
    NO_RISK = NO_RISK
    CONTACT = CONTACT


class AttestRaise(Which, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`need`: what somebody has seen: that the test was passed, that there was no risk behaviour, or the player."""

    need: Need


class Outcome(StrEnum):
    """What has become of the request: the limit holds (or does not any more); a raise waits; nothing has changed."""

    IN_FORCE = "in_force"
    WAITING = "waiting"
    UNCHANGED = "unchanged"


class LimitChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    """`effective_at`, `lapses_at`: from when until when a raise may be confirmed, once the house has seen what it `needs`."""

    player: str
    kind: Kind
    period: Period
    outcome: Outcome
    effective_at: datetime | None = None
    lapses_at: datetime | None = None
    needs: tuple[str, ...] = ()


def set_deposit_limit(player_id: str, command: SetDepositLimit, edge: Edge) -> Plan:
    """Set or cut a deposit limit; a cut acts at once. Raises NotFound, CurrencyMismatch, LimitRaise, Forbidden."""
    limit = money(command.limit, "/limit")
    return Plan(
        edge.context,
        require=(Action.LIMIT_SET,),
        writes={"state": limits.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=lambda at, state, player: limits.set_deposit_limit(
            state, player, period=command.period, limit=limit, at=at
        ),
        answer=lambda _facts: DepositLimitSet(player_id, command.period, limit),
    )


def set_limit(player_id: str, command: SetLimit, edge: Edge) -> Plan:
    """Set, cut, raise or end a limit of the player's own. A cut acts at once; a raise, or an end, has to be confirmed.

    Raises NotFound, NotLimited, CurrencyMismatch, RaiseTooSoon.
    """
    most = _most(command)
    return _plan(player_id, command, edge, Action.LIMIT_SET, limits.set_limit, most=most)


def confirm_raise(player_id: str, command: Which, edge: Edge) -> Plan:
    """Ask for a raise a second time: it holds. Raises NotFound, NoRaise, RaiseUnseen, RaiseTooEarly (effective_at)."""
    return _plan(player_id, command, edge, Action.LIMIT_SET, limits.confirm_raise)


def withdraw_raise(player_id: str, command: Which, edge: Edge) -> Plan:
    """Withdraw a raise that is not confirmed. Raises NotFound."""
    return _plan(player_id, command, edge, Action.LIMIT_SET, limits.withdraw_raise)


def attest_raise(player_id: str, command: AttestRaise, edge: Edge) -> Plan:
    """Say that the house has seen what a raise needs. Raises NotFound, NoRaise."""
    return _plan(player_id, command, edge, Action.LIMIT_OPERATE, limits.attest_raise, need=command.need.value)


def set_operator_limit(player_id: str, command: SetOperatorLimit, edge: Edge) -> Plan:
    """Set, change or lift the house's own limit for a player, at once. Raises NotFound, NotLimited, CurrencyMismatch."""
    most = _most(command)

    def decision(state: limits.Limits, player: players.Player, *, at: datetime, **of: Any) -> list[LimitsEvent]:  # noqa: ARG001
        return limits.set_operator_limit(state, player, **of)

    return _plan(player_id, command, edge, Action.LIMIT_OPERATE, decision, most=most, reason=command.reason)


def _most(command: SetLimit) -> Money | int | None:
    """Raises InvalidAmount, UnknownCurrency, NotLimited for both an amount and a time."""
    if command.limit is None:
        return command.seconds
    if command.seconds is not None:
        raise limits.NotLimited(pointer="/seconds")
    if command.limit.amount == 0:  # to use nothing is a limit too
        return Money(0, money(Amount(1, command.limit.currency), "/limit").currency)
    return money(command.limit, "/limit")


def _plan(
    player_id: str, which: Which, edge: Edge, require: Action, decision: Callable[..., Sequence[LimitsEvent]], **of: Any
) -> Plan:
    return Plan(
        edge.context,
        require=(require,),
        writes={"state": limits.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=lambda at, state, player: decision(state, player, kind=which.kind, period=which.period, at=at, **of),
        answer=lambda facts: _answer(player_id, which, facts),
    )


def _answer(player_id: str, which: Which, facts: Sequence[Fact]) -> LimitChanged:
    match [fact.event for fact in facts]:
        case []:
            return LimitChanged(player_id, which.kind, which.period, Outcome.UNCHANGED)
        case [limits.RaiseRequested() as asked]:
            return LimitChanged(
                player_id, which.kind, which.period, Outcome.WAITING, asked.effective_at, asked.lapses_at, asked.needs
            )
        case [limits.RaiseAttested()]:
            return LimitChanged(player_id, which.kind, which.period, Outcome.WAITING)
    return LimitChanged(player_id, which.kind, which.period, Outcome.IN_FORCE)


_SETTING = (NotFound, CurrencyMismatch, UnknownCurrency, InvalidAmount, limits.NotLimited)


def _endpoint(verb: str, handler: Callable[..., Plan], body: type[msgspec.Struct], *errors: type[Rejected]) -> Endpoint:
    return Endpoint(f"/v1/players/{{player_id}}/limits{verb}", handler, body, LimitChanged, 200, errors)


ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/limits/deposit", set_deposit_limit, SetDepositLimit, DepositLimitSet, 200,
        (*_SETTING, LimitRaise, limits.RaiseTooSoon),
    ),
    _endpoint("", set_limit, SetLimit, *_SETTING, limits.RaiseTooSoon),
    _endpoint(
        "/confirm", confirm_raise, Which, NotFound, limits.NoRaise, limits.RaiseUnseen, limits.RaiseTooEarly
    ),
    _endpoint("/withdraw", withdraw_raise, Which, NotFound),
    _endpoint("/attest", attest_raise, AttestRaise, NotFound, limits.NoRaise),
    _endpoint("/operator", set_operator_limit, SetOperatorLimit, *_SETTING),
)  # fmt: skip
