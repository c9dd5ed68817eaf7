"""
Commands on limits: what players set, cut, raise, confirm and withdraw, and what the house sets and attests.

Invariants:
    - a cut acts at once; a raise is asked for, and asked for again once its time has come;
    - that a raise holds nobody hears before the log has recorded that its time had come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from access.policy import Action
from commands.edge import Amount, Edge, Endpoint, InterventionMissing, Why, Word, intervention, money
from commands.plan import Fact, Plan
from commands.sealing import KeyNotHeld
from domain import limits, players
from domain.errors import CurrencyMismatch, InvalidAmount, LimitRaise, NotFound, Rejected, UnknownCurrency
from domain.kernel import Intervention, Money, PlayerId
from domain.limits import Kind, LimitsEvent, Period, Source
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


class _AtMost(Which, frozen=True, forbid_unknown_fields=True):
    limit: Amount | None = None
    seconds: _Seconds | None = None


class SetLimit(_AtMost, frozen=True, forbid_unknown_fields=True):
    """The most in one `period`: `limit`, or `seconds` of time; with neither, that there be no limit. `source`: who wants it; a person
    of the house who wants a raise says why.
    """

    source: Literal["player", "operator"] = "player"
    intervention: Why | None = None


class SetOperatorLimit(_AtMost, frozen=True, kw_only=True, forbid_unknown_fields=True):
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

    Raises NotFound, NotLimited, CurrencyMismatch, RaiseTooSoon, RaiseNotThePlayers, NotByHouse, InterventionMissing, KeyNotHeld.
    """
    why = _why(command, edge)
    plan = _plan(
        player_id, command, edge, Action.LIMIT_SET, limits.set_limit,
        most=_most(command), source=Source(command.source), intervention=why,
    )  # fmt: skip
    return plan if why is None else msgspec.structs.replace(plan, key=_sealing_key)


def confirm_raise(player_id: str, command: Which, edge: Edge) -> Plan:
    """Ask for a raise a second time: it holds. Raises NotFound, NoRaise, RaiseUnseen, RaiseTooEarly (effective_at), RaiseTooSoon,
    RaiseNotThePlayers.
    """
    plan = _plan(player_id, command, edge, Action.LIMIT_SET, limits.confirm_raise)
    return msgspec.structs.replace(plan, timed=True)


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


def _why(command: SetLimit, edge: Edge) -> Intervention | None:
    """A player's own wish needs no reason from whoever writes it down. Raises InterventionMissing."""
    if command.source == "player" and command.intervention is None:
        return None
    return intervention(command.intervention, edge.context)


def _sealing_key(player: players.Player, **_states: Any) -> tuple[str, str]:
    """What a person says is sealed under the player's own key. Raises NotFound."""
    return player.sealing_key()


def _most(command: _AtMost) -> Money | int | None:
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
    """Raises RaiseTooEarly where the log says so of what this process held to be in time."""
    match [fact.event for fact in facts]:
        case []:
            return LimitChanged(player_id, which.kind, which.period, Outcome.UNCHANGED)
        case [limits.RaiseRequested() as asked]:
            return LimitChanged(
                player_id, which.kind, which.period, Outcome.WAITING, asked.effective_at, asked.lapses_at, asked.needs
            )
        case [limits.RaiseConfirmed() as confirmed]:
            recorded = facts[0].at
            if recorded is not None and not confirmed.holds(recorded):
                raise limits.RaiseTooEarly(effective_at=confirmed.effective_at)
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
    _endpoint(
        "", set_limit, SetLimit, *_SETTING, limits.RaiseTooSoon, limits.RaiseNotThePlayers, limits.NotByHouse,
        InterventionMissing, KeyNotHeld,
    ),
    _endpoint(
        "/confirm", confirm_raise, Which, NotFound, limits.NoRaise, limits.RaiseUnseen, limits.RaiseTooEarly,
        limits.RaiseTooSoon, limits.RaiseNotThePlayers,
    ),
    _endpoint("/withdraw", withdraw_raise, Which, NotFound),
    _endpoint("/attest", attest_raise, AttestRaise, NotFound, limits.NoRaise),
    _endpoint("/operator", set_operator_limit, SetOperatorLimit, *_SETTING),
)  # fmt: skip
