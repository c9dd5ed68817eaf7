"""Refusals on their way out: those of somebody known are recorded, whatever they had asked for."""

from __future__ import annotations

from typing import Any

from starlette.types import Scope

from access.policy import Principal
from app.starting import Pool, Start, refuse_unwritable
from commands.decider import Decider
from commands.denials import Denials, kind_of
from commands.plan import Plan, Receipt
from domain.errors import Forbidden
from queries.seeing import NotSeen


def recorder(decider: Decider, pool: Pool, start: Start, **time: Any) -> Denials:
    """Who records what is refused here, once the start of this process is recorded. `time`: as for Denials."""

    async def decide(plan: Plan) -> Receipt:
        start.require()
        await refuse_unwritable(pool)
        return await decider.decide(plan)

    return Denials(decider.log, decide, **time)


def note(denials: Denials | None, scope: Scope, error: object, what: str = "") -> None:
    """Count a refusal, if it is one. `what`: the route, where it is another than the request's."""
    principal: Principal | None = scope.get("principal")
    if denials is not None and principal is not None and isinstance(error, Forbidden | NotSeen):
        route = what or getattr(scope.get("route"), "path", "") or "unknown"
        denials.note(principal, kind_of(f"{scope['method']} {route}", error))
