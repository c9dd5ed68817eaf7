"""Players are looked up over HTTP by what identifies them, page by page and among those that are chosen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import projections
from app import commanding, openapi
from app import players as routes_of_players
from app.routing import IDENTIFYING, LOOK_UP_BYTES_MAX, Routes
from eventstore import schema
from eventstore.vault import RegionKey
from projections import catalog, postgres
from projections.players import Players
from projections.postgres import PostgresStore
from projections.projection import Batch
from queries.context import write_cursor
from tests.app.reading import Client, events, region, serving
from tests.asking import Answer
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"
SWEDE = {"country": "SE", "currency": "SEK", "birth_date": "1985-12-10"}
ANNA = {"name": "anna"}


class House(NamedTuple):
    client: Client
    ledger: Ledger
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

    async def asked(self, **wanted: Any) -> Answer:
        return await self.client.post("/v1/players/look-up", wanted, "operator")

    async def found(self, **wanted: Any) -> list[str]:
        return [item["id"] for item in (await self.asked(**wanted)).json["items"]]


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
        routes = Routes(made.read, made.schemas)
        paging = [
            openapi.query_parameter("limit", {"type": "integer"}),
            openapi.query_parameter("cursor", {"type": "string"}),
        ]
        routes_of_players.add(routes.get, routes.look_up, made.read.vault, paging)
        commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
        async with serving(made.schemas, [commands, routes.router]) as client:
            yield House(client, ledger, PostgresStore(Players(), connection), catalog.source(connection, ["eu"]))


async def test_a_look_up_is_paged_to_its_end(house: House) -> None:
    expected = await house.registered(*({"name": f"Anna {n}"} for n in range(5)), {"name": "Ben"})
    everybody = [item["id"] for item in (await house.client.get("/v1/players", "operator")).json["items"]]
    found: list[str] = []
    wanted: dict[str, Any] = {**ANNA, "limit": 2}
    while True:
        page = (await house.asked(**wanted)).json
        assert len(page["items"]) <= 2
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        wanted["cursor"] = page["next_cursor"]
    assert everybody == expected
    assert len(found) == 5
    assert found == [each for each in expected if each in found]


async def test_more_than_a_page_holds_are_all_found(house: House) -> None:
    await house.registered(*({"name": "Anna"} for _ in range(210)))
    page = (await house.asked(**ANNA, limit=200)).json
    rest = await house.found(**ANNA, limit=200, cursor=page["next_cursor"])
    assert (len(page["items"]), len(rest)) == (200, 10)


async def test_a_look_up_among_some_finds_only_those(house: House) -> None:
    await house.registered({"name": "Anna Berg"}, {"name": "Anna", "country": "DE"}, {"name": "Ben"})
    [german] = await house.found(**ANNA, country="DE")
    [swede] = await house.found(**ANNA, country="SE")
    assert set(await house.found(**ANNA)) == {german, swede}
    assert await house.found(name="berg ANNA") == [swede]
    assert await house.found(name="nobody") == []


@pytest.mark.parametrize("field", IDENTIFYING)
async def test_a_look_up_without_a_word_is_refused(house: House, field: str) -> None:
    for blank in ("", " ", "\xa0\t"):
        answer = await house.asked(**{field: blank})
        assert (*answer.problem(), answer.json["pointer"]) == (422, "invalid", f"/{field}"), repr(blank)


async def test_a_look_up_is_checked_like_every_list_and_every_body(house: House) -> None:
    for wrong in (
        {"cursor": write_cursor(chr(0))},
        {"limit": 0},
        {"limit": 201},
        {"limit": "50"},
        {"status": "odd"},
        {"brand": "\0"},
        {"registered_from": "soon"},
        {"nickname": "ann"},
        {"email": ["anna@example.com"]},
    ):
        assert (await house.asked(**ANNA, **wrong)).problem() == (422, "invalid"), wrong
    for nobody in ({}, {"country": "SE"}, {"name": None}):
        assert (await house.asked(**nobody)).problem() == (422, "invalid"), nobody
    large = await house.asked(name="a" * LOOK_UP_BYTES_MAX)
    assert large.problem() == (413, "body_too_large")


@pytest.mark.parametrize("field", IDENTIFYING)
async def test_who_is_looked_for_stands_in_no_address(house: House, field: str) -> None:
    [player] = await house.registered({"name": "Anna"})
    for path in (
        f"/v1/players?{field}=anna",
        f"/v1/players?country=SE&{field}",
        f"/v1/players/{player}?{field}=anna",
        f"/v1/players?%{ord(field[0]):x}{field[1:]}=anna",
    ):
        refused = await house.client.get(path, "operator")
        assert (*refused.problem(), refused.json["parameter"]) == (400, "personal_in_address", field), path
        assert "anna" not in refused.raw.decode()
    refused = await house.client.post(f"/v1/players/look-up?{field}=anna", ANNA, "operator")
    assert refused.problem() == (400, "personal_in_address")
    assert (await house.client.get("/v1/players?country=SE", "operator")).status == 200


async def test_a_look_up_changes_nothing_and_needs_no_key(house: House) -> None:
    await house.registered({"name": "Anna", "email": "anna@example.com", "phone": "+46701", "external_id": "a-1"})
    before = len(house.ledger.entries())
    assert await house.found(name="ben") == []
    assert len(house.ledger.entries()) == before
    for wanted in (ANNA, {"email": "ANNA@example.com"}, {"phone": "+46701"}, {"external_id": "a-1", "name": "anna"}):
        assert len(await house.found(**wanted)) == 1, wanted
    found = events(house.ledger, "reads")
    assert found
    assert len(house.ledger.entries()) == before + len(found)
