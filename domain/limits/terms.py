"""How limits are set, cut, raised and lifted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from domain.errors import Conflict, CurrencyMismatch, Invalid, LimitRaise
from domain.kernel import EPOCH, Money
from domain.limits.events import (
    LimitLifted,
    LimitSet,
    LimitsEvent,
    RaiseAttested,
    RaiseConfirmed,
    RaiseRequested,
    RaiseWithdrawn,
)
from domain.limits.state import Limit, Limits, Raise
from domain.players import Player
from domain.windows import ROLLING, ends_at
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


def set_limit(
    limits: Limits, player: Player, *, kind: Kind, period: Period, most: Money | int | None, at: datetime
) -> list[LimitsEvent]:
    """
    The player wants to use no more than `most` (seconds of time; None: no limit). A cut acts at once, a raise is asked for.

    The same again records nothing. Raises NotFound, NotLimited, CurrencyMismatch, RaiseTooSoon.
    """
    amount, money, seconds = _checked(player, kind, period, most)
    current = _current(limits, player, kind, period, at)
    if amount is not None and (current is None or amount <= current.amount):
        if current is not None and current.source is Source.PLAYER and amount == current.amount:
            return []
        return [LimitSet(kind=kind, period=period, money=money, seconds=seconds)]
    if current is None or (amount is None and current.source is Source.SYSTEM):
        return []
    pending = limits.pending(kind, period, at)
    if pending is not None and pending.amount == amount:
        return []
    return [_raise_of(limits, player, kind, period, amount, money, seconds, at)]


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
    """The player asks for the raise a second time: it holds. Raises NotFound, NoRaise, RaiseUnseen, RaiseTooEarly."""
    pending = _pending(limits, player, kind, period, at)
    if pending.needs:
        raise RaiseUnseen(needs=list(pending.needs))
    if at < pending.effective_at:
        raise RaiseTooEarly(effective_at=pending.effective_at)
    money = Money(pending.amount, pending.currency) if pending.currency and pending.amount is not None else None
    return [
        RaiseConfirmed(kind=kind, period=period, money=money, seconds=pending.amount if kind is Kind.TIME else None)
    ]


def attest_raise(
    limits: Limits, player: Player, *, kind: Kind, period: Period, need: str, at: datetime
) -> list[LimitsEvent]:
    """Somebody has seen what a raise needs. What it does not need, or was seen, records nothing. Raises NotFound, NoRaise."""
    pending = _pending(limits, player, kind, period, at)
    return [RaiseAttested(kind, period, need)] if need in pending.needs else []


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
    """The player's own limit, or the law's preset that stands for it."""
    in_force = limits.in_force(player.system_limits(at), player.currency)
    return limits.own(kind, period) or next(
        (each for each in in_force if each.preset and each.kind is kind and each.period is period), None
    )


def _pending(limits: Limits, player: Player, kind: Kind, period: Period, at: datetime) -> Raise:
    player.require()
    pending = limits.pending(kind, period, at)
    if pending is None:
        raise NoRaise(kind=kind.value, period=period.value)
    return pending


def _raise_of(
    limits: Limits,
    player: Player,
    kind: Kind,
    period: Period,
    amount: int | None,
    money: Money | None,
    seconds: int | None,
    at: datetime,
) -> RaiseRequested:
    """Raises RaiseTooSoon."""
    presets = [each for each in player.system_limits(at) if each.preset and (each.kind, each.period) == (kind, period)]
    above_law = amount is not None and any(amount > each.amount or each.currency != player.currency for each in presets)
    wait = policy.to_raise(player.jurisdiction, kind, above_law=above_law, at=at)
    earliest = _months_after(limits.raised_at, wait.months_between)
    if at < earliest:
        raise RaiseTooSoon(rule="deposit_limit.raise_min_interval", earliest=earliest)
    effective_at = at + wait.cooling_off
    if wait.after_period:
        effective_at = max(effective_at, _period_ends(period, player.jurisdiction, at))
    return RaiseRequested(
        kind=kind,
        period=period,
        money=money,
        seconds=seconds,
        effective_at=effective_at,
        lapses_at=effective_at + policy.HOUSE_RAISE_LIVES,
        needs=wait.needs,
        rule=wait.rule,
    )


def _period_ends(period: Period, jurisdiction: str, at: datetime) -> datetime:
    """When the running period of a limit is over: of a rolling one, when what is used now has left it."""
    if period in policy.CALENDAR:
        return ends_at(period, policy.local_day(jurisdiction, at), policy.zone(jurisdiction))
    return at + (ROLLING[period].length + ROLLING[period].width if period in ROLLING else policy.HOUSE_COOLING_OFF)


def _months_after(at: datetime, months: int) -> datetime:
    """As many calendar months later, on the last day of a month that is shorter."""
    if not months:
        return EPOCH
    month = at.month - 1 + months
    first = date(at.year + month // 12, month % 12 + 1, 1)
    last = (date(first.year + first.month // 12, first.month % 12 + 1, 1) - timedelta(days=1)).day
    return at.replace(year=first.year, month=first.month, day=min(at.day, last)).astimezone(UTC)
