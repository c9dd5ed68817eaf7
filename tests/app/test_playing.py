"""Games on HTTP, as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import projections
from app import playing
from app.routing import Routes
from eventstore import schema
from eventstore.vault import RegionKey
from tests.app.reading import Client, region, serving
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"
ROUNDS = """
    INSERT INTO read.round (id, player, provider, game, round, session, currency, opened_at, last_at, first, last, bets,
                            outcomes, taken_back, stakes, wins, returned)
    VALUES ('round_1', 'player_1', 'studio', 'book', 'r1', '', 'EUR', now() - interval '1 day', now() - interval '1 day', 1, 1, 1,
            0, 0, 10, 0, 0)"""
GGR = """
    INSERT INTO read.ggr (day, provider, game, player, currency, bets, stakes_cash, stakes_bonus, wins_cash, wins_bonus,
                          returned_cash, returned_bonus, gifts)
    VALUES (to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD'), 'studio', 'book', 'player_1', 'EUR', 1, 10, 5, 3, 0, 2, 0, 1)"""


@pytest.fixture
async def client(servers: Servers) -> AsyncIterator[Client]:
    ledger = Ledger(servers.fresh_database("playing"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    ledger.sql(ROUNDS)
    ledger.sql(GGR)
    async with region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made:
        routes = Routes(made.read, made.schemas)
        playing.add(routes.get, [])
        async with serving(made.schemas, [routes.router]) as serves:
            yield serves
    ledger.close()


async def test_without_days_the_revenue_is_that_of_today_so_far(client: Client) -> None:
    before = datetime.now(UTC).date()
    answer = await client.get("/v1/ggr", "viewer")
    assert answer.status == 200
    assert answer.json["since"] == answer.json["until"]
    if answer.json["until"] == before.isoformat():  # the day may have changed meanwhile
        [line] = answer.json["items"]
        assert (line["provider"], line["game"], line["ggr"], line["gifts"]) == ("studio", "book", 10, 1)
    same = await client.get(f"/v1/ggr?by=game&from={answer.json['since']}&to={answer.json['until']}")
    assert same.json == answer.json


async def test_revenue_by_player_is_for_who_may_see_players(client: Client) -> None:
    assert (await client.get("/v1/ggr?by=player", "viewer")).status == 403
    answer = await client.get("/v1/ggr?by=player", "auditor")
    assert [line["player"] for line in answer.json["items"]] in ([], ["player_1"])
    for path in ("/v1/rounds", "/v1/sessions"):
        assert (await client.get(path, "viewer")).status == 403


async def test_what_is_going_on_now(client: Client) -> None:
    answer = await client.get("/v1/playing", "viewer")
    assert answer.json == {"open_rounds": 1, "stuck_rounds": 1, "open_sessions": 0, "stuck_after_s": 3600}
    [stuck] = (await client.get("/v1/rounds?status=stuck")).json["items"]
    assert (stuck["id"], stuck["status"]) == ("round_1", "stuck")
    assert (await client.get("/v1/rounds?status=stuck&older_than=100000")).json["items"] == []


async def test_what_cannot_be_meant_is_refused(client: Client) -> None:
    for path, parameter in (
        ("/v1/ggr?from=2026-02-30", "from"),
        ("/v1/ggr?to=yesterday", "to"),
        ("/v1/ggr?by=brand", "by"),
        ("/v1/sessions?open=perhaps", "open"),
        ("/v1/rounds?status=lost", "status"),
        ("/v1/rounds?older_than=-1", "older_than"),
    ):
        answer = await client.get(path)
        assert (answer.status, answer.json["code"], answer.json["parameter"]) == (422, "invalid", parameter)
    assert (await client.get("/v1/rounds/round_2")).status == 404
