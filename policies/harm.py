"""
Markers of harm: what in a player's play may be a sign of trouble, and what has to follow.

What the law asks for comes from rules.csv alone (`net_deposit.block_threshold`, `financial_vulnerability.…`,
`deposit_limit.contact_threshold_month`, `harm_indicator.…`); rules with a `House` figure or a bare count are the house's own, and
no law. A changed rule is a new row with the next version and the first day on which it holds; the old row stays.

Invariants:
    - every marker leads to a recorded contact;
    - a strong one stops bonuses and marketing where `harm_indicator.marketing_and_bonus_blocked` says so, and nowhere else;
    - whether a marker is settled a person says (`harm_indicator.manual_review_required`), everywhere;
    - a deadline for us is a row's; where there is no row the house has one.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

from policies.findings import (
    Chase,
    Count,
    House,
    Kind,
    Law,
    Nights,
    One,
    Raised,
    Severity,
    Signal,
    Span,
    Step,
    Total,
    Unreadable,
    Watch,
    Weeks,
)
from policies.limits import local_day, zone
from policies.rules import RULES as LAW
from policies.rules import Rules

_FIRST: Final = date(2026, 11, 1)

CONTACT_AT_EACH_RAISE: Final = ("SE",)
"""Where the row `deposit_limit.contact_threshold_month` asks for a contact whenever a deposit limit is raised, too: «om en spelare höjer
sin gräns eller anger en högre gräns än 10 000 kronor per månad», of which its source says «also on every raise». In the Netherlands
it speaks of limits above the threshold alone."""

RULES: Final = (
    Watch(
        name="harm_deposits",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.MEDIUM,
        says="much paid in within a month",
        test=Total(Signal.DEPOSIT, Span.DAYS_30, House(5_000)),
        quiet_hours=720,
    ),
    Watch(
        name="harm_losses",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.HIGH,
        says="much lost within a week",
        test=Total(Signal.LOSS, Span.DAYS_7, House(2_000)),
        quiet_hours=168,
    ),
    Watch(
        name="harm_night_play",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.MEDIUM,
        says="play in most nights of a week",
        test=Nights(begins=1, ends=6, nights=4, of=7),
        quiet_hours=168,
    ),
    Watch(
        name="harm_chasing",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.HIGH,
        says="money is paid in again and again right after it was lost",
        test=Chase(minutes=60, lost=House(100), at_least=3),
        quiet_hours=72,
    ),
    Watch(
        name="harm_cancelled_withdrawals",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.MEDIUM,
        says="withdrawals are cancelled again and again",
        test=Count(Signal.WITHDRAWAL_CANCELLED, Span.DAYS_7, at_least=3),
        quiet_hours=168,
    ),
    Watch(
        name="harm_limit_raises",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.MEDIUM,
        says="limits are to be raised again and again",
        test=Count(Signal.LIMIT_RAISED, Span.DAYS_30, at_least=3),
        quiet_hours=168,
    ),
    Watch(
        name="high_month_limit",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.LOW,
        says="a deposit limit of a month above what needs a contact",
        test=One(
            Signal.MONTH_LIMIT,
            Law("deposit_limit.contact_threshold_month", young="deposit_limit.contact_threshold_month_18_24"),
            above=True,
        ),
        quiet_hours=0,
    ),
    Watch(
        name="raised_limit",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.LOW,
        says="a higher deposit limit is asked for where each raise needs a contact",
        test=Raised(Law("deposit_limit.contact_threshold_month"), CONTACT_AT_EACH_RAISE),
        quiet_hours=0,
    ),
    Watch(
        name="net_deposit_month",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.HIGH,
        says="net deposits of a calendar month at which further ones are blocked",
        test=Total(
            Signal.DEPOSIT,
            Span.MONTH,
            Law("net_deposit.block_threshold", young="net_deposit.block_threshold_18_24"),
            minus=Signal.PAYOUT,
        ),
        quiet_hours=0,
        steps=(Step.DEPOSIT_THIS_MONTH,),
    ),
    Watch(
        name="financial_vulnerability",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.LOW,
        says="net deposits of 30 days from which on a player's means are to be checked",
        test=Total(
            Signal.DEPOSIT,
            Span.DAYS_30,
            Law("financial_vulnerability.net_deposit_threshold_30_days"),
            minus=Signal.PAYOUT,
        ),
        quiet_hours=720,
    ),
    Watch(
        name="intensive_play",
        version=1,
        since=_FIRST,
        kind=Kind.HARM,
        severity=Severity.HIGH,
        says="a net loss that the law calls intensive, week after week",
        test=Weeks(
            Law(
                "harm_indicator.intensive_weekly_net_loss", young="harm_indicator.intensive_weekly_net_loss_young_adult"
            ),
            in_a_row=3,
        ),
        quiet_hours=168,
    ),
)

HOUSE_CONTACT_HOURS: Final = 72
"""How soon we get in touch with a player of whom there is a marker, where no row tells."""


class Taken(NamedTuple):
    """What is stopped with a marker, and until when, if not until a person says otherwise."""

    steps: tuple[Step, ...]
    until: datetime | None = None


def taken(severity: Severity, steps: tuple[Step, ...], *, jurisdiction: str, at: datetime, rules: Rules = LAW) -> Taken:
    """What a marker as strong as this stops there by itself; `steps` are those of its rule."""
    row = rules.of(jurisdiction, at).get("harm_indicator.marketing_and_bonus_blocked")
    strong = severity is Severity.HIGH and row is not None and row.value is True
    until = _month_ends(jurisdiction, at, rules) if Step.DEPOSIT_THIS_MONTH in steps else None
    return Taken((*steps, Step.BONUS, Step.MARKETING) if strong else steps, until)


def _month_ends(jurisdiction: str, at: datetime, rules: Rules) -> datetime:
    """When what a row ends with the calendar month is possible again."""
    row = rules.of(jurisdiction, at).get("net_deposit.block_until")
    if row is not None and row.value != "end_of_calendar_month":
        raise Unreadable(f"{row.jurisdiction} {row.name}: {row.value}")
    local = local_day(jurisdiction, at)
    first = date(local.year + local.month // 12, local.month % 12 + 1, 1)
    return datetime.combine(first, time(), tzinfo=zone(jurisdiction)).astimezone(UTC)


def contact_due(*, jurisdiction: str, at: datetime, rules: Rules = LAW) -> datetime:
    """Until when we get in touch with a player of whom there is a marker."""
    within = _span("harm_indicator.reaction_within", jurisdiction, at, rules)
    return at + (within or timedelta(hours=HOUSE_CONTACT_HOURS))


def reply_due(severity: Severity, *, jurisdiction: str, at: datetime, rules: Rules = LAW) -> datetime | None:
    """Until when the player has to have been spoken with, or is suspended; None where no row says so, or for a weaker marker."""
    within = _span("harm_indicator.no_reply_suspends_after", jurisdiction, at, rules)
    return at + within if within is not None and severity is Severity.HIGH else None


def _span(name: str, jurisdiction: str, at: datetime, rules: Rules) -> timedelta | None:
    row = rules.of(jurisdiction, at).get(name)
    if row is None:
        return None
    if not isinstance(row.value, timedelta):
        raise Unreadable(f"{row.jurisdiction} {row.name}: {row.value} {row.unit} is no span of time")
    return row.value
