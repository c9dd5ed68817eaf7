"""
Play: how often a player is told how long they have played, what a session needs before it begins, how long it lives, and when a
game round is stuck.

The law's figures come from rules.csv alone (`reality_check.interval`, `reality_check.optional_intervals`,
`session_limit.required_before_session`). What is named HOUSE is the house's own, and no law.

Invariants:
    - what a player chooses only shortens the interval;
    - a row that says what is not understood here refuses, and lets nobody pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from policies.rules import RULES, Rule, Rules

HOUSE_INTERVAL: Final = timedelta(minutes=60)
"""Where no row tells, and where the law leaves it to players, for those who have chosen nothing."""

HOUSE_CHOICES: Final = (15, 30, 45, 60)
"""Minutes that a player may choose where no row lists them."""

HOUSE_CHECK_STOPS_BETS: Final = True
"""Whether bets wait until a reality check that is due was acknowledged."""

HOUSE_CHECK_EARLIEST: Final = timedelta(minutes=1)
"""An acknowledgement within so short a time of play after the last one says nothing new."""

HOUSE_TOKEN_LIVES: Final = timedelta(minutes=15)
"""How long a launched session waits for its provider to open it."""

HOUSE_SESSION_LIVES: Final = timedelta(hours=12)
"""How long an open session lasts at most."""

HOUSE_ROUND_STUCK_AFTER: Final = timedelta(hours=1)
"""How long nothing is heard of an open game round before it counts as stuck, and a person may give its stakes back."""

_PLAYER_SET = "player_set"


def is_stuck(heard_at: datetime, at: datetime) -> bool:
    """Whether an open round is, of which something was last heard then."""
    return heard_at < at - HOUSE_ROUND_STUCK_AFTER


class Unreadable(ValueError):
    """A rule says what is not understood here."""


class Interval(NamedTuple):
    """`every`: after so much play. `rule`: what says so. `verified`: whether that was read where it is made; the house's own is."""

    every: timedelta
    rule: str
    verified: bool = True


class Need(NamedTuple):
    """A rule that asks for something."""

    rule: str
    verified: bool


def interval(jurisdiction: str, at: datetime, chosen_min: int = 0, rules: Rules = RULES) -> Interval:
    """After how much play a player is told. `chosen_min`: the player's own choice, in minutes; 0: none."""
    most = _interval(jurisdiction, at, rules)
    own = timedelta(minutes=chosen_min)
    return Interval(own, "player.reality_check") if timedelta() < own < most.every else most


def _interval(jurisdiction: str, at: datetime, rules: Rules) -> Interval:
    rule = rules.of(jurisdiction, at).get("reality_check.interval")
    if rule is None:
        return Interval(HOUSE_INTERVAL, "house.reality_check")
    if rule.value == _PLAYER_SET:
        return Interval(HOUSE_INTERVAL, "house.reality_check")
    if isinstance(rule.value, timedelta):
        return Interval(rule.value, rule.name, rule.verified)
    raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")


def choices(jurisdiction: str, at: datetime, rules: Rules = RULES) -> tuple[int, ...]:
    """The minutes that a player may choose, none of them longer than they must be told anyway."""
    rule = rules.of(jurisdiction, at).get("reality_check.optional_intervals")
    most = _interval(jurisdiction, at, rules).every
    offered = HOUSE_CHOICES if rule is None else _minutes(rule)
    return tuple(minutes for minutes in offered if timedelta(minutes=minutes) <= most)


def _minutes(rule: Rule) -> tuple[int, ...]:
    words = rule.value if isinstance(rule.value, tuple) else ()
    numbers = [word.removesuffix("_minutes") for word in words]
    if not numbers or not all(number.isascii() and number.isdigit() for number in numbers):
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")
    return tuple(map(int, numbers))


def session_limit(jurisdiction: str, at: datetime, rules: Rules = RULES) -> Need | None:
    """The rule by which a player says, before a session, how long it may last and how much it may lose; None: there is none."""
    rule = rules.of(jurisdiction, at).get("session_limit.required_before_session")
    if rule is None or rule.value is False:
        return None
    if rule.value is True:
        return Need(rule.name, rule.verified)
    raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")


@lru_cache(1)
def rules() -> Mapping[str, object]:
    """All of the house's own as plain data, for its hash. Times in seconds."""
    return {
        "interval": HOUSE_INTERVAL.total_seconds(),
        "choices": HOUSE_CHOICES,
        "check_stops_bets": HOUSE_CHECK_STOPS_BETS,
        "check_earliest": HOUSE_CHECK_EARLIEST.total_seconds(),
        "token_lives": HOUSE_TOKEN_LIVES.total_seconds(),
        "session_lives": HOUSE_SESSION_LIVES.total_seconds(),
        "round_stuck_after": HOUSE_ROUND_STUCK_AFTER.total_seconds(),
    }
