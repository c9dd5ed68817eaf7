"""
Windows: how much was used of what is limited, by day, week and month and over the last 24 hours, 7 days and 30 days.

Calendar windows follow the local day that stands in the event; rolling ones follow the time at which it was recorded, in
buckets (of an hour, six hours, a day), and a bucket counts until all of it has left its window. Amounts are signed: minor
units, or whole seconds of time.

Invariants:
    - never too little: of a bucket that has left its window in part, what was added counts and what was taken off does not;
    - a day or a time that went back counts with the newest that is known, so nobody has a window twice;
    - what is taken back gives nothing to a window that has begun since;
    - the size does not depend on how much has happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from domain.kernel import EPOCH
from policies.limits import Period

Buckets: TypeAlias = tuple[tuple[int, int, int], ...]
"""In order of time: (how many widths after 1970 it begins, what was added, what of the same window was taken off)."""


class Rolling(NamedTuple):
    """A window is `buckets` of `width` long."""

    width: timedelta
    buckets: int

    @property
    def length(self) -> timedelta:
        return self.width * self.buckets


ROLLING: Final[Mapping[Period, Rolling]] = {
    Period.HOURS_24: Rolling(timedelta(hours=1), 24),
    Period.DAYS_7: Rolling(timedelta(hours=6), 28),
    Period.DAYS_30: Rolling(timedelta(days=1), 30),
}
_HOUR, _SECOND = timedelta(hours=1), timedelta(seconds=1)
_NONE: Final = date.min


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """`day`: the newest known; `of_day`, `of_week`, `of_month`: used in the calendar windows of that day. The rest: by bucket."""

    day: date = _NONE
    of_day: int = 0
    of_week: int = 0
    of_month: int = 0
    hours_24: Buckets = ()
    days_7: Buckets = ()
    days_30: Buckets = ()

    def counts_on(self, day: date) -> date:
        """The day with which something of `day` is counted."""
        return max(day, self.day)

    def add(self, amount: int, *, day: date, at: datetime) -> Usage:
        """`amount` more was used (less, if negative) on the local `day`, and recorded at `at`."""
        day = self.counts_on(day)
        hour = (at - EPOCH) // _HOUR
        return Usage(
            day,
            amount + (self.of_day if day == self.day else 0),
            amount + (self.of_week if _same_week(day, self.day) else 0),
            amount + (self.of_month if _same_month(day, self.day) else 0),
            _added(self.hours_24, hour, 24, amount),
            _added(self.days_7, hour // 6, 28, amount),
            _added(self.days_30, hour // 24, 30, amount),
        )

    def take_back(self, amount: int, *, day: date, at: datetime) -> Usage:
        """What was added with this day and time was not used after all."""
        hour = (at - EPOCH) // _HOUR
        return Usage(
            self.day,
            self.of_day - (amount if day == self.day else 0),
            self.of_week - (amount if _same_week(day, self.day) else 0),
            self.of_month - (amount if _same_month(day, self.day) else 0),
            _taken_back(self.hours_24, hour, amount),
            _taken_back(self.days_7, hour // 6, amount),
            _taken_back(self.days_30, hour // 24, amount),
        )

    def within(self, period: Period, *, day: date, at: datetime) -> int:
        """What was used in the window of that day, or in the one that ends at `at`."""
        day = self.counts_on(day)
        match period:
            case Period.DAY:
                return self.of_day if day == self.day else 0
            case Period.WEEK:
                return self.of_week if _same_week(day, self.day) else 0
            case Period.MONTH:
                return self.of_month if _same_month(day, self.day) else 0
            case Period.SPIN:
                return 0
        oldest = (at - EPOCH) // ROLLING[period].width - ROLLING[period].buckets
        return sum(
            added - (taken if begins > oldest else 0)
            for begins, added, taken in self._buckets(period)
            if begins >= oldest
        )

    def frees_at(self, period: Period, *, day: date, at: datetime, zone: ZoneInfo) -> datetime:
        """When some of what is used in the window is free again; `at` itself if nothing of it is used."""
        if period is Period.SPIN:
            return at
        if period not in ROLLING:
            return ends_at(period, self.counts_on(day), zone)
        width, count = ROLLING[period]
        oldest = (at - EPOCH) // width - count
        for begins, added, _ in self._buckets(period):
            if begins >= oldest and added > 0:
                return EPOCH + width * (begins + 1 + count)
        return at

    def _buckets(self, period: Period) -> Buckets:
        match period:
            case Period.HOURS_24:
                return self.hours_24
            case Period.DAYS_7:
                return self.days_7
        return self.days_30


def day_of(day: date, utc_offset: int, at: datetime) -> date:
    """
    With which day something counts that was decided for the local `day`, and recorded at `at`: that of the recording, if it is
    later, and the day after that at the latest. A clock that lags behind the log's decides for a day that is over, and nobody may
    use that up today; one that is far ahead decides for a day on which all that comes before it would count.
    """
    recorded = (at + timedelta(minutes=utc_offset)).date()
    return min(max(day, recorded), recorded + timedelta(days=1))


def by_day(since: datetime, until: datetime, zone: ZoneInfo) -> tuple[tuple[date, int], ...]:
    """The seconds from one time to another, those that have begun included, by the local day on which they were."""
    found: list[tuple[date, int]] = []
    while since < until:
        day = since.astimezone(zone).date()
        ends = min(until, ends_at(Period.DAY, day, zone))
        found.append((day, whole_seconds(ends - since)))
        since = ends
    return tuple(found)


def whole_seconds(span: timedelta) -> int:
    """One that has begun counts."""
    return -(-span // _SECOND)


def ends_at(period: Period, day: date, zone: ZoneInfo) -> datetime:
    """When the calendar window of that day is over: midnight where it ends, or what stands for it where clocks leap over it."""
    match period:
        case Period.DAY:
            after = day + timedelta(days=1)
        case Period.WEEK:
            after = day + timedelta(days=7 - day.weekday())
        case _:
            after = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return datetime.combine(after, time(), tzinfo=zone).astimezone(UTC)


def _same_week(day: date, other: date) -> bool:
    return (day.toordinal() - 1) // 7 == (other.toordinal() - 1) // 7  # 1 January of the year 1 was a Monday


def _same_month(day: date, other: date) -> bool:
    return day.month == other.month and day.year == other.year


def _added(buckets: Buckets, begins: int, count: int, amount: int) -> Buckets:
    added, taken = (amount, 0) if amount >= 0 else (0, -amount)
    if not buckets:
        return ((begins, added, taken),)
    newest, *before = buckets[-1]
    if begins <= newest:
        return (*buckets[:-1], (newest, before[0] + added, before[1] + taken))
    oldest = begins - count
    kept = buckets if buckets[0][0] >= oldest else tuple(each for each in buckets if each[0] >= oldest)
    return (*kept, (begins, added, taken))


def _taken_back(buckets: Buckets, begins: int, amount: int) -> Buckets:
    more, less = (amount, 0) if amount >= 0 else (0, -amount)
    return tuple(
        (start, added - more, taken - less) if start == begins else (start, added, taken)
        for start, added, taken in buckets
    )
