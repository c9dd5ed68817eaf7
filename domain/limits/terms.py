"""How limits are set, cut, raised and lifted."""

from __future__ import annotations

from datetime import datetime

from domain.errors import Conflict, CurrencyMismatch, Invalid, LimitRaise, RuleRefused
from domain.kernel import Intervention, Money
from domain.limits.events import (
    LimitLifted,
    LimitSet,
    LimitsEvent,
    RaiseAttested,
    RaiseConfirmed,
    RaiseRequested,
    RaiseWithdrawn,
)
from domain.limits.raising import Terms, due, terms
from domain.limits.state import Limit, Limits, Raise
from domain.players import Player
from policies import limits as policy
from policies.limits import Kind, Period, Source

# Decisions


class NotLimited(Invalid):
    code = "not_limited"
    title = "There is no limit of this kind over this period, or not in this unit"


class NoRaise(Conflict):
    code = "no_raise_pending"
    title = "No raise of this limit was asked for, or it has lapsed"


class RaiseTooEarly(Conflict):
    """Facts: effective_at."""

    code = "raise_too_early"
    title = "A raise is confirmed once its cooling-off period is over"


class RaiseUnseen(Conflict):
    """Facts: needs."""

    code = "raise_not_attested"
    title = "Somebody of the house has to see something before this raise"


class RaiseTooSoon(Conflict):
    """Facts: rule, earliest."""

    code = "raise_too_soon"
    title = "It is too soon after the last raise"


class RaiseNotThePlayers(RuleRefused):
    """Facts: rule, verified."""

    code = "raise_not_the_players"
    title = "Here nobody but the player may ask for a raise"


class NotByHouse(Conflict):
    code = "not_by_house"
    title = "The house cuts by a limit of its own, beside the player's"


def set_limit(
    limits: Limits,
    player: Player,
    *,
    kind: Kind,
    period: Period,
    most: Money | int | None,
    at: datetime,
    source: Source = Source.PLAYER,
    intervention: Intervention | None = None,
) -> list[LimitsEvent]:
    """
    The player is to use no more than `most` (seconds of time; None: no limit). A cut acts at once, a raise is asked for. `source`:
    who wants it; the house may want a raise, and says why by its `intervention`.

    The same again records nothing. Raises NotFound, NotLimited, CurrencyMismatch, RaiseTooSoon, RaiseNotThePlayers, NotByHouse.
    """
    amount, money, seconds = _checked(player, kind, period, most)
    current, own = _current(limits, player, kind, period, at), limits.own(kind, period)
    if amount is not None and (current is None or amount <= current.amount):
        if source is not Source.PLAYER:
            raise NotByHouse
        if own is not None and amount == own.amount:
            return []
        return [LimitSet(kind=kind, period=period, money=money, seconds=seconds)]
    if current is None or (amount is None and own is None):
        return []
    _refuse_house(player, source, at)
    pending = limits.pending(kind, period, at)
    if pending is not None and pending.amount == amount and pending.source in {Source.PLAYER, source}:
        return []
    waits = terms(
        limits, player, jurisdiction=player.jurisdiction, kind=kind, period=period, amount=amount, asked_at=at, at=at
    )
    _refuse_soon(waits, at)
    return [
        RaiseRequested(
            kind=kind,
            period=period,
            money=money,
            seconds=seconds,
            effective_at=waits.effective_at,
            lapses_at=waits.effective_at + policy.HOUSE_RAISE_LIVES,
            needs=waits.needs,
            rule=waits.rule,
            jurisdiction=player.jurisdiction,
            source=source,
            intervention=intervention,
        )
    ]


def set_deposit_limit(
    limits: Limits, player: Player, *, period: Period, limit: Money, at: datetime
) -> list[LimitsEvent]:
    """Set or cut a deposit limit. The same limit again records nothing.

    Raises NotFound, NotLimited, CurrencyMismatch, LimitRaise.
    """
    _checked(player, Kind.DEPOSIT, period, limit)
    current = _current(limits, player, Kind.DEPOSIT, period, at)
    if current is not None and limit.amount > current.amount:
        raise LimitRaise(limit=Money(current.amount, limit.currency))
    return set_limit(limits, player, kind=Kind.DEPOSIT, period=period, most=limit, at=at)


