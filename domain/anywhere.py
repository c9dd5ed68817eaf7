"""
What protects a player wherever it was recorded: the one place that puts the player's own streams and the safeguards of all
regions together.

A safeguard counts beside the player's own streams until these say that the owner has taken it up, and by them from then on. Both ways
it makes the same of them, since the same decision is made: what it would have been, had it reached the owner when it was recorded.

Invariant: no safeguard, in whatever order they come and however often, makes anybody less protected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from domain import limits, players, protection, safeguards
from domain.kernel import STREAMS_CACHED, Aggregate, AnyStream, Event, PlayerId, RegionStream
from domain.players import Player, Status
from domain.safeguards import Recorded, Safeguards


class _Includes(NamedTuple):
    """How an aggregate of a player's takes safeguards: which, what follows from one, and what says that it has."""

    facts: Callable[[Safeguards], Sequence[Recorded[Any]]]
    take_up: Callable[[Any, Any, datetime], Sequence[Event]]
    taken_up: Callable[[str, int], Event]


def _of_player(
    player: Player, fact: players.Blocked | players.ConsentWithdrawn, _at: datetime
) -> list[players.PlayerEvent]:
    if player.status is Status.UNKNOWN:
        return []
    match fact:
        case players.Blocked(reason):
            return [] if player.status is Status.CLOSED else players.block(player, reason=reason)
        case players.ConsentWithdrawn(channel):
            return players.withdraw_consent(player, channels=[channel])


_INCLUDES: Final[Mapping[Aggregate[Any], _Includes]] = {
    protection.PROTECTION: _Includes(lambda here: here.of_protection, protection.take_up, protection.SafeguardsTakenUp),
    limits.LIMITS: _Includes(
        lambda here: here.of_limits, lambda state, fact, _at: limits.take_up(state, fact), limits.SafeguardsTakenUp
    ),
    players.PLAYERS: _Includes(lambda here: here.of_player, _of_player, players.SafeguardsTakenUp),
}


def beside(stream: AnyStream[Any], logs: Sequence[str]) -> Mapping[str, RegionStream[Safeguards]]:
    """By log, the streams that every fold of this one includes; none of one that is not about protection."""
    return _of(stream.name.partition("-")[2], tuple(logs)) if stream.aggregate in _INCLUDES else {}


@lru_cache(STREAMS_CACHED)
def _of(suffix: str, logs: tuple[str, ...]) -> Mapping[str, RegionStream[Safeguards]]:
    return {log: safeguards.stream(log, PlayerId("player_" + suffix)) for log in logs}


def included(aggregate: Aggregate[Any], state: Any, elsewhere: Mapping[str, Safeguards]) -> Any:
    """The state with the safeguards of each log that were not taken up yet."""
    includes = _INCLUDES[aggregate]
    open_ = [
        (each.at, log, each.version, each.fact)
        for log, here in elsewhere.items()
        for each in includes.facts(here)
        if each.version > state.taken_up.get(log, 0)
    ]
    for at, _, _, fact in sorted(open_, key=lambda each: each[:3]):
        for event in includes.take_up(state, fact, at):
            state = aggregate.evolve(state, event, at)
    return state


def is_open(aggregate: Aggregate[Any], state: Any, elsewhere: Mapping[str, Safeguards]) -> bool:
    """Whether the owner has something of these to take up."""
    facts = _INCLUDES[aggregate].facts
    return any(each.version > state.taken_up.get(log, 0) for log, here in elsewhere.items() for each in facts(here))


def take_up(aggregate: Aggregate[Any], state: Any, log: str, here: Safeguards) -> list[Event]:
    """What the owner records so that what `log` has recorded counts by the player's own stream. `state`: of that alone."""
    includes = _INCLUDES[aggregate]
    open_ = sorted(
        (each for each in includes.facts(here) if each.version > state.taken_up.get(log, 0)),
        key=lambda each: each.version,
    )
    made: list[Event] = []
    for each in open_:
        for event in includes.take_up(state, each.fact, each.at):
            made.append(event)
            state = aggregate.evolve(state, event, each.at)
    return [*made, includes.taken_up(log, open_[-1].version)] if open_ else []
