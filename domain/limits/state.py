"""Which limits hold for a player, what deposits have used of them, and whether more fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from domain.errors import LimitExceeded, LimitRequired, Rejected, UnderReview
from domain.kernel import EPOCH, STREAMS_CACHED, Aggregate, Money, PlayerId, Stream, parse_id
from domain.limits.events import (
    KINDS,
    DepositRefused,
    Exceeded,
    HeadroomConsumed,
    HeadroomReleased,
    LimitLifted,
    LimitSet,
    LimitsEvent,
    RaiseAttested,
    RaiseConfirmed,
    RaiseRequested,
    RaiseWithdrawn,
    RequiredFirst,
    SafeguardsTakenUp,
    WithdrawalCounted,
    WithdrawalUncounted,
)
from domain.players import Player
from domain.windows import Usage, day_of
from policies import limits as policy
from policies.limits import Kind, LocalDay, Period, Required, Source, SystemLimit

# State


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """`amount`: minor units of `currency`, or seconds. `rule`, `verified`, `preset`: of the law's. `reason`: of the house's.
    `above`: the jurisdiction above whose preset it was confirmed as a raise.
    """

    kind: Kind
    period: Period
    source: Source
    amount: int
    currency: str = ""
    rule: str = ""
    verified: bool = True
    preset: bool = False
    reason: str = ""
    above: str = ""

    def is_of(self, kind: Kind, period: Period, source: Source) -> bool:
        return self.kind is kind and self.period is period and self.source is source

    def is_preset_of(self, kind: Kind, period: Period) -> bool:
        return self.preset and self.kind is kind and self.period is period


class Raise(msgspec.Struct, frozen=True, omit_defaults=True):
    """A raise that was asked for: to `amount`, None: to no limit. `effective_at`, `needs`: what was said then, when `jurisdiction`'s
    rules held; `asked_at`: when that was recorded; `seen`: what has been attested since (domain.limits.raising). `source`: who asked.
    """

    kind: Kind
    period: Period
    amount: int | None
    effective_at: datetime
    lapses_at: datetime
    currency: str = ""
    needs: tuple[str, ...] = ()
    asked_at: datetime = EPOCH
    jurisdiction: str = ""
    source: Source = Source.PLAYER
    seen: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """`given`: the house's and the player's, at most one of each kind, period and source. `raises`: at most one of each kind and
    period. `raised_at`: by jurisdiction, when the last above one of its presets was confirmed. `deposited`, `net`: what deposits
    use, gross and less withdrawals.
    `requested`: minor units over the player's life, of deposits that have not failed since. `taken_up`: as of Protection.
    """

    given: tuple[Limit, ...] = ()
    raises: tuple[Raise, ...] = ()
    raised_at: dict[str, datetime] = {}
    deposited: Usage = Usage()
    net: Usage = Usage()
    requested: int = 0
    taken_up: dict[str, int] = {}

    def own(self, kind: Kind, period: Period, source: Source = Source.PLAYER) -> Limit | None:
        return next((each for each in self.given if each.is_of(kind, period, source)), None)

    def pending(self, kind: Kind, period: Period, at: datetime) -> Raise | None:
        """The raise that has not lapsed."""
        found = (each for each in self.raises if each.kind is kind and each.period is period and at < each.lapses_at)
        return next(found, None)

    @property
    def daily_deposit(self) -> Money | None:
        """The player's own limit of a day's deposits."""
        limit = self.own(Kind.DEPOSIT, Period.DAY)
        return None if limit is None else Money(limit.amount, limit.currency)

    def in_force(self, system: Iterable[SystemLimit], currency: str) -> list[Limit]:
        """All that hold. A preset of the law holds until the player has a limit of its kind and period that is lower, or was
        confirmed as a raise above it, by the rules of its own jurisdiction; an amount in another currency than the player's cannot
        be shown to be below the law's, so nothing is.
        """

        def stands(preset: SystemLimit) -> bool:
            own = self.own(preset.kind, preset.period)
            if own is None:
                return True
            is_lower = preset.currency == currency and own.amount <= preset.amount
            return not is_lower and own.above != preset.jurisdiction

        law = [
            Limit(
                each.kind,
                each.period,
                Source.SYSTEM,
                each.amount if each.currency == currency else 0,
                currency,
                each.rule,
                each.verified,
                each.preset,
            )
            for each in system
            if not each.preset or stands(each)
        ]
        return [*law, *self.given]

    def refuse(
        self,
        kind: Kind,
        amount: int,
        used: Usage,
        *,
        currency: str,
        day: date,
        at: datetime,
        zone: ZoneInfo,
        system: Sequence[SystemLimit] = (),
    ) -> None:
        """
        Raise LimitExceeded if `amount` more does not fit into what is left; the facts are those of the lowest limit. Raise
        UnderReview if that is a hold for money laundering.

        `currency`: the player's. `day`: the local one. `system`: the law's limits, where there are any of this kind.
        """
        found = [
            (limit, used.within(limit.period, day=day, at=at))
            for limit in self.in_force(system, currency)
            if limit.kind is kind
        ]
        beyond = [(limit.amount - so_far, limit, so_far) for limit, so_far in found if so_far + amount > limit.amount]
        if beyond:
            _, limit, so_far = min(beyond, key=lambda each: each[0])
            raise _refusal(limit, so_far, used.frees_at(limit.period, day=day, at=at, zone=zone))

    def room(
        self, kind: Kind, used: Usage, *, currency: str, day: date, at: datetime, system: Sequence[SystemLimit] = ()
    ) -> int | None:
        """What is left under the lowest limit, none at all at least; None if there is no limit."""
        left = [
            limit.amount - used.within(limit.period, day=day, at=at)
            for limit in self.in_force(system, currency)
            if limit.kind is kind
        ]
        return max(0, min(left)) if left else None

    def refuse_stake(self, in_round: int, *, player: Player, at: datetime, is_slot: bool = True) -> None:
        """
        Raise LimitExceeded or UnderReview if the stakes of a game round, with the one that is asked for, may not be `in_round`.

        The law's limits of stakes are those of slots; what is not known to be another game is held to be one.
        """
        system = player.system_limits(at) if is_slot else ()
        beyond = [
            limit
            for limit in self.in_force(system, player.currency)
            if limit.kind is Kind.STAKE and in_round > limit.amount
        ]
        if beyond:
            raise _refusal(min(beyond, key=lambda limit: limit.amount), 0, at)

    def refuse_deposit(self, money: Money, *, player: Player, at: datetime) -> None:
        """Raises LimitRequired, LimitExceeded, UnderReview."""
        if missing := self.missing(player, at):
            raise LimitRequired(**missing._asdict())
        day, zone = self.day_at(player, at).day, policy.zone(player.jurisdiction)
        system = player.system_limits(at)
        for kind, used in ((Kind.DEPOSIT, self.deposited), (Kind.NET_DEPOSIT, self.net)):
            self.refuse(kind, money.amount, used, currency=money.currency, day=day, at=at, zone=zone, system=system)

    def refuse_unset(self, player: Player, at: datetime) -> None:
        """Raise LimitRequired where nobody may play who has not set the limits that the law wants."""
        if policy.required_to_play(player.jurisdiction) and (missing := self.missing(player, at)):
            raise LimitRequired(**missing._asdict())

    def missing(self, player: Player, at: datetime) -> Required | None:
        """What limits the player has to set before money is paid in, if they have not."""
        wanted = policy.required(player.jurisdiction, at)
        if wanted is None:
            return None
        has = [any(self.own(Kind.DEPOSIT, each) for each in policy.stands_for(period)) for period in wanted.periods]
        if all(has) if wanted.each else any(has):
            return None
        periods = tuple(period for period, there in zip(wanted.periods, has, strict=True) if not there)
        return wanted._replace(periods=periods)

    def day_at(self, player: Player, at: datetime) -> LocalDay:
        """The day with which a payment counts that happens then: the player's local one, or the newest that is known."""
        there = policy.local(player.jurisdiction, at)
        return LocalDay(self.net.counts_on(there.day), there.utc_offset)


