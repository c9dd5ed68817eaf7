"""
Limits: what can be limited, over which periods, whose days these are, and what the law sets by itself.

The law's figures and waits come from rules.csv alone (`deposit_limit.*`, `net_deposit.*`, `slot_stake.*`, `young_adult.*`).
What is the house's own, where no row tells, is named HOUSE and shown as such.

Invariants:
    - of several limits the lowest applies;
    - a row that says what is not understood here refuses everything that depends on it, and lets nothing pass;
    - whose age is not known is held to be young.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from policies.currencies import EXPONENTS
from policies.rules import RULES, Rule, Rules, country_of


class Kind(StrEnum):
    """What is limited: deposits (gross); deposits less withdrawals; stakes less wins; stakes; the stake of one game round; time
    in games.
    """

    DEPOSIT = "deposit"
    NET_DEPOSIT = "net_deposit"
    LOSS = "loss"
    WAGER = "wager"
    STAKE = "stake"
    TIME = "time"


class Period(StrEnum):
    """Calendar days, weeks (Monday to Sunday) and months in the jurisdiction's zone; rolling windows; one game round."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    HOURS_24 = "24_hours"
    DAYS_7 = "7_days"
    DAYS_30 = "30_days"
    SPIN = "spin"


CALENDAR: Final = frozenset({Period.DAY, Period.WEEK, Period.MONTH})


class Source(StrEnum):
    """Who has set a limit: the law (or the house's rules for all), somebody of the house for this player, the player."""

    SYSTEM = "system"
    OPERATOR = "operator"
    PLAYER = "player"


# Whose days


ZONES: Final[Mapping[str, str]] = {
    "CA-ON": "America/Toronto",
    "DE": "Europe/Berlin",
    "DK": "Europe/Copenhagen",
    "ES": "Europe/Madrid",
    "GB": "Europe/London",
    "MT": "Europe/Malta",
    "NL": "Europe/Amsterdam",
    "PT": "Europe/Lisbon",
    "SE": "Europe/Stockholm",
    "US-PA": "America/New_York",
}
"""The house's choice, by jurisdiction: IANA names. UTC elsewhere."""


def known_zone(jurisdiction: str) -> ZoneInfo | None:
    """In whose days a jurisdiction counts, where the house knows."""
    name = ZONES.get(jurisdiction) or ZONES.get(country_of(jurisdiction))
    return None if name is None else ZoneInfo(name)


@lru_cache(1_000)
def zone(jurisdiction: str) -> ZoneInfo:
    """In whose days a jurisdiction counts."""
    return known_zone(jurisdiction) or ZoneInfo("UTC")


class LocalDay(NamedTuple):
    """A day somewhere. `utc_offset`: by how many minutes clocks there are ahead of UTC when it is decided."""

    day: date
    utc_offset: int


def local(jurisdiction: str, at: datetime) -> LocalDay:
    """The day that it is there."""
    return local_in(zone(jurisdiction), at)


