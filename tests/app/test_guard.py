"""What is refused before anybody looks at it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import console
from access.rates import ADMITTED, Limits
from app import guard
from app.guard import Guard
from policies.rates import Rate


class Inner:
    """Answers whatever comes. `knows`: whether it has found out who asks."""

    def __init__(self, *, knows: bool = True) -> None:
        self.knows = knows
        self.seen: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        scope[ADMITTED] = self.knows
        await Response("told")(scope, receive, send)


async def asked(
    app: Any, method: str = "GET", path: str = "/", client: str = "203.0.113.7", **how: Any
) -> httpx2.Response:
    transport = httpx2.ASGITransport(app, client=(client, 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://guard") as session:
        return await session.request(method, path, **how)


def guarded(inner: Any, *, proxies: tuple[str, ...] = (), rate: Rate | None = None) -> Guard:
    return Guard(inner, Limits({"address": rate or Rate(50, 500)}), proxies)


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"path": "/" + "x" * guard.PATH_BYTES_MAX}, 414, "uri_too_long"),
        ({"path": "/?cursor=" + "x" * guard.QUERY_BYTES_MAX}, 414, "uri_too_long"),
        ({"path": "/?" + "&".join(f"p{n}=1" for n in range(guard.PARAMETERS_MAX + 1))}, 414, "uri_too_long"),
        ({"path": "/?limit=1&limit=2"}, 414, "uri_too_long"),
        ({"path": "/?limit=1&l%69mit=2"}, 414, "uri_too_long"),
        ({"headers": [(f"x-{n}", "1") for n in range(guard.HEAD_FIELDS_MAX)]}, 431, "head_too_large"),
        ({"headers": {"x": "y" * guard.HEAD_BYTES_MAX}}, 431, "head_too_large"),
        ({"content": b"{}"}, 413, "body_too_large"),
        ({"content": b"{}", "method": "HEAD"}, 413, None),
        ({"headers": {"transfer-encoding": "chunked"}}, 413, "body_too_large"),
    ],
)  # fmt: skip
async def test_what_is_out_of_all_measure_reaches_nobody(how: dict[str, Any], status: int, code: str | None) -> None:
    inner = Inner()
    answer = await asked(guarded(inner), **how)
    assert (answer.status_code, inner.seen) == (status, [])
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert code is None or answer.json()["code"] == code


@pytest.mark.parametrize(
    "how", [{"path": "/?a=1&b=2"}, {"headers": {"content-length": "0"}}, {"path": "/" + "x" * 900}]
)
async def test_what_is_within_measure_passes(how: dict[str, Any]) -> None:
    assert (await asked(guarded(Inner()), **how)).status_code == 200


async def test_an_address_behind_which_nobody_is_has_to_wait_and_no_body_of_it_is_read() -> None:
    inner = Inner(knows=False)
    app = guarded(inner, rate=Rate(0.001, 3))
    answers = [await asked(app, "POST", content=b"never read") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert len(inner.seen) == 3
    assert answers[-1].json()["code"] == "too_many_requests"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await asked(app, client="203.0.113.8")).status_code == 200


async def test_an_address_behind_which_somebody_is_never_waits() -> None:
    app = guarded(Inner(), rate=Rate(0.001, 3))
    assert {(await asked(app)).status_code for _ in range(50)} == {200}


async def test_what_is_refused_for_its_measure_is_paid_for_too() -> None:
    app = guarded(Inner(), rate=Rate(0.001, 2))
    path = "/" + "x" * guard.PATH_BYTES_MAX
    assert [(await asked(app, path=path)).status_code for _ in range(3)] == [414, 414, 429]


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("198.51.100.4", "198.51.100.4"),
        ("6.6.6.6, 198.51.100.4", "198.51.100.4"),
        ("6.6.6.6, 198.51.100.4, 10.0.0.2", "198.51.100.4"),
        ("", "10.0.0.1"),
    ],
)
async def test_a_proxys_word_is_taken_for_the_address_it_saw_and_no_further(said: str, seen: str) -> None:
    inner = Inner()
    await asked(guarded(inner, proxies=("10.0.0.1", "10.0.0.2")), client="10.0.0.1", headers={"x-forwarded-for": said})
    assert inner.seen[0]["client"][0] == seen


async def test_nobody_elses_word_is_taken() -> None:
    inner = Inner()
    await asked(guarded(inner, proxies=("10.0.0.1",)), headers={"x-forwarded-for": "198.51.100.4"})
    assert inner.seen[0]["client"][0] == "203.0.113.7"


async def test_one_cannot_spend_anothers_by_claiming_their_address() -> None:
    app = guarded(Inner(knows=False), rate=Rate(0.001, 2))
    for _ in range(3):
        await asked(app, headers={"x-forwarded-for": "198.51.100.4"})
    assert (await asked(app, client="198.51.100.4")).status_code == 200


def test_a_page_runs_what_stands_in_it_and_nothing_that_was_added() -> None:
    page = b"<style>a{}</style><script type=module>one()</script><p onclick=x()>"
    policy = console.policy(page, ["https://us.example"])
    assert policy == (
        "default-src 'none'; script-src 'sha256-HR7iaask9daLMRRskMI++QeJtjWDOjyPA6lGzYGzKW4='; "
        "style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='; img-src data:; connect-src 'self' https://us.example; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert console.policy(page + b"<script>two()</script>") != console.policy(page)


@pytest.mark.parametrize("page", [console.page(), console.signin_page()], ids=["live", "signin"])
def test_our_pages_have_nothing_that_such_a_policy_forbids(page: bytes) -> None:
    text = page.decode()
    assert "unsafe" not in console.policy(page)
    assert console.policy(page).count("'sha256-") >= 2
    for forbidden in (
        " style=",
        " onclick=",
        " onload=",
        " onsubmit=",
        "javascript:",
        ".innerHTML",
        "document.write",
        "eval(",
    ):
        assert forbidden not in text, forbidden


async def test_no_redirect_follows_a_host_that_the_caller_names() -> None:
    app = FastAPI(redirect_slashes=False)

    async def there(_request: Request) -> Response:
        return Response("there")

    app.add_api_route("/there", there)
    assert (await asked(guarded(app), path="/there/", headers={"host": "evil.example"})).status_code == 404
