"""
Commands that carry an exclusion to the same person's other accounts. No path leads to them: reactions/protection.py runs them.

Invariant: asking again shuts nobody out twice, and nobody out whom a person has found to be somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from access.policy import Action
from commands.edge import Edge
from commands.plan import Plan
from commands.protection import ProtectionChanged, streams, with_ends
from domain import players, protection
from domain.kernel import Event, PlayerId
from domain.logins import Login
from domain.play import Play
from domain.players import Player
from domain.protection import Protection, ProtectionEvent


def shut_out_match(player_id: PlayerId, of: PlayerId, edge: Edge) -> Plan:
    """Shut out one person's other account as `of` is. Raises NotFound."""

    def decide(
        at: datetime, state: Protection, playing: Play, login: Login, player: Player, theirs: Protection
    ) -> list[Event]:
        events = protection.exclude_matched(state, player, of=of, theirs=theirs, at=at)
        return with_ends(events, playing, login, player, at)

    return Plan(
        edge.context,
        require=(Action.PROTECTION_SET,),
        writes=streams(player_id),
        reads={"player": players.stream(player_id), "theirs": protection.stream(of)},
        decision=decide,
        answer=lambda _facts: ProtectionChanged(player_id),
    )


def note_matches(player_id: PlayerId, matches: Sequence[PlayerId], edge: Edge, *, seen: int) -> Plan:
    """Note that a person's other accounts are shut out too. `seen`: which of the account's shut-outs that was the last of; if
    another has come since, nothing is noted.
    """
    noted = protection.MatchesShutOut(tuple(matches[: protection.MATCHES_MAX]))
    return Plan(
        edge.context,
        require=(Action.PROTECTION_SET,),
        writes={"state": protection.stream(player_id)},
        decision=lambda _at, state: [noted] if state.shut_outs == seen else [],
        answer=lambda _facts: ProtectionChanged(player_id),
    )


def compare(
    player_id: PlayerId,
    others: Sequence[PlayerId],
    edge: Edge,
    *,
    elsewhere: Mapping[PlayerId, Protection] | None = None,
    looked_at: Collection[PlayerId] | None,
) -> Plan:
    """Shut a player out as those are who may be the same person. `elsewhere`: those whom another region owns, as they are known here,
    which is a condition of nothing. `looked_at`: with these all of them are, which is noted; None: more are to come. Raises NotFound.
    """

    def decide(
        at: datetime, state: Protection, playing: Play, login: Login, player: Player, **here: Protection
    ) -> list[Event]:
        player.require()
        if looked_at is not None and not set(player.duplicates) <= set(looked_at):
            return []  # more were found meanwhile: there will be another look
        events: list[ProtectionEvent] = []
        for other, protected in (*here.items(), *(elsewhere or {}).items()):
            made = protection.exclude_matched(state, player, of=PlayerId(other), theirs=protected, at=at)
            state = protection.fold(state, made, at)
            events += made
        compared = [] if looked_at is None else [players.DuplicatesCompared()]
        return [*with_ends(events, playing, login, player, at), *compared]

    return Plan(
        edge.context,
        require=(Action.PROTECTION_SET,),
        writes={**streams(player_id), "player": players.stream(player_id)},
        reads={other: protection.stream(other) for other in others},
        decision=decide,
        answer=lambda _facts: ProtectionChanged(player_id),
    )
