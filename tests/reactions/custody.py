"""
Two regions without a network: us has made the keys, eu holds a copy of its log and may hold some of them. Questions and answers
are those of the product, byte for byte.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from psycopg_pool import AsyncConnectionPool

from commands.players import found_by
from commands.sealing import seal
from domain import operators, players
from domain.catalog import AGGREGATES
from domain.kernel import Event, suffix, uuid7, uuid7_texts
from domain.logs import Adopted, Cut, Released
from domain.players import DataKey
from eventstore import postgres
from eventstore.log import Command
from eventstore.note import SigningKey, signed
from eventstore.record import Codec
from eventstore.vault import Owed, RegionKey, Vault
from policies.residency import Residency
from reactions.custody import Gives, Wants
from replication import keys
from replication.keys import Custody, Found
from tests.ledger import EU, US, Ledger, body, new_id, opening
from tests.reactions.moving import say_in
from verifier.note import Kind, VerifierKey, key_of

CODEC = Codec(AGGREGATES)
RESIDENCY = Residency({"US-NJ": ("us",), "*": ("eu", "us")})
EVERYWHERE, ONLY_US = "DE", "US-NJ"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TABLES = ("data_key", "blind_index", "copy", "followed")
_numbers = itertools.count(1)


class Who:
    """Somebody whom us has registered. `said`: their stream."""

    def __init__(self, kind: str, key: Any) -> None:
        number = next(_numbers)
        self.subject = suffix(uuid7(NOW, (number << 32).to_bytes(10, "big"), 200))
        self.stream = f"{kind}-{self.subject}"
        self.email = f"{kind}.{number}@example.com"
        self.key = key
        self.version = 0


class Signs:
    """The keys by which the regions' logs sign, and custody keys with their notes."""

    def __init__(self) -> None:
        self.of = {origin: SigningKey.generate(origin) for origin in (EU, US)}
        self.custody = {origin: custody_of(origin, self.of[origin]) for origin in (EU, US)}

    @property
    def logs(self) -> list[VerifierKey]:
        return [key_of(origin, Kind.ED25519, key.key) for origin, key in self.of.items()]


def custody_of(origin: str, *signing: SigningKey) -> Custody:
    key = SigningKey.generate(keys.custody_name(origin))
    return Custody(key, signed(keys.custody_text(origin, key.vkey), signing))