def confirm_raise(limits: Limits, player: Player, *, kind: Kind, period: Period, at: datetime) -> list[LimitsEvent]:
    """The player asks for the raise a second time: it holds, if the log agrees that its time has come (RaiseConfirmed.holds).

    Raises NotFound, NoRaise, RaiseNotThePlayers, RaiseUnseen, RaiseTooSoon, RaiseTooEarly.
    """
    pending = _pending(limits, player, kind, period, at)
    waits = due(limits, player, pending, at)
    _refuse_house(player, pending.source, at)
    if waits.needs:
        raise RaiseUnseen(needs=list(waits.needs))
    _refuse_soon(waits, at)
    if at < waits.effective_at:
        raise RaiseTooEarly(effective_at=waits.effective_at)
    return [
        RaiseConfirmed(
            kind=kind,
            period=period,
            effective_at=max(waits.effective_at, waits.earliest),
            money=Money(pending.amount, pending.currency) if pending.currency and pending.amount is not None else None,
            seconds=pending.amount if kind is Kind.TIME else None,
            above=waits.above,
        )
    ]


def attest_raise(
    limits: Limits, player: Player, *, kind: Kind, period: Period, need: str, at: datetime
) -> list[LimitsEvent]:
    """Somebody has seen what a raise needs. What it does not need, or was seen, records nothing. Raises NotFound, NoRaise."""
    pending = _pending(limits, player, kind, period, at)
    return [RaiseAttested(kind, period, need)] if need in due(limits, player, pending, at).needs else []


def withdraw_raise(limits: Limits, player: Player, *, kind: Kind, period: Period, at: datetime) -> list[LimitsEvent]:
    """The player does not want the raise any more. What is not asked for records nothing. Raises NotFound."""
    player.require()
    return [RaiseWithdrawn(kind, period)] if limits.pending(kind, period, at) else []


def set_operator_limit(
    limits: Limits, player: Player, *, kind: Kind, period: Period, most: Money | int | None, reason: str
) -> list[LimitsEvent]:
    """The house's own limit for this player, at once; None takes it away. The same again records nothing.

    Raises NotFound, NotLimited, CurrencyMismatch.
    """
    amount, money, seconds = _checked(player, kind, period, most)
    current = limits.own(kind, period, Source.OPERATOR)
    if amount is None:
        return [LimitLifted(kind, period, reason)] if current else []
    if current is not None and (current.amount, current.reason) == (amount, reason):
        return []
    return [LimitSet(kind=kind, period=period, source=Source.OPERATOR, money=money, seconds=seconds, reason=reason)]


def take_up(limits: Limits, fact: LimitSet) -> list[LimitsEvent]:
    """What follows from a limit that another region has recorded: a lower one of the same kind, period and source stays."""
    own = limits.own(fact.kind, fact.period, fact.source)
    if own is not None and own.amount <= (fact.money.amount if fact.money else fact.seconds or 0):
        return []
    return [LimitSet(**{name: getattr(fact, name) for name in LimitSet.__struct_fields__})]


def _checked(
    player: Player, kind: Kind, period: Period, most: Money | int | None
) -> tuple[int | None, Money | None, int | None]:
    """`most` as amount, money and seconds. Raises NotFound, NotLimited, CurrencyMismatch."""
    player.require()
    if (kind is Kind.STAKE) is not (period is Period.SPIN) or (
        most is not None and (kind is Kind.TIME) is isinstance(most, Money)
    ):
        raise NotLimited(kind=kind.value, period=period.value)
    if not isinstance(most, Money):
        return most, None, most
    if most.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=most.currency)
    return most.amount, most, None


def _current(limits: Limits, player: Player, kind: Kind, period: Period, at: datetime) -> Limit | None:
    """What the player may use now, of their own limit and the law's preset: the lower."""
    in_force = limits.in_force(player.system_limits(at), player.currency)
    found = [each for each in in_force if each.is_of(kind, period, Source.PLAYER) or each.is_preset_of(kind, period)]
    return min(found, key=lambda each: each.amount, default=None)


def _pending(limits: Limits, player: Player, kind: Kind, period: Period, at: datetime) -> Raise:
    player.require()
    pending = limits.pending(kind, period, at)
    if pending is None:
        raise NoRaise(kind=kind.value, period=period.value)
    return pending


def _refuse_house(player: Player, source: Source, at: datetime) -> None:
    """Raises RaiseNotThePlayers."""
    if source is not Source.PLAYER and (rule := policy.players_alone(player.jurisdiction, at)) is not None:
        raise RaiseNotThePlayers(rule=rule.name, verified=rule.verified)


def _refuse_soon(waits: Terms, at: datetime) -> None:
    """Raises RaiseTooSoon."""
    if at < waits.earliest:
        raise RaiseTooSoon(rule="deposit_limit.raise_min_interval", earliest=waits.earliest)
