"""Payments on HTTP, as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import projections
from app import paying
from app.routing import Routes
from eventstore import schema
from eventstore.vault import RegionKey
from tests.app.reading import Client, region, serving
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"


@pytest.fixture
async def client(servers: Servers) -> AsyncIterator[Client]:
    ledger = Ledger(servers.fresh_database("paying"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    async with region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made:
        routes = Routes(made.read, made.schemas)
        paying.add(routes.get, [])
        async with serving(made.schemas, [routes.router]) as serves:
            yield serves
    ledger.close()


async def test_without_a_day_the_funds_are_those_of_today_so_far(client: Client) -> None:
    before = datetime.now(UTC).date()
    answer = await client.get("/v1/funds")
    assert answer.status == 200
    assert answer.json["day"] in {before.isoformat(), datetime.now(UTC).date().isoformat()}
    same = await client.get(f"/v1/funds?day={answer.json['day']}")
    assert same.json == answer.json


async def test_a_day_that_no_calendar_has_is_refused(client: Client) -> None:
    for day in ("2026-02-30", "yesterday", ""):
        answer = await client.get(f"/v1/funds?day={day}")
        assert (answer.status, answer.json["code"], answer.json["parameter"]) == (422, "invalid", "day")