def local_in(place: ZoneInfo, at: datetime) -> LocalDay:
    """The same, by the zone."""
    there = at.astimezone(place)
    return LocalDay(there.date(), (there.utcoffset() or timedelta(0)) // timedelta(minutes=1))


def local_day(jurisdiction: str, at: datetime) -> date:
    """The same, without the offset."""
    return local(jurisdiction, at).day


# What the law sets by itself


class Unreadable(ValueError):
    """A rule says what is not understood here: nobody may pass because of that."""


class SystemLimit(NamedTuple):
    """`amount`: minor units of `currency`. `preset`: it holds until the player has a limit of this kind and period. `jurisdiction`:
    whose rule it is.
    """

    kind: Kind
    period: Period
    amount: int
    currency: str
    rule: str
    verified: bool
    preset: bool = False
    jurisdiction: str = ""


_SET_BY_LAW: Final = (
    ("deposit_limit.default_day", Kind.DEPOSIT, Period.DAY, True),
    ("deposit_limit.default_week", Kind.DEPOSIT, Period.WEEK, True),
    ("deposit_limit.default_month", Kind.DEPOSIT, Period.MONTH, True),
    ("deposit_limit.max_month_cross_operator", Kind.DEPOSIT, Period.MONTH, False),
    ("net_deposit.block_threshold", Kind.NET_DEPOSIT, Period.MONTH, False),
    ("slot_stake.max", Kind.STAKE, Period.SPIN, False),
)
_CONTACT = "deposit_limit.contact_threshold_month"
_YOUNG = "_18_24"

CONTACT_FIRST: Final = frozenset({"NL"})
"""Where the quotation of `deposit_limit.contact_threshold_month` makes it a limit until somebody has spoken with the player.
Elsewhere it is a duty to contact the player, and stops nobody."""

EACH_PERIOD: Final = frozenset({"SE"})
"""Where the quotation of `deposit_limit.required_periods` asks for a limit of each of them. Elsewhere one suffices."""


def system(jurisdiction: str, *, birth_year: int, at: datetime, rules: Rules = RULES) -> tuple[SystemLimit, ...]:
    """The limits that hold there for everybody who was born in that year (0: not known)."""
    return _system(jurisdiction, birth_year, at.date(), rules)


@lru_cache(10_000)
def _system(jurisdiction: str, birth_year: int, day: date, rules: Rules) -> tuple[SystemLimit, ...]:
    at = datetime.combine(day, time(), UTC)
    law = rules.of(jurisdiction, at)
    young = is_young(jurisdiction, birth_year, at, rules)
    wanted = list(_SET_BY_LAW)
    if country_of(jurisdiction) in CONTACT_FIRST:
        wanted.append((_CONTACT, Kind.DEPOSIT, Period.MONTH, True))
    found = []
    for name, kind, period, preset in wanted:
        rule = (law.get(name + _YOUNG) if young else None) or law.get(name)
        if rule is not None:
            if rule.unit not in EXPONENTS or not isinstance(rule.value, int):
                raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value} {rule.unit}")
            of = (rule.name, rule.verified, preset, rule.jurisdiction)
            found.append(SystemLimit(kind, period, rule.value, rule.unit, *of))
    return tuple(found)


def is_young(jurisdiction: str, birth_year: int, at: datetime, rules: Rules = RULES) -> bool:
    """Whether somebody born in that year may still be a young adult there: until the year is over in which they outgrow that."""
    rule = rules.of(jurisdiction, at).get("young_adult.max_age")
    if rule is None:
        return False
    if rule.unit != "years" or not isinstance(rule.value, int):
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value} {rule.unit}")
    return not birth_year or at.year - birth_year <= rule.value + 1


# What the player must set, and how a limit is raised


class Required(NamedTuple):
    """A deposit limit must be set before money is paid in: of each of the `periods`, or of one of them."""

    periods: tuple[Period, ...]
    each: bool
    rule: str
    verified: bool


_PERIODS: Final[Mapping[str, tuple[Period, ...]]] = {
    "day": (Period.DAY, Period.HOURS_24),
    "week": (Period.WEEK, Period.DAYS_7),
    "month": (Period.MONTH, Period.DAYS_30),
}
_WORDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("day", "daily", "24_hours", "calendar_day"), "day"),
    **dict.fromkeys(("week", "weekly", "7_days", "calendar_week_mon_sun"), "week"),
    **dict.fromkeys(("month", "monthly", "1_month", "calendar_month"), "month"),
}


def required(jurisdiction: str, at: datetime, rules: Rules = RULES) -> Required | None:
    """What must be set before the first deposit there; None where the player need not."""
    law = rules.of(jurisdiction, at)
    rule = law.get("deposit_limit.required_before_first_deposit")
    if rule is None or rule.value is False:
        return None
    of = law.get("deposit_limit.period") or law.get("deposit_limit.required_periods")
    names = ("day", "week", "month") if of is None else of.value if isinstance(of.value, tuple) else (of.value,)
    try:
        periods = tuple(Period(_WORDS[str(name)]) for name in names)
    except KeyError as unknown:
        raise Unreadable(f"{jurisdiction} deposit limits are of the period {unknown}") from unknown
    return Required(periods, country_of(jurisdiction) in EACH_PERIOD, rule.name, rule.verified)


