"""What happens by itself with a marker of harm: what is stopped for the player (domain/protection), and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from domain import protection
from domain.kernel import NoticeId
from domain.players import Player
from domain.protection import Protection, ProtectionEvent, Stop
from policies.findings import Step

MARKER: Final = protection.HARM_MARKER
NO_REPLY: Final = protection.NO_REPLY

STOPS: Mapping[Step, Stop] = {
    Step.BONUS: Stop.BONUS,
    Step.MARKETING: Stop.MARKETING,
    Step.DEPOSIT_THIS_MONTH: Stop.DEPOSIT,
}
FOR_A_TIME: Final = frozenset({Step.DEPOSIT_THIS_MONTH})
"""Steps that are over by themselves."""
SUSPENDED: Final = (Stop.DEPOSIT, Stop.BET, Stop.BONUS, Stop.MARKETING)
"""What is stopped for a player who could not be reached."""


def stop(state: Protection, player: Player, stops: Iterable[Stop], reason: str) -> list[ProtectionEvent]:
    """What is stopped for another reason already is stopped for this one too, so that neither ends with the other."""
    return [
        event
        for each in stops
        for event in protection.stop(state, player, action=each, reason=reason, intervention=None)
    ]


def take(state: Protection, player: Player, steps: Iterable[Step], notice: NoticeId) -> list[ProtectionEvent]:
    """What a notice stops. What is over by itself is stopped for this notice alone, so that its end ends nothing else."""
    return [
        event
        for step in steps
        for event in stop(state, player, [STOPS[step]], notice if step in FOR_A_TIME else MARKER)
    ]


def end(state: Protection, player: Player, steps: Iterable[Step], notice: NoticeId) -> list[ProtectionEvent]:
    """What was stopped for a time with this notice is over; what is stopped for any other reason, or notice, is not."""
    return [
        event
        for step in steps
        if step in FOR_A_TIME
        for event in protection.allow(state, player, action=STOPS[step], reason=notice, intervention=None)
    ]
