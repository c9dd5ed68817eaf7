"""Read models over HTTP, for whoever replays the logs and compares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

import projections
from app import commanding, querying
from app.streaming import Still, Streamed
from eventstore import schema
from eventstore.vault import RegionKey
from projections import catalog, state
from projections.postgres import connect
from projections.runner import Runner, Stop
from tests.app.reading import Client, Region, events, region, serving
from tests.ledger import EU, US, Ledger
from tests.stack import Servers


@pytest.fixture
def projected(servers: Servers) -> Iterator[Ledger]:
    """A log of its own, in a database with read models."""
    dsn = servers.fresh_database("projected")
    schema.migrate(dsn, [("ledger", schema.HERE), ("read", Path(projections.__file__).parent / "schema")])
    ledger = Ledger(dsn)
    ledger.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    ledger.empty()
    yield ledger
    ledger.close()


@pytest.fixture
async def made(projected: Ledger, servers: Servers) -> AsyncIterator[Region]:
    async with region(projected, servers, RegionKey(bytes(32)), gap=False) as made:
        await made.read.redis.flushall()
        yield made


@pytest.fixture
async def client(made: Region) -> AsyncIterator[Client]:
    async with serving(
        made.schemas,
        [
            querying.router(made.read, made.schemas),
            commanding.router(made.services, made.read.start, made.schemas, uncounted),
        ],
    ) as served:
        yield served


def uncounted(_counts: Mapping[tuple[str, str], int]) -> None:
    pass


async def unexpected(stop: Stop) -> None:
    raise AssertionError(stop)


async def project(ledger: Ledger, made: Region) -> None:
    async with await connect(ledger.dsn) as connection:
        stores = catalog.stores(connection, made.read.redis).values()
        runner = Runner(catalog.source(connection, ["eu"]), stores, unexpected)
        while await runner.step():
            pass


async def register(client: Client) -> None:
    body = {"country": "SE", "currency": "SEK", "name": "Bo", "birth_date": "1990-12-10"}
    assert (await client.post("/v1/players", body, "operator", Idempotency_Key="b-1")).status == 201


async def test_a_state_is_read_over_http_and_compared(client: Client, made: Region, projected: Ledger) -> None:
    await register(client)
    await project(projected, made)
    listed = (await client.get("/v1/projections", role="viewer")).json["items"]
    assert [each["name"] for each in listed] == list(catalog.NAMES)
    for each in listed:
        answer = await client.get(f"/v1/projections/{each['name']}/state")
        assert answer.headers["content-type"] == "application/x-ndjson"
        found = state.read(answer.raw.splitlines(keepends=True))
        assert (found.projection, found.positions, found.code) == (each["name"], each["positions"], each["code"])
        rows = [row for _, part in found.chunks for row in part]
        assert len(rows) == {"players": 1, "dashboard": 1, "findings": 1}.get(each["name"], 0)


async def test_reading_a_state_is_recorded_before_it_is_answered(client: Client, projected: Ledger) -> None:
    await client.get("/v1/projections/players/state")
    [recorded] = events(projected, "reads_")
    assert [(read.what, read.query) for read in recorded.event.reads] == [("projection.state", "projection=players")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("role", "refused"), [(None, (401, "unauthenticated")), ("viewer", (403, "forbidden"))])
async def test_only_an_auditor_reads_states(client: Client, role: str | None, refused: tuple[int, str]) -> None:
    assert (await client.get("/v1/projections/players/state", role)).problem() == refused


async def test_an_unknown_read_model_is_not_found_and_not_recorded(client: Client, projected: Ledger) -> None:
    assert (await client.get("/v1/projections/nobody/state")).problem() == (404, "not_found")
    assert events(projected, "reads_") == []


@pytest.mark.parametrize("goes", ["disconnects", "resets"])
async def test_when_the_reader_goes_away_what_made_the_answer_is_closed(goes: str) -> None:
    closed, sent = asyncio.Event(), asyncio.Event()

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"[]\n"
        finally:
            closed.set()

    async def receive() -> dict[str, str]:
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        """The second message waits for a reader that is gone, or the connection is reset."""
        if sent.is_set():
            if goes == "resets":
                raise OSError("connection reset")
            await asyncio.Event().wait()
        sent.set()

    rest = parts()
    await anext(rest)
    answer = Streamed(b"", rest, Still(closed.wait))
    scope = {"type": "http", "asgi": {"spec_version": "2.4" if goes == "resets" else "2.3"}}
    with pytest.raises(ClientDisconnect) if goes == "resets" else nullcontext():
        await answer(scope, receive, send)  # type: ignore[arg-type]
    assert closed.is_set()
