"""
Two regions that are asked the same: one of them has something more inside a compartment. What outsiders hear of both is compared.

Identifiers, times and hashes differ between any two regions; each is written as the how-manieth of its kind it is. Positions,
and what follows from them, are left out: which entries a log has cannot be hidden.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx2
import structlog
from fastapi import APIRouter, FastAPI
from redis.asyncio import Redis

import projections
from access.policy import ROLES
from app import auditing, commanding, compartments, disclosing, explaining, fates, metrics, querying, tiling
from app.api import explain_errors
from app.metrics import Metrics, Timed
from eventstore import schema
from eventstore.vault import RegionKey
from policies.residency import Residency
from projections import catalog, postgres
from projections.runner import Runner
from replication.geo import Confirmations
from tests.app.reading import Region, region
from tests.ledger import EU, Ledger
from tests.queries.house import unexpected
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"
REGION_KEY = RegionKey(b"k" * 32)
INSIDE = "/v1/compartments/north"
INSIDER = "compliance"
FORBIDDEN = 403

_FOLLOWING_POSITIONS = {"position", "positions", "leaf", "as_of", "size", "entries", "head", "vector", "next_cursor"}
_NAMED = re.compile(
    r"[a-z]+[_-][0-7][0-9a-hjkmnp-tv-z]{25}"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
    r"|\b[0-9a-f]{16,64}\b"
)
_SEALED = re.compile(r'(\\?"sealed\\?": ?\\?")([A-Za-z0-9_-]+)(?=\\?")')
_METRICS_LEFT_OUT = re.compile(r"_bucket|_sum|_created|_position|append_|_seconds |_lag_|# |signed_size")


class Heard(NamedTuple):
    """An answer, as it is compared."""

    who: str
    asked: str
    status: int
    said: str


@dataclass
class Twin:
    ledger: Ledger
    redis: str
    made: Region
    app: FastAPI
    client: httpx2.AsyncClient
    players: list[str] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)
    tickets: list[str] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, role: str, body: object = None, key: str = "") -> httpx2.Response:
        headers = {"Authorization": f"Bearer {role}", **({"Idempotency-Key": key} if key else {})}
        return await self.client.request(method, path, headers=headers, json=body)

    async def post(self, path: str, role: str, body: object, key: str) -> Any:
        """The answer, which is heard by whoever asked."""
        answer = await self.ask("POST", path, role, body, key)
        self.note(role, f"POST {key}", answer)
        return answer.json()

    def note(self, who: str, asked: str, answer: httpx2.Response) -> None:
        assert answer.status_code not in (429, 500, 503), (asked, answer.text)
        said = self._compared(asked, answer) + f" ETag={answer.headers.get('etag', '')}"
        self.heard.append(Heard(who, asked, answer.status_code, said))

    async def project(self) -> None:
        """Wait until everything can be read."""
        async with await postgres.connect(self.ledger.dsn) as connection, Redis.from_url(self.redis) as client:
            runner = Runner(catalog.source(connection, ["eu"]), catalog.stores(connection, client).values(), unexpected)
            while await runner.step():
                pass

    async def look(self, roles: Sequence[str] = tuple(ROLES)) -> None:
        """Hear what every GET of the API says to each role."""
        await self.project()
        for path, methods in self.app.openapi()["paths"].items():
            addresses = list(self._addresses(path)) if "get" in methods else []
            for role in roles:
                if not (role == INSIDER and "/compartments/{" in path):
                    await self._look(path, addresses, role)

    async def _look(self, path: str, addresses: Sequence[str], role: str) -> None:
        """Ask for all of them, unless the first one is refused."""
        for address in addresses:
            answer = await self.ask("GET", address, role)
            self.note(role, f"GET {path}", answer)
            if answer.status_code == FORBIDDEN:
                return

    def _addresses(self, path: str) -> Iterator[str]:
        """Where a path leads, for the first player; a name that is not known here is an error of this test."""
        if path in ENDLESS or path.startswith(OF_POSITIONS):
            return
        known = {
            "transaction_id": self.transactions[:1], "ticket_id": self.tickets[:1], "compartment": ["north", "south"],
            "name": list(catalog.NAMES), "round": ["round_1"],
        }  # fmt: skip
        addresses = [path]
        for name in re.findall(r"{(\w+)}", path):
            values = self.players[:1] if name == "player_id" else known.get(name) or [_nobody(name)]
            addresses = [each.replace(f"{{{name}}}", value) for each in addresses for value in values]
        yield from (address + QUERIES.get(path, "") for address in addresses)

    def _compared(self, asked: str, answer: httpx2.Response) -> str:
        text = answer.text
        if asked.endswith("/metrics"):
            lines = [line for line in text.splitlines() if not _METRICS_LEFT_OUT.search(line)]
            return "\n".join(sorted(lines))
        kind = answer.headers.get("content-type", "")
        if "ndjson" in kind:
            text = "\n".join(_without_positions(json.loads(line)) for line in text.splitlines())
            text = re.sub(r'"eu", \d+', '"eu", …', text)  # of what is due: the log, and where in it
        elif "json" in kind:
            text = _without_positions(json.loads(text))
        return _NAMED.sub(self._name, _SEALED.sub(lambda found: f"{found[1]}{len(found[2])} long", text))

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"<{len(self._names)}>")


def _nobody(name: str) -> str:
    if name.endswith("_id") and name != "disclosure_id":
        return f"{name.removesuffix('_id')}_01m81j18g0fs6r2yb5e8r30c1a"
    return {"disclosure_id": "019aab5c-4000-7000-8000-000000000001"}[name]


ENDLESS = {"/v1/dashboard/live"}
OF_POSITIONS = ("/v1/logs/{log}/", "/v1/audit/entries/")
"""How paths begin that show entries byte by byte, or hashes of them, each with its position."""
QUERIES = {
    "/v1/players/{player_id}/may-contact": "?channel=email",
    "/v1/rules": "?jurisdiction=DE",
    "/v1/segments/deposited": "?currency=EUR&minimum=1",
    "/v1/audit": "?limit=200",
    "/v1/access/explain": "?actor=operator:test&action=player.read",
}


def _without_positions(value: Any) -> str:
    return json.dumps(_stripped(value), sort_keys=True)


def _stripped(value: Any) -> Any:
    match value:
        case {"body": {"type": "sealed.recorded"}}:
            return None
        case dict():
            return {name: _stripped(each) for name, each in value.items() if name not in _FOLLOWING_POSITIONS}
        case list():
            return [each for each in map(_stripped, value) if each is not None]
        case str() if re.fullmatch(r"eu/\d+(/[0-9a-f]+)?", value):
            return "eu/…"
        case _:
            return value


@dataclass
class Places:
    """Two empty databases and caches."""

    servers: Servers
    ledgers: tuple[Ledger, Ledger]

    async def empty(self, *which: int) -> None:
        for place in which:
            ledger = self.ledgers[place]
            with ledger.admin.transaction():
                ledger.sql("SET LOCAL session_replication_role = replica")
                for (name,) in ledger.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'read'"):
                    ledger.sql(f"DELETE FROM read.{name}".encode())
            ledger.empty()
            async with Redis.from_url(self.redis(place)) as client:
                await client.flushdb()

    def redis(self, place: int) -> str:
        return f"{self.servers.endpoints.redis[:-1]}{place + 8}"


def places(servers: Servers) -> Places:
    made = []
    for number in (1, 2):
        ledger = Ledger(servers.fresh_database(f"twin_{number}"))
        schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ), ("replication", REPLICATION)])
        ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
        made.append(ledger)
    return Places(servers, (made[0], made[1]))


REPLICATION = Path(projections.__file__).parents[1] / "replication" / "schema"


@asynccontextmanager
async def twin(
    where: Places,
    place: int,
    *,
    planted: Callable[[Region], Sequence[APIRouter]] = lambda _made: (),
    timed: type[Timed] = Timed,
) -> AsyncIterator[Twin]:
    """One of the two, with all routes. `planted`: further ones."""
    ledger, redis = where.ledgers[place], where.redis(place)
    asked: Any = SimpleNamespace(endpoints=replace(where.servers.endpoints, redis=redis))
    async with region(ledger, asked, REGION_KEY, gap=False) as made:
        counted, app = Metrics(), FastAPI()
        settings = SimpleNamespace(region="eu", regions=("eu",), who_may_hold=Residency, nats_seeds=Path("seeds"))
        routers = (
            commanding.router(made.services, made.read.start, made.schemas, counted.commands),
            querying.router(made.read, made.schemas),
            tiling.router(made.read, made.schemas),
            disclosing.router(made.read, made.schemas),
            compartments.router(made.services, made.read, made.schemas),
            auditing.router(made.read, made.schemas),
            fates.router(made.read, made.schemas, Confirmations(ledger.dsn, "eu", structlog.get_logger())),
            explaining.router(made.read, made.schemas, made.services.authentication.known),
            metrics.router(counted, made.read, settings),  # type: ignore[arg-type]
            *planted(made),
        )
        for router in routers:
            app.include_router(router)
        made.schemas.install(app)
        explain_errors(app)
        transport = httpx2.ASGITransport(app=timed(app, metrics=counted))
        async with httpx2.AsyncClient(transport=transport, base_url="http://twin") as client:
            yield Twin(ledger, redis, made, app, client)


def differences(one: Twin, other: Twin) -> list[str]:
    """Who was told different things, by what they asked; each once."""
    assert len(one.heard) == len(other.heard)
    found = Counter(
        f"{first.who}: {first.asked}" for first, second in zip(one.heard, other.heard, strict=True) if first != second
    )
    return sorted(found)
