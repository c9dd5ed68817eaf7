"""What became of a command, on HTTP: for whoever sent it, and for whoever may read the log."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from access.policy import Action
from app import causal, lane, problems
from app import seeing as sight
from app.forwarding import Forwarding, Hop, Traced
from app.lane import Answered
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from domain.errors import Forbidden, Invalid, NotFound
from queries import fates
from queries.fates import Found
from queries.seeing import NotSeen
from replication.geo import Confirmations

ELSEWHERE_S = 3.0
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Found).decode


class _Fates:
    """`forwarding`: to ask the other regions; None where there is none."""

    def __init__(self, read: ReadSide, confirmations: Confirmations, forwarding: Forwarding | None) -> None:
        self._read = read
        self._confirmations = confirmations
        self._forwarding = forwarding

    async def here(self, command_id: str) -> Found:
        """As the logs that are held here tell it. Raises NotFound."""
        return await fates.find(self._read.context(), self._read.log, command_id, self._confirmations.heard)

    async def anywhere(self, command_id: str) -> Found:
        """Raises NotFound, Busy."""
        try:
            return await self.here(command_id)
        except NotFound:
            if self._forwarding is None:
                raise
            return await _elsewhere(self._forwarding, command_id)

    async def told(self, traced: Traced, _hop: Hop) -> Answered:
        """For another region, which judges by itself who may know."""
        try:
            return lane.json(200, _encode(await self.here(traced.command)))
        except NotFound as nothing:
            return lane.refusal(nothing)


def router(
    read: ReadSide, schemas: Schemas, confirmations: Confirmations, forwarding: Forwarding | None = None
) -> APIRouter:
    """The route /v1/commands/{command_id}, where the 202 of a command points."""
    routes = APIRouter(tags=["commands"], route_class=causal.routes(read, schemas))
    known = _Fates(read, confirmations, forwarding)
    if forwarding is not None:
        forwarding.takes(Traced, known.told)

    async def fate(request: Request, command_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Response:
        """What became of a command: where it stands, and which other regions hold it. Not found where no region has recorded it: not yet,
        if it was answered `unknown`. Whoever sends it again with the same key knows.
        """
        principal = await read.authentication(request.scope)
        found = await known.anywhere(command_id)
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


async def _elsewhere(forwarding: Forwarding, command_id: str) -> Found:
    """What another region says, of which no copy is here yet. Raises NotFound if none holds it, Busy if that is not known."""

    async def ask(region: str) -> Answered | None:
        try:
            async with asyncio.timeout(ELSEWHERE_S):
                return await forwarding.look(region, Traced(command_id))
        except TimeoutError:
            return None

    regions = forwarding.regions
    silent = []
    for region, answered in zip(regions, await asyncio.gather(*map(ask, regions)), strict=True):
        if answered is not None and answered.status == HTTPStatus.OK:
            return _decode(answered.body)
        if answered is None or answered.status != HTTPStatus.NOT_FOUND:
            silent.append(region)
    if silent:
        raise problems.Busy(f"no copy here has it, and whether it stands in {', '.join(silent)} is not known")
    raise NotFound(fates.MISSING)
