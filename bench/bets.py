"""
Bets over HTTP, as a game provider sends them: signed, authorised, limits checked, durable before the answer.

One region with all its servers and processes, whose API is one process; what sends the requests shares the machine's cores with
them. Each request was made and signed before the clock started; 64 connections, each with players of its own. Beside bets over
the hot lane: over an ordinary route, in batches of 100, the same HTTP with nothing behind it, and the same bet as an application
of the library `eventsourcing` behind FastAPI, on the same PostgreSQL.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import uvloop

from app import local
from app.local import Local
from bench import load
from bench.load import Load
from bench.payments import Client
from bench.peers import wallets
from bench.servers import fresh_database
from providers import signing

CONNECTIONS = 64
PLAYERS = 2_000
ROUNDS = 10  # of each player, all of them open; a provider that never tells how any has ended may not begin 51
BATCH = 100
BATCH_CONNECTIONS = 4
PER_S_MAX = 30_000
"""Bets a second that are made in advance; if somebody takes more, the benchmark says so and ends."""
_encode = msgspec.json.Encoder().encode
_numbers = itertools.count(1)
_BET = "/v1/games/reel/bet"
_CHECKOUT = Path(__file__).parent.parent


class Playing(NamedTuple):
    """A player with an open session."""

    player: str
    session: str


def run(*, seconds: float = 5.0, rounds: int = 5, stock: bool = True, wallet: int = 0) -> dict[str, Any]:
    """
    `seconds`: of each round; `rounds`: of each way, in turn. `wallet`: also load a wallet with so many bets (a million takes minutes).

    {"per_s", "p50_ms", "p99_ms", "ordinary_per_s", "batch_per_s", "noop_per_s", "noop_ordinary_per_s", "stock_per_s",
    "one_player_per_s", "generator", "spread": {name: [least, most]}, "wallet": {"bets", "load_ms"}}.
    """
    secret = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        _providers(folder, secret)
        base = local.free_port_base(1)
        with local.running(folder, ["eu"], base) as here, _peers(here, base, secret, stock=stock) as addresses:
            playing = uvloop.run(_seated(here))
            if "stock" in addresses:
                uvloop.run(_stocked(addresses["stock"], playing))
            found = _measured(_ways(here, addresses, secret), playing, seconds, rounds)
    if wallet:
        found["wallet"] = uvloop.run(wallets.loaded(wallet))
    return found


def _providers(folder: Path, secret: bytes) -> None:
    (folder / "reel.secret").write_text(secret.hex())
    said = [
        {"name": "reel", "games": {"signature": "hmac", "secrets": ["reel.secret"], "aggregators": ["aggregator:dev"]}}
    ]
    (folder / "providers.json").write_bytes(_encode(said))


# Who plays


async def _seated(here: Local) -> list[Playing]:
    """Players with money, limits of their own and an open session."""
    roles = ("importer", "compliance", "operator", "aggregator")
    clients = {role: Client(here.url("eu"), here.tokens[role]) for role in roles}
    players = [
        item["player"]
        for item in await _batches(
            clients["importer"], [("/v1/players", {"country": "AT", "currency": "EUR"}) for _ in range(PLAYERS)]
        )
    ]
    why = {"kind": "correction", "reason": "a benchmark"}
    known = {"level": "enhanced", "method": "passport", "age_verified": True, "intervention": why}
    await _batches(clients["compliance"], [(f"/v1/players/{player}/kyc/approve", known) for player in players])
    paid = {"amount": _euros(100_000_000), "provider": "acme", "occurred": "2020-01-01"}
    await _batches(clients["importer"], [(f"/v1/players/{player}/deposits", paid) for player in players])
    for kind, period in (("loss", "day"), ("wager", "week"), ("stake", "spin")):
        limit = {"kind": kind, "period": period, "limit": _euros(50_000_000)}
        await _batches(clients["operator"], [(f"/v1/players/{player}/limits", limit) for player in players])
    session = {"provider": "reel", "game": "book-of-sand", "kind": "slot"}
    launched = await _batches(clients["operator"], [(f"/v1/players/{player}/sessions", session) for player in players])
    opening = [
        ("/v1/games/reel/authenticate", {"verb": "authenticate", "reference": each["session"], "token": each["token"]})
        for each in launched
    ]
    opened = await _batches(clients["aggregator"], opening)
    for client in clients.values():
        client.close()
    return [Playing(each["player"], each["session"]) for each in opened]


async def _batches(client: Client, asked: Sequence[tuple[str, object]]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for some in (asked[n : n + 500] for n in range(0, len(asked), 500)):
        items = [{"key": f"{next(_numbers)}", "path": path, "body": body} for path, body in some]
        status, raw = await client.ask("POST", "/v1/batch", _encode({"items": items}))
        found = msgspec.json.decode(raw).get("items", [])
        if status != 200 or any(item["status"] not in (200, 201) for item in found):
            raise RuntimeError(f"a batch was answered {status}: {raw[:500]!r}")
        answers += [item["body"] for item in found]
    return answers


def _euros(amount: int) -> dict[str, object]:
    return {"amount": amount, "currency": "EUR"}


async def _stocked(address: tuple[str, int], playing: Sequence[Playing]) -> None:
    client = Client(f"http://{address[0]}:{address[1]}", "")
    status, answer = await client.ask("POST", "/players", _encode([each.player for each in playing]))
    client.close()
    if status != 200:
        raise RuntimeError(f"stock was answered {status}: {answer[:300]!r}")


@contextmanager
def _peers(here: Local, base: int, secret: bytes, *, stock: bool) -> Iterator[Mapping[str, tuple[str, int]]]:
    """The processes of bench.peers.betting, by kind, while the block runs."""
    dsn = fresh_database(here.settings["eu"].postgres, "stock") if stock else ""
    wanted = {"noop": [secret.hex()], **({"stock": [secret.hex(), dsn]} if stock else {})}
    running, addresses = [], {}
    try:
        for n, (kind, arguments) in enumerate(wanted.items()):
            port = base + 50 + n
            argv = [sys.executable, "-m", "bench.peers.betting", kind, str(port), *arguments]
            running.append(subprocess.Popen(argv, cwd=_CHECKOUT))
            addresses[kind] = ("127.0.0.1", port)
        for address in addresses.values():
            _wait(address)
        yield addresses
    finally:
        for process in running:
            process.terminate()
            process.wait(10)


def _wait(address: tuple[str, int]) -> None:
    for _ in range(200):
        try:
            socket.create_connection(address, 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens at {address}")


# What is asked


class Way(NamedTuple):
    """Who is asked on so many connections, and how a request is made for some players, of `commands` bets."""

    address: tuple[str, int]
    request: Callable[[Sequence[Playing]], bytes]
    commands: int = 1
    connections: int = CONNECTIONS
    seats: int = PLAYERS

    def send(self, playing: Sequence[Playing], seconds: float) -> Load:
        """The players take turns, so that nobody is asked for twice at once."""
        turns = itertools.cycle(playing[: self.seats])
        count = round(seconds * PER_S_MAX / self.commands) + self.connections
        requests = [self.request(list(itertools.islice(turns, self.commands))) for _ in range(count)]
        found = load.send(self.address, requests, seconds, self.connections)
        return found._replace(per_s=found.per_s * self.commands)


def _ways(here: Local, addresses: Mapping[str, tuple[str, int]], secret: bytes) -> dict[str, Way]:
    parts = urlsplit(here.url("eu"))
    ours = (parts.hostname or "", parts.port or 80)
    token = f"Authorization: Bearer {here.tokens['aggregator']}"

    def bet(query: str = "") -> Callable[[Sequence[Playing]], bytes]:
        def made(playing: Sequence[Playing]) -> bytes:
            body = _encode(_bet(playing[0]))
            signature = f"{signing.HEADER}: {signing.sign(secret, body, int(time.time()))}"
            return _post(f"{_BET}{query}", body, signature)

        return made

    def batch(playing: Sequence[Playing]) -> bytes:
        items = [{"key": "-", "path": _BET, "body": _bet(each)} for each in playing]
        return _post("/v1/batch", _encode({"items": items}), token)

    ways = {
        "": Way(ours, bet()),
        "ordinary": Way(ours, bet("?ordinary")),
        "batch": Way(ours, batch, BATCH, BATCH_CONNECTIONS),
        "noop": Way(addresses["noop"], bet()),
        "noop_ordinary": Way(addresses["noop"], bet("?ordinary")),
        "one_player": Way(ours, bet(), connections=1, seats=1),
    }
    if "stock" in addresses:
        ways["stock"] = Way(addresses["stock"], bet())
    return ways


def _bet(playing: Playing) -> dict[str, object]:
    number = next(_numbers)
    return {
        "verb": "bet",
        "reference": f"bet-{number}",
        "player": playing.player,
        "session": playing.session,
        "game": "book-of-sand",
        "round": f"round-{number // PLAYERS % ROUNDS}",
        "amount": 10,
        "currency": "EUR",
    }


def _post(path: str, body: bytes, header: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# What comes of it


def _measured(ways: Mapping[str, Way], playing: Sequence[Playing], seconds: float, rounds: int) -> dict[str, Any]:
    for way in ways.values():
        way.send(playing, 1.0)
    done: dict[str, list[Load]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            done[name].append(way.send(playing, seconds))
            print(f"{name or 'hot'}: {done[name][-1].per_s:,.0f}/s", file=sys.stderr)
    named = {f"{name}_per_s" if name else "per_s": loads for name, loads in done.items()}
    return {
        **{name: round(statistics.median(each.per_s for each in loads)) for name, loads in named.items()},
        "p50_ms": round(statistics.median(each.p50_ms for each in done[""]), 2),
        "p99_ms": round(statistics.median(each.p99_ms for each in done[""]), 2),
        "generator": load.generator(),
        "spread": {name: _spread([each.per_s for each in loads]) for name, loads in named.items()},
        "wallet": None,
    }


def _spread(some: Sequence[float]) -> list[int]:
    return [round(min(some)), round(max(some))]


def show(found: dict[str, Any]) -> str:
    rows = (
        ("per_s", "a bet, hot lane", f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"),
        ("ordinary_per_s", "a bet, ordinary route", ""),
        ("batch_per_s", f"bets in batches of {BATCH}", ""),
        ("one_player_per_s", "one player, one bet after the other", ""),
        ("noop_per_s", "the same HTTP and nothing behind it, hot", ""),
        ("noop_ordinary_per_s", "and by an ordinary route", ""),
        ("stock_per_s", "the same bet with eventsourcing and FastAPI", ""),
    )
    lines = [
        f"{what:<46}{found[name]:>8,}/s  {found['spread'][name]!s:<18}{more}".rstrip()
        for name, what, more in rows
        if name in found
    ]
    if found["wallet"]:
        lines.append(f"a wallet with {found['wallet']['bets']:,} bets is loaded in {found['wallet']['load_ms']} ms")
    return "\n".join([*lines, f"sent by {found['generator']}"])
