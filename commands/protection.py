"""
Commands on protection: time-outs, exclusions and how they end, and what the house stops for one player.

Invariants:
    - who is shut out is logged out, and their games are ended, by the same command;
    - a refusal because a player is protected stands in the log (`guarded`);
    - what protects a player is recorded also where their data key is not held, without what was said of it; what protects them
      less is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint, InterventionMissing, Nothing, Why, Word, intervention, whole
from commands.plan import Fact, Plan, RefusedFact
from commands.sealing import KeyNotHeld
from domain import logins, play, players, protection
from domain.errors import NotFound
from domain.kernel import AnyStream, Event, Intervention, PlayerId
from domain.logins import Login
from domain.play import Play
from domain.players import Player
from domain.protection import (
    EndNotDue,
    Grounds,
    LiftRefused,
    NotExcluded,
    PlayRefused,
    Protection,
    ProtectionEvent,
    Source,
    Stop,
    TermNotOffered,
    TooManyReasons,
)
from policies import protection as policy
from policies.limits import zone

MatchedWith = Annotated[str, whole("player_[0-7][0-9a-hjkmnp-tv-z]{25}", "The other account's id.")]
Term = Annotated[
    str,
    whole(
        "([1-9][0-9]{0,2}_(hour|day|week|month|year)s?|indefinite|permanent|lifetime)",
        "As 24_hours, 1_week, 6_months; indefinite or permanent for exclusions.",
    ),
]


class TimeOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pause. `source`: who wants it; a person of the house who does says why."""

    term: Term
    source: Literal["player", "operator"] = "player"
    intervention: Why | None = None


class Exclude(TimeOut, frozen=True, forbid_unknown_fields=True):
    """An exclusion from all brands. `source`: who wants it; a person of the house who does says why."""


class Lift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The player asks for the end of an exclusion. `source`: of which one. `intervention`: of the person who has looked at it."""

    source: Literal["player", "operator", "matched"] = "player"
    intervention: Why | None = None


class DismissMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account is another person's than `of`, with which it was matched; without `of`, than the one whose exclusion it has, or
    else whose time-out.
    """

    of: MatchedWith | None = None
    intervention: Why | None = None


class BlockAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a word, such as harm. `intervention`: needed from people."""

    action: Literal["deposit", "bet", "bonus", "withdraw", "login", "marketing"]
    reason: Word
    intervention: Why | None = None


class UnblockAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: for which it was stopped. What is stopped for another one, too, stays so."""

    action: Literal["deposit", "bet", "bonus", "withdraw", "login", "marketing"]
    reason: Word
    intervention: Why | None = None


class ShutOut(msgspec.Struct, frozen=True):
    """`until`: when it ends by itself; null if it does not. `reason_kept`: whether what a person gave as their reason was recorded,
    which needs the player's data key; null if none was given, or nothing was new.
    """

    player: str
    until: datetime | None
    reason_kept: bool | None = None


class LiftAccepted(msgspec.Struct, frozen=True):
    """`effective_at`: from when on the player may gamble again."""

    player: str
    effective_at: datetime | None


class ProtectionChanged(msgspec.Struct, frozen=True):
    player: str


class ActionStopped(msgspec.Struct, frozen=True):
    """`reason_kept`: as of ShutOut."""

    player: str
    reason_kept: bool | None = None


# What others need of protection


def guarded(plan: Plan, player_id: PlayerId, action: StrEnum) -> Plan:
    """The plan, refused where the player is protected from the action, which is recorded."""

    def decision(at: datetime, protected: Protection, **states: Any) -> Sequence[Event] | RefusedFact:
        error = protected.refusal(action, at)
        if error is None:
            return plan.decision(at, **states)
        return RefusedFact(error, [protection.refused(action, error)])

    return msgspec.structs.replace(
        plan,
        writes={**plan.writes, "protected": protection.stream(player_id)},
        decision=decision,
        answer=told(plan.answer),
    )


def told(answer: Callable[[Sequence[Fact]], msgspec.Struct]) -> Callable[[Sequence[Fact]], msgspec.Struct]:
    """An answer that raises what was refused because the player is protected."""

    def tell(facts: Sequence[Fact]) -> msgspec.Struct:
        for fact in facts:
            if isinstance(fact.event, PlayRefused):
                raise protection.refusal_of(fact.event)
        return answer(facts)

    return tell


def streams(player_id: PlayerId) -> dict[str, AnyStream[Any]]:
    """What a command that may shut the player out writes."""
    return {
        "state": protection.stream(player_id),
        "playing": play.stream(player_id),
        "login": logins.stream(player_id),
    }


