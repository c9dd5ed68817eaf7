"""What the law's rows mean for limits: every word of them is understood, or nothing passes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from policies import implemented, limits
from policies.limits import Kind, Period
from policies.rules import RULES, load

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
HEAD = "jurisdiction,rule,value,unit,effective_from,source,address,quotation,status\n"


def test_every_jurisdiction_has_a_zone_and_every_zone_is_one() -> None:
    assert set(limits.ZONES) == set(RULES.jurisdictions) - {"EU"}
    for name in limits.ZONES.values():
        assert ZoneInfo(name).key == name
    assert limits.zone("GB-SCT").key == "Europe/London"
    assert limits.zone("XX").key == "UTC"


@pytest.mark.parametrize(("part", "whole"), [("NL-NH", "NL"), ("SE-AB", "SE"), ("DE-BY", "DE"), ("GB-SCT", "GB")])
def test_in_a_part_of_a_country_the_same_holds_as_in_all_of_it(part: str, whole: str) -> None:
    assert limits.required(part, NOON) == limits.required(whole, NOON)
    assert limits.required_to_play(part) == limits.required_to_play(whole)
    assert limits.players_alone(part, NOON) == limits.players_alone(whole, NOON)
    for year in (0, 1980, 2005):
        assert limits.system(part, birth_year=year, at=NOON) == limits.system(whole, birth_year=year, at=NOON)
    for kind in Kind:
        for above in (True, False):
            assert limits.to_raise(part, kind, above_law=above, at=NOON) == limits.to_raise(
                whole, kind, above_law=above, at=NOON
            )


def test_what_ships_is_understood() -> None:
    for place in RULES.jurisdictions:
        limits.required(place, NOON)
        limits.players_alone(place, NOON)
        for year in (0, 1980, 2005):
            limits.system(place, birth_year=year, at=NOON)
        for kind in Kind:
            for above in (True, False):
                limits.to_raise(place, kind, above_law=above, at=NOON)


@pytest.mark.parametrize(
    "row",
    [
        "deposit_limit.raise_cooling_off,next_full_moon,moment",
        "deposit_limit.default_day,600,hours",
        "deposit_limit.raise_min_interval,3,days",
        "young_adult.max_age,true,bool",
    ],
)
def test_a_row_that_is_not_understood_lets_nothing_pass(row: str) -> None:
    rules = load((HEAD + f"XX,{row},,here,,,read\n").encode())

    def ask() -> None:
        limits.system("XX", birth_year=1980, at=NOON, rules=rules)
        limits.to_raise("XX", Kind.DEPOSIT, above_law=True, at=NOON, rules=rules)

    with pytest.raises(limits.Unreadable):
        ask()


def test_a_period_that_is_not_understood_lets_nothing_pass() -> None:
    rows = "XX,deposit_limit.required_before_first_deposit,true,bool,,here,,,read\nXX,deposit_limit.period,lunar_month,period,,here,,,read\n"
    with pytest.raises(limits.Unreadable):
        limits.required("XX", NOON, load((HEAD + rows).encode()))


def test_a_rule_is_applied_from_its_first_day() -> None:
    """GB: £2 for the young from 21 May 2025 on; before that, and after 9 April, £5 for all."""
    for day, most in ((datetime(2025, 4, 8, tzinfo=UTC), None), (datetime(2025, 5, 20, tzinfo=UTC), 500),
                      (datetime(2025, 5, 21, tzinfo=UTC), 200)):  # fmt: skip
        found = [each.amount for each in limits.system("GB", birth_year=2003, at=day)]
        assert found == ([] if most is None else [most])


def test_what_must_be_on_offer_is() -> None:
    words = {word for rule in RULES.all if rule.name.endswith("required_periods") for word in rule.value}  # type: ignore[union-attr]
    assert words <= set(limits._WORDS)
    assert all(limits.stands_for(Period(limits._WORDS[str(word)])) for word in words)


# What is applied, and where


def test_a_module_that_is_said_to_apply_a_rule_asks_for_it() -> None:
    assert set(implemented.APPLIED) <= {rule.name for rule in RULES.all}
    for name, (where, how) in implemented.APPLIED.items():
        text = (ROOT / where).read_text()
        assert how or name in text or name.removesuffix(limits._YOUNG) in text, f"{where} does not ask for {name}"
    for (place, name), where in implemented.NOT_EVERYWHERE.items():
        assert name in RULES.of(place, NOON)
        assert not where or name in (ROOT / where).read_text()


def test_what_nobody_applies_is_listed_as_that() -> None:
    listed = {each.rule.name: each for each in implemented.standing("GB", NOON)}
    assert listed["bonus.wagering_max"].applied is None
    assert listed["slot_stake.max"].applied == implemented.Applied("policies/limits.py")
    assert not listed["age.minimum"].rule.verified
    early = {each.rule.name: each.in_force for each in implemented.standing("GB", datetime(2026, 1, 1, tzinfo=UTC))}
    assert early["deposit_limit.basis"] is False
