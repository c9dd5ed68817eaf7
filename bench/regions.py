"""
Two regions: what `geo` costs a command beside `region`, and how quickly a copy catches up by ranges.

What an answer costs more once another region has committed its copy is compared with the round trip of the link itself. Requests of both
kinds take turns on one connection, so whatever else the machine does meets both. The catch-up begins with an empty copy of a log whose
stream holds next to nothing: ranges come from PostgreSQL, over the link, and every entry is checked at the door.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import psycopg
import uvloop
from nats.aio.msg import Msg

from app import local
from app.local import Local
from bench import servers, verify
from bench.payments import Client
from devstack.region import Endpoints
from devstack.stack import Stack
from domain.kernel import partition_of
from eventstore import schema
from replication import schema as replication_schema
from replication.applier import run_applier
from replication.config import Config
from replication.relay import run_relay
from replication.wire import token

DEPLOYMENT = "bench"
_SCHEMAS = [("ledger", schema.HERE), ("replication", replication_schema.HERE)]
_STREAM_BYTES = 1 << 20
_POLL_S = 0.02
_PATIENCE_S = 300.0
_PLAYERS = 50
_WARM_UP = 50
_encode = msgspec.json.Encoder().encode


def run(*, requests: int = 1_000, entries: int = 200_000, rounds: int = 5) -> dict[str, Any]:
    """
    `requests`: of each durability, `entries`: of the log that is caught up with, `rounds`: of that.

    {"round_trip_ms", "region_ms", "geo_ms", "overhead_ms", "catch_up_per_s", "spread"}. Latencies are medians.
    """
    with (
        tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as folder,
        local.running(Path(folder), ["eu", "us"], local.free_port_base(2)) as here,
    ):
        found = uvloop.run(_latencies(here, requests))
    with tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as folder:
        speeds = _catch_up(Path(folder), entries, rounds)
    return {
        **found,
        "entries": entries,
        "catch_up_per_s": round(statistics.median(speeds)),
        "spread": [round(min(speeds)), round(max(speeds))],
    }


# geo


async def _latencies(here: Local, requests: int) -> dict[str, float]:
    client = Client(here.url("eu"), here.tokens["operator"])
    players = await _players(client, here.settings["eu"].partitions_of("eu"))
    for durability in ("region", "geo") * (_WARM_UP // 2):
        await _deposit(client, players, durability)
    taken: dict[str, list[float]] = {"region": [], "geo": [], "link": []}
    async with _echo(here) as ask:
        for _ in range(requests):
            for durability in ("region", "geo"):
                taken[durability].append(await _deposit(client, players, durability))
            taken["link"].append(await ask())
    client.close()
    link, region, geo = (1e3 * statistics.median(taken[name]) for name in ("link", "region", "geo"))
    return {
        "round_trip_ms": round(link, 2),
        "region_ms": round(region, 2),
        "geo_ms": round(geo, 2),
        "overhead_ms": round(geo - region, 2),
    }


async def _players(client: Client, share: Container[int]) -> list[str]:
    """Such as EU owns: some of those who register there."""
    made: list[str] = []
    while len(made) < _PLAYERS:
        status, answer = await client.ask(
            "POST", "/v1/players", _encode({"country": "AT", "currency": "EUR"}), f"{random.getrandbits(96):x}"
        )
        if status != 201:
            raise RuntimeError(f"a registration was answered {status}: {answer[:300]!r}")
        player = msgspec.json.decode(answer)["player"]
        if partition_of(player) in share:
            made.append(player)
    return made


async def _deposit(client: Client, players: list[str], durability: str) -> float:
    path = f"/v1/players/{random.choice(players)}/deposits"
    body = _encode({"amount": {"amount": 100, "currency": "EUR"}, "provider": "acme"})
    began = time.perf_counter()
    status, answer = await client.ask("POST", path, body, f"{random.getrandbits(96):x}", durability=durability)
    if status != 201:
        raise RuntimeError(f"a deposit was answered {status}: {answer[:300]!r}")
    return time.perf_counter() - began


@asynccontextmanager
async def _echo(here: Local) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Makes one round trip of the link, from US to EU and back, and returns its seconds."""
    eu, us = here.settings["eu"], here.settings["us"]
    subject = f"rpc.{token('eu')}.bench"

    async def answer(message: Msg) -> None:
        await message.respond(b"")

    async with (
        await nats.connect(eu.nats, nkeys_seed=str(eu.nats_seeds / "own.seed")) as there,
        await nats.connect(us.nats, nkeys_seed=str(us.nats_seeds / "in-eu.seed")) as asking,
    ):
        await there.subscribe(subject, cb=answer)
        await there.flush()

        async def ask() -> float:
            began = time.perf_counter()
            await asking.request(subject, b"", timeout=10)
            return time.perf_counter() - began

        await asyncio.sleep(1)  # until the link knows who listens
        yield ask


# Catching up


def _catch_up(folder: Path, entries: int, rounds: int) -> list[float]:
    """Entries a second, from the first that is committed to the last."""
    speeds = []
    with Stack(data=folder, regions=["eu", "us"], port_base=local.free_port_base(2)) as stack:
        stack.start_servers()
        origin = stack.endpoints("eu")
        there = servers.fresh_database(origin.postgres, "origin")
        verify.fill(there, entries)
        schema.migrate(there, _SCHEMAS)
        last = _position(there)
        with _working(_relay, _config("eu", there, origin)):
            for n in range(rounds):
                here = servers.fresh_database(stack.endpoints("us").postgres, f"copy_{n}")
                schema.migrate(here, _SCHEMAS)
                with psycopg.connect(here, autocommit=True) as connection:
                    connection.execute("SELECT ledger.register_log('us', %s, true)", (f"countroom.{DEPLOYMENT}/us",))
                    connection.execute("SELECT ledger.register_log('eu', %s, false)", (verify.ORIGIN,))
                with _working(_applier, _config("us", here, stack.endpoints("us"))):
                    first, began = _reached(here, 1)
                    reached, ended = _reached(here, last)
                speeds.append((reached - first) / (ended - began))
    return speeds


def _config(region: str, dsn: str, at: Endpoints) -> Config:
    return Config(region, DEPLOYMENT, dsn, at.nats, at.seeds, _STREAM_BYTES)


@contextmanager
def _working(work: Callable[[Config], None], config: Config) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=work, args=(config,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _relay(config: Config) -> None:
    uvloop.run(run_relay(config, asyncio.Event()))


def _applier(config: Config) -> None:
    uvloop.run(run_applier(config, "eu", asyncio.Event()))


def _reached(dsn: str, position: int) -> tuple[int, float]:
    """How far the copy is once it has come so far, and when."""
    end = time.monotonic() + _PATIENCE_S
    while (found := _position(dsn)) < position:
        if time.monotonic() > end:
            raise RuntimeError(f"the copy stays at {found}")
        time.sleep(_POLL_S)
    return found, time.monotonic()


def _position(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT coalesce(max(e.position), 0) FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log WHERE l.name = 'eu'"
        ).fetchone()
    return int(row[0]) if row else 0


def show(found: dict[str, Any]) -> str:
    rows = (
        ("round trip of the link", f"{found['round_trip_ms']:>8} ms"),
        ("a deposit, region", f"{found['region_ms']:>8} ms"),
        ("a deposit, geo", f"{found['geo_ms']:>8} ms   {found['overhead_ms']} more"),
        (
            "catching up by ranges",
            f"{found['catch_up_per_s']:>8,} entries/s   {found['spread'][0]:,} to {found['spread'][1]:,}",
        ),
    )
    return "\n".join(f"{name:<24}{figure}" for name, figure in rows)
