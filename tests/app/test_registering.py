"""Whom a register hears about over HTTP: whoever registers, logs in or is paid where the law says so, and nobody in a dry run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest
from prometheus_client import generate_latest
from psycopg import OperationalError

from app import commanding
from app.batching import BatchAnswer, BatchResult
from app.forwarding import Forwarding, Hop, Items, Message
from app.lane import Answered
from app.metrics import Metrics
from app.openapi import Schemas
from app.planning import Services
from app.starting import Start
from commands.asking import Asking
from domain.kernel import PlayerId
from domain.ownership import Owner
from domain.protection import RegisterAsked
from eventstore.postgres import PostgresStreams
from eventstore.vault import RegionKey
from policies.protection import Moment
from policies.residency import Residency
from registers.breaker import FAILURES_MAX, Breaker
from registers.http import HttpRegister
from tests.app.reading import CODEC, Client, region, serving
from tests.ledger import US, Ledger, chained, opening
from tests.registers.register import Register, open_register
from tests.stack import Servers

ADA = {"country": "ES", "currency": "EUR", "birth_date": "1980-01-01", "name": "Ada Lovelace"}


class Elsewhere(Forwarding):
    """Another region registers whoever it is sent."""

    asked: list[str]

    async def ask(self, owner: str, message: Message, _hop: Hop) -> Answered:
        self.asked = [*getattr(self, "asked", ()), owner]
        made = msgspec.Raw(b'{"player": "player_1", "status": "active"}')
        if isinstance(message, Items):
            answers = [BatchResult(201, made, "us/1/00") for _ in message.items]
            return Answered(200, [], msgspec.json.encode(BatchAnswer(answers)))
        return Answered(201, [], bytes(made))


class House(NamedTuple):
    client: Client
    ledger: Ledger
    register: Register
    metrics: Metrics
    services: Services
    start: Start
    schemas: Schemas

    async def post(self, path: str, body: object, key: str = "once") -> Any:
        return await self.client.post(path, body, "operator", Idempotency_Key=key)

    async def batch(self, *paths: tuple[str, object], **more: object) -> list[int]:
        items = [{"key": f"item {n}", "path": path, "body": body} for n, (path, body) in enumerate(paths)]
        answer = await self.client.post("/v1/batch", {"items": items, **more}, "operator")
        return [each["status"] for each in answer.json["items"]]

    def asked(self) -> list[RegisterAsked]:
        read = [CODEC.decode(entry).event for entry in self.ledger.entries()]
        return [event for event in read if isinstance(event, RegisterAsked)]


@pytest.fixture
async def house(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    metrics = Metrics()
    async with region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made, httpx2.AsyncClient() as client:
        with open_register("RGIAJ") as register:
            breaker = Breaker(HttpRegister(register.known, client, pause_s=0.001))
            metrics.watch_registers([breaker])
            streams = PostgresStreams(made.read.pool)
            asking = Asking({breaker.name: breaker}, streams, CODEC, made.services.vault, configured=True)
            services = made.services._replace(asking=asking)
            commands = commanding.router(services, made.read.start, made.schemas, lambda _: None)
            async with serving(made.schemas, [commands]) as asks:
                yield House(asks, ledger, register, metrics, services, made.read.start, made.schemas)


async def test_a_dry_run_asks_no_register(house: House) -> None:
    player = (await house.post("/v1/players", {**ADA, "name": "Bob Hope"})).json["player"]
    items = [("/v1/players", ADA), (f"/v1/players/{player}/logins", {"session": "s"})]
    count, asked = len(house.ledger.entries()), len(house.register.asked)
    assert await house.batch(*items, dry_run=True) == [201, 201]
    assert (len(house.ledger.entries()), len(house.register.asked)) == (count, asked)
    assert await house.batch(*items) == [201, 201]
    assert len(house.register.asked) == asked + 2


async def test_about_whom_another_region_registers_that_region_asks(house: House) -> None:
    """Which region it is follows from the key, and is known before anybody is asked."""
    house.ledger.append_copy(chained(US, opening(US, (128, 255)).bodies))
    there = Elsewhere(["us"], us="eu")
    residency = Residency({"*": ("us",)}, shares={"eu": range(128), "us": range(128, 256)})
    services = house.services._replace(forwarding=there, residency=residency)
    async with serving(
        house.schemas, [commanding.router(services, house.start, house.schemas, lambda _: None)]
    ) as asks:
        eu = house._replace(client=asks)
        assert (await eu.post("/v1/players", ADA)).status == 201
        assert await eu.batch(("/v1/players", ADA), ("/v1/players", {**ADA, "name": "Bob Hope"})) == [201, 201]
        assert (await eu.post("/v1/players", {"country": "ES"})).problem()[0] == 422, (
            "what is wrong with it is said here"
        )
    assert there.asked == ["us", "us"]
    assert house.register.asked == []
    assert house.asked() == []


async def test_who_becomes_ours_while_a_batch_runs_is_asked_about_before_they_are_registered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = house.services._replace(forwarding=Elsewhere(["us"], us="eu"))
    owners = [Owner("us", 1, adopted=True)]

    async def owner(_partition: int) -> Owner:
        return owners.pop() if owners else Owner("eu", 2, adopted=True)

    monkeypatch.setattr(services.decider, "owner", owner)
    async with serving(
        house.schemas, [commanding.router(services, house.start, house.schemas, lambda _: None)]
    ) as asks:
        eu = house._replace(client=asks)
        before = len(house.ledger.entries())
        assert await eu.batch(("/v1/players", ADA)) == [503]
        assert (len(house.ledger.entries()), house.register.asked) == (before, [])
        assert await eu.batch(("/v1/players", ADA)) == [201]
    assert len(house.register.asked) == 1


async def test_an_item_that_names_an_earlier_ones_player_asks_as_soon_as_that_one_has_run(house: House) -> None:
    """As if each had been sent alone."""
    paths = [
        ("/v1/players", ADA),
        ("/v1/players/$0/logins", {"session": "s"}),
        ("/v1/players/$9/logins", {"session": "s"}),
    ]
    assert await house.batch(*paths) == [201, 201, 424]
    assert [(each.moment, each.silence) for each in house.asked()] == [("registration", None), ("login", None)]
    assert len(house.register.asked) == 2


async def test_of_an_item_that_cannot_be_asked_about_nothing_is_known_and_the_others_are_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it stands in the log already."""
    of_player, bob = Asking.of_player, {**ADA, "name": "Bob Hope"}
    lost: list[str] = []

    async def cut_off(asking: Asking, player_id: PlayerId, moment: Moment) -> object:
        if not lost:
            lost.append(player_id)
            raise OperationalError("the connection is lost")
        return await of_player(asking, player_id, moment)

    monkeypatch.setattr(Asking, "of_player", cut_off)
    login = {"session": "s"}
    items = [
        ("/v1/players", ADA), ("/v1/players", bob), ("/v1/players/$0/logins", login), ("/v1/players/$1/logins", login),
        ("/v1/players/$0/block", {"reason": "fraud"}),
    ]  # fmt: skip
    assert await house.batch(*items) == [201, 201, 503, 201, 200]
    assert await house.batch(*items) == [201, 201, 201, 201, 200], "sent again, it is asked about and done"


