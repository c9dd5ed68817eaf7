"""
Logs for tests: bodies and commands as a careful caller makes them, and a scratch database in which a log is open.

A stream is written "wallet 5": the wallet of a player in partition 5; "wallet 5b" is that of another one there.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, LiteralString

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from domain.kernel import partition_of, suffix
from eventstore import postgres, schema
from eventstore.log import Command, Log, Outcome, Streams
from eventstore.memory import MemoryLog
from eventstore.postgres import PostgresLog, PostgresStreams
from eventstore.record import Body, CommandPart, Entry, encode_body, genesis, leaf_hash
from tests.stack import Servers

EU, US = "countroom.test/eu", "countroom.test/us"
OWNED = range(128)

_APPEND = """
    SELECT outcomes
      FROM ledger.append(%s::smallint, %s::uuid[], %s::int[], %s::bytea[], %s::int[], %s::text[], %s::bigint[])"""

_numbers = itertools.count(1)


def new_id() -> bytes:
    """A command id that no other test has."""
    return hashlib.sha256(f"command {next(_numbers)}".encode()).digest()[:16]


def stream(written: str) -> str:
    """The name of a stream, e.g. of "wallet 5b"; a name of a region's own stream stands for itself."""
    if written.startswith("region-"):
        return written
    aggregate, _, person = written.partition(" ")
    number = person.rstrip("abcdefgh")
    uuid = bytearray(hashlib.sha256(person.encode()).digest()[:16])
    uuid[0], uuid[6], uuid[15] = 1, uuid[6] & 0x0F | 0x70, int(number)
    return f"{aggregate}-{suffix(bytes(uuid))}"


def body(name: str, version: int, id_: bytes, i: int = 1, n: int = 1, data: object = None, **more: Any) -> bytes:
    """A body; `more` overrides or adds members."""
    name = stream(name)
    members: dict[str, Any] = {
        "stream": name,
        "version": version,
        "type": "test.happened",
        "id": "019a8f00-0000-7000-8000-000000000001",
        "actor": "service:test",
        "command": CommandPart(id=id_.hex(), i=i, n=n),
        "data": msgspec.Raw(msgspec.json.encode({} if data is None else data)),
    }
    if not name.startswith("region-"):
        members |= {"partition": partition_of(name), "epoch": 1}
    return encode_body(Body(**(members | more)))


def command(
    *writes: tuple[str, int], reads: Sequence[tuple[str, int]] = (), id_: bytes | None = None, data: object = None
) -> Command:
    """A command that writes an event for each (stream, version) and only reads others."""
    id_ = id_ or new_id()
    bodies = [body(name, version, id_, i, len(writes), data) for i, (name, version) in enumerate(writes, 1)]
    return Command(
        id_,
        bodies,
        tuple((stream(name), version) for name, version in reads),
        frozenset(stream(name) for name, _ in writes),
    )


def opening(origin: str, *partitions: tuple[int, int]) -> Command:
    """What a log begins with."""
    name, id_ = origin.rpartition("/")[2], new_id()
    data = {"origin": origin, "epoch": 1, "partitions": partitions}
    return Command(id_, [body(f"region-{name}-log", 1, id_, data=data, type="log.opened", actor="system")])


def chained(origin: str, bodies: Sequence[bytes], *, recorded: int = 1_000_000) -> list[Entry]:
    """A whole log of these bodies."""
    entries: list[Entry] = []
    leaf = genesis(origin)
    for position, each in enumerate(bodies, 1):
        leaf = leaf_hash(leaf, position, recorded + position, each)
        entries.append(Entry(origin.rpartition("/")[2], position, recorded + position, leaf, each))
    return entries


