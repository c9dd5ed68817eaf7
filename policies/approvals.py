"""
Which commands need a second person, and from which amounts on. These are the house's own rules, not a regulator's.

Any command without personal fields can stand here, by its path.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from policies.currencies import EXPONENTS

ALWAYS = "always"
_OTHERWISE = "*"
_NORDIC = ("SEK", "NOK", "DKK")

Thresholds = Mapping[str, int]
"""Whole units (euros, not cents) by currency; "*" for any other."""


class Rule(msgspec.Struct, frozen=True):
    """
    `alone`: by window, the most that goes without a second person; a rule without windows always asks for one.

    Windows: amount = this command; operator_day, player_day = what one operator, or all, have done to the player today (UTC),
    this command included. `expires_hours`: how long an approval waits.
    """

    expires_hours: int
    alone: Mapping[str, Thresholds] = {}


ADJUST = "/v1/players/{player_id}/adjustments"
PAY_OUT = "/v1/transactions/{transaction_id}/approve"
RETURN = "/v1/transactions/{transaction_id}/return"
"""By hand, of a withdrawal that was paid: then the player gets money for which we have only one person's word."""

RULES: Mapping[str, Rule] = {
    ADJUST: Rule(
        24,
        {
            "operator_day": {"EUR": 100, **dict.fromkeys(_NORDIC, 1_000), "JPY": 15_000, _OTHERWISE: 100},
            "player_day": {"EUR": 250, **dict.fromkeys(_NORDIC, 2_500), "JPY": 40_000, _OTHERWISE: 250},
        },
    ),
    PAY_OUT: Rule(72, {"amount": {"EUR": 2_000, **dict.fromkeys(_NORDIC, 20_000), "JPY": 300_000, _OTHERWISE: 2_000}}),
    RETURN: Rule(72, {"amount": {_OTHERWISE: 0}}),
}


def reasons(rule: Rule, currency: str, amounts: Mapping[str, int]) -> tuple[str, ...]:
    """Why a second person is needed: the windows whose amounts (minor units) exceed what goes alone. A window of which no amount is known is exceeded."""
    if not rule.alone:
        return (ALWAYS,)
    return tuple(
        window
        for window, thresholds in rule.alone.items()
        if window not in amounts or amounts[window] > _minor(thresholds, currency)
    )


def _minor(thresholds: Thresholds, currency: str) -> int:
    units = thresholds.get(currency, thresholds[_OTHERWISE])
    return int(units * 10 ** EXPONENTS[currency])
