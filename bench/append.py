"""
Durable commands a second, one event a command: ours against the stock PostgreSQL recorder of `eventsourcing`.

Ours is the whole command: JSON in, plan, decide, evolve, encode, one append per batch, commit, JSON out; 64 clients in one
process. The peer is a whole command too: aggregate from its tuned cache, decorated method, save; 16 threads. Rounds of both
alternate on the same server, and the medians are compared.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import uvloop
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from access.policy import principal
from app import bootstrap, commanding
from app.bootstrap import write_side
from app.commanding import Services
from app.settings import Settings
from app.workers import spare_the_collector
from bench import servers
from domain.kernel import uuid7_texts

CLIENTS = 64
THREADS = 16
PLAYERS = 2_000
ROUNDS = 5
SECONDS = 3.0


def run() -> dict[str, Any]:
    """{"ours_per_s", "p50_ms", "p99_ms", "peers", "ratios", "spread"}; see docs/reference/benchmarks.md."""
    with servers.postgres() as dsn, tempfile.TemporaryDirectory() as keys:
        return uvloop.run(_run(dsn, Path(keys)))


async def _run(dsn: str, keys: Path) -> dict[str, Any]:
    settings = _settings(servers.fresh_database(dsn, "ours"), keys)
    await bootstrap.open_region(settings)
    peer = _Peer(servers.fresh_database(dsn, "peer"))
    ours: list[float] = []
    theirs: list[float] = []
    latencies: list[float] = []
    async with write_side(settings) as write:
        services = Services(write.decider, write.vault, write.tokens, write.group, write.fingerprint_key)
        players = await _register(services)
        spare_the_collector()
        await _round(services, players, 1.0, [])
        await asyncio.to_thread(peer.round, 1.0)
        for _ in range(ROUNDS):
            ours.append(await _round(services, players, SECONDS, latencies))
            theirs.append(await asyncio.to_thread(peer.round, SECONDS))
    latencies.sort()
    return {
        "ours_per_s": round(statistics.median(ours)),
        "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 2),
        "peers": {"eventsourcing_tuned": round(statistics.median(theirs))},
        "ratios": {"eventsourcing_tuned": round(statistics.median(ours) / statistics.median(theirs), 1)},
        "spread": {
            "ours": [round(min(ours)), round(max(ours))],
            "eventsourcing_tuned": [round(min(theirs)), round(max(theirs))],
        },
    }


def _settings(dsn: str, folder: Path) -> Settings:
    key, tokens = folder / "key", folder / "tokens.json"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    tokens.write_text("[]")
    return Settings("bench", "eu", ("eu",), dsn, "", "", folder, "127.0.0.1", 0, key, key, tokens, {})


_OPERATOR = principal("operator:bench", ["operator"])
_encode = msgspec.json.Encoder().encode


async def _send(services: Services, path: str, body: bytes) -> msgspec.Struct:
    """What a route does with a request's bytes, without the socket."""
    route, arguments = commanding.match(path)
    made = commanding.plan(services, _OPERATOR, route, arguments, _key(), path, body, None)
    receipt = await services.decider.decide(made)
    _encode(receipt.answer)
    return receipt.answer


def _key() -> str:
    """A UUIDv7, as a client should send."""
    (key,) = uuid7_texts(datetime.now(UTC), random.randbytes(10))
    return key


async def _register(services: Services) -> list[str]:
    body = b'{"country":"DE","currency":"EUR"}'
    made = [
        await asyncio.gather(*(_send(services, "/v1/players", body) for _ in range(200))) for _ in range(PLAYERS // 200)
    ]
    return [answer.player for batch in made for answer in batch]  # type: ignore[attr-defined]


_limit = 2**52


async def _round(services: Services, players: list[str], seconds: float, latencies: list[float]) -> float:
    """Commands a second: each cuts a player's limit a little further."""
    end = time.perf_counter() + seconds
    done = 0

    async def client(mine: list[str]) -> None:
        global _limit  # noqa: PLW0603 — every cut is lower than all before
        nonlocal done
        while (began := time.perf_counter()) < end:
            _limit -= 1
            path = f"/v1/players/{random.choice(mine)}/limits/deposit"
            await _send(services, path, b'{"limit":{"amount":%d,"currency":"EUR"}}' % _limit)
            latencies.append(time.perf_counter() - began)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client(players[n::CLIENTS]) for n in range(CLIENTS)))
    return done / (time.perf_counter() - began)


class Wallet(Aggregate):
    """The peer's aggregate."""

    @event("Opened")
    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.limit = 2**52

    @event("LimitSet")
    def set_limit(self, limit: int) -> None:
        self.limit = limit


class _Peer:
    """The stock recorder with a cache that holds every aggregate and is never copied, and a connection for each thread."""

    def __init__(self, dsn: str) -> None:
        known = psycopg.conninfo.conninfo_to_dict(dsn)
        self._app: Application[Any] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(known["dbname"]),
                "POSTGRES_HOST": str(known["host"]),
                "POSTGRES_PORT": str(known["port"]),
                "POSTGRES_USER": str(known["user"]),
                "POSTGRES_PASSWORD": str(known["password"]),
                "POSTGRES_POOL_SIZE": str(THREADS),
                "POSTGRES_MAX_OVERFLOW": str(THREADS),
                "AGGREGATE_CACHE_MAXSIZE": str(PLAYERS * 2),
                "AGGREGATE_CACHE_FASTFORWARD": "n",
                "DEEPCOPY_FROM_AGGREGATE_CACHE": "n",
            }
        )
        wallets = [Wallet(currency="EUR") for _ in range(PLAYERS)]
        for wallet in wallets:
            self._app.save(wallet)
        self._ids = [wallet.id for wallet in wallets]

    def round(self, seconds: float) -> float:
        end = time.perf_counter() + seconds
        counts = [0] * THREADS

        def work(n: int) -> None:
            mine = self._ids[n::THREADS]
            while time.perf_counter() < end:
                wallet: Any = self._app.repository.get(random.choice(mine))
                wallet.set_limit(wallet.limit - 1)
                self._app.save(wallet)
                counts[n] += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - began)


def show(found: dict[str, Any]) -> str:
    spread = found["spread"]
    return (
        f"ours                  {found['ours_per_s']:>8,}/s   {spread['ours'][0]:,} to {spread['ours'][1]:,}"
        f"   p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms\n"
        f"eventsourcing, tuned  {found['peers']['eventsourcing_tuned']:>8,}/s"
        f"   {spread['eventsourcing_tuned'][0]:,} to {spread['eventsourcing_tuned'][1]:,}\n"
        f"ratio                 {found['ratios']['eventsourcing_tuned']:>8}"
    )
