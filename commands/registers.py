"""
Commands on what registers of the excluded have said: of a player, of whoever registers, and of whoever is paid.

Invariant: no decision asks a register: what it has answered comes with the edge, and where none has, that is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint
from commands.plan import Fact, Plan, RefusedFact
from commands.protection import streams, told, with_ends
from domain import logins, play, players, protection
from domain.errors import NotFound
from domain.kernel import AnyStream, Event, PlayerId
from domain.logins import Login
from domain.play import Play
from domain.players import Player
from domain.protection import Answer, PlayerExcluded, Protection, ProtectionEvent, Said, Stop
from policies import protection as policy
from policies.protection import Moment, Silence


class CheckRegister(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`moment`: for what the answer is wanted."""

    moment: Literal["login", "marketing", "prize_payment"] = "marketing"


class RegisterChecked(msgspec.Struct, frozen=True):
    """`answer`: null where no register is asked at this moment, or nothing has changed since it was last found silent."""

    player: str
    answer: Said | None


# What others need of registers


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


def paying_prize(plan: Plan, player_id: PlayerId, edge: Edge) -> Plan:
    """A guarded withdrawal, before which a register was asked where the law wants it: whoever is excluded is shut out, and gets
    their money.
    """
    at_end: Mapping[str, AnyStream[Any]] = {"playing": play.stream(player_id), "login": logins.stream(player_id)}

    def follow(player: Player, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        asked = policy.register(player.jurisdiction, Moment.PRIZE_PAYMENT, edge.context.now)
        return {} if asked is None else at_end

    def decision(
        at: datetime,
        player: Player,
        protected: Protection,
        playing: Play | None = None,
        login: Login | None = None,
        **states: Any,
    ) -> Sequence[Event] | RefusedFact:
        made = plan.decision(at, player=player, protected=protected, **states)
        if playing is None or login is None or isinstance(made, RefusedFact) or not made:
            return made
        events, _ = heard(edge, protected, player.jurisdiction, Moment.PRIZE_PAYMENT, at)
        return [*made, *with_ends(events, playing, login, player, at)]

    return msgspec.structs.replace(plan, follow=follow, decision=decision)


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


ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/register-check", check_register, CheckRegister, RegisterChecked, 200, (NotFound,)
    ),
)
