"""
How safe a command must be before its answer says that it is done: committed in its own region, or in another one as well.

Source: the house's own rules (docs/adr/0042, 0043): what makes money leave the house defaults to `geo`. (That it has left, which `settle`
records, is a fact that is told, and waits for nothing.) What the house does in the outside world waits for the geo watermark
whatever is said here (reactions/payouts.py).

Invariant: whoever asks may always ask for more than the policy does, and for less only where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Durability(StrEnum):
    """`region`: flushed to disk here. `geo`: at least one other region, too, has committed its verified copy."""

    REGION = "region"
    GEO = "geo"


class Rule(NamedTuple):
    """`least`: what the caller cannot go below."""

    default: Durability = Durability.REGION
    least: Durability = Durability.REGION


USUAL = Rule()
_GEO = Rule(Durability.GEO, Durability.GEO)
_GEO_UNLESS_ASKED = Rule(Durability.GEO, Durability.REGION)

COMMANDS: Mapping[str, Rule] = {
    # Only reserves: the money still is the player's, and whoever approves waits.
    "/v1/players/{player_id}/withdrawals": _GEO_UNLESS_ASKED,
    # What protects a player binds at once where it was asked for; that it is safe from the loss of one region is worth a moment.
    "/v1/players/{player_id}/time-out": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/panic": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/exclude": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/blocks": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/block": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/limits": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/limits/deposit": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/limits/operator": _GEO_UNLESS_ASKED,
    "/v1/players/{player_id}/consents/withdraw": _GEO_UNLESS_ASKED,
    "/v1/transactions/{transaction_id}/approve": _GEO,
    "/v1/transactions/{transaction_id}/send": _GEO,
    "/v1/transactions/{transaction_id}/refund": _GEO,
    "/v1/approvals/{approval_id}/approve": _GEO,  # which may be the approval of any of these
}
"""By the path of the command. Every other one is USUAL."""


def rule(path: str) -> Rule:
    return COMMANDS.get(path, USUAL)
