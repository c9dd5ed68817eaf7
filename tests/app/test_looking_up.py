"""Players are looked up over HTTP by what identifies them, page by page and among those that are chosen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import projections
from app import commanding, openapi
from app import players as routes_of_players
from app.querying import _Routes
from eventstore import schema
from eventstore.vault import RegionKey
from projections import catalog, postgres
from projections.players import Players
from projections.postgres import PostgresStore
from projections.projection import Batch
from queries.context import write_cursor
from tests.app.reading import Client, region, serving
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"
SWEDE = {"country": "SE", "currency": "SEK", "birth_date": "1985-12-10"}
ANNA = "/v1/players?name=anna"


class House(NamedTuple):
    client: Client
    store: PostgresStore
    source: Any

    async def registered(self, *bodies: dict[str, str]) -> list[str]:
        """Players, the last first, who can be read."""
        items = [
            {"key": f"{n} {body}", "path": "/v1/players", "body": {**SWEDE, **body}} for n, body in enumerate(bodies)
        ]
        answer = await self.client.post("/v1/batch", {"items": items}, "operator")
        standing = await self.store.open()
        batch: Batch = (await self.source.read("eu", standing.at("eu"), 1_000)).batch
        await self.store.apply(standing, batch)
        places = {int(item["position"].split("/")[1]): item["body"]["player"] for item in answer.json["items"]}
        return [player for _, player in sorted(places.items(), reverse=True)]

    async def found(self, path: str) -> list[str]:
        return [item["id"] for item in (await self.client.get(path, "operator")).json["items"]]


@pytest.fixture
async def house(servers: Servers) -> AsyncIterator[House]:
    ledger = Ledger(servers.fresh_database("looking_up"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    async with (
        region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made,
        await postgres.connect(ledger.dsn) as connection,
    ):
        routes = _Routes(made.read, made.schemas)
        paging = [
            openapi.query_parameter("limit", {"type": "integer"}),
            openapi.query_parameter("cursor", {"type": "string"}),
        ]
        routes_of_players.add(routes.get, made.read.vault, paging)
        commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
        async with serving(made.schemas, [commands, routes.router]) as client:
            yield House(client, PostgresStore(Players(), connection), catalog.source(connection, ["eu"]))


async def test_a_look_up_is_paged_to_its_end(house: House) -> None:
    expected = await house.registered(*({"name": f"Anna {n}"} for n in range(5)), {"name": "Ben"})
    everybody = await house.found("/v1/players")
    found: list[str] = []
    path = f"{ANNA}&limit=2"
    while True:
        page = (await house.client.get(path, "operator")).json
        assert len(page["items"]) <= 2
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        path = f"{ANNA}&limit=2&cursor={page['next_cursor']}"
    assert everybody == expected
    assert len(found) == 5
    assert found == [each for each in expected if each in found]


async def test_more_than_a_page_holds_are_all_found(house: House) -> None:
    await house.registered(*({"name": "Anna"} for _ in range(210)))
    page = (await house.client.get(f"{ANNA}&limit=200", "operator")).json
    rest = await house.found(f"{ANNA}&limit=200&cursor={page['next_cursor']}")
    assert (len(page["items"]), len(rest)) == (200, 10)


async def test_a_look_up_among_some_finds_only_those(house: House) -> None:
    await house.registered({"name": "Anna Berg"}, {"name": "Anna", "country": "DE"}, {"name": "Ben"})
    [german] = await house.found(f"{ANNA}&country=DE")
    [swede] = await house.found(f"{ANNA}&country=SE")
    assert set(await house.found(ANNA)) == {german, swede}
    assert await house.found("/v1/players?name=berg%20ANNA") == [swede]
    assert await house.found("/v1/players?name=nobody") == []


@pytest.mark.parametrize("field", ["email", "phone", "name", "external_id"])
@pytest.mark.parametrize("blank", ["", "%20", "%C2%A0%09"])
async def test_a_look_up_without_a_word_is_refused(house: House, field: str, blank: str) -> None:
    answer = await house.client.get(f"/v1/players?{field}={blank}", "operator")
    assert (answer.status, answer.json["code"]) == (422, "invalid")


@pytest.mark.parametrize("parameter", [f"cursor={write_cursor(chr(0))}", "limit=0", "status=odd"])
async def test_a_look_up_is_checked_like_every_list(house: House, parameter: str) -> None:
    answer = await house.client.get(f"{ANNA}&{parameter}", "operator")
    assert (answer.status, answer.json["code"]) == (422, "invalid")
