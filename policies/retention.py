"""
Retention: until when what identifies a former player must be kept, and from when on it is to be gone.

What the law asks for comes from rules.csv alone (`retention.kyc_years_after_end`, `retention.audit_years`,
`retention.kyc_starts`, `retention.personal_data_delete_after`). Where nobody has looked, the house waits as long as the longest
row that is known anywhere: what was destroyed cannot be brought back.

Invariants:
    - of several periods, and of several jurisdictions, the longest wins over a deletion;
    - a calendar year ends where the law holds; where the house does not know the zone, when it has ended everywhere;
    - a row that was not read in a law is applied like any other, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final, NamedTuple

import msgspec

from policies.limits import known_zone
from policies.rules import RULES, Rule, Rules

KEEP: Final = ("retention.audit_years", "retention.kyc_years_after_end")
STARTS: Final = "retention.kyc_starts"
DELETE_AFTER: Final = "retention.personal_data_delete_after"
YEARS: Final = "years"

END_OF_CALENDAR_YEAR: Final = "end_of_calendar_year_of_end"
"""The one value of `retention.kyc_starts` that is known: the period begins when the calendar year of the end has ended."""

_ENDS_OF_THE_WORLD: Final = (timezone(timedelta(hours=14)), timezone(timedelta(hours=-12)))
"""Where a day begins first, and where it ends last."""


class Period(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of rules.csv, and until when it asks for what is kept. `of_law`: false if the house borrows it from elsewhere."""

    jurisdiction: str
    rule: str
    years: int
    verified: bool
    until: datetime
    of_law: bool = True


class Retention(NamedTuple):
    """`periods`: those that apply, the longest first. `due`: from when on nothing may be left, if a row says so; of several
    jurisdictions, by the first of their rows, but not before the longest period is over.
    """

    periods: tuple[Period, ...]
    due: datetime | None

    @property
    def until(self) -> datetime:
        return self.periods[0].until


def longest(jurisdictions: Iterable[str], ended: datetime, at: datetime, rules: Rules = RULES) -> Retention:
    """The same of a player who has lived under each of these (at least one): who has moved is kept for as long as any of them asks."""
    each = [retention(jurisdiction, ended, at, rules) for jurisdiction in jurisdictions]
    periods = _longest_first({period for one in each for period in one.periods})
    dues = [one.due for one in each if one.due is not None]
    return Retention(periods, max(min(dues), periods[0].until) if dues else None)


def retention(jurisdiction: str, ended: datetime, at: datetime, rules: Rules = RULES) -> Retention:
    """How long the data of a player whose account has `ended` are kept there, by the rules in force at `at` (UTC)."""
    law = rules.of(jurisdiction, at)
    starts = law.get(STARTS)
    begun = _begun(ended, starts, jurisdiction)
    periods = [_period(law[name], begun) for name in KEEP if name in law]
    delete = law.get(DELETE_AFTER)
    due = None if delete is None else _later(begun, _years(delete))
    if not periods:
        borrowed = max(_kept_in(rules, at), key=lambda rule: (_years(rule), rule.jurisdiction))
        periods = [msgspec.structs.replace(_period(borrowed, ended), of_law=False)]
    return Retention(_longest_first(periods), due)


def _longest_first(periods: Iterable[Period]) -> tuple[Period, ...]:
    return tuple(sorted(periods, key=lambda each: (each.until, each.rule, each.jurisdiction), reverse=True))


def _kept_in(rules: Rules, at: datetime) -> Iterable[Rule]:
    return (law[name] for each in rules.jurisdictions for law in [rules.of(each, at)] for name in KEEP if name in law)


def _begun(ended: datetime, starts: Rule | None, jurisdiction: str) -> datetime:
    """Raises ValueError for a moment that nobody knows: then nothing is erased."""
    if starts is None:
        return ended
    if starts.value != END_OF_CALENDAR_YEAR:
        raise ValueError(f"{starts.jurisdiction} {starts.name}: nobody knows when {starts.written} is")
    place = known_zone(jurisdiction)
    places = _ENDS_OF_THE_WORLD if place is None else (place,)
    year = max(ended.astimezone(each).year for each in places) + 1
    return max(datetime(year, 1, 1, tzinfo=each).astimezone(UTC) for each in (*places, UTC))  # UTC: a date reads as one


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
