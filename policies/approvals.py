"""
Which commands need a second person, and from which amounts on. These are the house's own rules, not a regulator's.

Any command on a player who is registered can stand here, by its path; but for the profile, by which players are found. So can
any on an operator who was invited.
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
    this command included. `expires_hours`: how long an approval waits. `of_people`: it is asked of whatever is done by hand; our
    own processes, and providers whose signatures were checked, tell what they have seen. A program with a token does not.
    """

    expires_hours: int
    alone: Mapping[str, Thresholds] = {}
    of_people: bool = False


ADJUST = "/v1/players/{player_id}/adjustments"
PAY_OUT = "/v1/transactions/{transaction_id}/approve"
SETTLE = "/v1/transactions/{transaction_id}/settle"
"""By hand: money that no provider has told of. A deposit that nobody paid would be cash that can be withdrawn. A withdrawal that
nobody paid would take the player's money out of the books, and our own reaction would ask its provider no more: whoever has the
money, or has sent it elsewhere, could hide that; and giving it back takes two people again."""
RETURN = "/v1/transactions/{transaction_id}/return"
"""By hand, of a withdrawal that was paid, or that somebody was told to pay (a provider has accepted it, or a person has sent it):
then the player gets money for which we have only one person's word."""
VOID = "/v1/players/{player_id}/rounds/void"
"""By hand: a stake that is given back after its game was lost would be a gift."""

ROLE = "/v1/operators/{operator_id}/roles"
SCOPE = "/v1/operators/{operator_id}/scope"
PERSON = "/v1/operators/{operator_id}/person"
RESUME = "/v1/operators/{operator_id}/resume"
"""What an operator may do, and who is behind them: whoever could say either alone could be two people for four eyes. To take
something away needs nobody else."""

ERASE = "/v1/players/{player_id}/erase"
"""What was destroyed cannot be brought back."""

_BY_HAND: Mapping[str, Thresholds] = {
    "operator_day": {"EUR": 100, **dict.fromkeys(_NORDIC, 1_000), "JPY": 15_000, _OTHERWISE: 100},
    "player_day": {"EUR": 250, **dict.fromkeys(_NORDIC, 2_500), "JPY": 40_000, _OTHERWISE: 250},
}

RULES: Mapping[str, Rule] = {
    ADJUST: Rule(24, _BY_HAND),
    VOID: Rule(24, _BY_HAND),
    PAY_OUT: Rule(72, {"amount": {"EUR": 2_000, **dict.fromkeys(_NORDIC, 20_000), "JPY": 300_000, _OTHERWISE: 2_000}}),
    SETTLE: Rule(72, {"amount": {_OTHERWISE: 0}}, of_people=True),
    RETURN: Rule(72, {"amount": {_OTHERWISE: 0}}, of_people=True),
    ERASE: Rule(72),
    ROLE: Rule(72),
    SCOPE: Rule(72),
    PERSON: Rule(72),
    RESUME: Rule(72),
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
