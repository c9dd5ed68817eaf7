"""Operators and tokens on HTTP: invited, given a role by two people, listed; a token that was issued comes in until it is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from access.directory import Directory
from access.tokens import Tokens, record
from app import approving, commanding, managing, openapi
from app.authentication import Authentication
from app.routing import Routes
from eventstore import schema
from eventstore.postgres import PostgresStreams
from eventstore.vault import RegionKey
from projections import catalog, postgres
from projections.runner import Runner
from tests.app.reading import CODEC, Client, region, serving
from tests.app.signing import PASSWORD, house
from tests.ledger import Ledger
from tests.projections.histories import forget
from tests.queries.house import unexpected
from tests.stack import Servers

READ = Path(catalog.__file__).parent / "schema"
PEOPLE = [("anna", "administrator"), ("bert", "administrator"), ("carl", "supervisor")]
TOKENS = Tokens([record(name, f"operator:{name}", [role]) for name, role in PEOPLE])
MARIA = {"name": "Maria Muster", "email": "maria@house.example", "person": "staff-17"}


class Office(NamedTuple):
    client: Client
    ledger: Ledger
    redis: str

    async def post(self, path: str, body: Any, who: str, key: str = "") -> Any:
        return await self.client.post(path, body, who, Idempotency_Key=key or f"{who}{path}")

    async def project(self) -> None:
        async with await postgres.connect(self.ledger.dsn) as connection, Redis.from_url(self.redis) as redis:
            stores = [catalog.stores(connection, redis)[name] for name in ("operators", "approvals")]
            runner = Runner(catalog.source(connection, ["eu"]), stores, unexpected)
            while await runner.step():
                pass


@pytest.fixture
async def office(ledger: Ledger, servers: Servers) -> AsyncIterator[Office]:
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    async with await postgres.connect(ledger.dsn) as connection, Redis.from_url(servers.endpoints.redis) as redis:
        await forget(connection, redis)  # the database is that of the test before, and its log is another
    async with region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made:
        authentication = Authentication(TOKENS, Directory(PostgresStreams(made.read.pool), CODEC))
        read = made.read._replace(authentication=authentication)
        routes = Routes(read, made.schemas)
        paging = [openapi.query_parameter("limit", {"type": "integer"})]
        approving.add(routes.get, paging)
        managing.add(routes.get, paging)
        services = made.services._replace(authentication=authentication)
        commands = commanding.router(services, read.start, made.schemas, lambda _: None)
        async with serving(made.schemas, [commands, routes.router]) as client:
            yield Office(client, ledger, servers.endpoints.redis)


async def test_two_administrators_give_a_role_and_both_see_what_it_is(office: Office) -> None:
    invited = await office.post("/v1/operators", MARIA, "anna")
    assert invited.status == 201
    operator, again = invited.json["operator"], await office.post("/v1/operators", MARIA, "anna")
    assert invited.json["invitation"].startswith("cri_")
    assert (again.json["operator"], again.json["invitation"]) == (operator, None)
    for who, status in (("anna", 403), ("bert", 200)):
        assert (await office.post(f"/v1/operators/{operator}/confirm", {}, who)).status == status
    waits = await office.post(f"/v1/operators/{operator}/roles", {"role": "risk"}, "anna")
    assert (waits.status, waits.json["status"]) == (202, "awaiting_approval")
    await office.project()
    path = f"/v1/approvals/{waits.json['approval']}"
    shown = (await office.client.get(path, "bert")).json
    assert (shown["player"], shown["operator"], shown["body"]) == (None, operator, '{"role": "risk"}')
    blind = (await office.client.get(path, "carl")).json
    assert (blind["operator"], blind["body"]) == (operator, None)
    for who, status in (("anna", 403), ("carl", 403), ("bert", 200)):
        answer = await office.post(f"{path}/approve", {"hash": waits.json["hash"]}, who)
        assert answer.status == status, (who, answer.json)
    await office.project()
    card = await office.client.get(f"/v1/operators/{operator}", "bert")
    assert card.json["roles"] == [{"role": "risk", "until": None}]
    assert (card.json["name"], card.json["status"], card.headers["etag"]) == ("Maria Muster", "invited", '"3"')
    [listed] = (await office.client.get("/v1/operators?status=invited", "anna")).json["items"]
    assert listed == card.json


async def test_an_issued_token_comes_in_once_it_is_confirmed_and_until_it_is_revoked(office: Office) -> None:
    body = {"holder": "service:reports", "roles": ["viewer"], "expires": "2999-01-01T00:00:00Z"}
    issued = (await office.post("/v1/tokens", body, "anna")).json
    secret, path = issued["secret"], f"/v1/tokens/{issued['token']}"

    async def becomes(status: int) -> None:
        """The token is asked with until that is the answer: what another process recorded counts within a second."""
        async with asyncio.timeout(30):
            while (await office.client.get("/v1/tokens", secret)).status != status:
                pass

    assert (await office.client.get("/v1/tokens", secret)).status == 401
    assert (await office.post(f"{path}/confirm", {}, "anna")).status == 403
    assert (await office.post(f"{path}/confirm", {}, "bert")).status == 200
    await becomes(403)  # it is somebody, who may not list tokens
    assert (await office.post(f"{path}/revoke", {}, "bert")).status == 200
    await becomes(401)
    await office.project()
    [shown] = (await office.client.get("/v1/tokens", "bert")).json["items"]
    assert (shown["status"], shown["issued_by"]) == ("revoked", "operator:anna")
    assert secret not in str(shown)


async def test_only_who_may_reads_operators_and_tokens(office: Office) -> None:
    for path in ("/v1/operators", "/v1/tokens", "/v1/operators/operator_01m81j18g0e1pa2yb5e8r30c1a"):
        assert (await office.client.get(path, "carl")).status == 403
        assert (await office.client.get(path, None)).status == 401
    assert (await office.client.get("/v1/operators/operator_01m81j18g0e1pa2yb5e8r30c1a", "anna")).status == 404


async def test_of_three_administrators_who_are_suspended_at_once_two_stay(ledger: Ledger, servers: Servers) -> None:
    """Who else administers is a condition of the append: of decisions that knew the same others, one counts."""
    async with house(ledger, servers, whole=True) as home:
        three = [await home.invited(f"{n}@example.com", f"staff-{n}") for n in range(3)]
        for each in three:
            joining = {"operator": each.operator, "invitation": each.invitation, "password": PASSWORD}
            assert (await home.browser().post("/v1/me/password", joining)).status == 200
        directory = home.signing_in.directory  # from now on it reads once, so that all three see the same
        directory._monotonic, directory._fresh_until = lambda: 0.0, float("-inf")
        answers = await asyncio.gather(
            *(
                home.client.post(
                    f"/v1/operators/{each.operator}/suspend",
                    {"reason": "left"},
                    "administrator",
                    Idempotency_Key=each.operator,
                )
                for each in three
            )
        )
        assert sorted(each.status for each in answers) == [200, 409, 409]
        assert {each.json["code"] for each in answers if each.status == 409} == {"last_administrator"}
