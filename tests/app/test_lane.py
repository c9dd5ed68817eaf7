"""Commands are found by their path in a table, and answered as FastAPI would."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response
from starlette.routing import Match

from app.lane import Lane


def routes() -> APIRouter:
    router = APIRouter()

    async def post(request: Request) -> Response:
        return Response(str(request.path_params))

    for path in ("/v1/players", "/v1/players/{player_id}/block", "/v1/players/{player_id}/kyc/approve"):
        router.add_api_route(path, post, methods=["POST"])
    router.add_api_route("/v1/players", post, methods=["GET"])
    return router


@pytest.mark.parametrize(
    ("path", "route", "identifiers"),
    [
        ("/v1/players", "/v1/players", {}),
        ("/v1/players/player_01/block", "/v1/players/{player_id}/block", {"player_id": "player_01"}),
        ("/v1/players/player_01/kyc/approve", "/v1/players/{player_id}/kyc/approve", {"player_id": "player_01"}),
    ],
)
def test_a_command_is_found_by_its_path(path: str, route: str, identifiers: dict[str, str]) -> None:
    match, scope = Lane(routes().routes).matches({"type": "http", "method": "POST", "path": path})
    assert match is Match.FULL
    assert (scope["route"].path, scope["path_params"]) == (route, identifiers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/players"),
        ("POST", "/v1/players/"),
        ("POST", "/v1/players//block"),
        ("POST", "/v1/players/player_01"),
        ("POST", "/v1/players/player_01/kyc"),
        ("POST", "/v1/players/player_01/block/again"),
        ("POST", "/"),
        ("POST", ""),
    ],
)
def test_anything_else_goes_the_ordinary_way(method: str, path: str) -> None:
    assert Lane(routes().routes).matches({"type": "http", "method": method, "path": path})[0] is Match.NONE


def test_a_lane_offers_what_the_router_does() -> None:
    """What it knows is what FastAPI shows in OpenAPI, path by path."""
    router = routes()
    app = FastAPI()
    app.include_router(router)
    posts = {path for path, operations in app.openapi()["paths"].items() if "post" in operations}
    assert {route.path for route in Lane(router.routes).known} == posts
