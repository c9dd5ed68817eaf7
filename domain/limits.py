"""
Limits: how much a player may deposit, and how much of that is used.

A limit's day is the calendar day in UTC, by the time at which the ledger recorded the request; imported history neither
consults nor consumes it.

Invariants:
    - usage follows every request, whether or not a limit is set, so that a limit set at noon counts the morning;
    - a cut acts at once; a raise needs a cooling-off period and a second confirmation, and is refused until there is one;
    - releasing what was consumed on an earlier day gives nothing back today.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import CurrencyMismatch, LimitExceeded, LimitRaise, NotFound
from domain.kernel import STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, TransactionId, parse_id
from domain.players import Player, Status

# Events: the tags and fields are the storage format.


class Period(StrEnum):
    DAY = "day"


class DepositLimitSet(Event, frozen=True, tag="limits.deposit_limit_set"):
    """From now on the player may deposit no more than `limit` in each `period`."""

    period: Period
    limit: Money


class HeadroomConsumed(Event, frozen=True, tag="limits.headroom_consumed"):
    """A deposit was requested, and counts towards the limit of the day on which this was recorded."""

    transaction: TransactionId
    money: Money


class HeadroomReleased(Event, frozen=True, tag="limits.headroom_released"):
    """A deposit that was requested has failed, and counts no more. `day`: on which it had been counted (UTC)."""

    transaction: TransactionId
    money: Money
    day: date


LimitsEvent = DepositLimitSet | HeadroomConsumed | HeadroomReleased


# State


class Limits(msgspec.Struct, frozen=True):
    """`used`: minor units consumed on `day`, of the player's one currency. `requested`: over the player's life, those of
    deposits that have not failed since.
    """

    daily_deposit: Money | None = None
    day: date = date.min
    used: int = 0
    requested: int = 0

    def used_on(self, day: date) -> int:
        return self.used if day == self.day else 0

    def refuse_excess(self, money: Money, at: datetime) -> None:
        """Raise LimitExceeded if `money` does not fit into what is left of the day of `at`."""
        limit = self.daily_deposit
        if limit is None:
            return
        used = self.used_on(at.date())
        if used + money.amount > limit.amount:
            raise LimitExceeded(
                limit=limit,
                used=Money(used, limit.currency),
                remaining=Money(max(0, limit.amount - used), limit.currency),
                frees_at=datetime.combine(at.date() + timedelta(days=1), time(), tzinfo=UTC),
            )


def evolve(limits: Limits, event: LimitsEvent, at: datetime) -> Limits:
    match event:
        case HeadroomConsumed():
            day = max(at.date(), limits.day)
            amount = event.money.amount
            return Limits(limits.daily_deposit, day, limits.used_on(day) + amount, limits.requested + amount)
        case HeadroomReleased():
            amount = event.money.amount
            used = limits.used - amount if event.day == limits.day else limits.used
            return Limits(limits.daily_deposit, limits.day, used, limits.requested - amount)
        case DepositLimitSet():
            return Limits(event.limit, limits.day, limits.used, limits.requested)


LIMITS = Aggregate(
    "limits", initial=Limits(), evolve=evolve, events=[DepositLimitSet, HeadroomConsumed, HeadroomReleased]
)


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Limits]:
    return Stream(LIMITS, parse_id("player", player_id))


# Decisions


def set_deposit_limit(limits: Limits, player: Player, *, period: Period, limit: Money) -> list[LimitsEvent]:
    """Set or cut the deposit limit. The same limit again records nothing."""
    if player.status is Status.UNKNOWN:
        raise NotFound("no such player")
    if limit.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=limit.currency)
    current = limits.daily_deposit
    if current is not None and limit.amount > current.amount:
        raise LimitRaise(limit=current)
    if current == limit:
        return []
    return [DepositLimitSet(period=period, limit=limit)]