def _refusal(limit: Limit, used: int, frees_at: datetime) -> Rejected:
    if limit.reason in policy.MONEY_LAUNDERING:
        return UnderReview()
    rule = limit.rule or f"{limit.source}.{limit.kind}.{limit.period}"
    which = (limit.kind, limit.period, limit.source, rule)
    return refusal(Exceeded(*which, limit.amount, used, frees_at, limit.currency, limit.verified))


def refusal(exceeded: Exceeded) -> LimitExceeded:
    """What whoever asked is told."""

    def told(amount: int) -> Money | int:
        return Money(amount, exceeded.currency) if exceeded.currency else amount

    return LimitExceeded(
        rule=exceeded.rule,
        verified=exceeded.verified,
        kind=exceeded.kind.value,
        period=exceeded.period.value,
        source=exceeded.source.value,
        limit=told(exceeded.limit),
        used=told(exceeded.used),
        remaining=told(exceeded.remaining),
        frees_at=exceeded.frees_at,
    )


def exceeded_in(error: Rejected) -> Exceeded | None:
    """What a refusal says of the limit, for the event that records it; None of one without figures."""
    if not isinstance(error, LimitExceeded):
        return None
    facts = error.facts
    limit, used = facts["limit"], facts["used"]
    amount, currency = (limit.amount, limit.currency) if isinstance(limit, Money) else (limit, "")
    told = {"limit": amount, "used": used.amount if isinstance(used, Money) else used, "currency": currency}
    names = ("rule", "verified", "kind", "period", "source", "frees_at")
    return msgspec.convert({**{name: facts[name] for name in names}, **told}, Exceeded)


