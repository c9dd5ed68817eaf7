"""
Payments over REST: deposits requested and settled one by one, commands in batches, and a player's card that nobody has read yet.

One region with all its servers and processes, whose API is one process; the client shares the machine's cores with them. A
deposit is two requests, each durable before its answer; the card is asked for one at a time, each of another player, when
the region has just been started again. That somebody has seen it stands in the log before the answer, and people are recorded
once a second after a burst (commands/reads.py), so several take turns, and what they wait for that is not counted.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from app import local
from app.local import Local
from commands.reads import BURST, GAP_SECONDS

CLIENTS = 64
PLAYERS = 2_000
BATCH = 500
CARDS = 300
READERS = ("operator", "supervisor", "cashier", "risk", "compliance", "support")
_ROUNDS = 9
_BATCH_CLIENTS = 4
_encode = msgspec.json.Encoder().encode


def run(*, seconds: float = 5.0, rounds: int = _ROUNDS) -> dict[str, Any]:
    """
    `seconds`: of each round, `rounds`: of deposits and of batches, in turn.

    {"deposits_per_s", "p50_ms", "p99_ms", "batch_per_s", "card_ms": {"median", "p99"}, "spread": {name: [least, most]}}.
    A deposit is two commands; `batch_per_s` are commands; latencies are those of single requests.
    """
    with tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as folder:
        base = local.free_port_base(1)
        with local.running(Path(folder), ["eu"], base) as here:
            found, players = uvloop.run(_measured(here, seconds, rounds))
        with local.running(Path(folder), ["eu"], base) as here:
            found["card_ms"] = uvloop.run(_cards(here, players))
    return found


class Client:
    """One kept-alive connection, and nothing that would cost the machine more than the request itself."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", key: str = "", *, durability: str = ""
    ) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        reader, writer = self._streams
        named = f"Idempotency-Key: {key}\r\n" if key else ""
        named += f"Durability: {durability}\r\n" if durability else ""
        writer.write(
            f"{method} {path} HTTP/1.1\r\n{self._head}{named}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        """Hang up; the next request connects anew. A service closes connections on which nothing is asked for a while."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def _measured(here: Local, seconds: float, rounds: int) -> tuple[dict[str, Any], list[str]]:
    players = await _players(here)
    url, tokens = here.url("eu"), here.tokens
    asking = [(Client(url, tokens["operator"]), Client(url, tokens["payments"])) for _ in range(CLIENTS)]
    batching = [Client(url, tokens["importer"]) for _ in range(_BATCH_CLIENTS)]
    await _deposits(asking, players, 1.0)
    await _batches(batching, players, 1.0)
    deposits, batches, latencies = [], [], list[float]()
    for _ in range(rounds):
        per_s, taken = await _deposits(asking, players, seconds)
        deposits.append(per_s)
        latencies += taken
        batches.append(await _batches(batching, players, seconds))
    hundredths = statistics.quantiles(latencies, n=100)
    return {
        "deposits_per_s": round(statistics.median(deposits)),
        "p50_ms": round(1e3 * hundredths[49], 2),
        "p99_ms": round(1e3 * hundredths[98], 2),
        "batch_per_s": round(statistics.median(batches)),
        "spread": {
            name: [round(min(some)), round(max(some))]
            for name, some in (("deposits_per_s", deposits), ("batch_per_s", batches))
        },
    }, players


async def _players(here: Local) -> list[str]:
    client = Client(here.url("eu"), here.tokens["importer"])
    made: list[str] = []
    while len(made) < PLAYERS:
        items = [
            {"key": f"player {len(made) + n}", "path": "/v1/players", "body": {"country": "AT", "currency": "EUR"}}
            for n in range(BATCH)
        ]
        made += [item["body"]["player"] for item in await _batch(client, items)]
    client.close()
    return made


async def _batch(client: Client, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    status, answer = await client.ask("POST", "/v1/batch", _encode({"items": items}))
    found: list[dict[str, Any]] = msgspec.json.decode(answer)["items"] if status == 200 else []
    if not found or any(item["status"] != 201 for item in found):
        raise RuntimeError(f"a batch was answered {status}: {answer[:300]!r}")
    return found


async def _deposits(
    asking: Sequence[tuple[Client, Client]], players: Sequence[str], seconds: float
) -> tuple[float, list[float]]:
    taken: list[float] = []
    done = 0
    began = time.perf_counter()
    end = began + seconds
    body = _encode({"amount": {"amount": 100, "currency": "EUR"}, "provider": "acme"})

    async def one(operator: Client, payments: Client, mine: Sequence[str]) -> None:
        nonlocal done
        while (asked := time.perf_counter()) < end:
            key = f"{random.getrandbits(96):x}"
            path = f"/v1/players/{random.choice(mine)}/deposits"
            status, answer = await operator.ask("POST", path, body, key)
            if status != 201:
                raise RuntimeError(f"a deposit was answered {status}: {answer[:300]!r}")
            requested = time.perf_counter()
            transaction = msgspec.json.decode(answer)["transaction"]
            status, answer = await payments.ask("POST", f"/v1/transactions/{transaction}/settle", b"{}", key)
            if status != 200:
                raise RuntimeError(f"a settlement was answered {status}: {answer[:300]!r}")
            settled = time.perf_counter()
            taken.extend((requested - asked, settled - requested))
            done += 1

    await asyncio.gather(*(one(*pair, players[n :: len(asking)]) for n, pair in enumerate(asking)))
    for client in (each for pair in asking for each in pair):
        client.close()
    return done / (time.perf_counter() - began), taken


async def _batches(clients: Sequence[Client], players: Sequence[str], seconds: float) -> float:
    """Deposits of the past: one command each, requested and settled."""
    done = 0
    began = time.perf_counter()
    end = began + seconds
    body = {"amount": {"amount": 100, "currency": "EUR"}, "provider": "acme", "occurred": "2020-01-01"}

    async def one(client: Client, mine: Sequence[str]) -> None:
        nonlocal done
        while time.perf_counter() < end:
            some = random.sample(mine, BATCH)
            await _batch(
                client,
                [
                    {"key": f"{random.getrandbits(96):x}", "path": f"/v1/players/{player}/deposits", "body": body}
                    for player in some
                ],
            )
            done += BATCH

    await asyncio.gather(*(one(client, players[n :: len(clients)]) for n, client in enumerate(clients)))
    for client in clients:
        client.close()
    return done / (time.perf_counter() - began)


async def _cards(here: Local, players: Sequence[str]) -> dict[str, float]:
    clients = [Client(here.url("eu"), here.tokens[role]) for role in READERS]
    taken: list[float] = []
    for n, player in enumerate(random.sample(players, CARDS)):
        if n >= BURST * len(READERS):
            await asyncio.sleep(GAP_SECONDS / len(READERS))
        began = time.perf_counter()
        status, answer = await clients[n % len(READERS)].ask("GET", f"/v1/players/{player}")
        taken.append(1e3 * (time.perf_counter() - began))
        if status != 200:
            raise RuntimeError(f"a card was answered {status}: {answer[:300]!r}")
    for client in clients:
        client.close()
    return {"median": round(statistics.median(taken), 2), "p99": round(statistics.quantiles(taken, n=100)[98], 2)}


def show(found: dict[str, Any]) -> str:
    spread, card = found["spread"], found["card_ms"]
    latency = f"a request: p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"
    rows = (
        ("deposits requested and settled", f"{found['deposits_per_s']:>7,}/s", spread["deposits_per_s"], latency),
        (f"commands in batches of {BATCH}", f"{found['batch_per_s']:>7,}/s", spread["batch_per_s"], ""),
        ("a card that nobody has read", f"{card['median']:>7} ms", "", f"p99 {card['p99']} ms"),
    )
    return "\n".join(
        f"{what:<32}{figure:<12}{least_most!s:<16}{more}".rstrip() for what, figure, least_most, more in rows
    )
