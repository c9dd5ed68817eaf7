"""What became of a command, on HTTP: for whoever sent it, and for whoever may read the log."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from access.policy import Action
from app import causal, problems
from app import seeing as sight
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from domain.errors import Forbidden, Invalid, NotFound
from queries import fates
from queries.seeing import NotSeen
from replication.geo import Confirmations

_encode = msgspec.json.Encoder().encode


def router(read: ReadSide, schemas: Schemas, confirmations: Confirmations) -> APIRouter:
    """The route /v1/commands/{command_id}, where the 202 of a command points."""
    routes = APIRouter(tags=["commands"], route_class=causal.routes(read, schemas))

    async def fate(request: Request, command_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Response:
        """What became of a command: where it stands, and which other regions hold it. Not found while it has not come here."""
        principal = await read.authentication(request.scope)
        found = await fates.find(read.context(), read.log, command_id, confirmations.heard)
        if found.actor != principal.actor:
            try:
                await sight.require_of(read, principal, Action.LOG_READ)
            except Forbidden:
                raise NotSeen(fates.MISSING) from None
            await read.recorded(principal, "command.fate", command_id=command_id)
        headers = {"Cache-Control": "no-store"}
        return Response(_encode(found.fate), media_type="application/json", headers=headers)

    routes.add_api_route(
        "/v1/commands/{command_id}",
        fate,
        methods=["GET"],
        name="commands.fate",
        summary="What became of a command",
        openapi_extra=causal.reads(causal.LOG),
        responses={
            200: {"description": "Found", "content": schemas.json(fates.CommandFate)},
            **schemas.refusals((problems.Unauthenticated, Invalid, NotFound, *UNRECORDED)),  # type: ignore[dict-item]
        },
    )
    return routes