def deposit_refused(money: Money, error: Rejected) -> DepositRefused:
    """Records that a limit has refused a deposit. `error`: LimitExceeded, LimitRequired or UnderReview."""
    if not isinstance(error, LimitRequired):
        return DepositRefused(money=money, code=error.code, exceeded=exceeded_in(error))
    return DepositRefused(money=money, code=error.code, required=msgspec.convert(error.facts, RequiredFirst))


def refused_by(refused: DepositRefused) -> Rejected:
    """What whoever asked is told, again."""
    if refused.exceeded is not None:
        return refusal(refused.exceeded)
    if refused.required is not None:
        return LimitRequired(**msgspec.structs.asdict(refused.required))
    return UnderReview()


def evolve(limits: Limits, event: LimitsEvent, at: datetime) -> Limits:  # noqa: C901, PLR0911 — one case an event
    change = msgspec.structs.replace
    match event:
        case HeadroomConsumed(_, money, day, utc_offset):
            day = day_of(day, utc_offset, at)
            return change(
                limits,
                deposited=limits.deposited.add(money.amount, day=day, at=at),
                net=limits.net.add(money.amount, day=day, at=at),
                requested=limits.requested + money.amount,
            )
        case HeadroomReleased(_, money, day, counted_at):
            return change(
                limits,
                deposited=limits.deposited.take_back(money.amount, day=day, at=counted_at),
                net=limits.net.take_back(money.amount, day=day, at=counted_at),
                requested=limits.requested - money.amount,
            )
        case WithdrawalCounted(_, money, day, utc_offset):
            return change(limits, net=limits.net.add(-money.amount, day=day_of(day, utc_offset, at), at=at))
        case WithdrawalUncounted(_, money, day, utc_offset):
            return change(limits, net=limits.net.add(money.amount, day=day_of(day, utc_offset, at), at=at))
        case LimitSet():
            return _set(limits, event)
        case LimitLifted(kind, period):
            return change(
                limits, given=tuple(each for each in limits.given if not each.is_of(kind, period, Source.OPERATOR))
            )
        case RaiseRequested():
            amount, currency = _amount(event) if event.money or event.seconds is not None else (None, "")
            wanted = Raise(
                event.kind, event.period, amount, event.effective_at, event.lapses_at, currency, event.needs,
                asked_at=at, jurisdiction=event.jurisdiction, source=event.source,
            )  # fmt: skip
            return change(limits, raises=(*_without(limits, event), wanted))
        case RaiseAttested(_, _, need):
            return change(
                limits,
                raises=tuple(
                    change(each, seen=(*each.seen, need))
                    if (each.kind, each.period) == (event.kind, event.period)
                    else each
                    for each in limits.raises
                ),
            )
        case RaiseConfirmed():
            return _raised(limits, event, at) if event.holds(at) else limits
        case RaiseWithdrawn():
            return change(limits, raises=_without(limits, event))
        case SafeguardsTakenUp(log, upto):
            return change(limits, taken_up={**limits.taken_up, log: upto})
        case DepositRefused():
            return limits


def _set(limits: Limits, event: LimitSet) -> Limits:
    """A cut of a limit that was above the law's preset is seen as that one was."""
    amount, currency = _amount(event)
    before = limits.own(event.kind, event.period, event.source)
    above = before.above if before is not None and amount <= before.amount else ""
    limit = Limit(event.kind, event.period, event.source, amount, currency, reason=event.reason, above=above)
    raises = _without(limits, event) if event.source is Source.PLAYER else limits.raises
    return msgspec.structs.replace(limits, given=_with(limits.given, limit), raises=raises)


def _raised(limits: Limits, event: RaiseConfirmed, at: datetime) -> Limits:
    given = tuple(each for each in limits.given if not each.is_of(event.kind, event.period, Source.PLAYER))
    if event.money or event.seconds is not None:
        given = _with(given, Limit(event.kind, event.period, Source.PLAYER, *_amount(event), above=event.above))
    raised_at = {**limits.raised_at, event.above: at} if event.above else limits.raised_at
    return msgspec.structs.replace(limits, given=given, raises=_without(limits, event), raised_at=raised_at)


def _amount(event: LimitSet | RaiseRequested | RaiseConfirmed) -> tuple[int, str]:
    return (event.money.amount, event.money.currency) if event.money else (event.seconds or 0, "")


def _with(given: tuple[Limit, ...], limit: Limit) -> tuple[Limit, ...]:
    others = [each for each in given if not each.is_of(limit.kind, limit.period, limit.source)]
    return tuple(sorted((*others, limit), key=lambda each: (each.kind, each.period, each.source)))


def _without(limits: Limits, event: LimitSet | RaiseRequested | RaiseConfirmed | RaiseWithdrawn) -> tuple[Raise, ...]:
    return tuple(each for each in limits.raises if (each.kind, each.period) != (event.kind, event.period))


LIMITS = Aggregate("limits", initial=Limits(), evolve=evolve, events=KINDS)


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Limits]:
    return Stream(LIMITS, parse_id("player", player_id))
