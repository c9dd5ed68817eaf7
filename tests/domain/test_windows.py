"""What was used, by window: at the edges of calendars, of zones and of hours, and whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.windows import ROLLING, Usage, day_of, ends_at
from policies.limits import CALENDAR, Period

HOUR, DAY, WEEK, MONTH = timedelta(hours=1), Period.DAY, Period.WEEK, Period.MONTH
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


@pytest.mark.parametrize(
    ("decided_for", "counts_on"),
    [
        ("2026-11-21", "2026-11-23"),  # a clock that lags
        ("2026-11-23", "2026-11-23"),
        ("2026-11-24", "2026-11-24"),  # just before midnight, a clock that is ahead
        ("2026-11-25", "2026-11-24"),
        ("2027-11-22", "2026-11-24"),
    ],
)
def test_something_counts_on_the_day_of_its_recording_or_the_next_one(decided_for: str, counts_on: str) -> None:
    recorded = at("2026-11-22T23:30")  # half past midnight where it was decided
    assert day_of(date.fromisoformat(decided_for), 60, recorded) == date.fromisoformat(counts_on)


# Where calendar windows end: midnight there, in UTC


@pytest.mark.parametrize(
    ("zone", "period", "day", "ends"),
    [
        ("UTC", DAY, "2026-11-22", "2026-11-23T00:00"),
        ("UTC", WEEK, "2026-11-22", "2026-11-23T00:00"),  # a Sunday
        ("UTC", WEEK, "2026-11-23", "2026-11-30T00:00"),  # a Monday
        ("UTC", WEEK, "2026-12-31", "2027-01-04T00:00"),  # ISO week 2026-W53, over the end of the year
        ("UTC", WEEK, "2027-01-03", "2027-01-04T00:00"),
        ("UTC", MONTH, "2026-12-31", "2027-01-01T00:00"),
        ("UTC", MONTH, "2026-01-31", "2026-02-01T00:00"),
        ("UTC", MONTH, "2028-02-29", "2028-03-01T00:00"),  # a leap day
        ("UTC", DAY, "2028-02-28", "2028-02-29T00:00"),
        ("UTC", DAY, "2026-02-28", "2026-03-01T00:00"),
        ("Europe/London", DAY, "2026-03-28", "2026-03-29T00:00"),  # the night in which summer time begins, at 01:00
        ("Europe/London", DAY, "2026-03-29", "2026-03-29T23:00"),  # a day of 23 hours
        ("Europe/London", DAY, "2026-10-25", "2026-10-26T00:00"),  # a day of 25 hours
        ("Europe/Berlin", WEEK, "2026-10-25", "2026-10-25T23:00"),
        ("Europe/Berlin", MONTH, "2026-10-25", "2026-10-31T23:00"),
        ("Europe/Berlin", MONTH, "2026-03-15", "2026-03-31T22:00"),
        ("America/New_York", DAY, "2026-03-08", "2026-03-09T04:00"),
        ("America/New_York", MONTH, "2026-11-30", "2026-12-01T05:00"),
        ("America/Toronto", WEEK, "2026-11-01", "2026-11-02T05:00"),
        ("Asia/Kolkata", DAY, "2026-11-22", "2026-11-22T18:30"),  # half hours
        ("Australia/Adelaide", DAY, "2026-10-03", "2026-10-03T14:30"),  # half hours and summer time
        ("Asia/Kathmandu", MONTH, "2026-11-22", "2026-11-30T18:15"),
        ("Africa/Cairo", DAY, "2026-04-23", "2026-04-23T22:00"),  # where clocks leap over midnight itself
        ("Pacific/Kiritimati", DAY, "2026-12-31", "2026-12-31T10:00"),
    ],
)
def test_a_calendar_window_ends_at_the_midnight_of_its_zone(zone: str, period: Period, day: str, ends: str) -> None:
    where = ZoneInfo(zone)
    end = ends_at(period, date.fromisoformat(day), where)
    assert end == at(ends)
    assert end.astimezone(where).date() > date.fromisoformat(day)
    assert (end - timedelta(microseconds=1)).astimezone(where).date() <= date.fromisoformat(day) + timedelta(days=31)


@pytest.mark.parametrize(
    ("first", "then", "together"),
    [
        ("2026-11-22", "2026-11-22", {DAY, WEEK, MONTH}),
        ("2026-11-22", "2026-11-23", {MONTH}),  # Sunday, Monday
        ("2026-11-23", "2026-11-29", {WEEK, MONTH}),
        ("2026-11-30", "2026-12-01", {WEEK}),
        ("2026-12-31", "2027-01-03", {WEEK}),
        ("2027-01-03", "2027-01-04", {MONTH}),
        ("2028-02-28", "2028-02-29", {WEEK, MONTH}),
        ("2028-02-29", "2028-03-01", {WEEK}),
        ("2026-11-22", "2027-11-22", set()),
        ("2026-11-16", "2027-11-15", set()),  # the same week of another year
    ],
)
def test_days_of_one_window_count_together(first: str, then: str, together: set[Period]) -> None:
    day, later = date.fromisoformat(first), date.fromisoformat(then)
    used = Usage().add(5, day=day, at=NOON)
    assert {each for each in CALENDAR if used.within(each, day=later, at=NOON) == 5} == together
    both = used.add(3, day=later, at=NOON)
    assert {each for each in CALENDAR if both.within(each, day=later, at=NOON) == 8} == together


# What has begun since gets nothing back


def test_what_is_taken_back_is_given_to_the_windows_that_counted_it_and_still_run() -> None:
    sunday, monday = date(2026, 11, 22), date(2026, 11, 23)
    later = NOON + timedelta(days=1)
    used = Usage().add(60, day=sunday, at=NOON).add(30, day=monday, at=later)
    back = used.take_back(60, day=sunday, at=NOON)
    found = {each: back.within(each, day=monday, at=later) for each in (*CALENDAR, *ROLLING)}
    assert found == {
        DAY: 30, WEEK: 30, MONTH: 30, Period.HOURS_24: 30, Period.DAYS_7: 30, Period.DAYS_30: 30
    }  # fmt: skip
    later = NOON + timedelta(days=40)
    assert used.add(1, day=later.date(), at=later).take_back(60, day=sunday, at=NOON).of_month == 1


def test_a_day_that_goes_back_counts_on_the_newest() -> None:
    """Two regions' clocks may differ around a takeover, and a player may move west: nobody gets a day twice."""
    used = Usage().add(60, day=date(2026, 11, 23), at=NOON).add(30, day=date(2026, 11, 22), at=NOON - HOUR)
    assert used.counts_on(date(2026, 11, 22)) == used.day == date(2026, 11, 23)
    assert (used.of_day, used.within(DAY, day=date(2026, 11, 22), at=NOON)) == (90, 90)
    assert used.within(Period.HOURS_24, day=date(2026, 11, 22), at=NOON - HOUR) == 90


