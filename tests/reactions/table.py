"""A player, a game provider, and the door between them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI

from access.tokens import Tokens, record
from app import commanding, gaming
from app.api import explain_errors
from app.authentication import Authentication
from app.lane import Lane
from app.openapi import Schemas
from app.planning import Services
from app.starting import Start
from providers import games, signing
from providers.known import Known
from tests.commands.house import SECRET, deposit_of, placed
from tests.ledger import OWNED
from tests.reactions.region import Region

Said = dict[str, Any]

REEL, NEW_REEL = b"reel, the old secret", b"reel, the new secret"
SPIN, NEW_SPIN = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
KNOWN = {
    "reel": Known("reel", None, None, frozenset(), games.Secrets([REEL, NEW_REEL]), frozenset({"aggregator:test"})),
    "spin": Known(
        "spin", None, None, frozenset(), games.PublicKeys([SPIN.public_key(), NEW_SPIN.public_key()], "pss"),
        frozenset({"aggregator:test", "aggregator:other"}),
    ),
    "old": Known("old", None, None, frozenset(), games.PublicKeys([SPIN.public_key()], "pkcs1v15")),
    "acme": Known("acme", b"only for payments", None, aggregators=frozenset({"aggregator:test"})),
}  # fmt: skip
SIGNS: dict[str, Callable[[bytes, int], str]] = {
    "reel": lambda body, at: signing.sign(REEL, body, at),
    "spin": lambda body, at: games.sign(SPIN, "pss", body, at),
    "old": lambda body, at: games.sign(SPIN, "pkcs1v15", body, at),
    "acme": lambda body, at: signing.sign(b"only for payments", body, at),
}
LANES = {"hot": "", "ordinary": "?ordinary"}
TOKENS = {
    "aggregator:test": ("aggregator", "cr_aggregator"),
    "aggregator:other": ("aggregator", "cr_other"),
    "operator:test": ("operator", "cr_operator"),
}


class Table:
    """A player, a provider, and the door between them."""

    def __init__(self, region: Region, client: httpx2.AsyncClient, counted: Counter[tuple[str, str]]) -> None:
        self.region, self.client, self.counted = region, client, counted
        self.player = self.session = self.token = ""
        self._numbers = iter(range(10**6))

    async def sit(self, provider: str = "reel", cash: int = 10_000, **more: Any) -> None:
        self.player = await self.rich(cash, **more)
        self.token = await self.launch(provider)
        opened = await self.say("authenticate", provider, reference="hello", token=self.token)
        assert opened.status_code == 200, opened.text
        self.session = opened.json()["session"]

    async def rich(self, cash: int, **more: Any) -> str:
        """A player who is known and has so much cash, from long ago."""
        post = self.region.process.post
        player = await self.region.player(**more)
        why = {"kind": "correction", "reason": "known for long"}
        known = {"level": "identity", "method": "passport", "age_verified": True, "intervention": why}
        await post(f"/v1/players/{player}/kyc/approve", known)
        await post(f"/v1/players/{player}/deposits", deposit_of(cash, occurred="2020-01-01"))
        return player

    async def launch(self, provider: str = "reel", **more: Any) -> str:
        body = {"provider": provider, "game": "book-of-tests", "kind": "slot", **more}
        answer: Any = (await self.region.process.post(f"/v1/players/{self.player}/sessions", body)).answer
        return str(answer.token)

    async def say(
        self, verb: str, provider: str = "reel", *, lane: str = "hot", signed_at: int = 0, header: str | None = None,
        raw: bytes | None = None, **said: Any,
    ) -> httpx2.Response:  # fmt: skip
        body = json.dumps({"verb": verb, **said}).encode()
        signed = SIGNS[provider](body, signed_at or int(time.time()))
        return await self.client.post(
            f"/v1/games/{provider}/{verb}{LANES[lane]}",
            content=body if raw is None else raw,
            headers={signing.HEADER: signed if header is None else header},
        )

    def bet(self, amount: int = 100, **more: Any) -> Said:
        n = next(self._numbers)
        return {
            "reference": f"b{n}", "player": self.player, "session": self.session, "game": "book-of-tests",
            "round": f"r{n}", "amount": amount, "currency": "EUR", **more,
        }  # fmt: skip


@asynccontextmanager
async def laid(region: Region) -> AsyncIterator[Table]:
    """The table of a region."""
    tokens = Tokens([record(token, actor, [role]) for actor, (role, token) in TOKENS.items()])
    services = Services(region.process.decider, region.vault, Authentication(tokens), SECRET)  # type: ignore[arg-type]
    services = services._replace(residency=placed(OWNED))
    start, app, schemas = Start(), FastAPI(), Schemas()
    await start.record(region.process.decider, region.pool)
    counted: Counter[tuple[str, str]] = Counter()
    door = gaming.Door(services, start, counted.update, KNOWN)
    routes = gaming.router(door, schemas)
    commands = commanding.router(services, start, schemas, counted.update, door.relay)
    app.include_router(commands)
    app.include_router(routes)
    explain_errors(app)
    schemas.install(app)
    hot = Lane(app, [*commands.routes, *routes.routes])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(hot), base_url="http://door") as client:
        yield Table(region, client, counted)


async def batch(table: Table, actor: str, *items: tuple[str, Said]) -> list[dict[str, Any]]:
    body = {"items": [{"key": str(n), "path": path, "body": said} for n, (path, said) in enumerate(items)]}
    answer = await table.client.post("/v1/batch", json=body, headers={"Authorization": f"Bearer {TOKENS[actor][1]}"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found