class Clock:
    """µs since 1970, a microsecond later each time it is asked, unless it is set."""

    def __init__(self, now: int = 1_763_164_800_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Ledger:
    """A database with the logs eu (written here, open with partitions 0 to 127) and us (a copy, empty)."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def empty(self, origin: str = EU, owned: range = OWNED) -> None:
        """Begin again: the log that is written here is open, and nothing else is there."""
        with self.admin.transaction():
            self.sql("SET LOCAL session_replication_role = replica")  # no triggers: only a superuser can do that
            for table in (
                "ledger.entry",
                "ledger.ownership",
                "ledger.snapshot",
                "ledger.subtree",
                "ledger.checkpoint",
                "vault.data_key",
                "vault.blind_index",
                "vault.index_key",
                "vault.region_key",
                "vault.copy",
                "vault.followed",
            ):
                self.sql(f"DELETE FROM {table}".encode())
        assert self.append(opening(origin, (owned.start, owned.stop - 1))) == [0]

    @cached_property
    def admin(self) -> psycopg.Connection[Any]:
        """The administrator's connection, which goes away with the servers, or by `close`."""
        return psycopg.connect(self.dsn, autocommit=True)

    def close(self) -> None:
        """For a ledger of one test, of which there may be many."""
        self.admin.close()

    def as_role(self, role: str) -> str:
        return postgres.acting_as(self.dsn, f"countroom_{role}")

    def login(self, role: str) -> str:
        """The DSN of a login that has one role and is nothing else, as a service of a real region has."""
        name = sql.Identifier(f"test_{role}")
        with self.admin.transaction():
            self.admin.execute("SELECT pg_advisory_xact_lock(1)")
            if not self.sql("SELECT 1 FROM pg_roles WHERE rolname = %s", f"test_{role}"):
                group = sql.Identifier(f"countroom_{role}")
                self.admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'test' IN ROLE {}").format(name, group))
        return make_conninfo(self.dsn, user=f"test_{role}", password="test")

    def sql(self, query: LiteralString | bytes, *arguments: object, role: str | None = None) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own."""
        if role is None:
            return rows(self.admin.execute(query, arguments))
        with psycopg.connect(self.as_role(role), autocommit=True) as connection:
            return rows(connection.execute(query, arguments))

    def replace(self, function: str, statement: str) -> None:
        """Plant something else in place of a function of the ledger: `statement` of PL/pgSQL."""
        [(head,)] = self.sql(
            "SELECT split_part(pg_get_functiondef(p.oid), 'AS $', 1) FROM pg_proc AS p WHERE p.oid = %s::regproc",
            f"ledger.{function}",
        )
        self.admin.execute(f"{head} AS $planted$ BEGIN {statement}; END $planted$".encode())

    def append(self, *commands: Command, log: int = 1, connection: psycopg.Connection[Any] | None = None) -> list[int]:
        """The outcomes of a plain call of ledger.append, by the administrator unless there is a connection."""
        arguments = (
            log,
            [uuid.UUID(bytes=each.id) for each in commands],
            [len(each.bodies) for each in commands],
            [raw for each in commands for raw in each.bodies],
            [place for place, each in enumerate(commands, 1) for _ in each.reads],
            [name for each in commands for name, _ in each.reads],
            [version for each in commands for _, version in each.reads],
        )
        row = (connection or self.admin).execute(_APPEND, arguments).fetchone()
        assert row is not None
        outcomes: list[int] = row[0]
        return outcomes

    def append_copy(self, entries: Sequence[Entry], *, log: int = 2, role: str = "applier") -> int:
        """The copy's last position, after a plain call of ledger.append_copy."""
        [(last,)] = self.sql(
            "SELECT ledger.append_copy(%s::smallint, %s, %s::bigint[], %s::bytea[], %s::bytea[])",
            log,
            entries[0].position,
            [entry.recorded for entry in entries],
            [entry.leaf for entry in entries],
            [entry.body for entry in entries],
            role=role,
        )
        return int(last)

    def entries(self, log: str = "eu") -> list[Entry]:
        rows = self.sql(
            "SELECT l.name, e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log"
            " WHERE l.name = %s ORDER BY e.position",
            log,
        )
        return [
            Entry(name, position, recorded, bytes(leaf), bytes(raw)) for name, position, recorded, leaf, raw in rows
        ]

    @asynccontextmanager
    async def log(self) -> AsyncIterator[PostgresLog]:
        async with await postgres.connect(self.dsn, "countroom_writer") as connection:
            yield await PostgresLog.open(connection, "eu")

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[PostgresStreams]:
        async with postgres.pool(self.dsn, "countroom_writer", size=2) as pool:
            yield PostgresStreams(pool)


def rows(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    """Those of a query, even if it names no columns; none of a statement."""
    assert cursor.pgresult is not None
    return cursor.fetchall() if cursor.pgresult.status == psycopg.pq.ExecStatus.TUPLES_OK else []


class OneConnection:
    """Stands in for a pool where nobody else asks: opening one takes longer than a test."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        yield self._connection


class Subject:
    """A log under test, whichever it is, with what can be read of it."""

    def __init__(
        self,
        log: Log,
        streams: Streams,
        entries: Callable[[], list[Entry]],
        copy: Callable[[list[Entry]], object] = lambda _entries: None,
    ) -> None:
        self.log = log
        self.streams = streams
        self.entries = entries
        self.copy = copy  # takes the next entries of the log us

    async def append(self, *commands: Command) -> list[Outcome]:
        return await self.log.append(commands)

    async def one(self, each: Command) -> Outcome:
        (outcome,) = await self.log.append([each])
        return outcome


async def memory_subject(made: type[MemoryLog] = MemoryLog) -> Subject:
    log = made(EU, clock=Clock(), partitions=OWNED)
    await log.append([opening(EU, (OWNED.start, OWNED.stop - 1))])
    return Subject(log, log, lambda: list(log.entries), log.copy)


@pytest.fixture(scope="session")
def ledger_template(servers: Servers) -> str:
    """A migrated database to make others from."""
    dsn = servers.fresh_database("ledger_template")
    schema.migrate(dsn, [("ledger", schema.HERE)])
    return str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture
def migrated(servers: Servers, ledger_template: str) -> str:
    """The administrator's DSN of a migrated database without logs."""
    name = f"migrated_{next(_numbers)}"
    with psycopg.connect(servers.endpoints.postgres, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(ledger_template))
        )
    return make_conninfo(servers.endpoints.postgres, dbname=name)


@pytest.fixture(scope="session")
def _shared_ledger(servers: Servers) -> Ledger:
    dsn = servers.fresh_database("ledger")
    schema.migrate(dsn, [("ledger", schema.HERE)])
    made = Ledger(dsn)
    made.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    return made


@pytest.fixture
def ledger(_shared_ledger: Ledger) -> Ledger:
    """The logs as a test wants to find them. One database serves all: a new one takes as long as ten tests."""
    _shared_ledger.empty()
    return _shared_ledger


@pytest.fixture(scope="session")
def _long_way_ledger(servers: Servers, ledger_template: str) -> Ledger:
    """A ledger whose append reads every body."""
    name = "long_way"
    with psycopg.connect(servers.endpoints.postgres, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(ledger_template))
        )
    made = Ledger(make_conninfo(servers.endpoints.postgres, dbname=name))
    made.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    made.replace("append_usual", "RETURN false")
    return made


@pytest.fixture(params=["memory", "postgres", "postgres, the long way"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each log in turn, freshly opened."""
    if request.param == "memory":
        yield await memory_subject()
        return
    ledger: Ledger = request.getfixturevalue("ledger" if request.param == "postgres" else "_long_way_ledger")
    if request.param != "postgres":
        ledger.empty()
    async with await postgres.connect(ledger.dsn, "countroom_writer") as connection:
        streams = PostgresStreams(OneConnection(connection))  # type: ignore[arg-type]
        yield Subject(await PostgresLog.open(connection, "eu"), streams, ledger.entries, ledger.append_copy)


def whole(entries: Sequence[Entry], origin: str = EU) -> Iterator[Entry]:
    """The entries, each checked: positions without gaps, times that increase, leaves that follow from one another."""
    leaf, recorded = genesis(origin), 0
    for position, entry in enumerate(entries, 1):
        assert entry.position == position
        assert entry.recorded > recorded
        leaf = leaf_hash(leaf, position, entry.recorded, entry.body)
        assert entry.leaf == leaf
        recorded = entry.recorded
        yield entry