# Rolling windows


@pytest.mark.parametrize("period", ROLLING)
def test_a_bucket_counts_until_all_of_it_has_left_the_window(period: Period) -> None:
    width, length = ROLLING[period].width, ROLLING[period].length
    used = Usage().add(7, day=NOON.date(), at=NOON)
    begins = NOON - (NOON - datetime(1970, 1, 1, tzinfo=UTC)) % width
    out = begins + width + length
    for moment, expected in ((NOON, 7), (NOON + length, 7), (out - timedelta(microseconds=1), 7), (out, 0)):
        assert used.within(period, day=NOON.date(), at=moment) == expected
        if expected:
            assert used.frees_at(period, day=NOON.date(), at=moment, zone=ZoneInfo("UTC")) == out


def test_what_was_taken_off_counts_only_while_all_of_its_bucket_does() -> None:
    """A win that is leaving the window makes no room any more; the stake that is leaving with it still takes some."""
    used = Usage().add(50, day=NOON.date(), at=NOON).add(-80, day=NOON.date(), at=NOON + HOUR / 2)
    assert used.within(Period.HOURS_24, day=NOON.date(), at=NOON + 24 * HOUR) == 50
    assert used.within(Period.HOURS_24, day=NOON.date(), at=NOON + 23 * HOUR) == -30


