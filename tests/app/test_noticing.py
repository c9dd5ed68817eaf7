"""Notices and contacts on HTTP: worked on by those who may, their notes read in the clear by those who may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import projections
from app import commanding, noticing, openapi
from app.routing import Routes
from commands.edge import Edge
from eventstore import schema
from eventstore.postgres import PostgresStreams
from eventstore.vault import RegionKey
from projections import catalog, postgres
from projections.findings import Findings
from projections.notices import Notices
from projections.postgres import PostgresStore
from reactions.notices import Notices as Raising
from tests.app.reading import Client, region, serving
from tests.asking import Answer
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

NOTE = "Has lost the job."
READ = Path(projections.__file__).parent / "schema"


class House(NamedTuple):
    client: Client
    stores: list[PostgresStore]
    source: Any
    reaction: Raising

    async def post(self, path: str, body: Any, role: str = "support", **headers: str) -> Answer:
        """A new key unless there is one."""
        key = headers.pop("key", f"{path} {body}")
        return await self.client.post(path, body, role, Idempotency_Key=key, **headers)

    async def player(self) -> str:
        """One of whom there is a notice: somebody has tried to guess the password."""
        asked = {"country": "AT", "currency": "EUR"}
        player: str = (await self.post("/v1/players", asked, "operator")).json["player"]
        for number in range(10):
            body = {"reason": "password"}
            assert (
                await self.post(f"/v1/players/{player}/logins/fail", body, "operator", key=str(number))
            ).status == 201
        await self.project()
        await self.reaction.step()
        await self.project()
        return player

    async def project(self) -> None:
        for store in self.stores:
            standing = await store.open()
            batch = (await self.source.read("eu", standing.at("eu"), 1_000)).batch
            await store.apply(standing, batch)


@pytest.fixture
async def house(servers: Servers) -> AsyncIterator[House]:
    ledger = Ledger(servers.fresh_database("noticing"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    async with (
        region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made,
        await postgres.connect(ledger.dsn) as connection,
    ):
        routes = Routes(made.read, made.schemas)
        limit = openapi.query_parameter("limit", {"type": "integer"})
        noticing.add(routes.get, [limit, openapi.query_parameter("cursor", {"type": "string"})])
        commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
        services = made.services
        reaction = Raising(
            "eu", made.read.pool, PostgresStreams(made.read.pool), services.decider.run,
            lambda context: Edge(context, services.vault, services.decider.owners.own, services.decider.log),
        )  # fmt: skip
        async with serving(made.schemas, [commands, routes.router]) as client:
            stores = [PostgresStore(each, connection) for each in (Findings(), Notices())]
            yield House(client, stores, catalog.source(connection, ["eu"]), reaction)


async def test_a_notice_is_listed_worked_on_and_closed(house: House) -> None:
    player = await house.player()
    [notice] = (await house.client.get(f"/v1/notices?status=open&player={player}", "support")).json["items"]
    assert (notice["state"]["rule"], len(notice["state"]["events"])) == ("failed_log_ins", 10)
    path = f"/v1/notices/{notice['id']}"
    found = await house.client.get(path, "auditor")
    tag = found.headers["etag"]
    assert found.json == notice
    assert (await house.post(f"{path}/assign", {"to": "support:anna"}, If_Match=tag)).status == 200
    assert (await house.post(f"{path}/assign", {"to": "support:ben"}, If_Match=tag)).problem() == (
        412,
        "precondition_failed",
    )
    closed = await house.post(f"{path}/close", {"outcome": "explained"})
    assert closed.json == {"notice": notice["id"], "status": "closed", "outcome": "explained"}
    assert (await house.post(f"{path}/acknowledge", {})).problem() == (409, "notice_closed")
    for role, status in (("viewer", 403), ("payments", 403), ("auditor", 200), ("compliance", 200)):
        assert (await house.client.get("/v1/notices", role)).status == status
    assert (await house.client.get("/v1/notices?status=lost", "support")).problem() == (422, "invalid")


async def test_what_was_talked_about_is_opened_for_those_who_may_read_it(house: House) -> None:
    player = await house.player()
    contact = (await house.post(f"/v1/players/{player}/contacts", {"reason": "worried"})).json["contact"]
    body = {"channel": "phone", "outcome": "advised", "note": NOTE}
    assert (await house.post(f"/v1/contacts/{contact}/make", body)).json["status"] == "done"
    await house.project()
    for role, sealed, note in (("support", False, NOTE), ("auditor", True, None)):
        [shown] = (await house.client.get(f"/v1/contacts/{contact}", role)).json["notes"]["items"]
        assert (shown["kind"], shown["sealed"], shown.get("note")) == ("made", sealed, note)
    assert NOTE not in str((await house.client.get("/v1/contacts", "support")).json)
    assert (await house.post(f"/v1/contacts/{contact}/make", body, key="again")).problem() == (409, "contact_made")


async def test_suppressing_a_rule_is_for_few(house: House) -> None:
    body = {"rule": "net_deposit_month", "reason": "known", "until": "2100-01-01T00:00:00Z"}
    assert (await house.post("/v1/suppressions", body, "support")).problem() == (403, "forbidden")
    assert (await house.post("/v1/suppressions", body, "supervisor")).problem() == (422, "not_suppressible")
    far = await house.post("/v1/suppressions", {**body, "rule": "large_win"}, "supervisor")
    assert far.problem() == (422, "suppression_out_of_range")
