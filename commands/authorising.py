"""
Asking the policies about a command, on the states from which it is decided.

Invariants:
    - whoever's roles settle it whatever it is about costs nothing more: no state is loaded for the policies' sake;
    - otherwise the player whom the command concerns is among the states, and a condition of the append;
    - where there is nobody and nothing, who is bound to brands or countries is refused just as for another brand's player.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from access import cedar, resources
from access.cedar import Policies
from commands.plan import Plan
from domain import players
from domain.kernel import AnyStream, PlayerId

WHOSE = "whose"
"""The role under which the player's state is loaded for the policies; the plan itself does not hear of it."""


def asking(plan: Plan, policies: Policies | None = None) -> Plan:
    """The plan; where its policies depend on whom it is about, with that state and the question."""
    policies = policies or cedar.in_force()
    principal = plan.context.principal
    if not plan.require or policies.settled(principal, plan.require) is True:
        return plan

    def authorise(at: datetime, known: Mapping[str, Any]) -> None:
        require(plan, known, at, policies)

    def follow(**states: Any) -> Mapping[str, AnyStream[Any]]:
        own = _own(states)
        further = dict(plan.follow(**own)) if plan.follow else {}
        named = [*plan.writes.values(), *plan.reads.values(), *further.values()]
        if any(stream.aggregate is players.PLAYERS for stream in named):
            return further
        owner = resources.owner(own)
        return {**further, WHOSE: players.stream(PlayerId(owner))} if owner else further

    key, tells = plan.key, plan.tells
    return msgspec.structs.replace(
        plan,
        follow=follow,
        decision=lambda at, **states: plan.decision(at, **_own(states)),
        key=None if key is None else lambda **states: key(**_own(states)),
        tells=None if tells is None else lambda **states: tells(**_own(states)),
        authorise=authorise,
    )


def require(plan: Plan, known: Mapping[str, Any], at: datetime, policies: Policies | None = None) -> None:
    """Raises Forbidden unless whoever asks may do this to each player among the states."""
    for matter in resources.of(known, at, plan.about):
        (policies or cedar.in_force()).require(plan.context.principal, plan.require, matter, at)


def _own(states: Mapping[str, Any]) -> dict[str, Any]:
    return {role: state for role, state in states.items() if role != WHOSE}