def with_ends(
    events: Sequence[ProtectionEvent], playing: Play, login: Login, player: Player, at: datetime
) -> list[Event]:
    """The events and, if they shut the player out, the end of games and log-ins."""
    for event in events:
        if isinstance(event, protection.Excluded | protection.TimedOut):
            reason = "excluded" if isinstance(event, protection.Excluded) else "timed_out"
            ends = play.end_all(playing, reason=reason, at=at, zone=zone(player.jurisdiction))
            return [*events, *ends, *[logins.Ended(session) for session in login.sessions]]
    return list(events)


# Commands


def time_out(player_id: str, command: TimeOut, edge: Edge) -> Plan:
    """Pause a player's gambling, at once. Raises NotFound, TermNotOffered (allowed, rule, verified)."""
    why = _why(command, edge)
    return _shutting_out(
        player_id, edge, why is not None,
        lambda at, state, player: protection.time_out(
            state, player, wanted=policy.term(command.term), source=Source(command.source), at=at, intervention=why
        ),
    )  # fmt: skip


def panic(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Pause a player's gambling at the push of a button, without any question. Raises NotFound."""
    return _shutting_out(
        player_id, edge, False, lambda at, state, player: protection.panic(state, player, at=at)
    )  # fmt: skip


def exclude(player_id: str, command: Exclude, edge: Edge) -> Plan:
    """Exclude a player from gambling, at once. Raises NotFound, TermNotOffered (allowed, rule, verified)."""
    why = _why(command, edge)
    return _shutting_out(
        player_id, edge, why is not None,
        lambda at, state, player: protection.exclude(
            state, player, wanted=policy.term(command.term), source=Source(command.source), at=at, intervention=why
        ),
    )  # fmt: skip


def _why(command: TimeOut, edge: Edge) -> Grounds | None:
    """A player's own wish needs no reason from whoever writes it down. Raises InterventionMissing."""
    if command.source == "player" and command.intervention is None:
        return None
    return _grounds(intervention(command.intervention, edge.context))


def _grounds(why: Intervention | None) -> Grounds | None:
    return None if why is None else Grounds(why.kind, why.reason)


def _reason_kept(grounds: Grounds | None) -> bool | None:
    return None if grounds is None else grounds.reason is not None


def _shutting_out(player_id: str, edge: Edge, says: bool, decision: Callable[..., list[ProtectionEvent]]) -> Plan:
    id_ = PlayerId(player_id)
    until: datetime | None = None

    def decide(at: datetime, state: Protection, playing: Play, login: Login, player: Player) -> list[Event]:
        nonlocal until  # for the answer, if there is nothing to record
        until = state.shut_out_until(at)
        return with_ends(decision(at, state, player), playing, login, player, at)

    def answer(facts: Sequence[Fact]) -> ShutOut:
        for fact in facts:
            match fact.event:
                case protection.TimedOut(until=end, intervention=grounds):
                    return ShutOut(player_id, end, _reason_kept(grounds))
                case protection.Excluded(until=end, on_request=on_request, intervention=grounds):
                    return ShutOut(player_id, None if on_request else end, _reason_kept(grounds))
        return ShutOut(player_id, until)

    return Plan(
        edge.context,
        require=(Action.PROTECTION_SET,),
        writes=streams(id_),
        reads={"player": players.stream(id_)},
        decision=decide,
        answer=answer,
        key=_sealing_key if says else None,
    )


def _sealing_key(player: Player, **_: Any) -> tuple[str, str]:
    """What a person says is sealed under the player's own key. Raises NotFound."""
    return player.sealing_key()


def lift(player_id: str, command: Lift, edge: Edge) -> Plan:
    """Ask for the end of an exclusion that ends on request only. Raises NotFound, NotExcluded, LiftRefused (why, until)."""
    why = intervention(command.intervention, edge.context)
    already: datetime | None = None

    def decide(at: datetime, state: Protection, player: Player) -> list[ProtectionEvent]:
        nonlocal already
        player.require()
        runs = state.of(Source(command.source))
        already = runs.lifts_at if runs else None
        return protection.lift(state, source=Source(command.source), at=at, intervention=why)

    def answer(facts: Sequence[Fact]) -> LiftAccepted:
        for fact in facts:
            if isinstance(fact.event, protection.LiftRequested):
                return LiftAccepted(player_id, fact.event.effective_at)
        return LiftAccepted(player_id, already)

    return Plan(
        edge.context,
        require=(Action.PROTECTION_LIFT,),
        writes={"state": protection.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=answer,
        key=_sealing_key if why else None,
    )


def dismiss_match(player_id: str, command: DismissMatch, edge: Edge) -> Plan:
    """Find that an account is another person's than one that is shut out; whether a further one is shut out is looked at again.

    Raises NotFound, NotExcluded, KeyNotHeld.
    """
    why = intervention(command.intervention, edge.context)
    of = PlayerId(command.of) if command.of else None

    def decide(at: datetime, state: Protection, player: Player) -> list[Event]:
        player.require()
        return [*protection.dismiss_match(state, of=of, at=at, intervention=why), players.ComparisonAwaited()]

    return Plan(
        edge.context,
        require=(Action.PROTECTION_LIFT,),
        writes={"state": protection.stream(PlayerId(player_id)), "player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=lambda _facts: ProtectionChanged(player_id),
        key=_sealing_key if why else None,
    )


def block(player_id: str, command: BlockAction, edge: Edge) -> Plan:
    """Stop one thing for a player. Raises NotFound, InterventionMissing, TooManyReasons (reasons)."""
    why = _grounds(intervention(command.intervention, edge.context))

    def answer(facts: Sequence[Fact]) -> ActionStopped:
        kept = [_reason_kept(e.event.intervention) for e in facts if isinstance(e.event, protection.ActionBlocked)]
        return ActionStopped(player_id, *kept)

    return _of_house(
        player_id, edge, Action.PROTECTION_SET, why is not None,
        lambda _at, state, player: protection.stop(
            state, player, action=Stop(command.action), reason=command.reason, intervention=why
        ),
        answer,
    )  # fmt: skip


def unblock(player_id: str, command: UnblockAction, edge: Edge) -> Plan:
    """Take back a reason for which the house has stopped something for a player; after the last one it is possible again.

    Raises NotFound, InterventionMissing, KeyNotHeld.
    """
    why = intervention(command.intervention, edge.context)
    return _of_house(
        player_id, edge, Action.PROTECTION_LIFT, why is not None,
        lambda _at, state, player: protection.allow(
            state, player, action=Stop(command.action), reason=command.reason, intervention=why
        ),
        lambda _facts: ProtectionChanged(player_id),
    )  # fmt: skip


def _of_house(
    player_id: str,
    edge: Edge,
    require: Action,
    says: bool,
    decision: Callable[..., list[ProtectionEvent]],
    answer: Callable[[Sequence[Fact]], msgspec.Struct],
) -> Plan:
    def decide(at: datetime, state: Protection, player: Player) -> list[ProtectionEvent]:
        player.require()
        return decision(at, state, player)

    return Plan(
        edge.context,
        require=(require,),
        writes={"state": protection.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=answer,
        key=_sealing_key if says else None,
    )


def end(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Note that exclusions of a player are over. For timers. Raises EndNotDue."""
    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"state": protection.stream(PlayerId(player_id))},
        decision=lambda at, state: protection.end(state, at=at),
        answer=lambda _facts: ProtectionChanged(player_id),
    )


_ONE = "/v1/players/{player_id}"
_TERM = (NotFound, TermNotOffered, InterventionMissing)
_BY_HOUSE = (NotFound, InterventionMissing, KeyNotHeld)

ENDPOINTS = (
    Endpoint(f"{_ONE}/time-out", time_out, TimeOut, ShutOut, 200, _TERM),
    Endpoint(f"{_ONE}/panic", panic, Nothing, ShutOut, 200, (NotFound,)),
    Endpoint(f"{_ONE}/exclude", exclude, Exclude, ShutOut, 200, _TERM),
    Endpoint(f"{_ONE}/exclusion/lift", lift, Lift, LiftAccepted, 200, (*_BY_HOUSE, NotExcluded, LiftRefused)),
    Endpoint(
        f"{_ONE}/exclusion/dismiss-match",
        dismiss_match,
        DismissMatch,
        ProtectionChanged,
        200,
        (*_BY_HOUSE, NotExcluded),
    ),
    Endpoint(f"{_ONE}/exclusion/end", end, Nothing, ProtectionChanged, 200, (EndNotDue,)),
    Endpoint(f"{_ONE}/blocks", block, BlockAction, ActionStopped, 200, (NotFound, InterventionMissing, TooManyReasons)),
    Endpoint(f"{_ONE}/unblocks", unblock, UnblockAction, ProtectionChanged, 200, _BY_HOUSE),
)
