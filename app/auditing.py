"""
The audit on HTTP: who did what, as pages, as a stream, live; one entry; a player as of a moment.

Invariants:
    - every read stands in the log before its answer begins (commands/reads.py), and what is refused leaves no trace;
    - a stream ends at the heads that the logs had at its start; only a live one goes on, as long as whoever asked still may.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from access.policy import Action, Principal
from app import causal, openapi, problems
from app import seeing as sight
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from app.streaming import NDJSON, SSE, STILL_HERE, STILL_HERE_SECONDS, Still
from domain.errors import Forbidden, Invalid, InvalidId, NotFound, Rejected
from domain.kernel import PlayerId
from projections.projection import Position
from queries import asof, audit, events
from queries import causal as positions
from queries.asof import UnknownMoment, microseconds
from queries.audit import AuditEvent, shown, with_proofs
from queries.context import LIMIT_MAX, Context, read_cursor, write_cursor
from queries.events import END_US, Merged, Row, Selection, parse_vector, write_vector
from queries.tiles import POSITION_MAX

STEPS_MAX = 20
"""Pages of each log that a request for JSON looks at before it answers with what it has found."""
_LOOK_AGAIN_SECONDS = 0.5
_JSON = "application/json"
_ALWAYS: tuple[type[Rejected], ...] = (problems.Unauthenticated, Forbidden, Invalid, *UNRECORDED)
_encode = msgspec.json.Encoder().encode


class _Asked(NamedTuple):
    """A request for events, and who asks. `query`: what is recorded of it."""

    principal: Principal
    selection: Selection
    after: str
    proofs: bool
    query: dict[str, Any]
    still: Still


def router(read: ReadSide, schemas: Schemas) -> APIRouter:
    """All audit routes."""
    routes = APIRouter(tags=["audit"], route_class=causal.routes(read, schemas))
    _add_events(routes, read, schemas)
    _add_single(routes, read, schemas)
    return routes


def _add_events(routes: APIRouter, read: ReadSide, schemas: Schemas) -> None:
    async def found(
        request: Request,
        player: Annotated[str | None, Query(description="All events of commands that wrote to this player.")] = None,
        operator: Annotated[str | None, Query(description="The actor, e.g. operator:ann.")] = None,
        type_: Annotated[str | None, Query(alias="type", description="A tag, or its beginning: wallet.*")] = None,
        log: str | None = None,
        since: Annotated[str | None, Query(alias="from", description="RFC 3339; recorded then or later.")] = None,
        to: Annotated[str | None, Query(description="RFC 3339; recorded before.")] = None,
        after: Annotated[str, Query(description="Start behind these positions: eu/12,us/3.")] = "",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        cursor: str | None = None,
        proofs: bool = False,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The events of all logs held here: a page of JSON; all up to the heads as NDJSON, or live as server-sent events, if Accept asks for it."""
        principal = await read.auditor(request, player=player)
        query = {
            "player": player, "operator": operator, "type": type_, "log": log, "from": since, "to": to,
            "after": last_event_id or after or None, "cursor": cursor, "proofs": proofs or None,
        }  # fmt: skip
        selection = Selection(
            PlayerId(player) if player is not None else None,
            operator,
            type_,
            log,
            0 if since is None else microseconds(since, "from"),
            END_US if to is None else microseconds(to, "to"),
        )
        accepted, still = request.headers.get("Accept", ""), read.still(request, Action.AUDIT_READ, player)
        if SSE in accepted:
            if to is not None:
                raise Invalid("a live stream does not end", parameter="to")
            return await _live(read, _Asked(principal, selection, last_event_id or after, proofs, query, still))
        if NDJSON in accepted:
            return await _all(read, _Asked(principal, selection, after, proofs, query, still))
        (after,) = read_cursor(cursor, tuple[str]) if cursor is not None else (after,)
        return await _page(read, _Asked(principal, selection, after, proofs, query, still), limit)

    routes.add_api_route(
        "/v1/audit",
        found,
        methods=["GET"],
        name="audit.events",
        summary="The events of all logs held here",
        responses={
            200: {
                "description": "Found",
                "content": {
                    **schemas.json(audit.AuditEvents),
                    NDJSON: {"schema": schemas.ref(AuditEvent)},
                    SSE: {"schema": {"type": "string", "description": "data: AuditEvent, id: positions"}},
                },
            },
            **schemas.refusals((*_ALWAYS, InvalidId, UnknownMoment, NotFound)),  # type: ignore[dict-item]
        },
        openapi_extra={**openapi.needs(Action.AUDIT_READ), **causal.reads(causal.LOG)},
    )


async def _page(read: ReadSide, asked: _Asked, limit: int) -> Response:
    context = read.context()
    merged = await Merged.begin(context, asked.selection, parse_vector(asked.after))
    rows: list[Row] = []
    for _ in range(STEPS_MAX):
        rows += await merged.step(limit - len(rows))
        if merged.done or len(rows) == limit:
            break
    items = await _events(context, rows, proofs=asked.proofs)
    looked_at = write_vector(merged.vector)
    await read.recorded(asked.principal, "audit.events", **asked.query, limit=limit)
    page = audit.AuditEvents(items, None if merged.done else write_cursor(looked_at), looked_at)
    return Response(_encode(page), media_type=_JSON)


