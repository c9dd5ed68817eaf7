"""How often players are told, and what a session needs: by the rules, and by the house."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from policies import play
from policies.play import Interval, Unreadable
from policies.rules import Rules, load

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HEADER = "jurisdiction,rule,value,unit,effective_from,source,address,quotation,status\n"


def table(*rows: str) -> bytes:
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


@pytest.mark.parametrize(
    ("jurisdiction", "every"),
    [
        ("ES", Interval(timedelta(hours=1), "reality_check.interval")),
        ("US-PA", Interval(timedelta(hours=1), "reality_check.interval")),
        ("MT", Interval(timedelta(hours=1), "house.reality_check")),
        ("GB", Interval(timedelta(hours=1), "house.reality_check")),
    ],
)
def test_the_interval_is_the_laws_or_the_houses(jurisdiction: str, every: Interval) -> None:
    assert play.interval(jurisdiction, NOON) == every


def test_a_player_makes_it_shorter_only() -> None:
    rules = load(table("XX,reality_check.interval,30,minutes,,,,,read"))
    assert play.interval("XX", NOON, 60, rules).every == timedelta(minutes=30)
    assert play.interval("XX", NOON, 15, rules) == Interval(timedelta(minutes=15), "player.reality_check")
    assert play.choices("XX", NOON, rules) == (15, 30)


def test_an_unverified_rule_is_applied_and_shown_as_such() -> None:
    rules = load(table("XX,reality_check.interval,30,minutes,,,,,unverified"))
    assert play.interval("XX", NOON, rules=rules) == Interval(
        timedelta(minutes=30), "reality_check.interval", verified=False
    )


def test_a_rule_counts_from_its_first_day() -> None:
    rules = load(table("XX,reality_check.interval,30,minutes,2026-11-23,,,,read"))
    assert play.interval("XX", NOON, rules=rules).rule == "house.reality_check"
    assert play.interval("XX", NOON + timedelta(days=1), rules=rules).every == timedelta(minutes=30)


def test_what_a_player_may_choose_is_what_the_law_lists() -> None:
    assert play.choices("US-PA", NOON) == (15, 30)
    assert play.choices("AT", NOON) == play.HOUSE_CHOICES


@pytest.mark.parametrize(
    ("row", "ask"),
    [
        ("XX,reality_check.interval,sometimes,text,,,,,read", lambda rules: play.interval("XX", NOON, rules=rules)),
        ("XX,reality_check.optional_intervals,1_hour,list,,,,,read", lambda rules: play.choices("XX", NOON, rules)),
        (
            "XX,session_limit.required_before_session,perhaps,text,,,,,read",
            lambda rules: play.session_limit("XX", NOON, rules),
        ),
    ],
)
def test_a_row_that_is_not_understood_lets_nobody_pass(row: str, ask: Callable[[Rules], object]) -> None:
    rules = load(table(row))
    with pytest.raises(Unreadable):
        ask(rules)


def test_a_session_needs_its_limits_where_the_law_says_so() -> None:
    assert play.session_limit("ES", NOON) == ("session_limit.required_before_session", True)
    assert play.session_limit("AT", NOON) is None
