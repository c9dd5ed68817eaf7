"""Answers that go on end as soon as whoever gets them may not have them any more; nobody takes a part of an export for the whole."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from app.authentication import COOKIE
from app.problems import Unauthenticated
from app.streaming import EVERY_SECONDS, BrokenOff, Still
from domain import operators
from tests.app.signing import Browser, House, Person, house
from tests.ledger import Ledger
from tests.stack import Servers

LIVE = ("/v1/dashboard/live", "/v1/audit")


@pytest.fixture
async def office(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with house(ledger, servers, whole=True) as made:
        yield made


async def suspended(office: House, person: Person, _browser: Browser) -> None:
    await office.change(person, lambda _at, operator: operators.suspend(operator, reason="left"))


async def signed_out(_office: House, _person: Person, browser: Browser) -> None:
    assert (await browser.post("/v1/signin/out")).status == 200


async def without_roles(office: House, person: Person, _browser: Browser) -> None:
    for role in ("administrator", "auditor"):
        await office.change(person, lambda _at, operator, role=role: operators.revoke(operator, role=role))


async def idle(office: House, _person: Person, _browser: Browser) -> None:
    """Looking on is no sign of life."""
    office.clock.forward(minutes=20)
    await asyncio.sleep(2 * EVERY_SECONDS)
    office.clock.forward(minutes=11)


@pytest.mark.parametrize(
    ("path", "gone"),
    [(LIVE[0], suspended), (LIVE[0], signed_out), (LIVE[0], idle), (LIVE[1], without_roles), (LIVE[1], signed_out)],
)
async def test_what_is_live_ends_with_the_right_to_it(
    office: House, path: str, gone: Callable[[House, Person, Browser], Awaitable[None]]
) -> None:
    person, browser, _ = await office.joined()
    await office.granted(person, "auditor")
    async with streaming(browser, path) as lines:
        assert (await asyncio.to_thread(next, lines)).startswith(b"retry")
        await gone(office, person, browser)
        async with asyncio.timeout(20):
            await asyncio.to_thread(lambda: list(lines))  # to its end


async def test_what_is_live_goes_on_for_whoever_still_may(office: House) -> None:
    person, browser, _ = await office.joined()
    await office.granted(person, "auditor")
    async with streaming(browser, "/v1/audit") as lines:
        await asyncio.sleep(2 * EVERY_SECONDS)
        await office.granted(person, "analyst")
        async with asyncio.timeout(20):
            while b"analyst" not in await asyncio.to_thread(next, lines):
                pass


async def test_the_live_audit_asks_for_a_fresh_second_factor(office: House) -> None:
    office.clock.forward(minutes=-10)
    person, browser, _ = await office.joined()
    await office.granted(person, "auditor")
    stale = await browser.get("/v1/audit", Accept="text/event-stream")
    assert stale.problem() == (403, "step_up_required")
    assert stale.json["action"] == "audit.live"


async def test_an_export_breaks_off_and_is_asked_about_at_most_once_a_second() -> None:
    asked, now = [0], [0.0]

    async def ask() -> None:
        asked[0] += 1
        if asked[0] == 3:
            raise Unauthenticated

    async def parts() -> AsyncIterator[bytes]:
        for n in range(1_000):
            now[0] += EVERY_SECONDS / 10
            yield b"%d" % n

    given: list[bytes] = []

    async def reading() -> None:
        async for part in Still(ask, lambda: now[0]).over(parts()):
            given.append(part)  # noqa: PERF401 — what came before it broke off stays

    with pytest.raises(BrokenOff):
        await reading()
    assert asked[0] == 3
    assert 27 <= len(given) <= 33


@asynccontextmanager
async def streaming(browser: Browser, path: str) -> AsyncIterator[Iterator[bytes]]:
    """The lines, as they come: to be read in a thread."""
    parts = urlsplit(browser.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)

    def lines() -> Iterator[bytes]:
        connection.request(
            "GET", path, headers={"Cookie": f"{COOKIE}={browser.session}", "Accept": "text/event-stream"}
        )
        response = connection.getresponse()
        assert response.status == 200, response.read()
        while line := response.readline():
            yield line

    try:
        yield lines()
    finally:
        connection.close()
