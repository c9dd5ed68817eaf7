"""
Which rules of rules.csv the engine applies, and where. What is not named here is known, shown, and applied by nobody.

Invariants:
    - a module that is named here asks for the rule by its name, unless `how` says by what property the rule is kept;
    - a rule that is new in rules.csv is not applied until somebody writes it down here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from policies import protection, retention
from policies.rules import RULES, Rule, Rules, country_of


class Applied(NamedTuple):
    """`where`: the module. `how`: by what property the rule is kept, where no code asks for its row."""

    where: str
    how: str = ""


_GATES = Applied("policies/gates.py")
_LIMITS = Applied("policies/limits.py")
_HARM = Applied("policies/harm.py")
_PLAY = Applied("policies/play.py")
_RETENTION = Applied("policies/retention.py")

_LOOKED_UP: Mapping[Applied, tuple[str, ...]] = {
    _GATES: (
        "age.minimum",
        "age_verification.before",
        "kyc.deadline",
        "kyc.deposit_max_before_verification",
        "kyc.payout_before_verification",
        "kyc.withdrawal_may_trigger_new_request",
    ),
    _LIMITS: (
        "deposit_limit.contact_threshold_month",
        "deposit_limit.contact_threshold_month_18_24",
        "deposit_limit.default_day",
        "deposit_limit.default_week",
        "deposit_limit.default_month",
        "deposit_limit.period",
        "deposit_limit.raise_cooling_off",
        "deposit_limit.raise_min_interval",
        "deposit_limit.raise_needs_player_request",
        "deposit_limit.raise_needs_test",
        "deposit_limit.raise_no_risk_behaviour_months",
        "deposit_limit.raise_not_before_period_end",
        "deposit_limit.required_before_first_deposit",
        "deposit_limit.required_periods",
        "net_deposit.block_threshold",
        "net_deposit.block_threshold_18_24",
        "slot_stake.max",
        "slot_stake.max_18_24",
        "young_adult.max_age",
    ),
    _HARM: (
        "financial_vulnerability.net_deposit_threshold_30_days",
        "harm_indicator.intensive_weekly_net_loss",
        "harm_indicator.intensive_weekly_net_loss_young_adult",
        "harm_indicator.marketing_and_bonus_blocked",
        "harm_indicator.no_reply_suspends_after",
        "harm_indicator.reaction_within",
    ),
    _PLAY: (
        "reality_check.interval",
        "reality_check.optional_intervals",
        "session_limit.required_before_session",
    ),
    _RETENTION: (*retention.KEEP, retention.STARTS, retention.DELETE_AFTER),
    Applied("policies/protection.py"): tuple(sorted(protection.IMPLEMENTED)),
}

_LIMIT = "domain/limits/state.py"
_TERMS = "domain/limits/terms.py"
_KEPT: Mapping[str, Applied] = {
    "limit.lowest_applies": Applied(_LIMIT, "of several limits the lowest applies, everywhere"),
    "limit.required_types": Applied(_LIMIT, "deposit and wager limits are on offer everywhere"),
    "deposit_limit.basis": Applied(_LIMIT, "a limit of the kind deposit counts deposits alone, gross"),
    "deposit_limit.max_month_cross_operator": Applied(
        _LIMITS.where, "in part: deposits here alone are counted, since those with other operators are not known"
    ),
    "deposit_limit.name_reserved_for_gross": Applied(_LIMIT, "what counts withdrawals too is called net_deposit"),
    "deposit_limit.blocks_deposit_when_reached": Applied(_LIMIT, "a deposit that does not fit is refused"),
    "deposit_limit.default": Applied(
        _LIMIT, "nothing is preset: without a limit of the player's own nothing can be deposited"
    ),
    "deposit_limit.cut_effective": Applied(_TERMS, "a cut acts at once, everywhere"),
    "deposit_limit.raise_needs_reaffirmation": Applied(_TERMS, "a raise is confirmed a second time, everywhere"),
    "deposit_limit.raise_effective_within": Applied(
        _TERMS, "the house's cooling-off of 24 hours is shorter; then the player's confirmation is awaited"
    ),
    "net_deposit.block_until": Applied(_LIMITS.where, "the net deposits of a calendar month are limited"),
    "spend_limit.required_periods": Applied(_LIMIT, "loss and wager limits of days, weeks and months are on offer"),
    "time_limit.required_periods": Applied(_LIMIT, "limits of time of days, weeks and months are on offer"),
    "records.recreate_required": Applied("replay/account.py", "every account is a fold over its events"),
}

APPLIED: Final[Mapping[str, Applied]] = MappingProxyType(
    {**{name: applied for applied, names in _LOOKED_UP.items() for name in names}, **_KEPT}
)
"""By the rule's name."""

NOT_EVERYWHERE: Final[Mapping[tuple[str, str], str]] = {
    ("SE", "deposit_limit.contact_threshold_month"): "policies/harm.py",
    **dict.fromkeys(((place, "self_exclusion.minimum") for place in sorted(protection.LEAST_OF_REGISTER)), ""),
}
"""(jurisdiction, rule) → who applies it there instead, if anybody does: in Sweden the threshold is a duty to contact, and stops nobody;
in Spain and Portugal the least is the national register's, which keeps it.
"""


class Standing(NamedTuple):
    """A rule as it stands on a day. `applied`: None if the engine does not. `in_force`: false of one that is not yet."""

    rule: Rule
    in_force: bool
    applied: Applied | None


def standing(jurisdiction: str, at: datetime, rules: Rules = RULES) -> Iterator[Standing]:
    """All rules that are known of a jurisdiction, with those of its country, in the order of their names: in force, then to come."""
    law = rules.of(jurisdiction, at)
    for name in sorted(law):
        yield Standing(law[name], True, applied(law[name]))
    places = {jurisdiction, country_of(jurisdiction)}
    for rule in sorted(rules.all, key=lambda rule: rule.name):
        if rule.jurisdiction in places and rule.effective_from is not None and rule.effective_from > at.date():
            yield Standing(rule, False, applied(rule))


def applied(rule: Rule) -> Applied | None:
    """Where the rule is applied, if it is."""
    elsewhere = NOT_EVERYWHERE.get((rule.jurisdiction, rule.name))
    if elsewhere is None:
        return APPLIED.get(rule.name)
    return Applied(elsewhere) if elsewhere else None
