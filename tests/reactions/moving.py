"""Two regions without a network, each on a database of its own: what stands in one log is copied to the other when a test says so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from domain.kernel import partition_of
from domain.logs import Adopted, Cut, LogEvent, Released
from eventstore.log import Command
from eventstore.vault import RegionKey, Vault
from tests.ledger import Ledger, body, new_id
from tests.reactions.region import Region, begin_again, opened

KEY = RegionKey(os.urandom(32))


class Pair(NamedTuple):
    eu: Region
    us: Region

    async def replicate(self) -> None:
        """Let each hold the other's log as it is now, and all read models follow."""
        for of, to in ((self.eu, self.us), (self.us, self.eu)):
            there, here = of.ledger.entries(of.name), len(to.ledger.entries(of.name))
            if there[here:]:
                to.ledger.append_copy(there[here:])
        for each in self:
            await each.project()

    async def hand_over(self, *ids: str) -> None:
        """From eu to us, the partitions of these."""
        released = release(self.eu, *ids)
        await self.replicate()
        adopted = tuple((first, last, epoch + 1) for first, last, epoch in released.partitions)
        cut = self.eu.ledger.entries("eu")[-1]
        say(self.us, Adopted(adopted, "eu", Cut(cut.position, cut.leaf.hex())))
        await self.replicate()
        self.us.now = max(self.us.now, self.eu.now)

    def send_keys(self) -> None:
        """Let us hold the keys of eu, and what their subjects are found by. (How they travel: tests/reactions/test_custody.py.)"""
        for table in ("vault.data_key", "vault.blind_index"):
            rows = self.eu.ledger.sql(f"SELECT t::text FROM {table} AS t".encode())
            for (row,) in rows:
                query = f"INSERT INTO {table} SELECT (%s::{table}).* ON CONFLICT DO NOTHING"
                self.us.ledger.sql(query.encode(), row)


def release(region: Region, *ids: str) -> Released:
    """The region hands over the partitions of these to the other one."""
    partitions = sorted({partition_of(each) for each in ids})
    held = dict(
        region.ledger.sql(
            "SELECT w.partition, w.epoch FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log AND l.own"
            " WHERE w.cut IS NULL"
        )
    )
    released = Released(tuple((each, each, held[each]) for each in partitions), "us" if region.name == "eu" else "eu")
    say(region, released)
    return released


def say(region: Region, event: LogEvent) -> None:
    say_in(region.ledger, region.name, event)


def say_in(ledger: Ledger, log: str, event: LogEvent) -> None:
    id_, name = new_id(), f"region-{log}-log"
    [(version,)] = ledger.sql("SELECT max(version) FROM ledger.entry WHERE stream = %s", name)
    raw = body(name, version + 1, id_, data=event, type=event.tag)
    assert ledger.append(Command(id_, [raw], (), frozenset([name]))) == [0]


@asynccontextmanager
async def two(eu_dsn: str, us_dsn: str) -> AsyncIterator[Pair]:
    begin_again(eu_dsn)
    begin_again(us_dsn, own="us")
    async with opened(eu_dsn) as eu, opened(us_dsn, "us") as us:
        us.vault, us._keys = eu.vault, eu._keys
        yield Pair(eu, us)


async def with_vaults(pair: Pair) -> Pair:
    """Real ones, each in its region's database."""
    for region in pair:
        await region.close()
        vault: Any = Vault(region.pool, KEY)
        region.vault = vault
        region.process = region.another_process()
    return pair
