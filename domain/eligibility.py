"""
Eligibility: whether the law lets a person have an account, by where they live and when they were born.

Invariant: what is not known of a person is asked for, and never held against them later: history is not looked at again.
"""

from __future__ import annotations

from datetime import date, datetime

from domain.errors import RuleRefused
from policies import gates
from policies.residency import Residency
from policies.rules import RULES, country_of


class Underage(RuleRefused):
    """Facts: minimum (years), rule, verified."""

    code = "underage"
    title = "The person is too young to play there"


class BirthDateNeeded(RuleRefused):
    """Facts: minimum (years), rule, verified."""

    code = "birth_date_needed"
    title = "There is an age from which one may play there: the birth date is needed"


class JurisdictionElsewhere(RuleRefused):
    """Facts: country."""

    code = "jurisdiction_elsewhere"
    title = "The jurisdiction is a part of another country"


class JurisdictionNeeded(RuleRefused):
    """Facts: country."""

    code = "jurisdiction_needed"
    title = "The rules of this country are those of its parts: a jurisdiction such as US-PA is needed"


class KeysElsewhere(RuleRefused):
    """Facts: jurisdiction, regions."""

    code = "keys_elsewhere"
    title = "The keys of players of this jurisdiction may not be held in this region"


def require_residency(residency: Residency, jurisdiction: str, log: str) -> None:
    """Whoever is sealed here has their key here. Raises KeysElsewhere."""
    if not residency.allows(jurisdiction, log):
        raise KeysElsewhere(jurisdiction=jurisdiction, regions=list(residency.of(jurisdiction) or ()))


def require_jurisdiction(jurisdiction: str, country: str) -> None:
    """Raises JurisdictionElsewhere, JurisdictionNeeded. `country`: where the player lives."""
    if jurisdiction != country_of(jurisdiction) != country:
        raise JurisdictionElsewhere(country=country)
    if RULES.only_in_parts(jurisdiction):
        raise JurisdictionNeeded(country=jurisdiction)


def require_birth_date(jurisdiction: str, birth_date: date | None, at: datetime) -> None:
    """Who registers says when they were born, where the law has a minimum age. Raises BirthDateNeeded, Underage."""
    require_age(jurisdiction, birth_date, at, needed=gates.age_minimum(jurisdiction, at).of_law)


def require_age_to_move(was: str, jurisdiction: str, birth_date: date | None, at: datetime) -> None:
    """Who was old enough for one jurisdiction may not be for the next. Raises BirthDateNeeded, Underage."""
    needed = gates.age_minimum(jurisdiction, at).years > gates.age_minimum(was, at).years
    require_age(jurisdiction, birth_date, at, needed=needed)


def require_age(jurisdiction: str, birth_date: date | None, at: datetime, *, needed: bool = False) -> None:
    """Raises Underage; without a birth date that is `needed`, BirthDateNeeded.

    Who has not said when they were born stays unverified, which gates (policies/gates.py) ask for.
    """
    minimum = gates.age_minimum(jurisdiction, at)
    if birth_date is None and needed:
        raise BirthDateNeeded(minimum=minimum.years, rule=minimum.rule, verified=minimum.verified)
    if birth_date is not None and gates.age(birth_date, at.date()) < minimum.years:
        raise Underage(minimum=minimum.years, rule=minimum.rule, verified=minimum.verified)
