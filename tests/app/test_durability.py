"""Commands that are answered once another region has copied them, or as unconfirmed; and what became of those."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog

import projections
from app import commanding, fates
from app.durability import DurabilityRefused, Durable
from eventstore import schema
from eventstore.vault import RegionKey
from policies.durability import Durability
from replication.geo import Confirmations
from tests.app.reading import Client, events, region, serving
from tests.asking import Answer
from tests.ledger import Ledger
from tests.stack import Servers

ROOT = Path(projections.__file__).parents[1]
SCHEMAS = [
    ("ledger", schema.HERE),
    ("read", ROOT / "projections" / "schema"),
    ("replication", ROOT / "replication" / "schema"),
]
PLAYER = {"country": "AT", "currency": "EUR"}
APPROVE = "/v1/transactions/{transaction_id}/approve"
WITHDRAW = "/v1/players/{player_id}/withdrawals"


class House(NamedTuple):
    client: Client
    ledger: Ledger

    async def register(self, key: str, durability: str = "geo", role: str = "operator") -> Answer:
        asked = {"Durability": durability} if durability else {}
        return await self.client.post("/v1/players", PLAYER, role, Idempotency_Key=key, **asked)

    def acknowledge(self, position: int, *, peer: str = "us", leaf: bytes | None = None, keep: bool = True) -> bool:
        """As replication/watermarks.py does, for what a peer says. What is not kept was told only, as it is between two tenths."""
        own = self.ledger.entries()[position - 1].leaf
        [(agreed,)] = self.ledger.sql(
            "SELECT replication.acknowledge(id, %s, %s, %s, %s, true) FROM ledger.log WHERE own",
            peer, position, leaf or own, keep,
        )  # fmt: skip
        return bool(agreed)

    async def acknowledged(self, count: int, **more: Any) -> None:
        """Acknowledge the log up to its last entry, once it has more than `count`."""
        await until(lambda: self.length > count)
        self.acknowledge(self.length, **more)

    async def answered(self, status: int) -> Answer:
        """The same registration again and again, until its answer has this status."""
        for _ in range(1_000):
            if (answer := await self.register("a")).status == status:
                return answer
            await asyncio.sleep(0.05)
        raise AssertionError(answer)

    @property
    def length(self) -> int:
        return len(self.ledger.entries())


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


@asynccontextmanager
async def opened(
    ledger: Ledger, servers: Servers, *, others: Sequence[str] = ("us",), wait_s: float = 30.0
) -> AsyncIterator[House]:
    """A process of region eu. One wait is long, so that only what is confirmed is answered; or short, to be in vain."""
    confirmations = Confirmations(ledger.dsn, "eu", structlog.get_logger())
    listening = asyncio.create_task(confirmations.run())
    async with region(ledger, servers, RegionKey(bytes(32)), gap=False) as made:
        services = made.services._replace(durable=Durable("eu", others, confirmations, wait_s=wait_s))
        routers = [
            commanding.router(services, made.read.start, made.schemas, lambda _: None),
            fates.router(made.read, made.schemas, confirmations),
        ]
        async with serving(made.schemas, routers) as client:
            yield House(client, ledger)
    listening.cancel()


def migrated(ledger: Ledger) -> None:
    schema.migrate(ledger.dsn, SCHEMAS)
    ledger.sql("DELETE FROM replication.watermark")


@pytest.fixture
async def house(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    migrated(ledger)
    async with opened(ledger, servers) as made:
        yield made


@pytest.fixture
async def hasty(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    migrated(ledger)
    async with opened(ledger, servers, wait_s=0.1) as made:
        yield made


def headers(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


async def test_geo_is_answered_once_another_region_holds_the_command(house: House) -> None:
    before = house.length
    asked = asyncio.create_task(house.register("a"))
    async with asyncio.timeout(60):
        while house.length == before:  # noqa: ASYNC110 — PostgreSQL has no event for it
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert not asked.done()
    house.acknowledge(house.length - 1, peer="ap")
    await asyncio.sleep(0.2)
    assert not asked.done(), "that region has what stands before it"
    await house.acknowledged(before)
    answer = await asked
    assert (answer.status, headers(answer)["durability"]) == (201, "geo")
    fate = headers(answer)["content-location"]
    found = (await house.client.get(fate, "operator")).json
    assert (found["state"], found["geo"], found["copies"]) == ("recorded", True, {"ap": False, "us": True})
    assert found["position"] == headers(answer)["ledger-position"]


async def test_the_fate_of_a_command_knows_what_its_answer_was_told(house: House) -> None:
    before = house.length
    asked = asyncio.create_task(house.register("a"))
    await house.acknowledged(before, keep=False)
    fate = headers(await asked)["content-location"]
    found = (await house.client.get(fate, "operator")).json
    assert (found["geo"], found["copies"]) == (True, {"us": True})


async def test_a_commands_own_region_is_enough_where_nobody_asks_for_more(house: House) -> None:
    answer = await house.register("a", "")
    assert (answer.status, headers(answer)["durability"]) == (201, "region")


async def test_what_nobody_confirms_is_accepted_and_a_repeat_is_told_when_it_is_confirmed(hasty: House) -> None:
    answer = await hasty.register("a")
    told = headers(answer)
    assert (answer.status, told["durability"], told["location"]) == (202, "region", told["content-location"])
    assert answer.json["state"] == "unconfirmed"
    assert answer.json["position"] == told["ledger-position"]
    assert told["location"] == f"/v1/commands/{answer.json['command']}"
    fate = (await hasty.client.get(told["location"], "operator")).json
    assert (fate["state"], fate["geo"], fate["copies"], fate["events"]) == ("recorded", False, {}, 1)
    assert (await hasty.register("a")).json == answer.json
    hasty.acknowledge(hasty.length)
    again = await hasty.client.get(told["location"], "operator")
    assert (again.json["geo"], again.json["copies"]) == (True, {"us": True})
    repeat = await hasty.answered(201)  # its process hears of it in a moment
    assert (repeat.status, headers(repeat)["durability"], repeat.json) == (201, "geo", answer.json["answer"])


async def test_a_copy_that_differs_never_confirms_and_takes_back_what_it_said(hasty: House) -> None:
    before = hasty.length
    first = asyncio.create_task(hasty.register("a"))
    await hasty.acknowledged(before, leaf=bytes(32))
    assert (await first).status == 202
    fate = headers(await first)["content-location"]
    assert (await hasty.client.get(fate, "operator")).json["copies"] == {"us": False}
    hasty.acknowledge(hasty.length)
    await hasty.answered(201)
    assert not hasty.acknowledge(hasty.length, leaf=bytes(32))
    await hasty.answered(202)
    assert not (await hasty.client.get(fate, "operator")).json["geo"]


async def test_confirmations_are_heard_again_after_the_connection_was_lost(house: House) -> None:
    house.ledger.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN replication' OR query LIKE %s",
                     "%replication.watermark%")  # fmt: skip
    before = house.length
    asked = asyncio.create_task(house.register("a"))
    await house.acknowledged(before)
    assert (await asked).status == 201


async def test_the_items_of_a_batch_wait_together(hasty: House) -> None:
    before = hasty.length
    items = [{"key": key, "path": "/v1/players", "body": PLAYER} for key in "abc"]
    unconfirmed = await hasty.client.post("/v1/batch", {"items": items}, "operator", Durability="geo")
    results = unconfirmed.json["items"]
    assert [(each["status"], each["body"]["state"]) for each in results] == [(202, "unconfirmed")] * 3
    first = (await hasty.client.get(f"/v1/commands/{results[0]['body']['command']}", "operator")).json
    hasty.acknowledge(int(first["position"].split("/")[1]))
    await hasty.answered(201)  # item a, alone
    again = await hasty.client.post("/v1/batch", {"items": items}, "operator", Durability="geo")
    assert [each["status"] for each in again.json["items"]] == [201, 202, 202]
    plain = await hasty.client.post("/v1/batch", {"items": items}, "operator")
    assert [each["status"] for each in plain.json["items"]] == [201] * 3
    assert hasty.length == before + 3


@pytest.mark.parametrize("asked", ["GEO", "geo, geo", "eventual", "1"])
async def test_what_is_no_durability_is_refused_before_anything_is_recorded(hasty: House, asked: str) -> None:
    before = hasty.length
    answer = await hasty.register("a", asked)
    assert (answer.status, answer.json["code"]) == (422, "durability_refused")
    assert hasty.length == before


def test_more_than_the_policy_asks_may_be_asked_and_less_only_where_it_says_so(ledger: Ledger) -> None:
    durable = Durable("eu", ["us"], Confirmations(ledger.dsn, "eu", structlog.get_logger()))
    assert durable.wanted(APPROVE, "") is durable.wanted("/v1/players", "geo") is Durability.GEO
    assert durable.wanted(WITHDRAW, "") is Durability.GEO
    assert durable.wanted(WITHDRAW, "region") is Durability.REGION
    with pytest.raises(DurabilityRefused):
        durable.wanted(APPROVE, "region")


def test_a_region_that_is_alone_says_so_and_waits_for_nobody(ledger: Ledger) -> None:
    alone = Durable("eu", [], Confirmations(ledger.dsn, "eu", structlog.get_logger()))
    assert alone.wanted(APPROVE, "") is alone.wanted(APPROVE, "region") is Durability.REGION
    with pytest.raises(DurabilityRefused) as refused:
        alone.wanted("/v1/players", "geo")
    assert refused.value.facts["geo_available"] is False


async def test_a_process_that_dies_between_append_and_confirmation_leaves_the_fate_to_be_asked(
    ledger: Ledger, servers: Servers
) -> None:
    migrated(ledger)
    async with opened(ledger, servers, wait_s=3) as house:
        before = house.length
        asked = asyncio.create_task(house.register("a"))
        await until(lambda: house.length > before)
        asked.cancel()  # whoever asked is gone, and so is the process at the end of this block
        body = msgspec.json.decode(house.ledger.entries()[-1].body)
        fate = f"/v1/commands/{body['command']['id']}"
    async with opened(ledger, servers, wait_s=0.1) as house:
        found = (await house.client.get(fate, "operator")).json
        assert (found["state"], found["geo"]) == ("recorded", False)
        repeat = await house.register("a")
        assert (repeat.status, repeat.json["position"]) == (202, found["position"])
        house.acknowledge(house.length)
        assert (await house.client.get(fate, "operator")).json["geo"]
        assert len(registered(ledger)) == 1


def registered(ledger: Ledger) -> list[bytes]:
    return [entry.body for entry in ledger.entries() if b'"player.registered"' in entry.body]


async def test_a_fate_is_told_to_who_sent_the_command_and_to_who_reads_the_log(hasty: House) -> None:
    fate = headers(await hasty.register("a", ""))["content-location"]
    unknown = f"/v1/commands/{'0' * 32}"
    assert (await hasty.client.get(fate, "operator")).status == 200
    strangers = [(await hasty.client.get(path, "viewer")) for path in (fate, unknown)]
    assert [(each.status, each.json) for each in strangers] == [(404, strangers[1].json)] * 2
    assert (await hasty.client.get(fate, None)).status == 401
    assert events(hasty.ledger, "reads") == []
    assert (await hasty.client.get(fate, "auditor")).json["state"] == "recorded"
    [read] = events(hasty.ledger, "reads")
    assert b"command.fate" in bytes(read.body.data)
    assert (await hasty.client.get("/v1/commands/xyz", "auditor")).status == 422


async def test_a_fate_that_has_not_come_here_yet_is_waited_for(hasty: House) -> None:
    unknown = f"/v1/commands/{'0' * 32}"
    assert (await hasty.client.get(f"{unknown}?at_least=eu/1", "operator")).status == 404
    answer = await hasty.client.get(f"{unknown}?at_least=eu/{hasty.length + 1}&wait=50", "operator")
    assert (answer.status, answer.json["code"]) == (503, "not_yet")
