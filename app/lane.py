"""
A short way for commands: what is posted to a path of a table is answered before FastAPI hears of it.

FastAPI has the same functions as routes, for OpenAPI and for whatever does not come the short way: a request with a query string.

Invariants:
    - the same function answers on both ways, with the same bytes;
    - a fault of ours is answered as one, with no insides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import psycopg
import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app import problems

_log = structlog.get_logger(__name__)


class Answered(NamedTuple):
    """As ASGI has it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


Handler: TypeAlias = Callable[[Scope, Receive], Awaitable[Answered]]
"""Answers a request, whatever it is. Raises what is a fault of ours."""


class Post:
    """A function of FastAPI's that answers as its handler does."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, request: Request) -> Response:
        answered = await self.handler(request.scope, request.receive)
        response = Response(answered.body, answered.status)
        response.raw_headers = answered.headers
        return response


class Lane:
    """An ASGI application in front of another. `routes`: those that a Post answers, with at most one identifier, the third
    part of their path.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self.known: Mapping[str, tuple[APIRoute, Handler]] = {
            shape(route.path)[0]: (route, route.endpoint.handler)
            for route in routes
            if isinstance(route, APIRoute) and isinstance(route.endpoint, Post)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return await self._app(scope, receive, send)
        path, identifiers = shape(scope["path"])
        found = self.known.get(path)
        if found is None or not all(identifiers):
            return await self._app(scope, receive, send)
        scope["route"], handler = found  # by which it is counted and traced
        try:
            answered = await handler(scope, receive)
        except ClientDisconnect:
            return None
        except Exception:  # noqa: BLE001 — a fault of ours, told as one
            _log.exception("a request failed", method="POST", path=scope["path"])
            answered = refusal(problems.Fault())
        await send({"type": "http.response.start", "status": answered.status, "headers": answered.headers})
        await send({"type": "http.response.body", "body": answered.body})
        return None


def shape(path: str) -> tuple[str, tuple[str, ...]]:
    """A path without the identifier in its third part, and that one, if there is one: /v1/players/{player_id}/…"""
    parts = path.split("/", 4)
    identifiers = tuple(parts[3:4])
    parts[3:4] = [""] * len(identifiers)
    return "/".join(parts), identifiers


async def body_of(receive: Receive, limit: int) -> bytes:
    """The request's body. Raises BodyTooLarge before it has kept more than `limit` bytes, and ClientDisconnect."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise problems.BodyTooLarge(f"a body has at most {limit} bytes", limit=limit)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def json(status: int, body: bytes, *more: tuple[bytes, bytes]) -> Answered:
    """An answer that is JSON. `more`: further headers."""
    return Answered(
        status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *more], body
    )


def refusal(error: Exception) -> Answered:
    """The problem document of a refusal. Raises the error again if it is a fault of ours."""
    is_away = isinstance(error, psycopg.OperationalError)
    shown = problems.Busy("the database does not answer") if is_away else problems.rejected(error)
    if is_away:
        _log.warning("the database does not answer", error=str(error).strip())
    body = problems.document(shown)
    headers = [(b"content-type", problems.MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode()) for name, value in problems.headers(shown).items()]
    if shown.position is not None:
        headers.append((b"ledger-position", shown.position.encode()))
    return Answered(problems.status_of(type(shown)), headers, body)
