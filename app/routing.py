"""
What makes a query a route: who asks, what they may see, what was asked, and what OpenAPI wants to know of it.

Invariants:
    - what a route returns is one msgspec Struct, encoded once;
    - parameters are checked before anything is read;
    - by what a person is looked up stands in no address: it is refused there, and taken in a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from access.policy import Action, Principal
from app import causal, openapi, problems
from app import seeing as sight
from app.lane import body_of
from app.openapi import Schemas
from commands.edge import read_body
from commands.reads import TooManyReads
from domain.errors import Forbidden, Invalid, Rejected
from queries.tiles import POSITION_MAX

if TYPE_CHECKING:
    from app.querying import ReadSide

LOOK_UP_BYTES_MAX = 8 * 1024
ALWAYS: tuple[type[Rejected], ...] = (problems.Unauthenticated, Forbidden, Invalid)
_PERSONAL: tuple[type[Rejected], ...] = (problems.Unopenable, TooManyReads, problems.Busy)
IDENTIFYING = ("email", "phone", "name", "external_id")
"""By what a person is looked up, and so what no address has: whatever a request passes may log that."""
_encode = msgspec.json.Encoder().encode


class _Query(NamedTuple):
    """What a route asks. `what`: as its read is recorded. The rest as Routes.get has it."""

    what: str
    action: Action
    query: Callable[..., Awaitable[Any]]
    reads: Sequence[str]
    also: Callable[[Mapping[str, Any]], Sequence[Action]] = lambda _given: ()
    filtered: bool = False
    opens: bool = False


class Routes:
    """Adds query routes with all that OpenAPI wants to know of them."""

    def __init__(self, read: ReadSide, schemas: Schemas) -> None:
        self.router = APIRouter(tags=["queries"], route_class=causal.routes(read, schemas))
        self._read = read
        self._schemas = schemas

    def get(
        self,
        path: str,
        answer: Any,
        action: Action,
        query: Callable[..., Awaitable[Any]],
        *,
        reads: Sequence[str],
        parameters: Sequence[dict[str, Any]] = (),
        errors: Sequence[type[Rejected]] = (),
        also: Callable[[Mapping[str, Any]], Sequence[Action]] = lambda _given: (),
        filtered: bool = False,
        opens: bool = False,
    ) -> None:
        """Serve `query(context, *identifiers of the path, **parameters)` as JSON. `reads`: of what it is made (app/causal.py). `also`: what
        these parameters need beside `action`.
        `filtered`: the query answers only rows that the context sees (queries/listing.py). `opens`: what is personal is shown in the
        clear to whoever may read it, which is recorded; else it stays sealed for everybody.
        """
        names = {parameter["name"]: parameter for parameter in parameters}
        asked = _Query(f"GET {path}", action, query, reads, also, filtered, opens)

        async def endpoint(request: Request) -> Response:
            principal = await self._read.authentication(request.scope)
            return await self._answer(request, principal, asked, _parameters(request, names))

        told = {"parameters": [*openapi.path_parameters(path), *parameters]}
        self._add(path, "GET", endpoint, answer, asked, told, errors)

    def look_up(
        self,
        path: str,
        body: type[msgspec.Struct],
        answer: Any,
        action: Action,
        query: Callable[..., Awaitable[Any]],
        *,
        reads: Sequence[str],
    ) -> None:
        """Serve `query(context, **fields of the body that are given)` by POST, since what is asked for is personal. It changes nothing, and needs
        no key. The query answers only rows that the context sees; of whom it tells stands in `told` of the context, and is recorded.
        """
        decoder = msgspec.json.Decoder(body)
        asked = _Query(f"POST {path}", action, query, reads, filtered=True, opens=True)

        async def endpoint(request: Request) -> Response:
            principal = await self._read.authentication(request.scope)
            wanted = read_body(decoder, await body_of(request.receive, LOOK_UP_BYTES_MAX))
            given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
            return await self._answer(request, principal, asked, given)

        told = {"requestBody": {"required": True, "content": self._schemas.json(body)}}
        self._add(path, "POST", endpoint, answer, asked, told, [problems.BodyTooLarge])

    async def _answer(
        self, request: Request, principal: Principal, asked: _Query, given: Mapping[str, Any]
    ) -> Response:
        """Raises PersonalInAddress, Forbidden, and what the query raises."""
        _, action, query, _, also, filtered, opens = asked
        if parameter := next((each for each in IDENTIFYING if each in request.query_params), None):
            raise problems.PersonalInAddress(parameter=parameter)
        seen = await sight.sight_of(self._read, principal, action, request.path_params, filtered=filtered)
        for more in also(given):
            await sight.require_of(self._read, principal, more)
        named = request.path_params
        if opens:
            async with self._read.opening(principal, asked.what, {**named, **given}, seen) as context:
                found = await query(context, *named.values(), **given)
        else:
            context = self._read.context(sees=seen.sees, may_know=sight.may_know(principal))
            found = await query(context, *named.values(), **given)
        headers = {"ETag": f'"{found.version}"'} if hasattr(found, "version") else {}
        return Response(_encode(found), headers=headers, media_type="application/json")

    def _add(
        self,
        path: str,
        method: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        answer: Any,
        asked: _Query,
        told: Mapping[str, Any],
        errors: Sequence[type[Rejected]],
    ) -> None:
        """`told`: what OpenAPI is told of the request."""
        doc, name = asked.query.__doc__ or "", asked.query.__name__
        refusals = (*ALWAYS, problems.PersonalInAddress, *(_PERSONAL if asked.opens else ()), *errors)
        self.router.add_api_route(
            path,
            endpoint,
            methods=[method],
            name=f"{asked.query.__module__.rpartition('.')[2]}.{name}",
            summary=doc.strip().partition(".")[0],
            description=doc,
            openapi_extra={
                **told,
                "responses": self._schemas.refusals(refusals),
                **openapi.needs(asked.action),
                **causal.reads(*asked.reads),
            },
            responses={
                200: {
                    "description": "Found",
                    "content": self._schemas.json(answer),
                    "headers": openapi.ETAG if "version" in answer.__struct_fields__ else {},
                }
            },
        )


def _parameters(request: Request, names: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The query parameters that a route knows. Raises Invalid."""
    given: dict[str, Any] = {}
    for name, parameter in names.items():
        text = request.query_params.get(name)
        if text is None:
            if parameter["required"]:
                raise Invalid(f"the parameter {name} is needed", parameter=name)
            continue
        if parameter["schema"]["type"] == "integer":
            if not text.lstrip("-").isdecimal() or not text.isascii() or len(text) > 19:  # noqa: PLR2004 — digits of int64
                raise Invalid(f"{name} is an integer", parameter=name)
            given[name] = int(text)
            if abs(given[name]) > POSITION_MAX:
                raise Invalid(f"{name} is an integer of 64 bits", parameter=name)
        else:
            given[name] = text
    return given
