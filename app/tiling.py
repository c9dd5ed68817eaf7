"""
A log on HTTP as its regulator reads it: C2SP tlog-tiles below /v1/logs/<log>, and proofs beside them.

Invariants:
    - heads, and that one continues another, are public; entries and their hashes need the right to read the audit;
    - what never changes may be kept for ever by whoever was allowed to read it, and by no shared cache.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from access.policy import Action
from app import causal, openapi, problems
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from domain.errors import Forbidden, Invalid, NotFound, Rejected
from queries import tiles
from queries.context import LIMIT_MAX, Context
from queries.tiles import NotPublished

_ENTRIES = "entries/"
_BYTES = "application/octet-stream"
_TEXT = "text/plain"
_FOR_A_SECOND = {"Cache-Control": "public, max-age=1"}  # at most one head a second is signed
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_GUARDED: tuple[type[Rejected], ...] = (problems.Unauthenticated, Forbidden, *UNRECORDED)

Number = Annotated[int, Query(ge=0, le=tiles.POSITION_MAX)]
Size = Annotated[int, Query(ge=1, le=tiles.POSITION_MAX)]
Position = Annotated[int, Path(ge=1, le=tiles.POSITION_MAX)]
_encode = msgspec.json.Encoder().encode


def router(read: ReadSide, schemas: Schemas) -> APIRouter:
    """The routes of all logs held here."""
    routes = APIRouter(prefix="/v1/logs/{log}", tags=["logs"], route_class=causal.routes(read, schemas))

    _add_heads(routes, read.context, schemas)
    _add_entries(routes, read, schemas)
    return routes


def _add_heads(routes: APIRouter, public: Callable[[], Context], schemas: Schemas) -> None:
    async def checkpoint(log: str) -> Response:
        """The newest published head, signed: C2SP tlog-checkpoint."""
        return Response(await tiles.checkpoint(public(), log), media_type=_TEXT, headers=_FOR_A_SECOND)

    async def heads(
        log: str, after: Number = 0, limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50, cursor: str | None = None
    ) -> Response:
        """The published heads of more than `after` entries, the smallest first."""
        found = await tiles.heads(public(), log, after, limit, cursor)
        return Response(_encode(found), media_type="application/json", headers=_FOR_A_SECOND)

    async def consistency(log: str, first: Annotated[Size, Query(alias="from")], to: Size) -> Response:
        """The proof that the tree of `to` entries begins with that of `from`."""
        return Response(_encode(await tiles.consistency(public(), log, first, to)), media_type="application/json")

    _add(routes, "/checkpoint", checkpoint, _text("A signed note"), schemas)
    _add(routes, "/heads", heads, schemas.json(tiles.HeadPage), schemas)
    _add(routes, "/consistency", consistency, schemas.json(tiles.Consistency), schemas)


def _add_entries(routes: APIRouter, read: ReadSide, schemas: Schemas) -> None:
    async def tile(request: Request, log: str, path: str) -> Response:
        """A tile of hashes, `<level>/<index>`, or a bundle of entries, `entries/<index>`: C2SP tlog-tiles."""
        principal = await read.auditor(request, Action.LOG_READ)
        if not request.scope["path"].endswith(f"/{path}"):
            raise NotFound("a path ends in no line feed")  # which the router's pattern leaves out
        found = await tiles.file(read.context(), log, f"tile/{path}")
        await read.recorded(principal, "log.read", log=log)
        headers = dict(_FOR_EVER)
        if path.startswith(_ENTRIES):
            headers["Vary"] = "Accept-Encoding"
            if takes_gzip(request.headers.get("Accept-Encoding", "")):
                headers["Content-Encoding"] = "gzip"
                found = await asyncio.to_thread(gzip.compress, found, 6, mtime=0)
        return Response(found, media_type=_BYTES, headers=headers)

    async def proof(
        request: Request,
        log: str,
        position: Position,
        form: Annotated[Literal["json", "tlog-proof"] | None, Query(alias="format")] = None,
    ) -> Response:
        """The proof that an entry stands in the newest published head: JSON, or a C2SP tlog-proof if Accept asks for text."""
        principal = await read.auditor(request, Action.LOG_READ)
        found = await tiles.inclusion(read.context(), log, position)
        await read.recorded(principal, "log.proof", log=log, position=position)
        headers = {"Vary": "Accept", "Cache-Control": "no-store"}
        if form == "tlog-proof" or (form is None and _TEXT in request.headers.get("Accept", "")):
            return Response(found.file(), media_type=_TEXT, headers=headers)
        return Response(_encode(found), media_type="application/json", headers=headers)

    file = {_BYTES: {"schema": {"type": "string", "format": "binary"}}}
    both = {**schemas.json(tiles.Inclusion), **_text("A tlog-proof")}
    _add(routes, "/tile/{path:path}", tile, file, schemas, *_GUARDED)
    _add(routes, "/entries/{position}/proof", proof, both, schemas, *_GUARDED)


def _add(
    routes: APIRouter,
    path: str,
    endpoint: Callable[..., Awaitable[Response]],
    content: dict[str, Any],
    schemas: Schemas,
    *errors: type[Rejected],
) -> None:
    # Not in openapi_extra: there FastAPI would add a refusal of its own, whose schema does not exist.
    refusals: dict[int | str, Any] = schemas.refusals((*errors, Invalid, NotFound, NotPublished))  # type: ignore[assignment]
    is_guarded = problems.Unauthenticated in errors
    guarded = openapi.needs(Action.LOG_READ) if is_guarded else openapi.UNGUARDED
    guarded = {**guarded, **causal.reads(causal.HEADS)}
    routes.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        name=f"logs.{endpoint.__name__}",
        summary=(endpoint.__doc__ or "").partition(":")[0].rstrip("."),
        responses={200: {"description": "Found", "content": content}, **refusals},
        openapi_extra=guarded,
    )


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip (RFC 9110, section 12.5.3): named, or meant by *, and not with a weight of 0."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, parameter = (each.strip() for each in part.partition(";"))
        try:
            weights[coding] = float(parameter.removeprefix("q=")) if parameter else 1.0
        except ValueError:
            weights[coding] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _text(description: str) -> dict[str, Any]:
    return {_TEXT: {"schema": {"type": "string", "description": description}}}
