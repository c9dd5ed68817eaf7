"""What people bound to brands and countries get to see over HTTP, and what they leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from fastapi import APIRouter

from access.policy import Principal, Scope, principal
from access.tokens import Tokens
from app import commanding, denying, explaining, openapi, paying, playing, querying
from app import players as people
from app.authentication import Authentication
from app.routing import Routes
from commands.denials import Denials
from commands.rights import RIGHTS
from domain.denials import AccessDenied
from eventstore import schema
from eventstore.vault import RegionKey
from projections import catalog, postgres
from projections.players import Players
from projections.postgres import PostgresStore
from tests.app.reading import Client, events, region, serving
from tests.app.test_noticing import READ
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

BOUND = {
    "everywhere": principal("operator:ann", ["supervisor"], machine=True),
    "main": principal("operator:maria", ["supervisor", "analyst"], scope=Scope(frozenset({"main"})), machine=True),
    "other": principal("operator:olga", ["supervisor"], scope=Scope(frozenset({"other"})), machine=True),
    "vips": principal("operator:vera", ["vip_manager"], machine=True),
    "administrator": principal("operator:ada", ["administrator"], machine=True),
    "compliance": principal("operator:cora", ["compliance"], machine=True),
    "support and administrator": principal("operator:sam", ["support", "administrator"], machine=True),
    "otto": principal("operator:otto", ["operator"], machine=True),
    "auditor": principal("operator:aude", ["auditor"], machine=True),
    "regulator": principal("regulator:at", ["regulator"], scope=Scope(None, frozenset({"AT"})), machine=True),
}


class Bound(Tokens):
    """A token for each, which is their name."""

    def __init__(self) -> None:
        super().__init__([])

    def principal(self, authorization: str) -> Principal | None:
        return BOUND.get(authorization.removeprefix("Bearer "))

    def known(self, actor: str) -> Principal | None:
        return next((each for each in BOUND.values() if each.actor == actor), None)


class House(NamedTuple):
    client: Client
    ledger: Ledger
    denials: Denials
    players: dict[str, str]
    project: Callable[[], Awaitable[None]]


@pytest.fixture
async def house(servers: Servers) -> AsyncIterator[House]:
    ledger = Ledger(servers.fresh_database("seeing"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    async with (
        region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made,
        await postgres.connect(ledger.dsn) as connection,
    ):
        authentication = Authentication(Bound())
        denials = denying.recorder(made.services.decider, made.read.pool, made.read.start)
        read = made.read._replace(authentication=authentication)
        routes = Routes(read, made.schemas)
        paging = [querying._CURSOR, querying._LIMIT]
        people.add(routes.get, routes.look_up, read.vault, paging)
        paying.add(routes.get, paging)
        playing.add(routes.get, paging)
        services = made.services._replace(authentication=authentication, denials=denials)
        commands = commanding.router(services, read.start, made.schemas, lambda _: None)
        asked = explaining.router(read, made.schemas, authentication.known)
        routers: list[APIRouter] = [commands, routes.router, asked]
        async with serving(made.schemas, routers, denials) as client:
            ids = {}
            for number, brand in enumerate(["main", "other", "main"]):
                body = {"country": "AT" if number else "DE", "currency": "EUR", "brand": brand, "name": "Anna Egger"}
                body |= {"birth_date": "1980-01-01"}
                sent = await client.post("/v1/players", body, "everywhere", Idempotency_Key=f"k{number}")
                assert sent.status == 201, sent.raw
                ids[f"{brand}{number}"] = sent.json["player"]
            store = PostgresStore(Players(), connection)
            source: Any = catalog.source(connection, ["eu"])

            async def project() -> None:
                standing = await store.open()
                await store.apply(standing, (await source.read("eu", standing.at("eu"), 1_000)).batch)

            await project()
            yield House(client, ledger, denials, ids, project)
        await denials.close()


async def test_lists_counts_and_cursors_tell_of_nothing_that_is_hidden(house: House) -> None:
    async def pages(who: str, limit: int) -> list[list[str]]:
        found, cursor = [], ""
        while True:
            page = (await house.client.get(f"/v1/players?limit={limit}{cursor}", who)).json
            found.append([each["id"] for each in page["items"]])
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    mine = [house.players["main2"], house.players["main0"]]
    assert await pages("main", 2) == [mine]
    assert await pages("main", 1) == [[each] for each in mine]
    assert await pages("other", 1) == [[house.players["other1"]]]
    assert await pages("vips", 1) == [[]]
    assert [len(page) for page in await pages("everywhere", 200)] == [3]
    assert await pages("regulator", 5) == [[house.players["main2"], house.players["other1"]]]


async def test_a_hidden_card_and_none_are_answered_byte_by_byte_alike(house: House) -> None:
    hidden = house.players["other1"]
    absent = hidden[:-10] + ("0" if hidden[-10] != "0" else "1") + hidden[-9:]
    for path in ("", "/history", "/notes", "/limits", "/protection", "/transactions", "/may-contact?channel=email"):
        answers = [await house.client.get(f"/v1/players/{each}{path}", "main") for each in (hidden, absent)]
        shown = [(each.status, each.raw, sorted(each.headers.keys() - {"date"})) for each in answers]
        assert shown[0] == shown[1], path
        assert answers[0].problem() == (404, "not_found")
    assert (await house.client.get(f"/v1/players/{hidden}", "other")).status == 200


async def test_sums_over_everybody_are_for_those_who_are_bound_to_nothing(house: House) -> None:
    for path in ("/v1/payments/summary", "/v1/playing", "/v1/ggr", "/v1/ggr?by=player"):
        assert (await house.client.get(path, "everywhere")).status == 200, path
        refused = await house.client.get(path, "main")
        assert refused.problem() == (403, "forbidden")
        assert refused.json["policy"] == "scope.brand"


async def test_refusals_are_recorded_on_the_stream_of_who_was_refused(house: House) -> None:
    hidden = house.players["other1"]
    assert (await house.client.get(f"/v1/players/{hidden}", "main")).status == 404
    body = {"reason": "fraud"}
    assert (await house.client.post(f"/v1/players/{hidden}/block", body, "main", Idempotency_Key="k")).status == 403
    batch = {"items": [{"key": "b", "path": f"/v1/players/{hidden}/block", "body": body}]}
    assert (await house.client.post("/v1/batch", batch, "main")).json["items"][0]["status"] == 403
    await asyncio.sleep(0.1)
    await house.denials.close()
    found = [each for each in events(house.ledger, "access") if isinstance(each.event, AccessDenied)]
    assert {each.body.actor for each in found} == {"operator:maria"}
    told = [denial for each in found for denial in each.event.denials]
    assert sum(each.times for each in told) == 3
    assert {(each.what, each.action, each.policy) for each in told} == {
        ("GET /v1/players/{player_id}", "", ""),
        ("POST /v1/players/{player_id}/block", "player.block", "scope.brand"),
    }
    assert hidden not in str([each.body.data for each in found])


async def test_an_administrator_is_told_why(house: House) -> None:
    asked = "/v1/access/explain?actor=operator:maria&action=player.block&brand=other&country=AT"
    said = (await house.client.get(asked, "administrator")).json
    assert (said["allowed"], said["policies"]) == (False, [{"id": "scope.brand", "reason": "outside_brands"}])
    assert said["attributes"] == {"brand": "other", "country": "AT"}
    assert (await house.client.get(asked.replace("maria", "olga"), "administrator")).json["allowed"]
    assert (await house.client.get(asked, "main")).problem() == (403, "forbidden")
    assert (await house.client.get(asked.replace("maria", "nobody"), "administrator")).problem() == (404, "not_found")
    assert "access.explain" in str([each.event for each in events(house.ledger, "reads")])


async def test_a_player_is_explained_to_those_alone_who_see_that_player_and_as_far_as_they_may_know(
    house: House,
) -> None:
    def asked(player: str) -> str:
        return f"/v1/access/explain?actor=operator:maria&action=player.manage&player={house.players[player]}"

    await blocked(house, "main0", "aml")
    assert (await house.client.get(asked("main0"), "administrator")).problem() == (403, "forbidden")
    for who, allowed in (("compliance", True), ("support and administrator", True)):
        said = (await house.client.get(asked("main0"), who)).json
        assert said["allowed"] == allowed
        assert said["attributes"] == {"brand": "main", "country": "DE", "vip": 0}
    for who, allowed in (("compliance", False), ("support and administrator", True)):
        said = (await house.client.get(asked("main0").replace("maria", "otto"), who)).json
        assert said["allowed"] == allowed, "whoever may not know hears what holds of other players"
        assert [word for word in ("money", "secre") if word in str(said)] == []


async def test_of_a_secret_case_whoever_may_not_touch_it_hears_the_houses_neutral_word(house: House) -> None:
    await blocked(house, "main0", "aml")
    path = f"/v1/players/{house.players['main0']}"
    for who, reason in (
        ("everywhere", "aml"),
        ("compliance", "aml"),
        ("otto", "under_review"),
        ("auditor", "under_review"),
    ):
        assert (await house.client.get(path, who)).json["block_reason"] == reason, who
        history = (await house.client.get(f"{path}/history", who)).json["items"]
        assert [each["data"] for each in history if each["type"] == "player.blocked"] == [{"reason": reason}], who
    refused = await house.client.post(f"{path}/block", {"reason": "other"}, "otto", Idempotency_Key="o")
    assert refused.problem() == (403, "forbidden")
    assert (refused.json["policy"], refused.json["reason"]) == ("case.roles", "for_other_roles")


async def test_of_any_other_block_everybody_who_sees_the_player_hears_why(house: House) -> None:
    await blocked(house, "main0", "chargeback")
    assert (await house.client.get(f"/v1/players/{house.players['main0']}", "otto")).json[
        "block_reason"
    ] == "chargeback"


async def blocked(house: House, player: str, reason: str) -> None:
    path = f"/v1/players/{house.players[player]}/block"
    answer = await house.client.post(path, {"reason": reason}, "everywhere", Idempotency_Key=f"block {reason}")
    assert answer.status == 200, answer
    await house.project()


async def test_no_route_is_without_a_right(house: House) -> None:
    document = (await house.client.get("/openapi.json", None)).json
    bare = [
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, route in methods.items()
        if not route.get("x-action") and route.get("security") != [] and path != "/v1/batch"
    ]
    assert bare == []
    assert set(RIGHTS) <= document["paths"].keys()
    assert openapi.needs("x") == {"x-action": ["x"]}
