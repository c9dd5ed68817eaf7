"""
Why somebody may, or may not: GET /v1/access/explain, for those who answer for the policies.

Invariants:
    - a player is named by those alone who may read of that player, and is explained as far as they may know: else every refusal would
      tell them something;
    - others say of what kind of player they ask.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from access import cedar
from access.cedar import Explanation
from access.policy import Action, Principal
from access.resources import SECRECY
from app import causal, openapi, problems
from app import seeing as sight
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from domain.errors import Forbidden, Invalid, InvalidId, NotFound, Rejected
from domain.kernel import parse_instant
from queries import seeing

if TYPE_CHECKING:
    from access.predicate import Known

_ERRORS: tuple[type[Rejected], ...] = (
    problems.Unauthenticated,
    Forbidden,
    Invalid,
    InvalidId,
    NotFound,
    *UNRECORDED,
)
_encode = msgspec.json.Encoder().encode


def router(read: ReadSide, schemas: Schemas, known: Callable[[str], Principal | None]) -> APIRouter:
    """`known(actor)`: what somebody may do now, if they are known."""
    routes = APIRouter(tags=["access"], route_class=causal.routes(read, schemas))

    async def explain(
        request: Request,
        actor: Annotated[str, Query(description="As it stands in events, e.g. operator:ann.")],
        action: Annotated[Action, Query(description="What they want to do.")],
        player: Annotated[str | None, Query(description="To which player, whom you may read of.")] = None,
        brand: Annotated[
            str | None, Query(description="Or to players of which brand; of none in particular if absent.")
        ] = None,
        country: Annotated[str | None, Query(description="And of which country: ISO 3166-1 alpha-2.")] = None,
        amount: Annotated[int | None, Query(ge=0, le=2**53 - 1, description="Minor units.")] = None,
        currency: Annotated[str | None, Query(description="ISO 4217 code of the amount.")] = None,
        assignee: Annotated[str | None, Query(description="To whom the ticket or notice was given.")] = None,
        at: Annotated[str | None, Query(description="RFC 3339; now if absent.")] = None,
    ) -> Response:
        """Which policies decide whether somebody may do something now, and why."""
        principal = await read.auditor(request, Action.ACCESS_EXPLAIN)
        await read.authentication.renew()
        asked = known(actor)
        if asked is None:
            raise NotFound("nobody here is called so")
        about: dict[str, str | int] = {}
        given = {"brand": brand, "country": country, "amount": amount, "currency": currency, "assignee": assignee}
        about |= {name: value for name, value in given.items() if value is not None}
        if player is not None:
            await sight.require_of(read, principal, Action.PLAYER_READ, player)
            about |= await seeing.known(read.context(), "player_id", player)
            if not sight.may_know(principal)(about):
                about.pop(SECRECY, None)
        found = explained(asked, action, about, at)
        await read.recorded(principal, "access.explain", actor=actor, action=str(action), player=player, at=at)
        return Response(_encode(found), media_type="application/json")

    routes.add_api_route(
        "/v1/access/explain",
        explain,
        methods=["GET"],
        name="access.explain",
        summary="Why somebody may, or may not",
        responses={200: {"description": "Found", "content": schemas.json(Explanation)}, **schemas.refusals(_ERRORS)},  # type: ignore[dict-item]
        openapi_extra={**openapi.needs(Action.ACCESS_EXPLAIN), **causal.reads(causal.LOG, "players")},
    )
    return routes


def explained(asked: Principal, action: Action, about: Known, at: str | None) -> Explanation:
    """Raises Invalid."""
    try:
        moment = parse_instant(at) if at else datetime.now(UTC)
    except ValueError as error:
        raise Invalid(str(error), parameter="at") from None
    return cedar.in_force().explain(asked, action, about, moment.astimezone(UTC))
