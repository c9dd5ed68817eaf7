"""When an event happened, as read models count it: in µs since 1970 UTC, and in days of UTC."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache

from domain.kernel import EPOCH
from eventstore.record import Recorded

_DAY_US = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)
_FIRST_DAY = EPOCH.date().toordinal()


def occurred_us(recorded: Recorded) -> int:
    """Only imported history did not occur when it was recorded."""
    occurred = recorded.body.occurred
    return recorded.recorded if occurred is None else _parsed_us(occurred)


def as_us(at: datetime) -> int:
    return (at - EPOCH) // _MICROSECOND


def day_of(at_us: int) -> str:
    """The day in UTC, as YYYY-MM-DD."""
    return _day(at_us // _DAY_US)


@lru_cache(4096)
def _parsed_us(text: str) -> int:
    """RFC 3339, in any zone. Asked for again and again: a command's events share it, and so do projections."""
    return (datetime.fromisoformat(text) - EPOCH) // _MICROSECOND


@lru_cache(4096)
def _day(number: int) -> str:
    return date.fromordinal(_FIRST_DAY + number).isoformat()
