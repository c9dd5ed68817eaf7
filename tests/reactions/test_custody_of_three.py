"""A third region holds the key of a player who goes from one region to another, and reads of them in both logs, in any order and at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from domain import players
from eventstore import postgres, schema
from eventstore.copies import Counts, counts
from eventstore.vault import RegionKey, Vault
from policies.residency import Residency
from reactions.custody import Gives, Wants, may_hold
from tests.ledger import EU, US, Ledger, opening
from tests.reactions.custody import CODEC, EVERYWHERE, NOW, ONLY_US, Pair, paired
from tests.stack import Servers

AP = "countroom.test/ap"
RESIDENCY = Residency({ONLY_US: ("us",), "*": ("eu", "us", "ap")})
NEW = "new@example.com"


class Third:
    """AP, which owns nothing."""

    def __init__(self, pair: Pair, ledger: Ledger, pool: AsyncConnectionPool[Any]) -> None:
        self.pair, self.ledger, self.pool = pair, ledger, pool
        self.vault = Vault(pool, RegionKey(b"a" * 32))
        seen: set[str] = set()
        self.wants = {log: Wants("ap", log, pool, self.vault, CODEC, RESIDENCY, seen) for log in ("us", "eu")}

    def copy(self, *logs: str) -> None:
        for log in logs:
            there = (self.pair.us if log == "us" else self.pair.eu).entries(log)
            here = len(self.ledger.entries(log))
            if there[here:]:
                self.ledger.append_copy(there[here:], log={"us": 2, "eu": 3}[log])

    async def follow(self, *logs: str) -> None:
        self.copy(*logs)
        for log in logs:
            await self.wants[log].follow()

    async def step(self) -> int:
        return await self.wants["us"].step(self.ask, 10)

    async def ask(self, key_ids: Sequence[str]) -> Any:
        gives = Gives("us", self.pair.us_pool, self.pair.theirs, CODEC, RESIDENCY)
        return await gives.give(key_ids, "ap")

    async def waits(self, task: asyncio.Task[None], count: int = 1) -> None:
        """Until it has ended, or so many wait for somebody's lock."""
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not task.done() and len(self.ledger.sql(waiting)) < count:  # noqa: ASYNC110 — PostgreSQL has no event for it
            await asyncio.sleep(0.01)

    async def status(self) -> Counts:
        async with self.pool.connection() as connection:
            return (await counts(connection, may_hold(RESIDENCY, "ap")))["us"]


@pytest.fixture
async def third(ledger: Ledger, migrated: str, servers: Servers) -> AsyncIterator[Third]:
    dsn = servers.fresh_database("ap")
    schema.migrate(dsn, [("ledger", schema.HERE)])
    ap = Ledger(dsn)
    for name, origin, own in (("ap", AP, True), ("us", US, False), ("eu", EU, False)):
        ap.sql("SELECT ledger.register_log(%s, %s, %s)", name, origin, own)
    assert ap.append(opening(AP)) == [0]
    async with paired(ledger, migrated) as pair, postgres.pool(dsn, "countroom_writer", size=4) as pool:
        yield Third(pair, ap, pool)
    ap.close()


@pytest.mark.parametrize("order", [("us", "eu"), ("eu", "us")])
async def test_whichever_log_is_read_first_what_the_newer_one_tells_counts(third: Third, order: Sequence[str]) -> None:
    pair = third.pair
    moved, erased, told = await pair.register(), await pair.register(), await pair.register()
    pair.hand_over()
    pair.say(moved, players.ProfileRecorded(jurisdiction=ONLY_US))
    pair.say(erased, players.Erased(erased.key.id, "asked", NOW, (), ""))
    pair.say(told, players.ProfileRecorded(email=NEW))
    pair.send_back()
    await third.follow(*order)
    assert await third.step() == 1
    assert await third.vault.find("email", NEW) == [told.subject]
    assert await third.status() == Counts(held=1, not_allowed=1)


async def test_what_is_told_once_the_key_is_here_is_found_and_obeyed(third: Third) -> None:
    pair = third.pair
    moved, erased, told = await pair.register(), await pair.register(), await pair.register()
    await third.follow("us", "eu")
    assert await third.step() == 3
    pair.hand_over()
    pair.say(moved, players.ProfileRecorded(jurisdiction=ONLY_US))
    pair.say(erased, players.Erased(erased.key.id, "asked", NOW, (), ""))
    pair.say(told, players.ProfileRecorded(email=NEW))
    await third.follow("us", "eu")
    await third.follow("us")
    await third.vault.apply_erasures()
    assert await third.vault.find("email", NEW) == [told.subject]
    assert await third.status() == Counts(held=1, not_allowed=1)
    assert [key for key in (moved, erased) if await third.vault.keys({key.key.id: key.key.commitment})] == []


async def test_two_logs_that_are_read_at_once_miss_nothing_of_each_other(third: Third) -> None:
    """The one is in the midst of writing who was registered when the other tells that they moved, and that they were erased."""
    pair = third.pair
    moved, erased, last = await pair.register(), await pair.register(), await pair.register()
    pair.hand_over()
    third.copy("us", "eu")
    await third.follow("eu")
    with psycopg.connect(third.ledger.dsn) as block:
        block.execute(
            "INSERT INTO vault.copy (log, subject, key, commitment, jurisdiction, told)"
            " SELECT l.id, %s, %s::uuid, 'x', 'DE', 1 FROM ledger.log AS l WHERE l.name = 'us'",
            (last.subject, last.key.id),
        )
        us = asyncio.create_task(third.wants["us"].follow())
        await third.waits(us)
        pair.say(moved, players.ProfileRecorded(jurisdiction=ONLY_US))
        pair.say(erased, players.Erased(erased.key.id, "asked", NOW, (), ""))
        third.copy("eu")
        eu = asyncio.create_task(third.wants["eu"].follow())
        await third.waits(eu, 2)
        block.rollback()
    await asyncio.gather(us, eu)
    await third.follow("us", "eu")
    await third.step()
    assert await third.status() == Counts(held=1, not_allowed=1)
    assert await third.vault.keys({moved.key.id: moved.key.commitment}) == {}


async def test_what_is_told_while_a_copy_is_being_kept_is_found(third: Third, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = third.pair
    who = await pair.register(country=EVERYWHERE)
    pair.hand_over()
    await third.follow("us", "eu")
    insert = third.vault._insert
    told: list[asyncio.Task[None]] = []

    async def meanwhile(*arguments: Any) -> None:
        await insert(*arguments)
        if not told:
            pair.say(who, players.ProfileRecorded(email=NEW))
            third.copy("eu")
            told.append(asyncio.create_task(third.wants["eu"].follow()))
            await third.waits(told[0])

    monkeypatch.setattr(third.vault, "_insert", meanwhile)
    assert await third.step() == 1
    await asyncio.gather(*told)
    assert await third.vault.find("email", NEW) == [who.subject]