def test_nothing_that_is_used_frees_nothing() -> None:
    for period in (*ROLLING, Period.SPIN):
        assert Usage().frees_at(period, day=NOON.date(), at=NOON, zone=ZoneInfo("UTC")) == NOON


happenings = st.lists(
    st.tuples(
        st.sampled_from([timedelta(0), timedelta(minutes=20), HOUR, 7 * HOUR, timedelta(days=1), timedelta(days=9)]),
        st.sampled_from([timedelta(0), HOUR, -HOUR, timedelta(days=1), -timedelta(days=1)]),
        st.integers(-20, 20),
        st.booleans(),
    ),
    max_size=40,
)


def run(
    given_: list[tuple[timedelta, timedelta, int, bool]],
) -> tuple[Usage, list[tuple[int, date, datetime]], datetime]:
    """Amounts as they were recorded, under a clock that is stepped: recorded time stands still where it went back."""
    used, kept, now, recorded = Usage(), list[tuple[int, date, datetime]](), NOON, NOON
    for wait, step, amount, back in given_:
        now += wait + step
        recorded = max(now, recorded + timedelta(microseconds=1))
        if back and kept:
            gone, day, was = kept.pop()
            used = used.take_back(gone, day=day, at=was)
        else:
            day = used.counts_on(recorded.date())
            used = used.add(amount, day=day, at=recorded)
            kept.append((amount, day, recorded))
    return used, kept, recorded


def never_too_little(given_: list[tuple[timedelta, timedelta, int, bool]]) -> None:
    used, kept, now = run(given_)
    day = used.counts_on(now.date())
    for period in CALENDAR:
        same = [
            amount
            for amount, of, _ in kept
            if ends_at(period, of, ZoneInfo("UTC")) == ends_at(period, day, ZoneInfo("UTC"))
        ]
        assert used.within(period, day=day, at=now) == sum(same)
    for period, rolling in ROLLING.items():
        counted = used.within(period, day=day, at=now)
        for moved in (timedelta(0), rolling.width):  # between the exact window and the one that is a bucket longer
            inside = [amount for amount, _, was in kept if was > now - rolling.length - moved]
            if all(amount >= 0 for amount, _, _ in kept):
                assert counted >= sum(inside) if not moved else counted <= sum(inside)
        wins = sum(amount for amount, _, was in kept if was > now - rolling.length and amount < 0)
        stakes = sum(amount for amount, _, was in kept if was > now - rolling.length and amount > 0)
        assert counted >= stakes + wins


@given(happenings)
def test_a_window_never_counts_too_little_and_never_more_than_a_bucket_too_much(
    given_: list[tuple[timedelta, timedelta, int, bool]],
) -> None:
    never_too_little(given_)


@given(happenings)
def test_usage_survives_being_stored_and_stays_small(given_: list[tuple[timedelta, timedelta, int, bool]]) -> None:
    used, _, _ = run(given_)
    assert msgspec.json.decode(msgspec.json.encode(used), type=Usage) == used
    assert max(len(used.hours_24) - 24, len(used.days_7) - 28, len(used.days_30) - 30) <= 1


def forget_a_bucket_early(patch: pytest.MonkeyPatch) -> None:
    right = Usage.within
    patch.setattr(
        Usage, "within", lambda used, period, *, day, at: right(used, period, day=day, at=at + timedelta(hours=6))
    )


def count_a_week_as_seven_days(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("domain.windows._same_week", lambda day, other: abs((day - other).days) < 7)


def give_back_to_the_window_that_runs(patch: pytest.MonkeyPatch) -> None:
    right = Usage.take_back
    patch.setattr(Usage, "take_back", lambda used, amount, *, day, at: right(used, amount, day=used.day, at=at))


@pytest.mark.parametrize(
    "plant", [forget_a_bucket_early, count_a_week_as_seven_days, give_back_to_the_window_that_runs]
)
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    from hypothesis import Phase, settings

    plant(monkeypatch)
    law = settings(max_examples=1000, phases=[Phase.generate], derandomize=True, report_multiple_bugs=False)(
        given(happenings)(never_too_little)
    )
    with pytest.raises(AssertionError):
        law()
