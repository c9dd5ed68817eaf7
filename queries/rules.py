"""What the law asks for: the rules of a jurisdiction on a day, each with its source, and whether the engine applies it."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import msgspec

from domain.errors import Invalid
from policies import implemented
from policies.rules import RULES


class Rule(msgspec.Struct, frozen=True):
    """
    A row of rules.csv; `value` in `unit`, as it is written there. `verified`: whether it was read where it is made. `in_force`:
    false of a rule whose first day is to come. `applied`: by which module, null if the engine does not apply it; `how`: by what
    property, where that is none that looks the rule up.
    """

    jurisdiction: str
    rule: str
    value: str
    unit: str
    effective_from: date | None
    in_force: bool
    verified: bool
    applied: str | None
    how: str | None
    source: str
    address: str
    quotation: str


class Rules(msgspec.Struct, frozen=True):
    """`digest`: SHA-256 of the table. Nothing where nobody has looked, which never means that there is no rule."""

    jurisdiction: str
    at: date
    digest: str
    items: list[Rule]
    next_cursor: str | None = None


class UnknownJurisdiction(Invalid):
    """Facts: known."""

    code = "unknown_jurisdiction"
    title = "Nobody has looked for the rules of this jurisdiction"


def show(jurisdiction: str, day: date) -> Rules:
    """The rules that are known of a jurisdiction on a day (UTC). Raises UnknownJurisdiction."""
    at = datetime.combine(day, time(), UTC)
    items = [
        Rule(
            rule.jurisdiction,
            rule.name,
            rule.written,
            rule.unit,
            rule.effective_from,
            in_force,
            rule.verified,
            applied.where if applied else None,
            applied.how or None if applied else None,
            rule.source,
            rule.address,
            rule.quotation,
        )
        for rule, in_force, applied in implemented.standing(jurisdiction, at)
    ]
    if not items:
        raise UnknownJurisdiction(known=list(RULES.jurisdictions), parameter="jurisdiction")
    return Rules(jurisdiction, day, RULES.digest, items)