class Pair:
    def __init__(self, eu: Ledger, us: Ledger, pools: Sequence[AsyncConnectionPool[Any]]) -> None:
        self.eu, self.us = eu, us
        self.eu_pool, self.us_pool = pools
        self.eu_key, self.us_key = RegionKey(b"e" * 32), RegionKey(b"u" * 32)
        self.vault, self.theirs = Vault(self.eu_pool, self.eu_key), Vault(self.us_pool, self.us_key)
        self.signs = Signs()
        self.wants = self.wanting(RESIDENCY)
        self.gives = Gives("us", self.us_pool, self.theirs, CODEC, RESIDENCY)
        self.asked: list[Sequence[str]] = []
        self._owned = us, 1
        self.before_answer: Callable[[], Any] = lambda: None
        self.after_answer: Callable[[], Any] = lambda: None
        self.change: Callable[[Found], Found] = lambda found: found

    def wanting(self, residency: Residency) -> Wants:
        """What eu does about the log of us, and about its own."""
        seen: set[str] = set()
        self.own = Wants("eu", "eu", self.eu_pool, self.vault, CODEC, residency, seen, told_only=True)
        return Wants("eu", "us", self.eu_pool, self.vault, CODEC, residency, seen)

    @property
    def followed(self) -> Wants:
        """What us reads in the log of eu."""
        return Wants("us", "eu", self.us_pool, self.theirs, CODEC, RESIDENCY)

    # What us does

    async def register(self, country: str = EVERYWHERE, **more: Any) -> Who:
        key = self.theirs.new_key(uuid7(NOW, os.urandom(10)))
        who = Who("player", key)
        event = players.Registered(
            brand="main", country=country, currency="EUR", key=DataKey(key.id, key.commitment),
            **{"name": "Anna Berg", "email": who.email, **more},
        )  # fmt: skip
        await self.theirs.keep([Owed(who.subject, key, found_by(event))])
        self.say(who, event)
        return who

    async def invite(self) -> Who:
        key = self.theirs.new_key(uuid7(NOW, os.urandom(10)))
        who = Who("operator", key)
        await self.theirs.keep([Owed(who.subject, key, [("operator_email", who.email)])])
        self.say(
            who,
            operators.Invited(
                name="Otto", email=who.email, person="p-1", key=DataKey(key.id, key.commitment), invitation="00", until=NOW
            ),
        )  # fmt: skip
        return who

    def say(self, who: Who, event: Event) -> None:
        """In the log of who owns them by now."""
        who.version += 1
        id_, event_id = new_id(), uuid7_texts(NOW, os.urandom(10))[0]
        data = msgspec.json.decode(msgspec.json.encode(seal(event, who.key, event_id)))
        (owner, epoch), more = self._owned, {"stream": who.stream, "type": event.tag, "id": event_id}
        raw = body("player 200", who.version, id_, data=data, epoch=epoch, **more)
        assert owner.append(Command(id_, [raw], (), frozenset())) == [0]

    def move(self, who: Who, jurisdiction: str) -> None:
        self.say(who, players.ProfileRecorded(jurisdiction=jurisdiction))

    async def erase(self, who: Who) -> None:
        self.say(who, players.Erased(who.key.id, "asked", NOW, (), ""))
        await self.theirs.apply_erasures()

    def hand_over(self) -> None:
        """From now on eu decides on all of them; each holds the other's log."""
        say_in(self.us, "us", Released(((200, 200, 1),), "eu"))
        self.replicate()
        cut = self.us.entries("us")[-1]
        say_in(self.eu, "eu", Adopted(((200, 200, 2),), "us", Cut(cut.position, cut.leaf.hex())))
        self._owned = self.eu, 2
        self.send_back()

    def send_back(self) -> None:
        """Let us hold eu's log as it is."""
        there, here = self.eu.entries("eu"), len(self.us.entries("eu"))
        if there[here:]:
            self.us.append_copy(there[here:])

    # What eu does

    def replicate(self) -> None:
        there, here = self.us.entries("us"), len(self.eu.entries("us"))
        if there[here:]:
            self.eu.append_copy(there[here:])

    async def fetch(self, wants: Wants | None = None) -> int:
        """Everything that the worker does at once."""
        self.replicate()
        await self.own.follow()
        await (wants or self.wants).follow()
        return await (wants or self.wants).step(self.ask, keys.KEYS_MAX)

    async def ask(self, key_ids: Sequence[str]) -> Found:
        self.asked.append(key_ids)
        asking = keys.Asking(self.signs.custody[EU], asker=EU, origin=US, keys=key_ids, at=1_000)
        self.before_answer()
        heard = keys.hear(asking.data, origin=US, asker=EU, logs=self.signs.logs, now=1_000)
        given = await self.gives.give(heard.question.keys, "eu")
        found = self.change(asking.open(heard.answer(Found(given.keys, given.refused))))
        self.after_answer()
        return found

    async def holds(self, who: Who) -> bool:
        """Whether the key opens in eu, by a process that has just started."""
        vault = Vault(self.eu_pool, self.eu_key)
        return who.key.id in await vault.keys({who.key.id: who.key.commitment})

    def rows(self, who: Who) -> int:
        """How much of them lies in eu's vault."""
        [(count,)] = self.eu.sql(
            "SELECT (SELECT count(*) FROM vault.data_key WHERE subject = %s)"
            " + (SELECT count(*) FROM vault.blind_index WHERE subject = %s)",
            who.subject,
            who.subject,
        )
        return int(count)

    def backup(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table: self.eu.sql(f"SELECT * FROM vault.{table}".encode()) for table in TABLES}

    def restore(self, backup: dict[str, list[tuple[Any, ...]]]) -> None:
        """The vault's tables as they were; the log's copies stay, as a log that was restored is completed first."""
        with self.eu.admin.transaction():
            for table, rows in backup.items():
                self.eu.sql(f"DELETE FROM vault.{table}".encode())
                for row in rows:
                    self.eu.sql(f"INSERT INTO vault.{table} VALUES ({', '.join(['%s'] * len(row))})".encode(), *row)
        self.wants = self.wanting(RESIDENCY)


@asynccontextmanager
async def paired(eu: Ledger, us_dsn: str) -> AsyncIterator[Pair]:
    us = Ledger(us_dsn)
    us.sql("SELECT ledger.register_log('us', %s, true), ledger.register_log('eu', %s, false)", US, EU)
    assert us.append(opening(US, (128, 255))) == [0]
    async with (
        postgres.pool(eu.dsn, "countroom_writer", size=2) as one,
        postgres.pool(us_dsn, "countroom_writer", size=2) as other,
    ):
        yield Pair(eu, us, (one, other))
    us.close()
