"""How long what identifies a former player is kept, by rules.csv."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.retention import Period, longest, retention
from policies.rules import RULES, Rules, load

ENDED = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)
HEAD = "jurisdiction,rule,value,unit,effective_from,source,address,quotation,status\n"


def table(*rows: str) -> Rules:
    return load((HEAD + "".join(f"{row}\n" for row in rows)).encode())


def row(where: str, name: str, value: str, unit: str = "years", status: str = "read") -> str:
    return f"{where},{name},{value},{unit},,a law,,,{status}"


def test_in_germany_the_period_begins_with_the_end_of_the_calendar_year() -> None:
    kept = retention("DE", ENDED, ENDED)
    [period] = kept.periods
    assert period == Period("DE", "retention.kyc_years_after_end", 5, True, datetime(2032, 1, 1, tzinfo=UTC))
    assert kept.due == datetime(2037, 1, 1, tzinfo=UTC)


def test_the_calendar_year_is_that_of_the_place() -> None:
    """23:30 UTC on the last day of 2026 is in 2027 in Germany, and 03:00 UTC on the first of 2027 is in 2026 in Ontario."""
    assert retention("DE", datetime(2026, 12, 31, 22, 30, tzinfo=UTC), ENDED).until == datetime(2032, 1, 1, tzinfo=UTC)
    assert retention("DE", datetime(2026, 12, 31, 23, 30, tzinfo=UTC), ENDED).until == datetime(2033, 1, 1, tzinfo=UTC)
    begins = (
        row("CA-ON", "retention.kyc_years_after_end", "5"),
        row("CA-ON", "retention.kyc_starts", "end_of_calendar_year_of_end", "moment"),
    )
    ended = datetime(2027, 1, 1, 3, tzinfo=UTC)
    assert retention("CA-ON", ended, ended, table(*begins)).until == datetime(2032, 1, 1, 5, tzinfo=UTC)


@given(st.datetimes(datetime(2026, 12, 30), datetime(2027, 1, 2), timezones=st.just(UTC)), st.integers(-12, 14))  # noqa: DTZ001 — see below
def test_where_the_zone_is_not_known_the_year_has_ended_everywhere(ended: datetime, hours: int) -> None:
    rules = table(
        row("XX", "retention.kyc_years_after_end", "5"),
        row("XX", "retention.kyc_starts", "end_of_calendar_year_of_end", "moment"),
    )
    place = timezone(timedelta(hours=hours))
    there = ended.astimezone(place).year
    assert retention("XX", ended, ended, rules).until >= datetime(there + 6, 1, 1, tzinfo=place)


def test_who_has_moved_is_kept_for_as_long_as_any_of_the_places_asks() -> None:
    moved = longest(("ES", "GB", "DE"), ENDED, ENDED)
    alone = {where: retention(where, ENDED, ENDED) for where in ("ES", "GB", "DE")}
    assert [period.jurisdiction for period in moved.periods] == ["ES", "ES", "DE", "GB"]
    assert moved.until == max(each.until for each in alone.values()) == alone["ES"].until
    assert moved.due == moved.until, "which is later than what Great Britain wants to be gone"
    assert longest(("GB",), ENDED, ENDED) == alone["GB"]
    assert longest(("ES",), ENDED, ENDED).due is None


def test_in_great_britain_it_begins_with_the_end_of_the_account_and_then_all_is_due_to_go() -> None:
    kept = retention("GB", ENDED, ENDED)
    assert kept.until == kept.due == datetime(2031, 3, 14, 15, 9, tzinfo=UTC)


def test_of_several_periods_the_longest_wins() -> None:
    kept = retention("ES", ENDED, ENDED)
    assert [(period.rule, period.years) for period in kept.periods] == [
        ("retention.kyc_years_after_end", 10),
        ("retention.audit_years", 6),
    ]
    assert kept.until == datetime(2036, 3, 14, 15, 9, tzinfo=UTC)


def test_a_row_that_was_read_nowhere_is_applied_and_says_so() -> None:
    [period] = retention("NL", ENDED, ENDED).periods
    assert (period.years, period.verified, period.of_law) == (5, False, True)


def test_where_nobody_has_looked_the_longest_row_of_all_is_borrowed() -> None:
    [period] = retention("AT", ENDED, ENDED).periods
    longest = max(
        int(rule.value)
        for rule in RULES.all
        if isinstance(rule.value, int) and rule.name in ("retention.kyc_years_after_end", "retention.audit_years")
    )
    assert (period.years, period.of_law) == (longest, False)


def test_what_begins_at_a_moment_that_nobody_knows_never_ends() -> None:
    rules = table(row("XX", "retention.kyc_years_after_end", "5"), row("XX", "retention.kyc_starts", "later", "moment"))
    with pytest.raises(ValueError, match="nobody knows"):
        retention("XX", ENDED, ENDED, rules)


def test_years_from_a_leap_day_are_whole() -> None:
    leap = datetime(2028, 2, 29, 12, tzinfo=UTC)
    assert retention("GB", leap, leap).until == datetime(2033, 3, 1, 12, tzinfo=UTC)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 — the zone is next to it
    st.sampled_from([*RULES.jurisdictions, "AT", "GB-SCT", "XX"]),
)
def test_no_period_is_shorter_than_its_years_and_none_begins_before_the_end(ended: datetime, where: str) -> None:
    for period in retention(where, ended, ended).periods:
        assert (period.until.year, period.until.month, period.until.day) >= (
            ended.year + period.years, ended.month, ended.day,
        )  # fmt: skip
