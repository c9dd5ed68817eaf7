"""
What operations want to hear of: the anomalies. Every figure here is the house's own, and no law.

A changed rule is a new row with the next version and the first day on which it holds; the old row stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

from policies.findings import Count, House, Jump, Kind, One, Severity, Shared, Signal, Span, Unplayed, Watch

LOOKED_AT_WITHIN: Final[Mapping[Severity, timedelta]] = {
    Severity.LOW: timedelta(days=3),
    Severity.MEDIUM: timedelta(days=1),
    Severity.HIGH: timedelta(hours=4),
}
"""How soon somebody looks at an anomaly."""

_FIRST: Final = date(2026, 11, 1)

RULES: Final = (
    Watch(
        name="deposit_velocity",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.MEDIUM,
        says="many deposits in a short time",
        test=Count(Signal.DEPOSIT, Span.HOUR, at_least=6),
        quiet_hours=24,
    ),
    Watch(
        name="failed_payments",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.MEDIUM,
        says="deposits that fail again and again",
        test=Count(Signal.DEPOSIT_FAILED, Span.HOURS_24, at_least=5),
        quiet_hours=24,
    ),
    Watch(
        name="failed_log_ins",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.MEDIUM,
        says="log-ins that fail again and again",
        test=Count(Signal.LOGIN_FAILED, Span.HOUR, at_least=10),
        quiet_hours=24,
    ),
    Watch(
        name="erasure_due",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.MEDIUM,
        says="what identifies a former player is to be gone by law, and is there",
        test=Count(Signal.ERASURE_DUE, Span.HOUR, at_least=1),
        quiet_hours=0,
    ),
    Watch(
        name="large_win",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.HIGH,
        says="a large win",
        test=One(Signal.WIN, House(10_000)),
        quiet_hours=0,
    ),
    Watch(
        name="withdrawal_without_play",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.HIGH,
        says="money is paid in and asked back, and hardly played with",
        test=Unplayed(Span.DAYS_7, House(500), percent=30),
        quiet_hours=24,
    ),
    Watch(
        name="shared_instrument",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.HIGH,
        says="many players use one card or account",
        test=Shared(players=3),
        quiet_hours=24,
    ),
    Watch(
        name="stake_jump",
        version=1,
        since=_FIRST,
        kind=Kind.OPERATIONS,
        severity=Severity.MEDIUM,
        says="stakes are suddenly much higher than before",
        test=Jump(Span.DAYS_30, recent=10, before=50, times=5, at_least=House(5)),
        quiet_hours=72,
    ),
)
