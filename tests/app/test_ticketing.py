"""Tickets on HTTP: worked on by those who may, read in the clear by those who may, and by due time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import projections
from app import commanding, openapi, ticketing
from app.routing import Routes
from eventstore import schema
from eventstore.vault import RegionKey
from projections import catalog, postgres
from projections.postgres import PostgresStore
from projections.projection import Batch
from projections.tickets import Tickets
from tests.app.reading import Client, region, serving
from tests.asking import Answer
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

TEXT = "Where is my money?"
SWEDE = {"country": "SE", "currency": "SEK", "birth_date": "1990-12-10"}
READ = Path(projections.__file__).parent / "schema"


class House(NamedTuple):
    client: Client
    store: PostgresStore
    source: Any
    ledger: Ledger

    async def post(self, path: str, body: Any, role: str = "support", **headers: str) -> Answer:
        """A new key unless there is one."""
        key = headers.pop("key", f"{path} {body}")
        return await self.client.post(path, body, role, Idempotency_Key=key, **headers)

    async def ticket(self, **more: Any) -> str:
        """A ticket's id, of a new player."""
        player = (await self.post("/v1/players", SWEDE, "operator", key=str(more))).json
        body = {"channel": "email", "subject": "Money", "text": TEXT, **more}
        ticket: str = (await self.post(f"/v1/players/{player['player']}/tickets", body)).json["ticket"]
        return ticket

    async def project(self) -> None:
        standing = await self.store.open()
        batch: Batch = (await self.source.read("eu", standing.at("eu"), 1_000)).batch
        await self.store.apply(standing, batch)


@pytest.fixture
async def house(servers: Servers) -> AsyncIterator[House]:
    ledger = Ledger(servers.fresh_database("ticketing"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    async with (
        region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made,
        await postgres.connect(ledger.dsn) as connection,
    ):
        routes = Routes(made.read, made.schemas)
        limit = openapi.query_parameter("limit", {"type": "integer"})
        ticketing.add(routes.get, [limit, openapi.query_parameter("cursor", {"type": "string"})])
        commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
        async with serving(made.schemas, [commands, routes.router]) as client:
            source = catalog.source(connection, ["eu"])
            yield House(client, PostgresStore(Tickets(), connection), source, ledger)


async def test_what_was_written_is_read_by_those_who_may_read_it_and_sealed_for_the_others(house: House) -> None:
    ticket = await house.ticket()
    await house.post(f"/v1/tickets/{ticket}/answer", {"text": "It has arrived."})
    await house.project()
    shown = (await house.client.get(f"/v1/tickets/{ticket}", "cashier")).json
    assert [(m["kind"], m["subject"], m["text"], m["author"]) for m in shown["messages"]["items"]] == [
        ("opened", "Money", TEXT, "support:test"),
        ("answered", None, "It has arrived.", "support:test"),
    ]
    assert not any(TEXT.encode() in entry.body for entry in house.ledger.entries())
    for role, status in (("viewer", 403), ("payments", 403), ("auditor", 403), ("support", 200)):
        assert (await house.client.get(f"/v1/tickets/{ticket}", role)).status == status
        assert (await house.client.get("/v1/tickets", role)).status == status


async def test_a_list_is_by_due_time_and_says_nothing_that_was_written(house: House) -> None:
    low, urgent = await house.ticket(priority="low"), await house.ticket(priority="urgent")
    await house.post(f"/v1/tickets/{low}/assign", {"to": "support:test"})
    await house.project()
    listed = await house.client.get("/v1/tickets?status=open", "support")
    assert [item["id"] for item in listed.json["items"]] == [urgent, low]
    assert "Money" not in str(listed.json)
    mine = (await house.client.get("/v1/tickets?assignee=support:test&limit=1", "support")).json
    assert ([item["id"] for item in mine["items"]], mine["next_cursor"]) == ([low], None)
    refused = await house.client.get("/v1/tickets?priority=later", "support")
    assert refused.problem() == (422, "invalid")


async def test_who_changes_a_ticket_may_name_the_state_that_was_read(house: House) -> None:
    ticket = await house.ticket()
    await house.project()
    tag = (await house.client.get(f"/v1/tickets/{ticket}", "support")).headers["etag"]
    path = f"/v1/tickets/{ticket}/assign"
    assert (await house.post(path, {"to": "support:anna"}, If_Match=tag)).json == {
        "ticket": ticket,
        "assignee": "support:anna",
    }
    assert (await house.post(path, {"to": "support:ben"}, If_Match=tag)).problem() == (412, "precondition_failed")


async def test_a_closed_ticket_is_a_conflict_and_time_is_for_timers(house: House) -> None:
    ticket = await house.ticket()
    closed = await house.post(f"/v1/tickets/{ticket}/close", {"resolution": "solved"})
    assert (closed.status, closed.json) == (200, {"ticket": ticket, "status": "closed"})
    late = await house.post(f"/v1/tickets/{ticket}/note", {"text": "Hm."})
    assert late.problem() == (409, "ticket_closed")
    assert (await house.post(f"/v1/tickets/{ticket}/miss", {}, "supervisor")).problem() == (403, "forbidden")
