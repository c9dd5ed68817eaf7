"""What the command says of a release whose outcome it cannot know."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app import handing_over
from app.handing_over import NotKnown, NotReady

BUSY = (503, {"code": "unavailable", "detail": "no answer from the log"})
NOT_OURS = (409, {"code": "not_owned", "detail": "70 belongs to us"})
RELEASED = (200, {"position": "eu/9/00", "partitions": [[70, 70, 2]]})
UNKNOWN = (202, {"command": "6c51", "state": "unknown"})
UNCONFIRMED = (202, {"command": "6c51", "state": "unconfirmed", "position": "eu/9/00", "answer": RELEASED[1]})
SILENCE = (0, {})


class Api:
    """Gives these answers in turn, the last one again and again. `keys`: with which it was asked."""

    def __init__(self, *answers: tuple[int, dict[str, Any]]) -> None:
        self.keys: list[str] = []
        turns = iter(answers)
        api = self

        class Handler(BaseHTTPRequestHandler):
            answer = answers[0]

            def do_POST(self) -> None:
                api.keys.append(self.headers["idempotency-key"])
                self.rfile.read(int(self.headers["content-length"]))
                Handler.answer = next(turns, Handler.answer)
                status, body = Handler.answer
                if status:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hand_over(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server.server_port}"
        return handing_over.hand_over(url, "token", "us", partitions=[(70, 70)], key="k")


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    made = Api(*request.param)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize("api", [[BUSY, SILENCE, RELEASED], [BUSY, UNKNOWN, UNCONFIRMED]], indirect=True)
def test_it_is_asked_again_with_the_same_key(api: Api) -> None:
    assert api.hand_over() == RELEASED[1]
    assert api.keys == ["k"] * 3


@pytest.mark.parametrize("api", [[BUSY], [SILENCE], [UNKNOWN]], indirect=True)
def test_what_stays_unknown_is_said_to_be_with_the_key_that_finds_out(api: Api) -> None:
    with pytest.raises(NotKnown, match="--key 'k'"):
        api.hand_over()


@pytest.mark.parametrize("api", [[NOT_OURS]], indirect=True)
def test_a_refusal_released_nothing(api: Api) -> None:
    with pytest.raises(NotReady, match="not_owned"):
        api.hand_over()


def test_an_api_that_is_not_there_was_asked_for_nothing() -> None:
    with pytest.raises(NotReady, match="cannot be reached"):
        handing_over.hand_over("http://127.0.0.1:9", "token", "us", key="k")
