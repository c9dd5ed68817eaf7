"""
Retention: until when what identifies a former player must be kept, and from when on it is to be gone.

What the law asks for comes from rules.csv alone (`retention.kyc_years_after_end`, `retention.audit_years`,
`retention.kyc_starts`, `retention.personal_data_delete_after`). Where nobody has looked, the house waits as long as the longest
row that is known anywhere: what was destroyed cannot be brought back.

Invariants:
    - of several periods the longest wins over a deletion;
    - a row that was not read in a law is applied like any other, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

import msgspec

from policies.rules import RULES, Rule, Rules

KEEP: Final = ("retention.audit_years", "retention.kyc_years_after_end")
STARTS: Final = "retention.kyc_starts"
DELETE_AFTER: Final = "retention.personal_data_delete_after"
YEARS: Final = "years"

END_OF_CALENDAR_YEAR: Final = "end_of_calendar_year_of_end"
"""The one value of `retention.kyc_starts` that is known: the period begins when the calendar year of the end has ended."""


class Period(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of rules.csv, and until when it asks for what is kept. `of_law`: false if the house borrows it from elsewhere."""

    jurisdiction: str
    rule: str
    years: int
    verified: bool
    until: datetime
    of_law: bool = True


class Retention(NamedTuple):
    """`periods`: those that apply, the longest first. `due`: from when on nothing may be left, if a row says so."""

    periods: tuple[Period, ...]
    due: datetime | None

    @property
    def until(self) -> datetime:
        return self.periods[0].until


def retention(jurisdiction: str, ended: datetime, at: datetime, rules: Rules = RULES) -> Retention:
    """How long the data of a player whose account has `ended` are kept there, by the rules in force at `at` (UTC)."""
    law = rules.of(jurisdiction, at)
    starts = law.get(STARTS)
    begun = _begun(ended, starts)
    periods = [_period(law[name], begun) for name in KEEP if name in law]
    delete = law.get(DELETE_AFTER)
    due = None if delete is None else _later(begun, _years(delete))
    if not periods:
        borrowed = max(_kept_in(rules, at), key=lambda rule: (_years(rule), rule.jurisdiction))
        periods = [msgspec.structs.replace(_period(borrowed, ended), of_law=False)]
    return Retention(tuple(sorted(periods, key=lambda each: (each.until, each.rule), reverse=True)), due)


def _kept_in(rules: Rules, at: datetime) -> Iterable[Rule]:
    return (law[name] for each in rules.jurisdictions for law in [rules.of(each, at)] for name in KEEP if name in law)


def _begun(ended: datetime, starts: Rule | None) -> datetime:
    """Raises ValueError for a moment that nobody knows: then nothing is erased."""
    if starts is None:
        return ended
    if starts.value != END_OF_CALENDAR_YEAR:
        raise ValueError(f"{starts.jurisdiction} {starts.name}: nobody knows when {starts.written} is")
    return datetime(ended.astimezone(UTC).year + 1, 1, 1, tzinfo=UTC)


def _period(rule: Rule, begun: datetime) -> Period:
    years = _years(rule)
    return Period(rule.jurisdiction, rule.name, years, rule.verified, _later(begun, years))


def _years(rule: Rule) -> int:
    if rule.unit != YEARS or not isinstance(rule.value, int):
        raise ValueError(f"{rule.jurisdiction} {rule.name} is not in years")
    return int(rule.value)


def _later(at: datetime, years: int) -> datetime:
    """The same day and time so many years later; of 29 February, the day after it, so that the period is whole."""
    day = at.date()
    try:
        moved = day.replace(year=day.year + years)
    except ValueError:
        moved = date(day.year + years, 3, 1)
    return datetime.combine(moved, at.timetz())
