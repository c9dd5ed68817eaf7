"""
Countroom: the whole command as a route runs it, without the socket, for 64 clients in one process.

JSON in, plan, load, authorise, decide, encode, one append for each batch, commit, JSON out.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import psycopg

from access.policy import principal
from app import bootstrap, planning
from app.bootstrap import write_side
from app.planning import Services
from app.settings import Settings
from bench.peers import CLIENTS, Clock, Load, Round, cuts, history
from bench.servers import Servers
from domain.kernel import uuid7_texts

NAME = "ours"
_OPERATOR = principal("operator:bench", ["operator"])
_encode = msgspec.json.Encoder().encode


class Ours:
    """A region's write side over a log of its own in PostgreSQL."""

    name = NAME

    @asynccontextmanager
    async def open(self, servers: Servers, load: Load) -> AsyncIterator[Clock]:
        settings = region(servers, "ours")
        opened = await open_log(settings, load)
        await asyncio.to_thread(opened.fill, f"ledger.entry_{opened.end.log}")
        async with write_side(settings) as write:
            services = Services(write.decider, write.vault, write.authentication, write.fingerprint_key)
            yield lambda seconds: _round(services, opened.suffixes, seconds)


class Opened(NamedTuple):
    """A log of which only the opening is written, and what is to follow it."""

    dsn: str
    end: history.End
    suffixes: Sequence[str]
    load: Load

    def fill(self, table: str) -> None:
        history.fill(self.dsn, table, self.end, self.suffixes, self.load)


def region(servers: Servers, name: str) -> Settings:
    """The settings of a region of that database, with keys made up for it."""
    folder = servers.folder / name
    folder.mkdir()
    key, tokens = folder / "key", folder / "tokens.json"
    write_key(key)
    tokens.write_text("[]")
    return Settings(
        "bench", "eu", ("eu",), servers.database(name), "", "", folder, "127.0.0.1", 0, key, key, tokens, {}
    )


def write_key(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))


async def open_log(settings: Settings, load: Load) -> Opened:
    await bootstrap.open_region(settings)
    with psycopg.connect(settings.postgres) as connection:
        row = connection.execute(
            "SELECT log, position, recorded, leaf FROM ledger.entry ORDER BY position DESC LIMIT 1"
        ).fetchone()
    end = history.End(*row) if row else None
    if end is None:
        raise RuntimeError("the log was not opened")
    suffixes = history.players(load, settings.partitions_of(settings.region), end.recorded)
    return Opened(settings.postgres, end, suffixes, load)


async def _send(services: Services, path: str, body: bytes) -> None:
    """What a route does with a request's bytes."""
    route, arguments = planning.match(path)
    (key,) = uuid7_texts(datetime.now(UTC), random.randbytes(10))
    made = planning.plan(services, _OPERATOR, route, arguments, key, path, body, None)
    receipt = await services.decider.decide(made)
    _encode(receipt.answer)


async def _round(services: Services, suffixes: Sequence[str], seconds: float) -> Round:
    latencies: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def client(mine: Sequence[str]) -> None:
        while (asked := time.perf_counter()) < end:
            path = f"/v1/players/player_{random.choice(mine)}/limits/deposit"
            await _send(services, path, cuts.request())
            latencies.append(time.perf_counter() - asked)

    await asyncio.gather(*(client(suffixes[n::CLIENTS]) for n in range(CLIENTS)))
    return Round(len(latencies), time.perf_counter() - began, latencies)
