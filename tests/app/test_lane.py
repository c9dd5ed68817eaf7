"""Commands are found by their path in a table, and answered as FastAPI would."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from app import lane
from app.lane import Answered, Lane, Post, body_of
from app.problems import BodyTooLarge

PATHS = ("/v1/players", "/v1/players/{player_id}/block", "/v1/players/{player_id}/kyc/approve")


def routes() -> APIRouter:
    """Each answers with its own path and with what was sent."""
    router = APIRouter()

    def at(path: str) -> Post:
        async def handle(scope: Scope, receive: Receive) -> Answered:
            if scope["path"].endswith("broken/block"):
                raise RuntimeError("a secret of ours")
            sent = await body_of(receive, 10)
            return lane.json(200, f"{path} {scope['query_string'].decode()} {sent.decode()}".encode())

        return Post(handle)

    for path in PATHS:
        router.add_api_route(path, at(path), methods=["POST"], name=path)

    async def ordinary(_request: Request) -> Response:
        return Response("ordinary")

    router.add_api_route("/v1/players", ordinary, methods=["GET"])
    router.add_api_route("/v1/others", ordinary, methods=["POST"])
    return router


def application() -> tuple[FastAPI, Lane]:
    app, router = FastAPI(), routes()
    app.include_router(router)
    return app, Lane(app, router.routes)


async def asked(app: FastAPI | Lane, method: str, path: str, body: bytes = b"{}") -> httpx2.Response:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://lane") as client:
        return await client.request(method, path, content=body)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/players", PATHS[0]),
        ("/v1/players/player_01/block", PATHS[1]),
        ("/v1/players/player_01/kyc/approve", PATHS[2]),
        ("/v1/players/player_01/block?dry", PATHS[1]),
    ],
)
async def test_a_command_is_answered_alike_on_both_ways(path: str, route: str) -> None:
    app, short = application()
    both = [await asked(each, "POST", path) for each in (app, short)]
    assert [each.text for each in both] == [f"{route} {path.partition('?')[2]} {{}}"] * 2
    assert both[0].headers == both[1].headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/players"),
        ("POST", "/v1/others"),
        ("POST", "/v1/players/"),
        ("POST", "/v1/players//block"),
        ("POST", "/v1/players/player_01"),
        ("POST", "/v1/players/player_01/kyc"),
        ("POST", "/v1/players/player_01/block/again"),
        ("POST", "/v1/players/player_01/block?dry"),
        ("POST", "/"),
    ],
)
async def test_anything_else_goes_the_ordinary_way(method: str, path: str) -> None:
    passed: list[str] = []

    async def ordinary(scope: Scope, _receive: Receive, send: object) -> None:
        passed.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body"})  # type: ignore[operator]

    await asked(Lane(ordinary, routes().routes), method, path)
    assert passed == [path.partition("?")[0]]


def test_a_lane_offers_what_the_router_does() -> None:
    """What it knows is what FastAPI shows in OpenAPI, path by path."""
    app, short = application()
    posts = {path for path, operations in app.openapi()["paths"].items() if "post" in operations}
    assert {route.path for route, _ in short.known.values()} == posts - {"/v1/others"}


async def test_a_fault_is_told_without_its_insides() -> None:
    answer = await asked(application()[1], "POST", "/v1/players/broken/block")
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    assert "secret" not in answer.text


def receiving(*messages: Message) -> Receive:
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    return receive


@pytest.mark.parametrize("parts", [(b"0123456789A",), (b"012345", b"6789A"), (b"0123456789A", b"never read")])
async def test_a_body_that_is_too_large_is_read_no_further(parts: Sequence[bytes]) -> None:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    with pytest.raises(BodyTooLarge):
        await body_of(receiving(*messages), 10)


async def test_who_hangs_up_has_asked_for_nothing() -> None:
    """Even if what came is a command by itself."""
    with pytest.raises(ClientDisconnect):
        await body_of(
            receiving({"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}), 10
        )
