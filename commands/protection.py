"""
Commands on protection: time-outs, exclusions and how they end, what the house stops for one player, and what registers say.

Invariants:
    - who is shut out is logged out, and their games are ended, by the same command;
    - a refusal because a player is protected stands in the log (`guarded`);
    - no decision asks a register: what it has answered comes with the edge, and where none has, that is recorded.
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
    Answer,
    EndNotDue,
    LiftRefused,
    NotExcluded,
    PlayerExcluded,
    PlayRefused,
    Protection,
    ProtectionEvent,
    Said,
    Source,
    Stop,
    TermNotOffered,
)
from policies import protection as policy
from policies.limits import zone
from policies.protection import Moment, Silence

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
    """The account is another person's than the excluded one's."""

    intervention: Why | None = None


class BlockAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a word, such as harm. `intervention`: needed from people."""

    action: Literal["deposit", "bet", "bonus", "withdraw", "login", "marketing"]
    reason: Word
    intervention: Why | None = None


class UnblockAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    action: Literal["deposit", "bet", "bonus", "withdraw", "login", "marketing"]
    intervention: Why | None = None


class CheckRegister(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`moment`: for what the answer is wanted."""

    moment: Literal["login", "marketing", "prize_payment"] = "marketing"


class ShutOut(msgspec.Struct, frozen=True):
    """`until`: when it ends by itself; null if it does not."""

    player: str
    until: datetime | None


class LiftAccepted(msgspec.Struct, frozen=True):
    """`effective_at`: from when on the player may gamble again."""

    player: str
    effective_at: datetime | None


class ProtectionChanged(msgspec.Struct, frozen=True):
    player: str


class RegisterChecked(msgspec.Struct, frozen=True):
    """`answer`: null where no register is asked at this moment, or nothing has changed since it was last found silent."""

    player: str
    answer: Said | None


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


def heard(
    edge: Edge, state: Protection, jurisdiction: str, moment: Moment, at: datetime
) -> tuple[list[ProtectionEvent], Protection]:
    """What the registers have said that are to be asked at this moment, and what follows from it; and the state by then."""
    register = policy.register(jurisdiction, moment, at)
    if register is None:
        return [], state
    answers = [
        each for each in edge.asked if each.moment is moment and (not register.name or each.register == register.name)
    ]
    if not answers:
        silence = edge.unasked if register.name else Silence.NOT_RESEARCHED
        answers = [Answer(register.name, moment, Said.UNANSWERED, silence=silence)]
    events: list[ProtectionEvent] = []
    for each in answers:
        made = protection.hear(state, jurisdiction, each, at=at)
        state = protection.fold(state, made, at)
        events += made
    return events, state


def registering(plan: Plan, player_id: PlayerId, jurisdiction: str, edge: Edge) -> Plan:
    """A registration of which a register was asked: whoever is excluded gets no account, and nothing is kept of them.

    A house that was told of no registers at all says so when it starts, and at each player's first log-in.
    """
    if edge.unasked is Silence.NOT_CONFIGURED and not edge.asked:
        return msgspec.structs.replace(plan, answer=told(plan.answer))  # perhaps it was refused when it came first
    of_protection = {"protected": protection.stream(player_id)}
    fresh = plan.fresh | {"protected"}
    if any(each.said is Said.EXCLUDED for each in edge.asked):

        def refuse(at: datetime, protected: Protection) -> RefusedFact:
            asked, after = heard(edge, protected, jurisdiction, Moment.REGISTRATION, at)
            error = after.refusal(Stop.REGISTER, at) or PlayerExcluded(until=None)
            said = [each for each in asked if isinstance(each, protection.RegisterAsked)]
            return RefusedFact(error, [*said, protection.refused(Stop.REGISTER, error)])

        return Plan(plan.context, plan.require, of_protection, refuse, told(plan.answer), fresh=fresh)

    def decision(at: datetime, protected: Protection, **states: Any) -> Sequence[Event] | RefusedFact:
        made = plan.decision(at, **states)
        if isinstance(made, RefusedFact) or not made:
            return made
        return [*made, *heard(edge, protected, jurisdiction, Moment.REGISTRATION, at)[0]]

    return msgspec.structs.replace(
        plan, writes={**plan.writes, **of_protection}, fresh=fresh, decision=decision, answer=told(plan.answer)
    )


# Commands


def time_out(player_id: str, command: TimeOut, edge: Edge) -> Plan:
    """Pause a player's gambling, at once. Raises NotFound, TermNotOffered (allowed, rule, verified), KeyNotHeld."""
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
    """Exclude a player from gambling, at once. Raises NotFound, TermNotOffered (allowed, rule, verified), KeyNotHeld."""
    why = _why(command, edge)
    return _shutting_out(
        player_id, edge, why is not None,
        lambda at, state, player: protection.exclude(
            state, player, wanted=policy.term(command.term), source=Source(command.source), at=at, intervention=why
        ),
    )  # fmt: skip


def _why(command: TimeOut, edge: Edge) -> Intervention | None:
    """A player's own wish needs no reason from whoever writes it down. Raises InterventionMissing."""
    if command.source == "player" and command.intervention is None:
        return None
    return intervention(command.intervention, edge.context)


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
                case protection.TimedOut(until=end):
                    return ShutOut(player_id, end)
                case protection.Excluded(until=end, on_request=on_request):
                    return ShutOut(player_id, None if on_request else end)
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
    """Find that an account is another person's than the excluded one's; whether a further one is shut out is looked at again.

    Raises NotFound, NotExcluded.
    """
    why = intervention(command.intervention, edge.context)

    def decide(at: datetime, state: Protection, player: Player) -> list[Event]:
        made = protection.dismiss_match(state, at=at, intervention=why)
        return [*made, players.ComparisonAwaited()] if player.duplicates else [*made]

    return Plan(
        edge.context,
        require=(Action.PROTECTION_LIFT,),
        writes={"state": protection.stream(PlayerId(player_id)), "player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=lambda _facts: ProtectionChanged(player_id),
        key=_sealing_key if why else None,
    )


def block(player_id: str, command: BlockAction, edge: Edge) -> Plan:
    """Stop one thing for a player. Raises NotFound, InterventionMissing."""
    why = intervention(command.intervention, edge.context)
    return _of_house(
        player_id, edge, Action.PROTECTION_SET, why is not None,
        lambda _at, state, player: protection.stop(
            state, player, action=Stop(command.action), reason=command.reason, intervention=why
        ),
    )  # fmt: skip


def unblock(player_id: str, command: UnblockAction, edge: Edge) -> Plan:
    """Allow again what the house has stopped for a player. Raises NotFound, InterventionMissing."""
    why = intervention(command.intervention, edge.context)
    return _of_house(
        player_id, edge, Action.PROTECTION_LIFT, why is not None,
        lambda _at, state, player: protection.allow(state, player, action=Stop(command.action), intervention=why),
    )  # fmt: skip


def _of_house(
    player_id: str, edge: Edge, require: Action, says: bool, decision: Callable[..., list[ProtectionEvent]]
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
        answer=lambda _facts: ProtectionChanged(player_id),
        key=_sealing_key if says else None,
    )


def check_register(player_id: str, command: CheckRegister, edge: Edge) -> Plan:
    """Ask the register of a player's jurisdiction, and record what it says. Raises NotFound."""
    return hear_register(PlayerId(player_id), Moment(command.moment), edge)


def hear_register(player_id: PlayerId, moment: Moment, edge: Edge) -> Plan:
    """Record what the register of a player's jurisdiction has said. Raises NotFound."""

    def decide(at: datetime, state: Protection, playing: Play, login: Login, player: Player) -> list[Event]:
        player.require()
        events, _ = heard(edge, state, player.jurisdiction, moment, at)
        return with_ends(events, playing, login, player, at)

    def answer(facts: Sequence[Fact]) -> RegisterChecked:
        said = [fact.event.answer for fact in facts if isinstance(fact.event, protection.RegisterAsked)]
        return RegisterChecked(player_id, said[-1] if said else None)

    return Plan(
        edge.context,
        require=(Action.PROTECTION_SET,),
        writes=streams(player_id),
        reads={"player": players.stream(player_id)},
        decision=decide,
        answer=answer,
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
_TERM = (NotFound, TermNotOffered, InterventionMissing, KeyNotHeld)
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
    Endpoint(f"{_ONE}/blocks", block, BlockAction, ProtectionChanged, 200, _BY_HOUSE),
    Endpoint(f"{_ONE}/unblocks", unblock, UnblockAction, ProtectionChanged, 200, _BY_HOUSE),
    Endpoint(f"{_ONE}/register-check", check_register, CheckRegister, RegisterChecked, 200, (NotFound,)),
)
