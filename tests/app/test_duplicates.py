"""Two services that register one person at the same moment, on one PostgreSQL: afterwards both cards name the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import projections
from app import commanding, querying
from eventstore import schema
from eventstore.vault import Owed, RegionKey, Vault
from projections import catalog, postgres
from projections.players import Players
from projections.postgres import PostgresStore
from projections.projection import Batch
from tests.app.reading import Client, Region, region, serving
from tests.ledger import EU, OWNED, Ledger, opening
from tests.stack import Servers

READ = Path(projections.__file__).parent / "schema"
ANNA = {"country": "SE", "currency": "SEK", "birth_date": "1985-12-10", "name": "Anna A", "email": "anna@example.com"}


class House(NamedTuple):
    """`services`: each with its own decider, writer and vault."""

    services: Sequence[Region]
    clients: Sequence[Client]
    store: PostgresStore
    source: Any

    async def cards(self, *players: str) -> list[dict[str, Any]]:
        standing = await self.store.open()
        batch: Batch = (await self.source.read("eu", standing.at("eu"), 1_000)).batch
        await self.store.apply(standing, batch)
        return [(await self.clients[0].get(f"/v1/players/{each}", "operator")).json for each in players]


@pytest.fixture
async def house(servers: Servers) -> AsyncIterator[House]:
    ledger = Ledger(servers.fresh_database("duplicates"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (min(OWNED), max(OWNED)))) == [0]
    key = RegionKey(b"k" * 32)
    async with (
        region(ledger, servers, key, gap=False) as one,
        region(ledger, servers, key, gap=False) as other,
        await postgres.connect(ledger.dsn) as connection,
        served(one) as first,
        served(other) as second,
    ):
        yield House(
            (one, other), (first, second), PostgresStore(Players(), connection), catalog.source(connection, ["eu"])
        )
    ledger.close()


def served(made: Region) -> AbstractAsyncContextManager[Client]:
    commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
    return serving(made.schemas, [commands, querying.router(made.read, made.schemas)])


def meet(services: Sequence[Region]) -> None:
    """Nobody's words are kept before everybody has looked whether there is somebody alike."""
    barrier = asyncio.Barrier(len(services))

    def waiting(vault: Vault) -> None:
        keep = vault.keep

        async def kept(owed: Sequence[Owed]) -> None:
            await barrier.wait()
            await keep(owed)

        vault.keep = kept  # type: ignore[method-assign]

    for each in services:
        waiting(each.services.vault)


async def test_two_services_that_register_one_person_at_once_both_show_it(house: House) -> None:
    meet(house.services)
    answers = await asyncio.gather(
        *(client.post("/v1/players", ANNA, "operator", Idempotency_Key="k" + client.url) for client in house.clients)
    )
    one, other = [answer.json["player"] for answer in answers]
    cards = await house.cards(one, other)
    assert [card["facts"]["duplicates"] for card in cards] == [[other], [one]]
    assert sorted(card["status"] for card in cards) == ["active", "pending"]
    assert {card["status"]: card["facts"]["awaiting"] for card in cards} == {"active": [], "pending": ["duplicates"]}


async def test_whoever_registers_later_is_shown_on_the_card_of_who_was_there(house: House) -> None:
    registered = [
        (await client.post("/v1/players", ANNA, "operator", Idempotency_Key=str(n))).json["player"]
        for n, client in enumerate(house.clients)
    ]
    cards = await house.cards(*registered)
    assert [card["facts"]["duplicates"] for card in cards] == [registered[1:], registered[:1]]
    assert [card["status"] for card in cards] == ["active", "pending"]
