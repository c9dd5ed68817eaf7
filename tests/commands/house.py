"""
The write side without HTTP and without servers: the real decider and writer over a log in memory.

A `Process` is what a restart loses: caches, and its connection. Several of them may share one log.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from access.policy import Principal, principal
from commands import batch, identity
from commands.batch import Batch, BatchItem
from commands.catalog import ENDPOINTS
from commands.decider import Decider
from commands.edge import READ_TOGETHER, Edge, Endpoint, read_body
from commands.log_time import LogTime
from commands.plan import Context, Plan, Receipt, Seen
from commands.rights import require_named
from commands.sealing import opened
from domain.catalog import AGGREGATES
from domain.kernel import Event, OperatorId, partition_of
from domain.operators import OPERATORS, Operator
from domain.protection import Answer
from eventstore.blind import Among
from eventstore.log import Command, Log, Outcome, Resumed
from eventstore.memory import MemoryLog
from eventstore.record import Codec, Entry
from eventstore.vault import CannotOpen, DataKey, Owed, RegionKey, Vault
from eventstore.writer import Writer
from policies.protection import Silence
from policies.residency import EVERYWHERE, OTHERWISE, Residency
from tests.ledger import EU, OWNED, Clock

SECRET = b"fingerprint key"
EVERYTHING = ("supervisor", "payments", "importer", "compliance")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CODEC = Codec(AGGREGATES)


class MemoryVault:
    """Keeps keys as the vault does, without PostgreSQL."""

    def __init__(self) -> None:
        self._region_key = RegionKey(b"r" * 32)
        self.kept: dict[str, DataKey] = {}
        self._words: dict[tuple[str, bytes], list[str]] = {}
        self.before_keeping: list[int] = []
        self.log: MemoryLog | None = None

    new_key = Vault.new_key
    _random = staticmethod(os.urandom)

    async def keep(self, owed: Sequence[Owed]) -> None:
        for each in owed:
            self.before_keeping.append(len(self.log.entries) if self.log else 0)
            if each.key is not None:
                self.kept[each.key.id] = each.key
            for field, value in each.found_by:
                self._words.setdefault((field, self._region_key.digest(field, value)), []).append(each.subject)

    async def find(self, field: str, value: str) -> list[str]:
        return self._words.get((field, self._region_key.digest(field, value)), [])

    async def find_registered(
        self, words: Sequence[tuple[str, str]], _among: Among = Among.OURS
    ) -> dict[tuple[str, str], list[str]]:
        registered = {CODEC.decode(entry).body.stream for entry in self.log.entries} if self.log else set()
        found = {word: await self.find(*word) for word in words}
        return {
            word: there
            for word, subjects in found.items()
            if (there := [each for each in subjects if f"player-{each}" in registered])
        }

    async def keys(self, commitments: Mapping[str, str]) -> dict[str, DataKey]:
        found = {key: self.kept[key] for key in commitments if key in self.kept}
        if any(key.commitment != commitments[key.id] for key in found.values()):
            raise CannotOpen("a key of the vault is another")
        return found

    async def keys_to_compare(self, ids: Iterable[str]) -> dict[str, DataKey]:
        return {key: self.kept[key] for key in ids if key in self.kept}


class SpiedLog(MemoryLog):
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.clock = Clock(int(NOON.timestamp()) * 1_000_000)
        super().__init__(EU, clock=self.clock, partitions=OWNED)
        self.loaded: list[dict[str, int]] = []  # after which version
        self.appended: list[Sequence[Command]] = []

    async def resume(self, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        found = await super().resume(schemas)
        self.loaded.append(
            {stream: snapshot.version if snapshot else 0 for stream, (snapshot, _entries) in found.items()}
        )
        return found

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        self.appended.append(commands)
        return await super().append(commands)

    def events(self, aggregate: str = "") -> list[Event]:
        """What stands in the log, of one aggregate or of all."""
        read = [CODEC.decode(entry) for entry in self.entries]
        return [each.event for each in read if each.body.stream.startswith(aggregate)]


def in_the_clear(entry: Entry, vault: MemoryVault) -> Event:
    """An event with its personal fields opened."""
    read = CODEC.decode(entry)
    key = re.search(rb'"sealed":"[^"]*","key":"([^"]*)"', entry.body)
    return opened(read.event, vault.kept[key[1].decode()], read.body.id) if key else read.event


class Process:
    """One process of the write side."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.writer = Writer(self._connect)
        self.decider = Decider(house.name, self.writer, house.log, house.vault, CODEC, house.times())  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.writer.run())

    async def _connect(self) -> Log:
        return self.house.log

    async def post(self, path: str, body: object = None, **context: Any) -> Receipt:
        """Raises Rejected."""
        return await self.decider.decide(self.house.plan(path, body, **context))

    async def post_batch(self, *items: tuple[str, str, object]) -> list[Receipt | Exception]:
        """Items are (key, path, body)."""
        wanted = Batch([BatchItem(key, path, msgspec.Raw(msgspec.json.encode(body))) for key, path, body in items])

        def plan(place: int, path: str) -> Plan:
            item = wanted.items[place]
            return self.house.plan(path, bytes(item.body), key=item.key)

        return await batch.run(wanted, plan=plan, decide=lambda wave: self.decider.run(list(wave.values())), made=made)


