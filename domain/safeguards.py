"""
Safeguards: what protects a player and was recorded by a region that could not reach the one that owns them.

They stand on `region-<log>-protection_<the player's suffix>`, one stream for each log that has recorded any. Whoever folds the
player reads them beside the player's own streams (domain/anywhere.py), and the owner takes them up on these (reactions/safeguards.py).

Invariants:
    - nothing here lifts, raises or shortens anything: there is no event that could;
    - a fact is never taken back here. That the owner has taken it up stands on the player's own stream, and it counts there from then on;
    - facts are what they would have been in the owner's region, by another name, so that their command is answered alike.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from domain import limits, players, protection
from domain.kernel import STREAMS_CACHED, Aggregate, Event, PlayerId, RegionStream, parse_id

F = TypeVar("F", bound=Event)

# Events: the tags and fields are the storage format.


class TimedOut(protection.TimedOut, frozen=True, kw_only=True, tag="safeguard.timed_out"):
    """As `protection.timed_out`."""


class Excluded(protection.Excluded, frozen=True, kw_only=True, tag="safeguard.excluded"):
    """As `protection.excluded`."""


class ActionBlocked(protection.ActionBlocked, frozen=True, kw_only=True, tag="safeguard.action_blocked"):
    """As `protection.action_blocked`."""


class Blocked(players.Blocked, frozen=True, tag="safeguard.blocked"):
    """As `player.blocked`."""


class ConsentWithdrawn(players.ConsentWithdrawn, frozen=True, tag="safeguard.consent_withdrawn"):
    """As `player.consent_withdrawn`."""


class LimitSet(limits.LimitSet, frozen=True, kw_only=True, tag="safeguard.limit_set"):
    """As `limits.limit_set`, and never above what held as far as was known where it was recorded."""


Safeguard = TimedOut | Excluded | ActionBlocked | Blocked | ConsentWithdrawn | LimitSet
KINDS: tuple[type[Safeguard], ...] = (TimedOut, Excluded, ActionBlocked, Blocked, ConsentWithdrawn, LimitSet)


# State


class Recorded(msgspec.Struct, Generic[F], frozen=True):
    """A fact at its version of the stream, and when it was recorded."""

    version: int
    at: datetime
    fact: F


class Safeguards(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that one log has recorded of a player, by kind, in order. `version`: of the stream."""

    version: int = 0
    timed_out: tuple[Recorded[TimedOut], ...] = ()
    excluded: tuple[Recorded[Excluded], ...] = ()
    stopped: tuple[Recorded[ActionBlocked], ...] = ()
    blocked: tuple[Recorded[Blocked], ...] = ()
    withdrawn: tuple[Recorded[ConsentWithdrawn], ...] = ()
    limited: tuple[Recorded[LimitSet], ...] = ()

    @property
    def of_protection(self) -> tuple[Recorded[Any], ...]:
        return (*self.timed_out, *self.excluded, *self.stopped)

    @property
    def of_player(self) -> tuple[Recorded[Any], ...]:
        return (*self.blocked, *self.withdrawn)

    @property
    def of_limits(self) -> tuple[Recorded[Any], ...]:
        return self.limited


def evolve(state: Safeguards, event: Safeguard, at: datetime) -> Safeguards:
    version = state.version + 1

    def change(**more: Any) -> Safeguards:
        return msgspec.structs.replace(state, version=version, **more)

    match event:
        case TimedOut():
            return change(timed_out=(*state.timed_out, Recorded(version, at, event)))
        case Excluded():
            return change(excluded=(*state.excluded, Recorded(version, at, event)))
        case ActionBlocked():
            return change(stopped=(*state.stopped, Recorded(version, at, event)))
        case Blocked():
            return change(blocked=(*state.blocked, Recorded(version, at, event)))
        case ConsentWithdrawn():
            return change(withdrawn=(*state.withdrawn, Recorded(version, at, event)))
        case LimitSet():
            return change(limited=(*state.limited, Recorded(version, at, event)))


SAFEGUARDS = Aggregate("safeguard", kind="protection", initial=Safeguards(), evolve=evolve, events=KINDS)


@lru_cache(STREAMS_CACHED)
def stream(log: str, player_id: PlayerId) -> RegionStream[Safeguards]:
    """What `log` has recorded of the player."""
    return RegionStream(SAFEGUARDS, log, parse_id("player", player_id))


def prefix(log: str) -> str:
    """With which the names of all these streams of a log begin."""
    return f"region-{log}-{SAFEGUARDS.kind}_"


# Decisions


def of(event: Event) -> Safeguard | None:
    """The same fact as it stands here; None if it is none that protects whatever else has happened."""
    for theirs, ours in zip(_THEIRS, KINDS, strict=True):
        if type(event) is theirs:
            return ours(**{name: getattr(event, name) for name in event.__struct_fields__})
    return None


_THEIRS: tuple[type[Event], ...] = (
    protection.TimedOut,
    protection.Excluded,
    protection.ActionBlocked,
    players.Blocked,
    players.ConsentWithdrawn,
    limits.LimitSet,
)
