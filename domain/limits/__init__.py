"""
Limits: how much a player may deposit, lose, stake and play, who has said so, and how much of it is used.

The law's limits (policies.limits), the house's for this player and the player's own stand side by side. What deposits use is
kept here; what bets use is the wallet's, and time is the play's: whoever decides on those asks `Limits.refuse`.

Invariants:
    - of several limits the lowest applies;
    - usage follows every request, whether or not a limit is set, so that a limit set at noon counts the morning;
    - a cut acts at once; a raise needs its cooling-off (by the log's time, whatever clocks say), what the law wants to be seen
      first, and a second confirmation, and may be withdrawn until then;
    - who has moved meets the stricter of what held where the raise was asked for and what holds where they live;
    - what is released is given back to the windows that counted it, and to no window that has begun since;
    - of a hold for money laundering the player hears a neutral word.
"""

from __future__ import annotations

from domain.limits.events import (
    DepositRefused,
    Exceeded,
    HeadroomConsumed,
    HeadroomReleased,
    LimitLifted,
    LimitSet,
    LimitsEvent,
    RaiseAttested,
    RaiseConfirmed,
    RaiseRequested,
    RaiseWithdrawn,
    RequiredFirst,
    SafeguardsTakenUp,
    WithdrawalCounted,
    WithdrawalUncounted,
)
from domain.limits.raising import Terms, due
from domain.limits.state import (
    LIMITS,
    Limit,
    Limits,
    Raise,
    deposit_refused,
    evolve,
    exceeded_in,
    refusal,
    refused_by,
    stream,
)
from domain.limits.terms import (
    NoRaise,
    NotByHouse,
    NotLimited,
    RaiseNotThePlayers,
    RaiseTooEarly,
    RaiseTooSoon,
    RaiseUnseen,
    attest_raise,
    confirm_raise,
    set_deposit_limit,
    set_limit,
    set_operator_limit,
    take_up,
    withdraw_raise,
)
from policies.limits import (
    Kind,
    Period,
    Source,
)

__all__ = [
    "LIMITS",
    "DepositRefused",
    "Exceeded",
    "HeadroomConsumed",
    "HeadroomReleased",
    "Kind",
    "Limit",
    "LimitLifted",
    "LimitSet",
    "Limits",
    "LimitsEvent",
    "NoRaise",
    "NotByHouse",
    "NotLimited",
    "Period",
    "Raise",
    "RaiseAttested",
    "RaiseConfirmed",
    "RaiseNotThePlayers",
    "RaiseRequested",
    "RaiseTooEarly",
    "RaiseTooSoon",
    "RaiseUnseen",
    "RaiseWithdrawn",
    "RequiredFirst",
    "SafeguardsTakenUp",
    "Source",
    "Terms",
    "WithdrawalCounted",
    "WithdrawalUncounted",
    "attest_raise",
    "confirm_raise",
    "deposit_refused",
    "due",
    "evolve",
    "exceeded_in",
    "refusal",
    "refused_by",
    "set_deposit_limit",
    "set_limit",
    "set_operator_limit",
    "stream",
    "take_up",
    "withdraw_raise",
]
