"""
A short way for commands through FastAPI: found by their path in a table, and not tried against every route in turn.

Invariant: the same function answers on both ways, below the same middleware and error handlers; only routing is spared.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match, request_response
from starlette.types import Receive, Scope, Send

from app.commanding import shape


class Lane(BaseRoute):
    """Routes of POST whose function takes the request alone, with at most one identifier, the third part of the path."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        posts = [route for route in routes if isinstance(route, APIRoute) and route.methods == {"POST"}]
        self._routes = {shape(route.path)[0]: route for route in posts}
        self._apps = {path: request_response(route.endpoint) for path, route in self._routes.items()}

    @property
    def known(self) -> list[APIRoute]:
        return list(self._routes.values())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != "POST":
            return Match.NONE, {}
        path, identifiers = shape(scope["path"])
        route = self._routes.get(path)
        if route is None or not all(identifiers):
            return Match.NONE, {}
        names = route.param_convertors  # in their order
        return Match.FULL, {"route": route, "path_params": dict(zip(names, identifiers, strict=True)), "lane": path}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._apps[scope["lane"]](scope, receive, send)
