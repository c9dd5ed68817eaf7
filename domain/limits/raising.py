"""
What a raise waits for: its cooling-off, what the house has to see first, and the time since the last one.

Why it is asked again when the player confirms: the process that took the request may have had a clock that lagged behind the
log's, and the player may have moved to another jurisdiction since. So the wait is counted from when the log has recorded the
request, and of what the law said there then, and says here now, the stricter holds.

Invariant: no step of a process's clock, and no move, makes a raise wait for less.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from domain.kernel import EPOCH
from domain.limits.state import Limits, Raise
from domain.players import Player
from domain.windows import ROLLING, ends_at
from policies import limits as policy
from policies.limits import Kind, Period


class Terms(NamedTuple):
    """`effective_at`: when the cooling-off is over. `needs`: what has to be attested. `earliest`: when the last raise above the
    law's preset is long enough ago. `above`: the jurisdiction above whose preset the limit will be, if it will. `rule`: what says
    how long the cooling-off is.
    """

    effective_at: datetime
    needs: tuple[str, ...]
    earliest: datetime
    above: str
    rule: str


def terms(
    limits: Limits,
    player: Player,
    *,
    jurisdiction: str,
    kind: Kind,
    period: Period,
    amount: int | None,
    asked_at: datetime,
    at: datetime,
) -> Terms:
    """What the law of a jurisdiction says at `at` of a raise that was asked for at `asked_at`. `amount` None: to no limit."""
    above = ""
    for preset in policy.system(jurisdiction, birth_year=player.birth_year, at=at):
        if not preset.preset or (preset.kind, preset.period) != (kind, period) or amount is None:
            continue
        if amount > preset.amount or preset.currency != player.currency:
            above = preset.jurisdiction
    wait = policy.to_raise(jurisdiction, kind, above_law=bool(above), at=at)
    effective_at = asked_at + wait.cooling_off
    if wait.after_period:
        effective_at = max(effective_at, _period_ends(period, jurisdiction, asked_at))
    earliest = _months_after(limits.raised_at.get(above, EPOCH), wait.months_between)
    return Terms(effective_at, wait.needs, earliest, above, wait.rule)


def due(limits: Limits, player: Player, wanted: Raise, at: datetime) -> Terms:
    """What a raise that was asked for still waits for at `at`; `needs` without what was attested."""

    def of(jurisdiction: str, law_of: datetime) -> Terms:
        return terms(
            limits, player, jurisdiction=jurisdiction, kind=wanted.kind, period=wanted.period, amount=wanted.amount,
            asked_at=wanted.asked_at, at=law_of,
        )  # fmt: skip

    then, now = of(wanted.jurisdiction, wanted.asked_at), of(player.jurisdiction, at)
    needs = dict.fromkeys((*wanted.needs, *then.needs, *now.needs))
    return Terms(
        max(wanted.effective_at, then.effective_at, now.effective_at),
        tuple(need for need in needs if need not in wanted.seen),
        max(then.earliest, now.earliest),
        now.above,
        now.rule,
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