class House:
    """`name`: of its log. `partitions`: of whoever is registered here."""

    name = "eu"
    partitions: Sequence[int] = OWNED
    kyc_providers = frozenset({"ident", "other_ident"})
    asked: Sequence[Answer] = ()
    unasked = Silence.NOT_CONFIGURED

    def __init__(self) -> None:
        self.log = SpiedLog()
        self.vault = MemoryVault()
        self.vault.log = self.log
        self.now = NOON
        self.known: dict[str, Principal] = {}
        self.process = Process(self)
        self._processes = [self.process]
        self._keys = itertools.count(1)

    def times(self) -> LogTime:
        """What a process knows of the log's time. Most tests travel by the process's clock alone, which the log's does not bound."""
        return LogTime(tolerance=timedelta(days=100_000))

    def opened(self, aggregate: str = "") -> list[Event]:
        """The events of the log in the clear, of one aggregate or of all."""
        chosen = [entry for entry in self.log.entries if CODEC.decode(entry).body.stream.startswith(aggregate)]
        return [in_the_clear(entry, self.vault) for entry in chosen]

    def administrators(self) -> dict[OperatorId, Operator]:
        """Who is active and administers without an end, as the log says."""
        found: dict[str, Operator] = {}
        for entry in self.log.entries:
            read = CODEC.decode(entry)
            if read.body.stream.startswith("operator-"):
                before = found.get(read.body.stream, Operator())
                found[read.body.stream] = OPERATORS.evolve(before, read.event, read.at)
        return {OperatorId(name.replace("-", "_", 1)): each for name, each in found.items() if each.administers}

    def another_process(self) -> Process:
        """With cold caches, on the same log."""
        self._processes.append(Process(self))
        return self._processes[-1]

    async def close(self) -> None:
        for process in self._processes:
            process.writer.close()
        await asyncio.gather(*(process.task for process in self._processes))

    def plan(
        self,
        path: str,
        body: object = None,
        *,
        key: str = "",
        actor: str = "",
        roles: Iterable[str] = EVERYTHING,
        seen: str | None = None,
        residency: Residency = EVERYWHERE,
        person: str = "",
        issued: bool = False,
    ) -> Plan:
        """What an endpoint makes of a request, as app.commanding does it. A new key unless there is one. `seen`: an ETag.

        `actor`: by default a person, and for what payment providers tell, one of those. `person`: who is behind the account. `issued`:
        it comes by a token that stands in the log.
        """
        actor = actor or (
            "payments:acme" if re.fullmatch(r"/v1/transactions/[^/]+/(settle|fail)", path) else "operator:maria"
        )
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body or {})
        endpoint, arguments = route(path)
        self.now += timedelta(milliseconds=1)
        printed = identity.prints(SECRET, "POST", path, raw, endpoint.body)
        context = Context(
            principal(actor, roles, person=person, stepped_up=self.now, machine=issued, issued=issued),
            self.now,
            identity.command_id(actor, key or f"key {next(self._keys)}"),
            printed.fingerprint,
            whole=printed.whole,
        )
        command = read_body(msgspec.json.Decoder(endpoint.body), raw)
        self.known[actor] = context.principal
        asked = (path, raw.decode() or "{}", self.known.get, self.kyc_providers)
        more: dict[str, Any] = {"asked": self.asked, "unasked": self.unasked, "secret": SECRET}
        more |= {"residency": placed(self.partitions, residency), "administrators": self.administrators}
        edge = Edge(context, self.vault, list(self.partitions), self.name, *asked, **more)  # type: ignore[arg-type]
        plan = require_named(endpoint.path, endpoint.handler(*arguments, command, edge))
        if seen is None:
            return plan
        streams = [stream(*arguments) for stream in READ_TOGETHER[arguments[0].partition("_")[0] + "_id"]]
        return msgspec.structs.replace(plan, seen=Seen({s.name: s for s in streams}, frozenset({seen})))

    async def player(self, **more: object) -> str:
        """A registered player's id."""
        receipt = await self.process.post("/v1/players", {"country": "AT", "currency": "EUR", **more})
        return made(receipt)

    async def deposit(self, player: str, amount: int) -> str:
        """A requested deposit's id."""
        return made(await self.process.post(f"/v1/players/{player}/deposits", deposit_of(amount)))


def placed(partitions: Sequence[int], residency: Residency = EVERYWHERE) -> Residency:
    """The same, with all new players in these partitions: of a region that stands alone."""
    regions = residency.regions or {OTHERWISE: ("eu", "us")}
    return Residency(regions, dict.fromkeys(regions, partitions))


class Bound(House):
    """Its processes know the log's time, as the product's do. `elapsed`: seconds by the clock that nobody sets."""

    elapsed = 0.0

    def times(self) -> LogTime:
        return LogTime(lambda: self.elapsed)


def deposit_of(amount: int, **more: object) -> dict[str, object]:
    return {"amount": euros(amount), "provider": "acme", **more}


def euros(amount: int) -> dict[str, object]:
    return {"amount": amount, "currency": "EUR"}


def route(path: str) -> tuple[Endpoint, tuple[str, ...]]:
    for endpoint in ENDPOINTS:
        if found := re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", endpoint.path), path):
            return endpoint, found.groups()
    raise LookupError(path)


def made(receipt: Receipt) -> str:
    """The identifier that a command made: what its answer says first."""
    first: str = msgspec.structs.astuple(receipt.answer)[0]
    return first


def partition(identifier: str) -> int:
    return partition_of(identifier)
