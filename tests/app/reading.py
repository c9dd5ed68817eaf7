"""The read side of a service over HTTP, with a write side that records what is read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import uvicorn
from fastapi import APIRouter, FastAPI
from redis.asyncio import Redis

from access.policy import ROLES
from access.tokens import Tokens, record
from app.api import explain_errors
from app.authentication import Authentication
from app.causal import waiting_on
from app.openapi import Schemas
from app.planning import Services
from app.querying import ReadSide, Regions
from app.starting import Start, recorder
from app.watching import Watch
from commands.decider import Decider
from commands.denials import Denials
from domain.catalog import AGGREGATES
from eventstore.postgres import PostgresLog, PostgresStreams, connect, pool
from eventstore.record import Codec, Recorded
from eventstore.vault import RegionKey, Vault
from eventstore.writer import Writer
from tests.asking import Answer, send
from tests.commands.house import placed
from tests.ledger import OWNED, Ledger
from tests.stack import Servers

TOKENS = Tokens([record(role, f"{role}:test", [role]) for role in ROLES])
CODEC = Codec(AGGREGATES)


class Client:
    """Asks as a role, whose name is its token."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def get(self, path: str, role: str | None = "auditor", **headers: str) -> Answer:
        return await asyncio.to_thread(self.ask, path, role, **headers)

    async def post(self, path: str, body: Any, role: str, **headers: str) -> Answer:
        return await asyncio.to_thread(self.ask, path, role, json.dumps(body).encode(), **headers)

    def ask(self, path: str, role: str | None = "auditor", body: bytes | None = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if role:
            sent["Authorization"] = f"Bearer {role}"
        return send("GET" if body is None else "POST", self.url + path, body, sent)


class _Quiet(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Leave signals to the tests."""


class Region(NamedTuple):
    """What routes are made of."""

    read: ReadSide
    services: Services
    schemas: Schemas


@asynccontextmanager
async def region(ledger: Ledger, servers: Servers, region_key: RegionKey, *, gap: bool = True) -> AsyncIterator[Region]:
    """`gap`: whether a reader's second read waits for its second, as it does in life."""

    async def at_once(_seconds: float) -> None:
        pass

    async def opened() -> PostgresLog:
        return await PostgresLog.open(writing, "eu")

    async with (
        await connect(ledger.dsn, "countroom_writer") as writing,
        pool(ledger.dsn, "countroom_reader", size=4) as readers,
        pool(ledger.dsn, "countroom_writer", size=2) as writers,
        Redis.from_url(servers.endpoints.redis) as redis,
    ):
        writer = Writer(opened)
        running = asyncio.create_task(writer.run())
        vault = Vault(writers, region_key)
        decider = Decider("eu", writer, PostgresStreams(writers), vault, CODEC)
        ticks = iter(range(10**9))
        hurried = {} if gap else {"monotonic": lambda: next(ticks) * 1.5, "sleep": at_once}
        reads = recorder(decider, readers, **hurried)
        start, authentication = Start(), Authentication(TOKENS)
        await start.record(decider, readers)
        try:
            yield Region(
                ReadSide(
                    readers,
                    redis,
                    vault,
                    authentication,
                    Watch(ledger.dsn),
                    Regions([]),
                    asyncio.Event(),
                    start,
                    reads,
                    waiting_on(readers, redis, "eu"),
                ),
                Services(decider, vault, authentication, b"fingerprints", residency=placed(OWNED)),
                Schemas(),
            )
        finally:
            writer.close()
            await running


@asynccontextmanager
async def serving(
    schemas: Schemas, routers: Sequence[APIRouter], denials: Denials | None = None
) -> AsyncIterator[Client]:
    """The routes, behind a real socket. `denials`: who records what is refused."""
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    schemas.install(app)
    explain_errors(app, denials)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = _Quiet(uvicorn.Config(app, log_config=None, lifespan="off"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            await running


def events(ledger: Ledger, kind: str) -> list[Recorded]:
    """Those on the region's own streams of a kind, in order."""
    read = [CODEC.decode(entry) for entry in ledger.entries() if b'"region-eu-' + kind.encode() in entry.body]
    return [each for each in read if each.body.stream.startswith(f"region-eu-{kind}")]