async def test_a_withdrawal_asks_where_the_law_has_a_register_asked_before_prizes_are_paid(house: House) -> None:
    body = {"amount": {"amount": 100, "currency": "EUR"}, "provider": "acme"}
    for country, questions in (("ES", 1), ("PT", 0)):
        player = (await house.post("/v1/players", {**ADA, "country": country}, key=country)).json["player"]
        house.register.asked.clear()
        refused = await house.post(f"/v1/players/{player}/withdrawals", body, key=f"{country} paid")
        assert refused.problem() == (422, "insufficient_funds")
        assert len(house.register.asked) == questions


async def test_a_register_that_is_down_is_told_to_prometheus(house: House) -> None:
    def told(name: str, labels: str = 'register="RGIAJ"') -> str:
        lines = generate_latest(house.metrics.registry).decode().splitlines()
        return next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name}{{{labels}}}")), "")

    assert told("countroom_register_open") == "0.0"
    house.register.down = True
    for number in range(FAILURES_MAX + 1):
        answer = await house.post("/v1/players", {**ADA, "name": f"Nobody {number}"}, key=f"{number}")
        assert answer.status == 201
    assert told("countroom_register_open") == "1.0"
    unanswered = 'outcome="unanswered",register="RGIAJ"'
    assert told("countroom_register_questions_total", unanswered) == f"{FAILURES_MAX}.0"
    assert told("countroom_register_questions_total", unanswered.replace("unanswered", "not_asked")) == "1.0"
    assert {each.silence for each in house.asked()} == {"down"}
