"""
Reads that include what the client has seen: `?at_least=` on every read, and on every answer the positions that it was made from.

Each route says in OpenAPI what it is made of (`x-reads`): read models, `log` (entries themselves), `heads` (published heads), or
nothing that a log says. `{name}` there stands for that part of the path.

Invariants:
    - nobody waits who was not authenticated, except for what is public;
    - a route that does not say what it reads does not come into being;
    - the answer to a client that waited in vain is a refusal, never an older state.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.routing import APIRoute
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from starlette.responses import Response

from app import openapi
from domain.errors import Invalid
from queries import causal
from queries.causal import HEADS, LOG, NotYet, PositionMalformed, PositionStranded, Seen, UnknownLog, Waiting
from queries.context import Context, open_nothing

if TYPE_CHECKING:
    from app.openapi import Schemas
    from app.querying import ReadSide

WAIT_MS_MAX = 5_000
HEADER = "Ledger-Position"
_LAST_ID = "Last-Event-ID"
NOTHING: dict[str, Any] = {"x-reads": []}
"""For routes whose answer no log changes."""

_REFUSALS = (UnknownLog, PositionMalformed, PositionStranded, Invalid, NotYet)
_AT_LEAST = openapi.query_parameter(
    "at_least",
    {"type": "string", "pattern": r"^( *[^,/]+/[0-9]+(/[0-9a-f]{16})? *,?)*$"},
    "Positions as Ledger-Position says them, separated by commas: the answer includes these entries, or is 503 not_yet.",
)
_WAIT = openapi.query_parameter(
    "wait",
    {"type": "integer", "minimum": 0, "maximum": WAIT_MS_MAX, "default": WAIT_MS_MAX},
    "How long to wait for these positions, in ms.",
)
_POSITION = {HEADER: {"schema": {"type": "string"}, "description": "All that the answer can include: log/position/leaf prefix, …"}}  # fmt: skip

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def waiting_on(pool: AsyncConnectionPool[AsyncConnection[Any]], redis: Redis, log: str) -> Waiting:
    """Those who wait for positions here. `log`: the one that is written here."""
    return Waiting(partial(causal.reached, Context(pool, redis, open_nothing), log))


def reads(*sources: str) -> dict[str, Any]:
    """What a route is made of, for its openapi_extra."""
    return {"x-reads": list(sources)}


def routes(read: ReadSide, schemas: Schemas) -> type[APIRoute]:
    """The class of routes that wait for positions, and say theirs. Raises ValueError for one that does not say what it reads."""

    class Causal(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
            extra = given.get("openapi_extra") or {}
            if "GET" in (given.get("methods") or ()) and "x-reads" not in extra:
                raise ValueError(f"GET {path} does not say what it reads")
            if "x-reads" in extra:
                given["openapi_extra"] = _documented(extra, given.get("responses") or {}, schemas)
            super().__init__(path, endpoint, **given)

        def get_route_handler(self) -> _Handler:
            handle, extra = super().get_route_handler(), self.openapi_extra or {}
            sources = extra.get("x-reads")
            if not sources:
                return handle

            async def causal_handle(request: Request) -> Response:
                made_of = [source.format(**request.path_params) for source in sources]
                is_public = extra.get("security") == []
                if "at_least" in request.query_params or _LAST_ID in request.headers:
                    if not is_public:
                        await read.authentication(request.scope)
                    await _catch_up(read, made_of, _seen(request), _wait_ms(request))
                response = await handle(request)
                if found := causal.together(await read.reached(made_of)):
                    response.headers[HEADER] = causal.write(found, leaves=not is_public)
                return response

            return causal_handle

    return Causal


def _seen(request: Request) -> Sequence[Seen]:
    """What the client has seen: by `at_least`, and by the id of the last event that it had of a stream. Raises PositionMalformed."""
    asked = request.query_params.get("at_least", "")
    return [*causal.parse(asked), *causal.parse(request.headers.get(_LAST_ID, ""))]


def _wait_ms(request: Request) -> int:
    """Raises Invalid."""
    text = request.query_params.get("wait", str(WAIT_MS_MAX))
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(WAIT_MS_MAX)) and int(text) <= WAIT_MS_MAX):
        raise Invalid(f"wait is from 0 to {WAIT_MS_MAX} ms", parameter="wait")
    return int(text)


async def _catch_up(read: ReadSide, sources: Sequence[str], seen: Sequence[Seen], wait_ms: int) -> None:
    """Raises UnknownLog, PositionStranded, NotYet."""
    if not seen:
        return
    context = read.looking
    are_held = await causal.check(context, read.log, seen)
    is_there = await read.waiting.until(sources, seen, timeout_s=wait_ms / 1000)
    if is_there and (are_held or await causal.check(context, read.log, seen)):
        return
    reached = causal.together(await read.reached(sources))
    raise NotYet(reached=causal.write(reached, leaves=False))


def _documented(extra: Mapping[str, Any], responses: Mapping[int | str, Any], schemas: Schemas) -> dict[str, Any]:
    """The same with the parameters, the header and the refusals of a read that waits."""
    if not extra["x-reads"]:
        return dict(extra)
    said = {str(status): response for status, response in responses.items()} | dict(extra.get("responses", {}))
    refused = schemas.refusals(_REFUSALS)
    for status, response in refused.items():
        if before := said.get(status, {}).get("description"):
            codes = dict.fromkeys([*before.split(", "), *response["description"].split(", ")])
            response["description"] = ", ".join(codes)
    done = {"200": {"headers": _POSITION}}
    return {
        **extra,
        "parameters": [*extra.get("parameters", ()), _AT_LEAST, _WAIT],
        "responses": {**extra.get("responses", {}), **refused, **done},
    }


__all__ = ["HEADER", "HEADS", "LOG", "NOTHING", "reads", "routes", "waiting_on"]