BEFORE_PLAY: Final = frozenset({"DE", "DK", "NL", "SE"})
"""Where the quotation of `deposit_limit.required_before_first_deposit` makes the limit a condition of play, too: in the Netherlands
nobody is registered as a player before they have set their limits."""


def required_to_play(jurisdiction: str) -> bool:
    """Whether nobody may bet there who has not set what is `required`, if anything is. Every bet asks."""
    return country_of(jurisdiction) in BEFORE_PLAY


def stands_for(period: Period) -> tuple[Period, ...]:
    """The periods that do where a day, week or month is asked for: the calendar's, or the rolling one of that length."""
    return _PERIODS[period.value]


HOUSE_COOLING_OFF: Final = timedelta(hours=24)
"""How long a raise waits where no row tells."""

HOUSE_RAISE_LIVES: Final = timedelta(days=14)
"""How long a raise whose time has come waits to be confirmed, before it lapses."""

TEST, NO_RISK, CONTACT = "test", "no_risk_behaviour", "contact"
"""What somebody of the house must have seen before a raise: the test is passed; no risk was; the player was spoken with."""


class Wait(NamedTuple):
    """What a raise waits for. `after_period`: the running period of the limit that was, too. `needs`: what must be attested.
    `months_between`: since the last raise above a preset of the law.
    """

    cooling_off: timedelta
    after_period: bool
    needs: tuple[str, ...]
    months_between: int
    rule: str
    verified: bool


def to_raise(jurisdiction: str, kind: Kind, *, above_law: bool, at: datetime, rules: Rules = RULES) -> Wait:
    """
    What a raise waits for there. `above_law`: it lifts the limit above a preset of the law.

    The rows speak of deposit limits. Those of the other kinds wait as long, since no row says that they may be raised sooner.
    """
    law = rules.of(jurisdiction, at)
    rule = law.get("deposit_limit.raise_cooling_off")
    cooling_off, after_period = HOUSE_COOLING_OFF, False
    if rule is not None:
        if isinstance(rule.value, timedelta):
            cooling_off = rule.value
        elif rule.value == "previous_limit_period":
            cooling_off, after_period = timedelta(0), True
        else:
            raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")
    later = law.get("deposit_limit.raise_not_before_period_end")
    after_period = after_period or (later is not None and later.value is True)
    needs: list[str] = []
    months = 0
    if above_law and kind is Kind.DEPOSIT:
        if country_of(jurisdiction) in CONTACT_FIRST:
            needs.append(CONTACT)
        if (test := law.get("deposit_limit.raise_needs_test")) is not None and test.value is True:
            needs.append(TEST)
        if "deposit_limit.raise_no_risk_behaviour_months" in law:
            needs.append(NO_RISK)
        between = law.get("deposit_limit.raise_min_interval")
        if between is not None:
            if between.unit != "months" or not isinstance(between.value, int):
                raise Unreadable(f"{between.jurisdiction} {between.name}: {between.value}")
            months = between.value
    name, verified = (rule.name, rule.verified) if rule else ("house.raise_cooling_off", True)
    return Wait(cooling_off, after_period, tuple(needs), months, name, verified)


def players_alone(jurisdiction: str, at: datetime, rules: Rules = RULES) -> Rule | None:
    """The rule by which nobody but the player may ask there for a raise, of a limit of any kind."""
    rule = rules.of(jurisdiction, at).get("deposit_limit.raise_needs_player_request")
    if rule is None or rule.value is False:
        return None
    if rule.value is not True:
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")
    return rule


MONEY_LAUNDERING: Final = frozenset({"aml"})
"""Reasons of a hold of which its player may not learn: whoever meets one hears a neutral word, and no figures."""


def rules() -> object:
    """The house's own choices, as plain data, for their hash."""
    return {
        "zones": ZONES,
        "contact_first": sorted(CONTACT_FIRST),
        "each_period": sorted(EACH_PERIOD),
        "before_play": sorted(BEFORE_PLAY),
        "cooling_off_hours": HOUSE_COOLING_OFF // timedelta(hours=1),
        "raise_lives_days": HOUSE_RAISE_LIVES // timedelta(days=1),
        "money_laundering": sorted(MONEY_LAUNDERING),
    }
