from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

import policies.rules
from policies import implemented
from policies.rules import RULES, Rule, Unusable, load

SHIPPED = Path(policies.rules.__file__).with_name("rules.csv")
HEADER = "jurisdiction,rule,value,unit,effective_from,source,address,quotation,status\n"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def table(*rows: str) -> bytes:
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


@pytest.mark.parametrize(
    ("value", "unit", "typed"),
    [
        ("24", "hours", timedelta(hours=24)),
        ("60", "minutes", timedelta(minutes=60)),
        ("7", "days", timedelta(days=7)),
        ("18", "years", 18),
        ("6", "months", 6),
        ("10", "multiple", 10),
        ("100", "EUR", 100_00),
        ("0.50", "GBP", 50),
        ("700", "JPY", 700),
        ("true", "bool", True),
        ("false", "bool", False),
        ("day|week", "list", ("day", "week")),
        ("immediate", "moment", "immediate"),
        ("OASIS", "name", "OASIS"),
    ],
)
def test_a_value_is_typed_by_its_unit(value: str, unit: str, typed: object) -> None:
    rule = load(table(f"DE,x.y,{value},{unit},,s,a,q,read")).of("DE", NOON)["x.y"]
    assert rule.value == typed
    assert type(rule.value) is type(typed)


@pytest.mark.parametrize(
    "row",
    [
        "DE,x,1,furlongs,,s,a,q,read",
        "DE,x,one,hours,,s,a,q,read",
        "DE,x,yes,bool,,s,a,q,read",
        "DE,x,0.001,EUR,,s,a,q,read",
        "DE,x,much,EUR,,s,a,q,read",
        "DE,x,,text,,s,a,q,read",
        "DE,x,1,hours,2026-13-01,s,a,q,read",
        "DE,x,1,hours,,s,a,q,guessed",
    ],
)
def test_a_table_that_is_not_understood_does_not_load(row: str) -> None:
    with pytest.raises(Unusable, match="row 1"):
        load(table(row))


def test_a_rule_is_there_once_for_a_day() -> None:
    with pytest.raises(Unusable, match=r"row 2.*twice"):
        load(table("DE,x,1,hours,2026-01-01,s,a,q,read", "DE,x,2,hours,2026-01-01,s,a,q,read"))


def test_a_rule_of_the_future_is_loaded_and_not_applied() -> None:
    rules = load(table("DE,x,1,years,2020-01-01,s,a,q,read", "DE,x,2,years,2026-11-23,s,a,q,read"))
    assert len(rules.all) == 2
    assert rules.of("DE", NOON)["x"].value == 1
    assert rules.of("DE", NOON + timedelta(hours=12))["x"].value == 2
    assert "x" not in rules.of("DE", datetime(2019, 12, 31, 23, tzinfo=UTC))


def test_a_part_of_a_country_has_the_rules_of_the_country_and_its_own_before_them() -> None:
    rules = load(table("GB,x,1,years,,s,a,q,read", "GB,y,1,years,,s,a,q,read", "GB-SCT,y,2,years,,s,a,q,read"))
    assert {name: rule.value for name, rule in rules.of("GB-SCT", NOON).items()} == {"x": 1, "y": 2}
    assert {name: rule.value for name, rule in rules.of("GB-WLS", NOON).items()} == {"x": 1, "y": 1}
    assert rules.of("GB", NOON)["y"].value == 1
    assert RULES.of("GB-SCT", NOON) == RULES.of("GB", NOON) != {}


def test_it_is_known_of_which_countries_only_parts_have_rules() -> None:
    countries = {rule.jurisdiction.partition("-")[0] for rule in RULES.all}
    assert {country for country in countries if RULES.only_in_parts(country)} == {"US", "CA"}
    assert not RULES.only_in_parts("US-PA")


def test_nothing_is_said_of_a_jurisdiction_that_was_not_researched() -> None:
    assert RULES.of("FR", NOON) == {}


def test_what_ships_loads_and_marks_what_was_not_read_in_a_law() -> None:
    assert len(RULES.all) == 176
    unverified = [rule for rule in RULES.all if not rule.verified]
    assert len(unverified) == 28
    assert not any(rule.quotation for rule in unverified)
    assert RULES.of("DE", NOON)["kyc.deposit_max_before_verification"].value == 100_00
    future = [rule for rule in RULES.all if rule.effective_from and rule.effective_from > date(2026, 11, 22)]
    assert future
    assert all(rule.name not in RULES.of(rule.jurisdiction, NOON) for rule in future)


def listed(rows: Iterable[Rule]) -> str:
    """The tables of docs/reference/rules.md: what was not read in a law, then what is applied where."""
    lines = ["| jurisdiction | rule | value | where it is said to stand |", "|---|---|---|---|"]
    rows = list(rows)
    for row in rows:
        if not row.verified:
            value = row.written.replace("|", ", ")
            lines.append(f"| {row.jurisdiction} | `{row.name}` | {value} ({row.unit}) | {row.source} |")
    lines += ["", "## What is applied, and where", ""]
    lines += ["| rule | jurisdictions | applied |", "|---|---|---|"]
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found = implemented.applied(row)
        where = "**not applied**" if found is None else f"`{found.where}`" + (f": {found.how}" if found.how else "")
        places.setdefault((row.name, where), []).append(row.jurisdiction)
    for (name, where), found_in in sorted(places.items()):
        lines.append(f"| `{name}` | {', '.join(dict.fromkeys(found_in))} | {where} |")
    return "\n".join(lines) + "\n"


def test_the_documentation_lists_what_was_not_read_in_a_law_and_what_is_applied_where() -> None:
    written = (Path(__file__).parents[2] / "docs" / "reference" / "rules.md").read_text()
    assert written.endswith("\n\n" + listed(RULES.all)), (
        "the tables of docs/reference/rules.md are others: write listed()"
    )


def test_the_digest_is_of_the_bytes_that_were_loaded() -> None:
    import hashlib

    assert RULES.digest == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
