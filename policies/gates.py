"""
Gates: what must be known of a player before they may deposit, play or be paid.

What the law asks for comes from rules.csv alone (`age_verification.before`, `kyc.deadline`,
`kyc.deposit_max_before_verification`, `kyc.payout_before_verification`, `kyc.withdrawal_may_trigger_new_request`). `HOUSE` is
the house's own policy, and no law.

Invariants:
    - a jurisdiction without rows is under the house's policy alone;
    - an amount in another currency than the rule's cannot be shown to be below it: the gate is closed;
    - where the law says that a withdrawal may not lead to new questions, the house asks none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from policies.currencies import EXPONENTS
from policies.rules import RULES, Rule, Rules


class Action(StrEnum):
    DEPOSIT = "deposit"
    FREE_PLAY = "free_play"
    BET = "bet"
    BONUS = "bonus"
    WITHDRAW = "withdraw"


class Level(StrEnum):
    """How well a player is known: not; who and how old they are; also where their money comes from."""

    NONE = "none"
    IDENTITY = "identity"
    ENHANCED = "enhanced"

    @property
    def rank(self) -> int:
        return _RANKS[self]

    def reaches(self, other: Level) -> bool:
        return self.rank >= other.rank


_RANKS = {level: rank for rank, level in enumerate(Level)}

PLAY = frozenset({Action.DEPOSIT, Action.FREE_PLAY, Action.BET, Action.BONUS})


class Missing(NamedTuple):
    """Why a gate is closed: which level would open it (with a verified age, if `age`), and the rule that says so.

    `verified`: whether that rule was read where it is made; the house's own always are.
    """

    level: Level
    reason: str
    age: bool = False
    verified: bool = True


class AgeMinimum(NamedTuple):
    """In years, and the rule that says so. `of_law`: a jurisdiction's, and not the house's."""

    years: int
    rule: str
    verified: bool
    of_law: bool


# The house's own policy


class Requirement(NamedTuple):
    """From `deposited` on (major units, over the player's life), and `days` after the registration, `actions` need `level`."""

    level: Level
    actions: frozenset[Action]
    deposited: int
    days: int | None = None


HOUSE: Final = (
    Requirement(Level.IDENTITY, frozenset({*PLAY, Action.WITHDRAW}), deposited=2_000, days=30),
    Requirement(Level.ENHANCED, PLAY, deposited=50_000),
)

HOUSE_FACTOR: Final[Mapping[str, int]] = {
    "SEK": 10,
    "NOK": 10,
    "DKK": 10,
    "CZK": 25,
    "HUF": 400,
    "JPY": 150,
    "KRW": 1_500,
}
"""How many times the thresholds are in a currency whose unit is small; 1 in all others."""

HOUSE_AGE_MINIMUM: Final = 18
"""Years, where no row tells."""

HOUSE_KYC_DAYS: Final = 30
"""How long a player has who is asked who they are, where no row tells."""

BLOCKS_THAT_HOLD_MONEY: Final = frozenset({"fraud", "aml"})
"""Reasons of a block that also stop withdrawals."""

POLICY: Final[Mapping[str, object]] = {
    "requirements": [
        {"level": r.level, "actions": sorted(r.actions), "deposited": r.deposited, "days": r.days} for r in HOUSE
    ],
    "factors": HOUSE_FACTOR,
    "age_minimum": HOUSE_AGE_MINIMUM,
    "kyc_days": HOUSE_KYC_DAYS,
    "blocks_that_hold_money": sorted(BLOCKS_THAT_HOLD_MONEY),
}
"""All of it, for the hash in `service.started`."""


# What the words of rules.csv mean here

_AGE_WORDS = {"deposit": Action.DEPOSIT, "free_to_play": Action.FREE_PLAY, "gamble": Action.BET}
_DEADLINE_WORDS = {
    "before_registration": PLAY,
    "before_account_activation": PLAY,
    "before_gambling": frozenset({Action.BET}),
}
_BEFORE_ACTIVATION = ("before_registration", "before_account_activation")


class Unreadable(ValueError):
    """A rule says what is not understood here: nobody may pass because of that."""


def missing(
    action: Action,
    *,
    jurisdiction: str,
    level: Level,
    age_verified: bool,
    deposited: int,
    currency: str,
    registered_at: datetime,
    at: datetime,
    rules: Rules = RULES,
) -> Missing | None:
    """
    What must be known before the action, None if nothing more.

    `level`, `age_verified`: what is known. `deposited`: minor units over the player's life, with the deposit that is asked for.
    """
    law = rules.of(jurisdiction, at)
    if not age_verified and action in _before_age(law):
        rule = law["age_verification.before"]
        return Missing(Level.IDENTITY, rule.name, age=True, verified=rule.verified)
    if not level.reaches(Level.IDENTITY):
        refuses = _unidentified(law, action, deposited, currency, registered_at, at)
        if refuses is not None:
            return Missing(Level.IDENTITY, refuses.name, verified=refuses.verified)
    if action is Action.WITHDRAW and _says(law, "kyc.withdrawal_may_trigger_new_request", value=False):
        return None
    return _house(action, level, deposited, currency, registered_at, at)


def _unidentified(
    law: Mapping[str, Rule], action: Action, deposited: int, currency: str, registered_at: datetime, at: datetime
) -> Rule | None:
    """The rule that refuses the action to a player whose identity is not verified."""
    deadline = law.get("kyc.deadline")
    if deadline is not None and action in _after(deadline, registered_at, at):
        return deadline
    maximum = law.get("kyc.deposit_max_before_verification")
    if maximum is not None and action is Action.DEPOSIT and (currency != maximum.unit or deposited > _number(maximum)):
        return maximum
    if action is Action.WITHDRAW and _says(law, "kyc.payout_before_verification", value=False):
        return law["kyc.payout_before_verification"]
    return None


def _after(deadline: Rule, registered_at: datetime, at: datetime) -> frozenset[Action]:
    """What the deadline stops by now."""
    if isinstance(deadline.value, timedelta):
        return PLAY if at >= registered_at + deadline.value else frozenset()
    if deadline.value in _DEADLINE_WORDS:
        return _DEADLINE_WORDS[str(deadline.value)]
    raise Unreadable(f"{deadline.jurisdiction} {deadline.name}: {deadline.value}")


def _before_age(law: Mapping[str, Rule]) -> frozenset[Action]:
    rule = law.get("age_verification.before")
    if rule is None:
        return frozenset()
    if not isinstance(rule.value, tuple) or not _AGE_WORDS.keys() >= set(rule.value):
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")
    return frozenset(_AGE_WORDS[word] for word in rule.value)


def _house(
    action: Action, level: Level, deposited: int, currency: str, registered_at: datetime, at: datetime
) -> Missing | None:
    unit = HOUSE_FACTOR.get(currency, 1) * 10 ** EXPONENTS.get(currency, 0)
    for requirement in HOUSE:
        if action not in requirement.actions or level.reaches(requirement.level):
            continue
        if deposited >= requirement.deposited * unit:
            return Missing(requirement.level, "house.deposited")
        if requirement.days is not None and at >= registered_at + timedelta(days=requirement.days):
            return Missing(requirement.level, "house.deadline")
    return None


def _says(law: Mapping[str, Rule], name: str, *, value: bool) -> bool:
    return name in law and law[name].value is value


def _number(rule: Rule) -> int:
    if isinstance(rule.value, int):
        return rule.value
    raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")


def awaits_identity(jurisdiction: str, at: datetime, rules: Rules = RULES) -> bool:
    """Whether an account is not active there until the identity is verified."""
    deadline = rules.of(jurisdiction, at).get("kyc.deadline")
    return deadline is not None and deadline.value in _BEFORE_ACTIVATION


def awaited(jurisdiction: str, registered_at: datetime, rules: Rules = RULES) -> Missing:
    """What an account that was registered there then waits for."""
    rule = rules.of(jurisdiction, registered_at).get("kyc.deadline")
    return Missing(Level.IDENTITY, "kyc.deadline", verified=rule is None or rule.verified)


def due_at(level: Level, jurisdiction: str, registered_at: datetime, at: datetime, rules: Rules = RULES) -> datetime:
    """Until when a player whom we ask at `at` must have shown what the level needs: the law's deadline, which is for the
    identity and counts from the registration; once that is over, and for more than the identity, the house's days.
    """
    deadline = rules.of(jurisdiction, at).get("kyc.deadline")
    if level is Level.IDENTITY and deadline is not None and isinstance(deadline.value, timedelta):
        due = registered_at + deadline.value
        if due > at:
            return due
    return at + timedelta(days=HOUSE_KYC_DAYS)


def age_minimum(jurisdiction: str, at: datetime, rules: Rules = RULES) -> AgeMinimum:
    """From which age on one may play there."""
    rule = rules.of(jurisdiction, at).get("age.minimum")
    if rule is None:
        return AgeMinimum(HOUSE_AGE_MINIMUM, "house.age_minimum", verified=True, of_law=False)
    return AgeMinimum(_number(rule), rule.name, rule.verified, of_law=True)


def age(born: date, on: date) -> int:
    """In whole years; who was born on 29 February has their birthday on 1 March in other years."""
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
