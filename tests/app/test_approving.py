"""Four eyes on HTTP: 202 for what waits, the hash of the very bytes that were sent, and one effect however many approve at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import pytest

from access.tokens import Tokens, record
from app import approving, commanding, openapi
from app.routing import Routes
from domain.kernel import Sealed
from eventstore.vault import RegionKey, Vault
from tests.app.reading import Client, region, serving
from tests.asking import Answer
from tests.ledger import Ledger
from tests.stack import Servers

REGION_KEY = RegionKey(b"k" * 32)
WHY = {"kind": "complaint", "reason": "the game froze"}


class House(NamedTuple):
    client: Client
    ledger: Ledger
    vault: Vault

    async def player(self) -> str:
        body = {"country": "DE", "currency": "EUR"}
        answer = await self.client.post("/v1/players", body, "operator", Idempotency_Key="player")
        player: str = answer.json["player"]
        return player

    async def adjust(self, player: str, amount: int, key: str) -> Answer:
        path = f"/v1/players/{player}/adjustments"
        return await self.client.post(path, adjustment(amount), "cashier", Idempotency_Key=key)

    async def approve(self, asked: Any, role: str = "supervisor", key: str = "a") -> Answer:
        path = f"/v1/approvals/{asked['approval']}/approve"
        return await self.client.post(path, {"hash": asked["hash"]}, role, Idempotency_Key=key)

    async def opened(self, type_: str, *names: str) -> list[str]:
        """Personal fields of the one event of this type."""
        [event], [registered] = self.stored(type_), self.stored("player.registered")
        key = registered["data"]["key"]
        held = (await self.vault.keys({key["id"]: key["commitment"]}))[key["id"]]
        sealed = [msgspec.convert(event["data"][name], Sealed) for name in names]
        return [
            held.open(each, event_id=event["id"], path=f"data.{name}") for name, each in zip(names, sealed, strict=True)
        ]

    def stored(self, type_: str) -> list[Any]:
        return [json.loads(entry.body) for entry in self.ledger.entries() if b'"%b"' % type_.encode() in entry.body]


def adjustment(amount: int) -> dict[str, Any]:
    money = {"amount": amount, "currency": "EUR"}
    return {"amount": money, "direction": "credit", "reason_code": "goodwill", "intervention": WHY}


@pytest.fixture
async def house(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with region(ledger, servers, REGION_KEY, gap=False) as made:
        routes = Routes(made.read, made.schemas)
        approving.add(routes.get, [openapi.query_parameter("limit", {"type": "integer"})])
        commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
        async with serving(made.schemas, [commands, routes.router]) as client:
            yield House(client, ledger, made.read.vault)


async def test_what_waits_is_accepted_and_says_what_an_approver_must_name(house: House) -> None:
    player = await house.player()
    done, waits = await house.adjust(player, 10_000, "1"), await house.adjust(player, 1, "2")
    assert (done.status, done.json["accounts"]["cash"]) == (201, 10_000)
    assert (waits.status, waits.json["status"]) == (202, "awaiting_approval")
    path, body = f"/v1/players/{player}/adjustments", json.dumps(adjustment(1))
    salt, kept = await house.opened("approval.requested", "salt", "body")
    assert kept == body, "byte for byte"
    assert waits.json["hash"] == hashlib.sha256(f"{path}\n{salt}\n{body}".encode()).hexdigest()
    again = await house.adjust(player, 1, "2")
    assert (again.status, again.json) == (202, waits.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(house.stored("wallet.moved")) == 1


async def test_it_runs_once_another_person_approves_it(house: House) -> None:
    asked = (await house.adjust(await house.player(), 20_000, "1")).json
    assert (await house.approve(asked, "cashier")).problem() == (403, "forbidden")
    wrong = await house.approve({**asked, "hash": "0" * 64})
    assert wrong.problem() == (409, "hash_differs")
    answer = await house.approve(asked)
    assert (answer.status, answer.json) == (200, {"approval": asked["approval"], "status": "approved"})
    assert [body["actor"] for body in house.stored("wallet.moved")] == ["supervisor:test"]


async def test_twenty_who_approve_at_once_have_one_effect(house: House) -> None:
    asked = (await house.adjust(await house.player(), 20_000, "1")).json
    answers = await asyncio.gather(*(house.approve(asked, key=f"a{n}") for n in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert sum("ledger-position" in answer.headers for answer in answers) == 1
    assert len(house.stored("approval.approved")) == len(house.stored("wallet.moved")) == 1


async def test_in_a_batch_an_item_that_waits_is_accepted_too(house: House) -> None:
    player = await house.player()
    items = [{"key": f"b{n}", "path": f"/v1/players/{player}/adjustments", "body": adjustment(9_000)} for n in range(2)]
    answer = await house.client.post("/v1/batch", {"items": items}, "cashier")
    assert [item["status"] for item in answer.json["items"]] == [201, 202]
    asked = answer.json["items"][1]["body"]
    assert (await house.approve(asked)).status == 200
    assert [body["data"]["accounts"]["cash"] for body in house.stored("wallet.moved")] == [9_000, 18_000]


async def test_an_if_match_counts_when_the_command_is_asked_for(house: House) -> None:
    player = await house.player()
    path, stale = f"/v1/players/{player}/adjustments", {"Idempotency_Key": "k", "If_Match": '"9.9.9"'}
    answer = await house.client.post(path, adjustment(20_000), "cashier", **stale)
    assert answer.problem() == (412, "precondition_failed")
    assert house.stored("approval.requested") == []


async def test_an_approver_may_say_which_state_of_it_they_have_read(house: House) -> None:
    asked = (await house.adjust(await house.player(), 20_000, "1")).json
    path, body = f"/v1/approvals/{asked['approval']}/approve", {"hash": asked["hash"]}
    stale = await house.client.post(path, body, "supervisor", Idempotency_Key="k", If_Match='"2"')
    assert stale.problem() == (412, "precondition_failed")
    assert (await house.client.post(path, body, "supervisor", Idempotency_Key="k", If_Match='"1"')).status == 200


async def test_the_description_of_the_interface_knows_both_answers(house: House) -> None:
    document = (await house.client.get("/openapi.json", None)).json
    answers = document["paths"]["/v1/players/{player_id}/adjustments"]["post"]["responses"]
    schemas = {status: answers[status]["content"]["application/json"]["schema"] for status in ("201", "202")}
    assert schemas["201"]["$ref"] == "#/components/schemas/Adjusted"
    assert {"$ref": "#/components/schemas/AwaitingApproval"} in schemas["202"]["anyOf"]
    assert (
        "same_person"
        in document["paths"]["/v1/approvals/{approval_id}/approve"]["post"]["responses"]["403"]["description"]
    )
    assert {"/v1/approvals", "/v1/approvals/{approval_id}"} <= document["paths"].keys()


def test_somebody_with_two_tokens_may_what_both_grant() -> None:
    tokens = Tokens([record("one", "operator:maria", ["viewer"]), record("two", "operator:maria", ["cashier"])])
    both = tokens.known("operator:maria")
    cashier, viewer = tokens.principal("Bearer two"), tokens.principal("Bearer one")
    assert both is not None
    assert cashier is not None
    assert viewer is not None
    assert both.granted == cashier.granted | viewer.granted
    assert tokens.known("operator:olga") is None