async def _all(read: ReadSide, asked: _Asked) -> Response:
    context = read.context()
    merged = await Merged.begin(context, asked.selection, parse_vector(asked.after))
    await read.recorded(asked.principal, "audit.stream", **asked.query)

    async def lines() -> AsyncIterator[bytes]:
        while not merged.done:
            items = await _events(context, await merged.step(), proofs=asked.proofs)
            at = _encode({"positions": write_vector(merged.vector)})
            yield b"".join([_encode(item) + b"\n" for item in items]) + at + b"\n"

    return StreamingResponse(asked.still.over(lines()), media_type=NDJSON)


async def _live(read: ReadSide, asked: _Asked) -> Response:
    context = read.context()
    merged = await Merged.begin(context, asked.selection, parse_vector(asked.after))
    await read.recorded(asked.principal, "audit.live", **asked.query)
    return StreamingResponse(
        _followed(read, context, asked, merged), media_type=SSE, headers={"Cache-Control": "no-cache"}
    )


async def _followed(read: ReadSide, context: Context, asked: _Asked, merged: Merged) -> AsyncIterator[bytes]:
    """Each event with the vector behind it; an id without data where nothing was found in what was looked at. Ends with the service, and
    with the right to it.
    """
    later = asked.selection._replace(since=0)  # of which the vector takes care from now on
    loop = asyncio.get_running_loop()
    said = loop.time()
    yield b"retry: 1000\n\n"
    while not read.stop.is_set() and await asked.still.holds():
        while not merged.done and not read.stop.is_set():
            if not await asked.still.holds():
                return
            for item, place in await _taken(context, merged, proofs=asked.proofs):
                yield b"id: %b\nevent: entry\ndata: %b\n\n" % (place.encode(), _encode(item))
            yield b"id: %b\n\n" % (await positions.named(context, merged.vector)).encode()
            said = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                await read.stop.wait()
        if loop.time() > said + STILL_HERE_SECONDS:
            yield STILL_HERE
            said = loop.time()
        vector = merged.vector
        if any(vector.get(log.name, 0) < log.head for log in await events.logs(context, later.log)):
            merged = await Merged.begin(context, later, vector)


async def _taken(context: Context, merged: Merged, *, proofs: bool) -> list[tuple[AuditEvent, str]]:
    """The next events, each with the positions after which to go on."""
    vector = merged.vector
    rows = await merged.step()
    leaves = await positions.leaves_of(context, vector)
    stands = {log: Position(position, leaves.get((log, position), b"")) for log, position in vector.items()}
    places = []
    for row in rows:
        stands[row.log] = Position(row.position, row.leaf)
        places.append(positions.write(stands))
    return list(zip(await _events(context, rows, proofs=proofs), places, strict=True))


async def _events(context: Context, rows: Sequence[Row], *, proofs: bool) -> list[AuditEvent]:
    items = [shown(row) for row in rows]
    return await with_proofs(context, items) if proofs else items


def _add_single(routes: APIRouter, read: ReadSide, schemas: Schemas) -> None:
    async def entry(
        request: Request, log: str, position: Annotated[int, Path(ge=1, le=POSITION_MAX)], proof: bool = False
    ) -> Response:
        """One entry, with the bytes that were hashed; with `proof` also that it stands in the newest published head."""
        principal = await read.auditor(request, Action.LOG_READ)
        if "\0" in log:  # no text of PostgreSQL holds it
            raise NotFound("no log has this name")
        found = await audit.entry(read.context(), log, position, proof=proof)
        await read.recorded(principal, "audit.entry", log=log, position=position, proof=proof or None)
        return Response(_encode(found), media_type=_JSON)

    async def player(
        request: Request,
        player_id: str,
        at: Annotated[str | None, Query(description="eu/1234, or an RFC 3339 time; now if absent.")] = None,
        proofs: bool = False,
    ) -> Response:
        """A player's card as of a moment; with `proofs` also the entries that it was made from."""
        principal = await read.auditor(request, player=player_id)
        seen = sight.everything(principal)
        asked = {"player_id": player_id, "at": at, "proofs": proofs or None}
        async with read.opening(principal, "audit.player", asked, seen, always=True) as context:
            found = await asof.player(context, PlayerId(player_id), at, proofs=proofs)
        return Response(_encode(found), media_type=_JSON)

    for path, endpoint, action, answer, errors in (
        ("/v1/audit/entries/{log}/{position}", entry, Action.LOG_READ, audit.AuditedEntry, (NotFound,)),
        (
            "/v1/audit/players/{player_id}",
            player,
            Action.AUDIT_READ,
            asof.PlayerAsOf,
            (NotFound, InvalidId, UnknownMoment, problems.Unopenable),
        ),
    ):
        routes.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            name=f"audit.{endpoint.__name__}",
            summary=(endpoint.__doc__ or "").partition(";")[0].partition(",")[0].rstrip("."),
            responses={
                200: {"description": "Found", "content": schemas.json(answer)},
                **schemas.refusals((*_ALWAYS, *errors)),  # type: ignore[dict-item]
            },
            openapi_extra={**openapi.needs(action), **causal.reads(causal.LOG)},
        )
