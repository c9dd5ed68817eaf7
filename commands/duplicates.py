"""
Two accounts that may be one person's: once both stand in the log, each names the other.

These commands are our own: caller `reaction:duplicates`, key the player's id ‖ LF ‖ those of the others.

Invariant: whoever registered later waits until a person has looked; the account that was there first goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from access.policy import Action, service
from commands.identity import command_id
from commands.plan import Context, Plan
from domain import players
from domain.kernel import PlayerId
from domain.players import DUPLICATES_MAX

ACTOR = "reaction:duplicates"


class Introduced(msgspec.Struct, frozen=True):
    player: PlayerId


def introducing(context: Context, *, holds: bool) -> Callable[[Any, Mapping[str, Sequence[str]]], Sequence[Plan]]:
    """For Plan.introduce, of a command that answers with a `player`. `holds`: it is a registration."""

    def introduce(answer: Any, alike: Mapping[str, Sequence[str]]) -> Sequence[Plan]:
        player = PlayerId(answer.player)
        shared: dict[PlayerId, list[str]] = {}
        for field, suffixes in sorted(alike.items()):
            for suffix in suffixes:
                shared.setdefault(PlayerId(f"player_{suffix}"), []).append(field)
        shared.pop(player, None)
        others = sorted(shared)[:DUPLICATES_MAX]
        if not others:
            return ()
        by = sorted({field for other in others for field in shared[other]})
        return [
            _introduced(context, player, others, by, holds=holds),
            *(_introduced(context, other, [player], shared[other], holds=holds) for other in others),
        ]

    return introduce


def _introduced(
    context: Context, player: PlayerId, others: Sequence[PlayerId], by: Sequence[str], *, holds: bool
) -> Plan:
    """Let a player's stream name the others, as far as it does not yet."""
    return Plan(
        msgspec.structs.replace(
            context,
            principal=service(ACTOR, "reaction"),
            command_id=command_id(ACTOR, "\n".join([player, *others])),
            fingerprint=None,
        ),
        require=(Action.DUPLICATES_NOTE,),
        writes={"player": players.stream(player)},
        reads={other: players.stream(other) for other in others},
        decision=lambda _at, player, **others: players.find_alike(player, by=by, others=others, holds=holds),
        answer=lambda _facts: Introduced(player),
    )
