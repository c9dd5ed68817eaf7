"""
Logs in PostgreSQL: the log written here behind ledger.append, and everybody's reading of all logs held here.

Invariants:
    - one call is one transaction is one fsync; nothing is reported before its commit (hence no pipeline mode);
    - readers page in short transactions and never hold a snapshot while they wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from domain.logs import Cut, spans
from domain.ownership import Owner, Release
from eventstore import packing
from eventstore.log import (
    Appended,
    Command,
    Head,
    Malformed,
    Outcome,
    Place,
    Reason,
    Refused,
    Resumed,
    Snapshot,
    TooLarge,
)
from eventstore.record import Entry

_APPEND = "SELECT * FROM ledger.append(%s::smallint, %b, %b, %b, %b, %b, %b)"
_LOAD = """
    SELECT l.name, e.position, e.recorded, e.leaf, e.body, e.stream
      FROM unnest(%b, %b) AS q (stream, after)
           JOIN ledger.entry AS e ON e.stream = q.stream AND e.version > q.after
           JOIN ledger.log AS l ON l.id = e.log
     ORDER BY e.stream, e.version"""
_VERSIONS = "SELECT stream, max(version) FROM ledger.entry WHERE stream >= %s AND stream < %s GROUP BY stream"
_NOTHING_BEYOND = 2**63 - 1
# By position alone: the index over streams holds all that there ever were, and is kept from being used. The log's number is a value
# before the join begins, so that no other log is read.
_SINCE = """
    SELECT h.last, e.stream, max(e.version)
      FROM (SELECT coalesce(max(t.position), 0) AS last FROM ledger.entry AS t
             WHERE t.log = (SELECT id FROM ledger.log WHERE name = %s)) AS h
           LEFT JOIN ledger.entry AS e ON e.log = (SELECT id FROM ledger.log WHERE name = %s) AND e.position > %s
                                          AND starts_with(e.stream || '', %s)
     GROUP BY h.last, e.stream"""
_LOGS = "SELECT name FROM ledger.log ORDER BY id"
_EPOCHS = """
    SELECT w.partition, max(w.epoch) FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log
     WHERE l.name = %s AND w.cut IS NULL GROUP BY w.partition"""
_OWNERS = """
    SELECT DISTINCT ON (w.partition) w.partition, coalesce(w.released_to, l.name),
           w.epoch + (w.released_to IS NOT NULL)::int, w.released_to IS NULL
      FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log
     ORDER BY w.partition, w.epoch DESC"""
_RELEASED = """
    SELECT l.name, w.cut, e.leaf, w.partition, w.epoch
      FROM ledger.ownership AS w
           JOIN ledger.log AS l ON l.id = w.log
           JOIN ledger.entry AS e ON e.log = w.log AND e.position = w.cut
     WHERE w.released_to = %s
           AND NOT EXISTS (SELECT FROM ledger.ownership AS n WHERE n.partition = w.partition AND n.epoch > w.epoch)
           AND w.epoch = (SELECT count(*) FROM ledger.ownership AS n WHERE n.partition = w.partition AND n.released_to IS NOT NULL)
     ORDER BY w.log, w.cut, w.partition"""
_INHERITED = """
    SELECT g.name, coalesce(w.cut, c.after_position), e.leaf, w.partition, w.epoch
      FROM ledger.continuation AS c
           JOIN ledger.log AS l ON l.id = c.log AND l.name = %s
           JOIN ledger.log AS b ON b.name = c.after_log
           JOIN ledger.entry AS h ON h.log = b.id AND h.position = c.after_position AND h.leaf = c.after_leaf
           JOIN ledger.ownership AS w ON w.log = b.id AND w.released_to IS NULL AND w.since <= c.after_position
                                         OR w.released_to <> l.name AND ledger.is_for(l.name, w.released_to)
           JOIN ledger.log AS g ON g.id = w.log
           JOIN ledger.entry AS e ON e.log = w.log AND e.position = coalesce(w.cut, c.after_position)
     WHERE NOT EXISTS (SELECT FROM ledger.ownership AS n WHERE n.partition = w.partition AND n.epoch > w.epoch)
           AND w.epoch - 1 = (SELECT count(*) FROM ledger.ownership AS n
                               WHERE n.partition = w.partition AND n.epoch < w.epoch AND n.released_to IS NOT NULL)
     ORDER BY 1, 2, 4"""
_FIND = """
    SELECT e.command_id, l.name, e.position FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE e.command_id = ANY (%b) ORDER BY l.own, e.position DESC"""
_COMMANDS = """
    SELECT l.name, e.position, e.recorded, e.leaf, e.body, q.place
      FROM unnest(%b, %b) WITH ORDINALITY AS q (log, position, place)
           JOIN ledger.log AS l ON l.name = q.log
           JOIN ledger.entry AS f ON f.log = l.id AND f.position = q.position
           CROSS JOIN LATERAL json_to_record(convert_from(f.body, 'UTF8')::json -> 'command') AS c (i int, n int)
           JOIN ledger.entry AS e ON e.log = l.id
                AND e.position BETWEEN q.position - c.i + 1 AND q.position - c.i + c.n
     ORDER BY q.place, e.position"""
_RESUME = """
    SELECT r.log, r.place, r.recorded, r.leaf, r.bytes, q.stream
      FROM unnest(%b, %b) AS q (stream, schema)
           LEFT JOIN LATERAL (
               SELECT s.version, e.recorded, s.leaf, s.state FROM ledger.snapshot AS s
                      JOIN ledger.entry AS e ON e.stream = s.stream AND e.version = s.version AND e.leaf = s.leaf
                WHERE s.stream = q.stream AND s.schema = q.schema LIMIT 1) AS s ON true
           CROSS JOIN LATERAL (
               SELECT NULL AS log, s.version AS place, s.recorded, s.leaf, s.state AS bytes, s.version WHERE s.version > 0
               UNION ALL
               SELECT l.name, e.position, e.recorded, e.leaf, e.body, e.version
                 FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
                WHERE e.stream = q.stream AND e.version > coalesce(s.version, 0)) AS r
     ORDER BY q.stream, r.version"""
_KEEP = """
    INSERT INTO ledger.snapshot AS old (stream, version, leaf, schema, state) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (stream) DO UPDATE
       SET version = excluded.version, leaf = excluded.leaf, schema = excluded.schema, state = excluded.state
     WHERE excluded.version > old.version OR excluded.schema <> old.schema
           OR NOT EXISTS (SELECT FROM ledger.entry AS e
                           WHERE e.stream = old.stream AND e.version = old.version AND e.leaf = old.leaf)"""
_READ = """
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position > %s ORDER BY e.position LIMIT %s"""
_HEADS = """
    SELECT l.name, coalesce(e.position, 0), coalesce(e.leaf, l.genesis)
      FROM ledger.log AS l
           LEFT JOIN LATERAL (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e ON true
     ORDER BY l.id"""


_PLANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}


async def connect(dsn: str, role: str) -> AsyncConnection[Any]:
    """An autocommit connection that acts as `role` (countroom_writer, countroom_reader, …) whatever it logs in as."""
    connection = await AsyncConnection.connect(acting_as(dsn, role), autocommit=True)
    await prepare(connection)
    return connection


def pool(dsn: str, role: str, *, size: int) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """A pool of such connections, to be opened by its user."""
    return AsyncConnectionPool(
        acting_as(dsn, role), min_size=1, max_size=size, open=False, kwargs={"autocommit": True}, configure=prepare
    )


def acting_as(dsn: str, role: str) -> str:
    """The DSN, made to act as `role` and to keep to index look-ups: plans are cached, perhaps from when the log was empty."""
    given = conninfo_to_dict(dsn).get("options") or ""
    settings = {"role": role, "plan_cache_mode": "force_generic_plan", **_PLANS}
    return make_conninfo(dsn, options=" ".join([str(given), *(f"-c {k}={v}" for k, v in settings.items())]).strip())


async def prepare(connection: AsyncConnection[Any]) -> None:
    packing.register(connection)


class LogInfo(NamedTuple):
    id: int
    name: str
    origin: str
    own: bool


class LogReader:
    """Reads any log held here. Not for two tasks at once: one connection, one reader."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}

    async def logs(self) -> list[LogInfo]:
        rows = await (
            await self._connection.execute("SELECT id, name, origin, own FROM ledger.log ORDER BY id")
        ).fetchall()
        found = [LogInfo(*row) for row in rows]
        self._ids = {info.name: info.id for info in found}
        return found

    async def heads(self) -> dict[str, Head]:
        rows = await (await self._connection.execute(_HEADS, binary=True)).fetchall()
        return {name: Head(position, bytes(leaf)) for name, position, leaf in rows}

    async def read(self, log: str, after: int, limit: int) -> list[Entry]:
        """Entries `after` + 1 … of `log`, whether they count or not. Raises KeyError for a log that is not held here."""
        if log not in self._ids:
            await self.logs()
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(_READ, (self._ids[log], after, limit))
        return [Entry(log, *row) for row in await cursor.fetchall()]


class PostgresLog:
    """The log written here (eventstore.log.Log). Not for two tasks at once: the writer stands in front of it."""

    def __init__(self, connection: AsyncConnection[Any], info: LogInfo, names: dict[int, str]) -> None:
        self._connection = connection
        self._cursor = connection.cursor(binary=True)
        self._id = info.id
        self._names = names
        self.name = info.name
        self.origin = info.origin

    @classmethod
    async def open(cls, connection: AsyncConnection[Any], name: str) -> PostgresLog:
        """Raises KeyError if no log of this name is written here; then the connection is closed."""
        try:
            logs = await LogReader(connection).logs()
            own = {info.name: info for info in logs if info.own}
            return cls(connection, own[name], {info.id: info.name for info in logs})
        except BaseException:
            await connection.close()
            raise

    async def close(self) -> None:
        await self._connection.close()

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        if not commands:
            return []
        reads = [(place, stream, version) for place, c in enumerate(commands, 1) for stream, version in c.reads]
        arguments = (
            self._id,
            packing.uuid_array([c.id for c in commands]),
            packing.int4_array([len(c.bodies) for c in commands]),
            packing.bytea_array([body for c in commands for body in c.bodies]),
            packing.int4_array([read[0] for read in reads]),
            packing.text_array([read[1] for read in reads]),
            packing.int8_array([read[2] for read in reads]),
        )
        try:
            await self._cursor.execute(_APPEND, arguments, prepare=True)
        except psycopg.DatabaseError as error:
            raise refusal(error) from error
        row = await self._cursor.fetchone()
        assert row is not None  # noqa: S101 — a function of OUT parameters returns one row
        return self._outcomes(commands, *row)

    def _outcomes(
        self,
        commands: Sequence[Command],
        outcomes: list[int],
        logs: list[int],
        positions: list[int],
        recorded: int,
        leaves: list[bytes],
    ) -> list[Outcome]:
        answer: list[Outcome] = []
        done = 0
        for command, outcome, log, position in zip(commands, outcomes, logs, positions, strict=True):
            if outcome == 0:
                upto = done + len(command.bodies)
                answer.append(Appended(position, recorded + done, leaves[done:upto]))
                done = upto
            elif outcome == Reason.DUPLICATE:
                answer.append(Refused(Reason.DUPLICATE, Place(self._names[log], position)))
            else:
                answer.append(Refused(Reason(outcome)))
        return answer


class PostgresStreams:
    """What decisions read (eventstore.log.Streams), over a pool of connections."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool

    async def load(self, after: Mapping[str, int]) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {stream: [] for stream in after}
        arguments = (packing.text_array(list(after)), packing.int8_array(list(after.values())))
        for *entry, stream in await self._fetch(_LOAD, arguments):
            found[stream].append(Entry(*entry))
        return found

    async def versions(self, aggregate: str) -> dict[str, int]:
        return dict(await self._fetch(_VERSIONS, (f"{aggregate}-", f"{aggregate}.")))  # "." follows "-"

    async def logs(self) -> list[str]:
        return [name for (name,) in await self._fetch(_LOGS, ())]

    async def beginning(self, prefix: str) -> dict[str, int]:
        return dict(await self._fetch(_VERSIONS, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))))

    async def since(self, log: str, position: int, prefix: str) -> tuple[int, dict[str, int]]:
        beyond = position if position >= 0 else _NOTHING_BEYOND
        rows = await self._fetch(_SINCE, (log, log, beyond, prefix))
        return max((last for last, _, _ in rows), default=0), {stream: version for _, stream, version in rows if stream}

    async def find(self, commands: Sequence[bytes]) -> dict[bytes, Place]:
        rows = await self._fetch(_FIND, (packing.uuid_array(commands),))
        return {
            command.bytes: Place(log, position) for command, log, position in rows
        }  # the last: ours, if it stands there

    async def commands(self, places: Sequence[Place]) -> list[list[Entry]]:
        found: list[list[Entry]] = [[] for _ in places]
        arguments = (packing.text_array([p.log for p in places]), packing.int8_array([p.position for p in places]))
        for *entry, place in await self._fetch(_COMMANDS, arguments):
            found[place - 1].append(Entry(*entry))
        return found

    async def epochs(self, log: str) -> dict[int, int]:
        return dict(await self._fetch(_EPOCHS, (log,)))

    async def owners(self) -> dict[int, Owner]:
        return {partition: Owner(*owner) for partition, *owner in await self._fetch(_OWNERS, ())}

    async def released(self, to: str) -> list[Release]:
        rows = [*await self._fetch(_RELEASED, (to,)), *await self._fetch(_INHERITED, (to,))]
        return [
            Release(of, Cut(position, bytes(leaf).hex()), spans({row[3]: row[4] for row in group}))
            for (of, position, leaf), group in groupby(rows, key=lambda row: row[:3])
        ]

    async def resume(self, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        found: dict[str, Resumed] = {stream: Resumed(None, []) for stream in schemas}
        arguments = (packing.text_array(list(schemas)), packing.text_array(list(schemas.values())))
        for log, place, recorded, leaf, raw, stream in await self._fetch(_RESUME, arguments):
            if log is None:
                snapshot = Snapshot(stream, place, leaf, recorded, schemas[stream], raw)
                found[stream] = found[stream]._replace(snapshot=snapshot)
            else:
                found[stream].entries.append(Entry(log, place, recorded, leaf, raw))
        return found

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        async with self._pool.connection() as connection:
            await connection.cursor().executemany(
                _KEEP, [(s.stream, s.version, s.leaf, s.schema, s.state) for s in snapshots]
            )

    async def _fetch(self, query: LiteralString, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(query, arguments, prepare=True)
            return await cursor.fetchall()


def refusal(error: psycopg.DatabaseError) -> Exception:
    """What an error of the doors means: Malformed for a call that can never succeed, else the error itself."""
    state = error.sqlstate or ""
    if state == "CR004":
        return TooLarge(str(error.diag.message_primary))
    if state in {"CR005", "CR006", "CR007", "CR012"} or state.startswith("22"):
        return Malformed(str(error.diag.message_primary))
    return error


class Waker:
    """Wakes a tailing reader when something was appended to any log held here."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._listening = False

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 — a time-out is an ordinary answer here
        """Return when something was appended, or after `timeout` seconds. Wake-ups are hints: the log is the queue."""
        if not self._listening:
            await self._connection.execute("LISTEN ledger")
            self._listening = True
            return
        async for _ in self._connection.notifies(timeout=timeout, stop_after=1):
            pass
