"""A player's limits and the law's rules, as they are read over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import projections
from app import commanding
from app.players import add as add_players
from app.querying import _add_overviews
from app.routing import Routes
from eventstore import schema
from eventstore.vault import RegionKey
from tests.app.reading import Client, region, serving
from tests.ledger import Ledger
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"


@pytest.fixture
async def client(ledger: Ledger, servers: Servers) -> AsyncIterator[Client]:
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    async with region(ledger, servers, RegionKey(bytes(32)), gap=False) as made:
        routes = Routes(made.read, made.schemas)
        add_players(routes.get, routes.look_up, made.read.vault, [])
        _add_overviews(routes, made.read, made.schemas)
        routers = [commanding.router(made.services, made.read.start, made.schemas, lambda _: None), routes.router]
        async with serving(made.schemas, routers) as serves:
            yield serves


async def post(client: Client, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.post(path, body, "operator", Idempotency_Key=key)).json
    return found


async def test_a_players_limits_stand_side_by_side_with_what_is_used_of_each(client: Client) -> None:
    body = {"country": "ES", "currency": "EUR", "birth_date": "1980-01-01"}
    player = (await post(client, "/v1/players", body, "r"))["player"]
    path = f"/v1/players/{player}/limits"
    daily = {"kind": "deposit", "period": "day"}
    await post(client, path, {**daily, "limit": {"amount": 100_00, "currency": "EUR"}}, "a")
    await post(client, path, {"kind": "time", "period": "week", "seconds": 3_600}, "b")
    asked = await post(client, path, {**daily, "limit": {"amount": 700_00, "currency": "EUR"}}, "c")
    assert (asked["outcome"], asked["needs"]) == ("waiting", ["test", "no_risk_behaviour"])
    found = (await client.get(path, "operator")).json
    assert (found["zone"], found["required"]) == ("Europe/Madrid", None)
    shown = [(each["kind"], each["period"], each["source"], each["rule"], each["preset"]) for each in found["limits"]]
    assert shown == [
        ("deposit", "day", "player", None, False),
        ("deposit", "month", "system", "deposit_limit.default_month", True),
        ("deposit", "week", "system", "deposit_limit.default_week", True),
        ("time", "week", "player", None, False),
    ]
    [own, *_, time] = found["limits"]
    assert (own["remaining"]["amount"], own["frees_at"]) == (100_00, None)
    assert (time["limit"], time["limit_seconds"], time["remaining_seconds"]) == (None, 3_600, 3_600)
    [waits] = found["raises"]
    assert (waits["limit"]["amount"], waits["needs"]) == (700_00, ["test", "no_risk_behaviour"])
    assert waits["source"] == "player"


async def test_what_is_not_applied_and_what_was_not_read_is_said_of_each_rule(client: Client) -> None:
    found = (await client.get("/v1/rules?jurisdiction=GB&at=2026-11-22", "operator")).json
    rules = {each["rule"]: each for each in found["items"]}
    assert (rules["slot_stake.max"]["value"], rules["slot_stake.max"]["applied"]) == ("5", "policies/limits.py")
    assert rules["bonus.wagering_max"]["applied"] is None
    assert rules["age.minimum"]["verified"] is False
    for wrong in ("jurisdiction=XX", "jurisdiction=GB&at=2026-02-30"):
        assert (await client.get(f"/v1/rules?{wrong}", "operator")).status == 422
