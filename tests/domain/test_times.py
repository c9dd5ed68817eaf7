"""Times as people and programs write them: one reading of RFC 3339 for all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.kernel import parse_day_or_instant, parse_instant

ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=ZONES))
def test_what_is_written_as_rfc_3339_is_read_as_it_was_meant(at: datetime) -> None:
    assert parse_instant(at.isoformat()) == at
    assert parse_day_or_instant(at.isoformat()) == at


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31t12:00:00z",
        "2026-01-31 12:00:00+00:00",
        "2026-01-31T13:00:00.0+01:00",
        "2026-01-31T12:00:00.0000009Z",
    ],
)
def test_a_time_may_be_written_in_several_ways(text: str) -> None:
    assert parse_instant(text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00 01:00",
        "2026-01-31T12:00:60Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T12:00:00+24:00",
        "20260131T120000Z",
        "2026-W05-6T12:00:00Z",
        "\u0662026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z\n",
    ],
)
def test_what_names_no_instant_is_refused(text: str) -> None:
    for parse in (parse_instant, parse_day_or_instant):
        with pytest.raises(ValueError, match="not a time with a zone"):
            parse(text)


def test_a_day_is_its_beginning_in_utc_and_no_instant() -> None:
    assert parse_day_or_instant("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    for text in ("20260131", "2026-02-30", "2026-W05-6"):
        with pytest.raises(ValueError, match=r"day|time"):
            parse_day_or_instant(text)
    with pytest.raises(ValueError, match="not a time"):
        parse_instant("2026-01-31")
