"""
What policies may know of a matter: attributes, read off the folded states that a command is decided on.

Invariant: an attribute that is not known is absent; nothing is guessed, and the policies grant nothing by what is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from access.predicate import Known
from domain.notices import Notice
from domain.players import Player
from domain.players import Status as PlayerStatus
from domain.tickets import Ticket
from domain.transactions import Transaction
from policies.limits import MONEY_LAUNDERING

SECRECY = "secrecy"
"""The attribute that only those are told who may touch such a case."""
SECRET = "money_laundering"  # noqa: S105 — a word
VIP_TAG = r"vip(_[1-9])?"
"""A tag that makes a VIP, of level 1 or of the level it ends in. A house rule."""

_VIP = re.compile(VIP_TAG)


def of(known: Mapping[str, Any], at: datetime, about: Known) -> list[Known]:  # noqa: ARG001 — attributes of time come so, too
    """The matters of a command: one for each player among the states, and one if there is none.

    `known`: states under any names; `about`: what the command itself says, which states do not (its amount, or the brand and
    country of whom it registers).
    """
    shared: dict[str, str | int] = {}
    for state in known.values():
        match state:
            case Ticket(assignee=str(assignee)) | Notice(assignee=str(assignee)):
                shared["assignee"] = assignee
            case Transaction(money=money) if money.currency:
                shared |= {"amount": money.amount, "currency": money.currency}
    shared |= about
    players = [
        state for state in known.values() if isinstance(state, Player) and state.status is not PlayerStatus.UNKNOWN
    ]
    return [{**shared, **_of_player(player)} for player in players] or [shared]


def _of_player(player: Player) -> Known:
    found: dict[str, str | int] = {"brand": player.brand, "country": player.country, "vip": vip(player.tags)}
    if player.block_reason in MONEY_LAUNDERING:
        found[SECRECY] = SECRET
    return found


def vip(tags: tuple[str, ...]) -> int:
    """The VIP level that a player's tags make: 0 if none does."""
    return max((int(tag[4:] or 1) for tag in tags if _VIP.fullmatch(tag)), default=0)


def owner(known: Mapping[str, Any]) -> str:
    """The player to whom something among the states belongs, as it says; "" if nothing does."""
    return next((found for state in known.values() if (found := getattr(state, "player", ""))), "")
