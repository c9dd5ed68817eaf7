"""Regions for tests: a fresh database and a fresh stream each, on servers that all tests share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import nats
import psycopg
from nats.aio.client import Client
from psycopg import sql
from structlog import get_logger

from devstack import Stack
from eventstore import schema as ledger_schema
from eventstore import signer
from eventstore.note import SigningKey
from eventstore.signer import Signer
from replication import schema as replication_schema
from replication.applier import run_applier
from replication.checkpointer import Heads, run_checkpointer
from replication.config import Config
from replication.frame import Frame, Row, parse
from replication.holders import NOBODY, Others
from replication.link import Refused, last_message, link
from replication.relay import run_relay
from replication.wire import Realm
from replication.witness import Keys as WitnessKeys
from replication.witness import run_witness
from tests.ledger import rows
from verifier.log import genesis, leaf
from verifier.note import Kind, key_of
from verifier.policy import Policy, parse_policy

DEPLOYMENT = "test"
PARTITIONS = {"eu": (0, 63), "us": (64, 127), "ap": (128, 191)}
TEMPLATE = "replication_template"

Work = Callable[[Config, asyncio.Event], Coroutine[Any, Any, None]]


def body(
    region: str, kind: str, version: int, command: bytes, i: int, n: int, data: object = None, **more: object
) -> bytes:
    return msgspec.json.encode(
        {
            "stream": f"region-{region}-{kind}",
            "version": version,
            "type": "test.happened",
            "id": str(uuid.UUID(int=version)),
            "actor": "system",
            "command": {"id": command.hex(), "i": i, "n": n},
            "data": data or {},
            **more,
        }
    )


def opening(region: str) -> bytes:
    first, last = PARTITIONS[region]
    command = hashlib.sha256(region.encode()).digest()[:16]
    data = {"origin": f"countroom.{DEPLOYMENT}/{region}", "epoch": 1, "partitions": [[first, last]]}
    return body(region, "log", 1, command, 1, 1, data, type="log.opened")


def commands(
    region: str, sizes: Sequence[int], *, kind: str = f"test_{0:026}", filler: int = 0
) -> Iterator[tuple[bytes, list[bytes]]]:
    """Id and bodies of commands with so many events each, one after another on one stream."""
    version = itertools.count(1)
    for place, size in enumerate(sizes):
        command = hashlib.sha256(f"{region} {kind} {place}".encode()).digest()[:16]
        yield (
            command,
            [body(region, kind, next(version), command, i, size, {"filler": "x" * filler}) for i in range(1, size + 1)],
        )


def chained(
    bodies: Sequence[bytes], *, origin: str = f"countroom.{DEPLOYMENT}/eu", recorded: int = 1_000_000
) -> list[Row]:
    """A log of these bodies."""
    rows: list[Row] = []
    last = genesis(origin)
    for position, each in enumerate(bodies, 1):
        last = leaf(last, position, recorded + position, each)
        rows.append((recorded + position, last, each))
    return rows


def frame_of(first: int, prev_leaf: bytes, rows: Sequence[Row]) -> Frame:
    recorded, leaves, bodies = zip(*rows, strict=True)
    return Frame(first, prev_leaf, recorded, leaves, bodies)


@dataclass
class Region:
    name: str
    config: Config
    dsn: str
    realm: Realm
    _kinds: Iterator[int] = field(default_factory=itertools.count)

    def append(self, sizes: Sequence[int], *, filler: int = 0) -> int:
        """Append commands with so many events each, on a stream of their own; returns the log's last position."""
        kind = f"test_{next(self._kinds):026}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for command, bodies in commands(self.name, sizes, kind=kind, filler=filler):
                self._append(connection, [command], [len(bodies)], bodies)
        return self.position(self.name)

    def append_many(self, count: int, *, filler: int = 150, batch: int = 500) -> int:
        """Append commands of one event each, quickly: every one on a stream of its own."""
        kind = f"many_{next(self._kinds):06}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for start in range(0, count, batch):
                ids = [
                    hashlib.sha256(f"{kind} {i}".encode()).digest()[:16]
                    for i in range(start, min(start + batch, count))
                ]
                bodies = [
                    body(self.name, f"{kind}{start + place:020}", 1, each, 1, 1, {"filler": "x" * filler})
                    for place, each in enumerate(ids)
                ]
                self._append(connection, ids, [1] * len(ids), bodies)
        return self.position(self.name)

    def open(self) -> None:
        each = opening(self.name)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            self._append(connection, [bytes.fromhex(msgspec.json.decode(each)["command"]["id"])], [1], [each])

    def _append(
        self, connection: psycopg.Connection[Any], ids: list[bytes], counts: list[int], bodies: list[bytes]
    ) -> None:
        row = connection.execute(
            "SELECT outcomes FROM ledger.append((SELECT id FROM ledger.log WHERE own), %s::uuid[], %s::int[], %s::bytea[],"
            " '{}', '{}', '{}')",
            ([uuid.UUID(bytes=each) for each in ids], counts, bodies),
        ).fetchone()
        assert row == ([0] * len(ids),), row

    def sql(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return rows(connection.execute(query.encode(), arguments))

    def entries(self, log: str) -> list[tuple[Any, ...]]:
        return self.sql(
            "SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry e JOIN ledger.log l ON l.id = e.log"
            " WHERE l.name = %s ORDER BY 1",
            log,
        )

    def rows(self, log: str) -> list[Row]:
        return [(recorded, bytes(leaf), bytes(each)) for _, recorded, leaf, each in self.entries(log)]

    def position(self, log: str) -> int:
        [(position,)] = self.sql(
            "SELECT coalesce(max(e.position), 0) FROM ledger.entry e JOIN ledger.log l ON l.id = e.log WHERE l.name = %s",
            log,
        )
        return int(position)

    def watermark(self, peer: str) -> int:
        found = self.sql("SELECT position FROM replication.watermark WHERE peer = %s", peer)
        return found[0][0] if found else -1

    def state(self, log: str, role: str) -> tuple[Any, ...] | None:
        found = self.sql(
            "SELECT s.state, s.position, s.reason FROM replication.status s JOIN ledger.log l ON l.id = s.log"
            " WHERE l.name = %s AND s.role = %s",
            log,
            role,
        )
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def as_itself(self) -> AsyncIterator[Client]:
        """NATS in the own realm, with the own key: what this region itself may do."""
        client = await nats.connect(self.config.nats, nkeys_seed=str(self.config.seed(self.name)))
        try:
            yield client
        finally:
            await client.close()


@dataclass
class Keys:
    """The keys of all logs and witnesses, in a folder."""

    folder: Path
    text: str = ""

    def signer(self, region: str) -> Path:
        return self.folder / region / "signer"

    def witness(self, region: str) -> WitnessKeys:
        logs = tuple(log.key for log in self.policy.logs)
        folder = self.folder / region / "witness"
        return WitnessKeys(SigningKey.from_file(folder / "key"), folder, logs)

    @cached_property
    def policy(self) -> Policy:
        """Any one region is a quorum. The keys are made at the first call."""
        lines = []
        for name in PARTITIONS:
            origin = f"countroom.{DEPLOYMENT}/{name}"
            lines.append(f"log {signer.create(self.signer(name), origin)}")
            folder = self.folder / name / "witness"
            folder.mkdir(parents=True)
            key = SigningKey.generate(f"{origin}/witness")
            key.write(folder / "key")
            lines.append(f"witness {name} {key_of(key.name, Kind.COSIGNATURE, key.key)}")
        lines += [f"group regions any {' '.join(PARTITIONS)}", "quorum regions"]
        self.text = "".join(f"{line}\n" for line in lines)
        return parse_policy(self.text.encode())


@dataclass
class World:
    stack: Stack
    regions: dict[str, Region]
    keys: Keys
    _running: list[tuple[asyncio.Event, asyncio.Task[None]]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Region:
        return self.regions[name]

    def __setitem__(self, name: str, region: Region) -> None:
        self.regions[name] = region

    @contextlib.asynccontextmanager
    async def link(self, region: str, origin: str) -> AsyncIterator[Client]:
        """NATS of a region, on its local side of another's realm."""
        config = self[region].config
        client = await nats.connect(config.nats, nkeys_seed=str(config.seed(origin)))
        try:
            yield client
        finally:
            await client.close()

    async def restored_to_its_opening(self, name: str) -> Region:
        """The region with a PostgreSQL that holds only the first entry, as after the restore of an old backup."""
        region = self[name]
        dsn = await asyncio.to_thread(fresh_database, self.stack, name, f"restored_{uuid.uuid4().hex[:8]}")
        restored = Region(name, replace(region.config, postgres=dsn), dsn, region.realm)
        restored.open()
        return restored

    async def restored_with(self, region: Region, positions: int, *, guarded: bool = True) -> Region:
        """The region with a PostgreSQL that holds its log's first entries, as after the restore of a backup."""
        dsn = await asyncio.to_thread(fresh_database, self.stack, region.name, f"restored_{uuid.uuid4().hex[:8]}")
        restored = replace(region, config=replace(region.config, postgres=dsn), dsn=dsn)
        recorded, leaves, bodies = zip(*region.rows(region.name)[:positions], strict=True)
        restored.sql("SELECT ledger.guard(id) FROM ledger.log WHERE own")
        restored.sql(
            "SELECT ledger.restore(id, 1, %s::bigint[], %s::bytea[], %s::bytea[]) FROM ledger.log WHERE own",
            *map(list, (recorded, leaves, bodies)),
        )
        if not guarded:
            restored.sql("DELETE FROM ledger.clearance")
        return restored

    def relay(self, region: str, *, with_policy: bool = True) -> asyncio.Event:
        policy = self.keys.policy if with_policy else None
        return self._start(lambda stop: run_relay(self[region].config, stop, policy=policy))

    def applier(self, region: str, origin: str, *holders: str) -> asyncio.Event:
        """Copies a log. `holders`: whom to ask while its origin does not answer."""
        others = Others(holders, self.keys.policy) if holders else NOBODY
        return self._start(lambda stop: run_applier(self[region].config, origin, stop, others=others))

    def witness(self, region: str, origin: str) -> asyncio.Event:
        return self._start(lambda stop: run_witness(self[region].config, origin, self.keys.witness(region), stop))

    def checkpointer(self, region: str, *peers: str, policy: Policy | None = None) -> asyncio.Event:
        """Signs, with these other regions as its witnesses, and whoever else the policy names."""
        policy = policy or self.keys.policy

        async def work(stop: asyncio.Event) -> None:
            with Signer.open(self.keys.signer(region), self[region].config.origin(region)) as signer:
                await run_checkpointer(self[region].config, Heads(signer, policy, peers), stop)

        return self._start(work)

    def _start(self, work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> asyncio.Event:
        stop = asyncio.Event()
        self._running.append((stop, asyncio.create_task(work(stop))))
        return stop

    async def halt(self, stop: asyncio.Event) -> None:
        """Stop one of them and wait until it has."""
        for event, task in self._running:
            if event is stop:
                event.set()
                await task
        self._running = [each for each in self._running if each[0] is not stop]

    async def halt_all(self) -> None:
        for stop, _ in list(self._running):
            await self.halt(stop)

    async def close(self) -> None:
        for stop, _ in self._running:
            stop.set()
        await asyncio.gather(*(task for _, task in self._running))

    def check(self) -> None:
        for _, task in self._running:
            if task.done():
                task.result()


async def eventually(condition: Callable[[], object], *, within_s: float = 60.0, world: World | None = None) -> None:
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        if world:
            world.check()
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        await asyncio.sleep(0.03)


def fresh_database(stack: Stack, region: str, name: str) -> str:
    """A migrated database with the logs of all regions registered and the own one opened."""
    place = next(each for each in stack.regions if each.name == region)
    with psycopg.connect(place.dsn("postgres"), autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [TEMPLATE]).rowcount
        if not known:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
            ledger_schema.migrate(
                place.dsn(TEMPLATE), [("eventstore", ledger_schema.HERE), ("replication", replication_schema.HERE)]
            )
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
        )
    dsn = place.dsn(name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for log in PARTITIONS:
            connection.execute(
                "SELECT ledger.register_log(%s, %s, %s)", (log, f"countroom.{DEPLOYMENT}/{log}", log == region)
            )
    return dsn


async def forget_stream(config: Config) -> None:
    """Only for tests: what deny_delete and deny_purge leave to the realm's owner is to delete the whole stream."""
    realm = Realm(config.region)
    client = await nats.connect(config.nats, nkeys_seed=str(config.seed(config.region)))
    await client.request(f"{realm.api}.STREAM.DELETE.{realm.stream}", b"", timeout=30)
    await client.close()


def newest_in_stream(region: Region) -> int:
    """The position at which the newest frame of the region's stream ends."""

    async def look() -> int:
        async with link(region.config, region.name, "test", get_logger()) as own:
            try:
                found = await last_message(own)
            except (Refused, nats.errors.Error):  # no such stream yet, or nobody who says so
                return 0
        return parse(found[1]).last if found else 0

    return asyncio.run(look())


async def frames_in_stream(region: Region) -> list[bytes]:
    """Every message of the region's stream."""
    realm = region.realm
    async with region.as_itself() as client:
        found = []
        info = json.loads((await client.request(f"{realm.api}.STREAM.INFO.{realm.stream}", b"", timeout=30)).data)
        if "error" in info:
            return []
        for sequence in range(info["state"]["first_seq"], info["state"]["last_seq"] + 1):
            request = json.dumps({"seq": sequence}).encode()
            answer = json.loads(
                (await client.request(f"{realm.api}.STREAM.MSG.GET.{realm.stream}", request, timeout=30)).data
            )
            if "message" in answer:  # the oldest are discarded meanwhile
                found.append(base64.b64decode(answer["message"].get("data", "")))
    return found
