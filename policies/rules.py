"""
What the law asks for, jurisdiction by jurisdiction: rules.csv, loaded and typed.

Each row names its source and what was quoted from it. A row whose `status` is `unverified` was not read in a law or at an
authority; it is applied like any other, and whoever shows it says so (docs/reference/rules.md lists them). No row means «not researched», never «no rule».

Invariants:
    - a unit that is not known here, or a value that is not of its unit, refuses to load;
    - a row is applied from its first day (UTC) on; without one it is in force;
    - in a part of a country (ISO 3166-2) what holds in all of it holds too, unless the part has a rule of the same name;
    - of two rows of one rule the later that is in force applies.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from policies.currencies import EXPONENTS

Value: TypeAlias = bool | int | str | timedelta | tuple[str, ...]

STATUSES = ("read", "unverified")


class Rule(NamedTuple):
    """
    A row. `value` by `unit`: hours, minutes, days: timedelta; months, years, multiple: int; a currency: int, minor units;
    bool: bool; list: texts; moment, basis, period, cadence, name, text: text. `written`: the value as the table has it.
    """

    jurisdiction: str
    name: str
    value: Value
    unit: str
    effective_from: date | None
    source: str
    address: str
    quotation: str
    status: str
    written: str = ""

    @property
    def verified(self) -> bool:
        """Whether the rule was read where it is made."""
        return self.status == "read"


class Unusable(ValueError):
    """A table of rules that cannot be loaded."""


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _span(unit: str) -> Callable[[str], timedelta]:
    return lambda text: timedelta(**{unit: int(text)})


_READ: Mapping[str, Callable[[str], Value]] = {
    **{unit: _span(unit) for unit in ("minutes", "hours", "days")},
    **dict.fromkeys(("months", "years", "multiple"), int),
    **dict.fromkeys(("moment", "basis", "period", "cadence", "name", "text"), str),
    "bool": _bool,
    "list": lambda text: tuple(text.split("|")),
}


def _typed(text: str, unit: str) -> Value:
    """Raises KeyError for an unknown unit, ValueError for a value that is not of it."""
    if not text:
        raise ValueError("a rule has a value")
    if unit not in EXPONENTS:
        return _READ[unit](text)
    minor = Decimal(text).scaleb(EXPONENTS[unit])
    if minor != int(minor):
        raise ValueError(f"{text} {unit} are no minor units")
    return int(minor)


class Rules:
    """All rules that are known. `digest`: SHA-256 of the table, in hex."""

    def __init__(self, rules: list[Rule], digest: str) -> None:
        self.all = tuple(rules)
        self.digest = digest
        self._by_jurisdiction: dict[str, list[Rule]] = {}
        for rule in sorted(rules, key=lambda rule: rule.effective_from or date.min):
            self._by_jurisdiction.setdefault(rule.jurisdiction, []).append(rule)
        self._in_parts = {country_of(name) for name in self._by_jurisdiction} - self._by_jurisdiction.keys()
        self._on = lru_cache(1_000)(self._in_force)

    def of(self, jurisdiction: str, at: datetime) -> Mapping[str, Rule]:
        """The rules in force there at that time (UTC), by name; none where nothing was researched."""
        return self._on(jurisdiction, at.date())

    def _in_force(self, jurisdiction: str, day: date) -> Mapping[str, Rule]:
        country = country_of(jurisdiction)
        whole = {} if country == jurisdiction else self._on(country, day)
        rules = self._by_jurisdiction.get(jurisdiction, ())
        own = {r.name: r for r in rules if r.effective_from is None or r.effective_from <= day}
        return MappingProxyType({**whole, **own})

    @property
    def jurisdictions(self) -> tuple[str, ...]:
        """Those of which something is known, in order."""
        return tuple(sorted(self._by_jurisdiction))

    def only_in_parts(self, country: str) -> bool:
        """Whether rules are known for parts of the country and none for all of it."""
        return country in self._in_parts


def country_of(jurisdiction: str) -> str:
    """The country (ISO 3166-1) of a jurisdiction, which may be a part of it (ISO 3166-2)."""
    return jurisdiction.partition("-")[0]


def load(table: bytes) -> Rules:
    """The rules of a table, as rules.csv is written. Raises Unusable, which names the line."""
    rules: list[Rule] = []
    seen: set[tuple[str, str, str]] = set()
    for line, row in enumerate(csv.DictReader(io.StringIO(table.decode(), newline="")), 2):
        try:
            rule = Rule(
                row["jurisdiction"],
                row["rule"],
                _typed(row["value"], row["unit"]),
                row["unit"],
                date.fromisoformat(row["effective_from"]) if row["effective_from"] else None,
                row["source"],
                row["address"],
                row["quotation"],
                row["status"],
                row["value"],
            )
        except (KeyError, ValueError, InvalidOperation) as error:
            raise Unusable(f"row {line - 1}: {error!r}") from error
        if rule.status not in STATUSES:
            raise Unusable(f"row {line - 1}: the status {rule.status!r} is not known")
        which = (rule.jurisdiction, rule.name, row["effective_from"])
        if which in seen:
            raise Unusable(f"row {line - 1}: {' '.join(which)} is there twice")
        seen.add(which)
        rules.append(rule)
    return Rules(rules, hashlib.sha256(table).hexdigest())


RULES: Final = load(Path(__file__).with_name("rules.csv").read_bytes())
