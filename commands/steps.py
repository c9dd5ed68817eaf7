"""What happens by itself with a marker of harm: what is stopped for the player (domain/protection), and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from domain import protection
from domain.players import Player
from domain.protection import Protection, ProtectionEvent, Stop
from policies.findings import Step

MARKER: Final = "harm_marker"
NO_REPLY: Final = "no_reply"
"""Reasons, as they stand in the events."""

STOPS: Mapping[Step, Stop] = {
    Step.BONUS: Stop.BONUS,
    Step.MARKETING: Stop.MARKETING,
    Step.DEPOSIT_THIS_MONTH: Stop.DEPOSIT,
}
SUSPENDED: Final = (Stop.DEPOSIT, Stop.BET, Stop.BONUS, Stop.MARKETING)
"""What is stopped for a player who could not be reached."""


def stop(state: Protection, player: Player, stops: Iterable[Stop], reason: str) -> list[ProtectionEvent]:
    """What is stopped already stays so for its own reason, whose end is then its own, too."""
    return [
        event
        for each in stops
        if each not in state.stopped
        for event in protection.stop(state, player, action=each, reason=reason, intervention=None)
    ]


def release(state: Protection, player: Player, stops: Iterable[Stop], reason: str) -> list[ProtectionEvent]:
    """What was stopped for this reason is possible again; what is stopped for another is not."""
    return [
        event
        for each in stops
        if state.stopped.get(each) == reason
        for event in protection.allow(state, player, action=each, intervention=None)
    ]
