"""
Read models in PostgreSQL: one transaction applies a batch and moves the positions.

Invariants:
    - the row of read.position is the lock: whoever moves it from where they read it applies, all others raise `Moved`;
    - a generation is built in the schema read_next and takes its predecessor's place in one transaction;
    - the commit does not wait for the disk: what a crash takes away, rows and positions together, is projected again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, sql

from eventstore import postgres
from projections import columns
from projections.memory import Tables
from projections.projection import Batch, Events, Moved, Position, RebuildRunning, Snapshot, Standing, StateHash
from projections.state import Chunk, Table
from projections.version import CODE

ROLE = "countroom_projector"
LIVE, NEXT = "read", "read_next"
CHUNK_ROWS = 2_000

# A batch looks up some thousand rows by key, in tables that grow from nothing while old statistics still call them empty:
# the planner must not conclude that it had better scan them.
_SETTINGS = {
    "synchronous_commit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_REBUILD_LOCK = 0x434F5252  # 'CORR', with the projection's name: pg_advisory_lock(int, int)

_OPEN = "INSERT INTO read.generation (projection, generation, live) VALUES (%s, 1, true) ON CONFLICT DO NOTHING"
_STANDING = """
    SELECT g.generation, p.log, p.position, p.leaf, p.code
      FROM read.generation AS g LEFT JOIN read.position AS p USING (projection, generation)
     WHERE g.projection = %s AND g.live ORDER BY p.applied_at DESC"""
_ENTER_LOG = (
    "INSERT INTO read.position (projection, generation, log, position, leaf, code) VALUES (%s, %s, %s, %s, %s, %s)"
)
_MOVE = """
    UPDATE read.position SET position = %s, leaf = %s, code = %s, applied_at = clock_timestamp()
     WHERE projection = %s AND generation = %s AND log = %s AND position = %s AND leaf = %s"""
_LIVE_POSITIONS = """
    SELECT p.log, p.position FROM read.position AS p JOIN read.generation AS g USING (projection, generation)
     WHERE g.projection = %s AND g.live FOR UPDATE"""

_FILLFACTOR = """
    SELECT format('ALTER TABLE read_next.%%I SET (%%s)', c.relname, array_to_string(c.reloptions, ', '))
      FROM pg_class AS c WHERE c.relnamespace = 'read'::regnamespace AND c.relname = %s AND c.reloptions IS NOT NULL"""

C = TypeVar("C")
Cursor = AsyncCursor[Any]


class TableProjection(Protocol[C]):
    """A read model in tables of its own."""

    name: str

    @property
    def tables(self) -> Sequence[Table]: ...

    def changes(self, events: Events) -> C:
        """What the events change. Pure."""

    async def write(self, cursor: Cursor, schema: str, changes: C) -> None:
        """Apply the changes to the tables in `schema`, by few statements. Raises OutOfOrder."""

    def fold(self, tables: Tables, changes: C) -> None:
        """The same in memory. Raises OutOfOrder, and then changes nothing."""


async def connect(dsn: str) -> AsyncConnection[Any]:
    """A connection that reads the logs and writes the read models, whatever it logs in as."""
    connection = await postgres.connect(dsn, ROLE)
    await connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
        (list(_SETTINGS), list(_SETTINGS.values())),
    )
    columns.register(connection)
    return connection


@asynccontextmanager
async def exclusive(connection: AsyncConnection[Any], name: str) -> AsyncIterator[None]:
    """The right to rebuild a projection, as long as the connection lives. Raises RebuildRunning."""
    lock = (_REBUILD_LOCK, name)
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", lock)
    if await cursor.fetchone() != (True,):
        raise RebuildRunning(name)
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", lock)


class PostgresStore:
    """A projection with its tables (projections.projection.Store). Not for two tasks at once."""

    def __init__(self, projection: TableProjection[Any], connection: AsyncConnection[Any]) -> None:
        self.name = projection.name
        self._projection = projection
        self._connection = connection

    async def open(self) -> Standing:
        standing = await _standing(self._connection, self.name)
        if standing is None:
            await self._connection.execute(_OPEN, (self.name,))
            return await self.open()
        return standing

    async def apply(self, standing: Standing, batch: Batch) -> Standing:
        changes = self._projection.changes(batch.events)
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await self._move(cursor, standing, batch)
            await self._projection.write(cursor, LIVE if standing.live else NEXT, changes)
        return standing.moved(batch)

    async def _move(self, cursor: Cursor, standing: Standing, batch: Batch) -> None:
        here = (self.name, standing.generation, batch.log)
        if batch.log not in standing.vector:
            try:
                await cursor.execute(_ENTER_LOG, (*here, *batch.after, CODE))
            except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation) as error:
                raise Moved(self.name) from error
            return
        await cursor.execute(_MOVE, (*batch.after, CODE, *here, *batch.before))
        if cursor.rowcount != 1:
            raise Moved(self.name)

    def building(self) -> AbstractAsyncContextManager[None]:
        return exclusive(self._connection, self.name)

    async def begin(self) -> Standing:
        live = await self.open()
        draft = Standing(live.generation + 1, live=False, vector={})
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute("DELETE FROM read.generation WHERE projection = %s AND NOT live", (self.name,))
            await cursor.execute("INSERT INTO read.generation VALUES (%s, %s, false)", (self.name, draft.generation))
            for table in self._names():
                await cursor.execute(
                    _statement("DROP TABLE IF EXISTS {next}; CREATE TABLE {next} (LIKE {live} INCLUDING ALL)", table)
                )
                await cursor.execute(_FILLFACTOR, (table,))
                for (statement,) in await cursor.fetchall():
                    await cursor.execute(statement)
        return draft

    async def switch(self, draft: Standing) -> bool:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            # From here nobody enters a log into the live generation, and nobody is in the middle of moving it.
            await cursor.execute("SELECT FROM read.generation WHERE projection = %s AND live FOR UPDATE", (self.name,))
            await cursor.execute(_LIVE_POSITIONS, (self.name,))
            if any(position > draft.at(log).position for log, position in await cursor.fetchall()):
                return False
            for table in self._names():
                await cursor.execute(
                    _statement(
                        "DROP TABLE {live}; ALTER TABLE {next} SET SCHEMA read; GRANT SELECT ON {live} TO countroom_reader",
                        table,
                    )
                )
            await cursor.execute("DELETE FROM read.generation WHERE projection = %s AND live", (self.name,))
            await cursor.execute(
                "UPDATE read.generation SET live = true WHERE projection = %s AND generation = %s",
                (self.name, draft.generation),
            )
        return True

    def state(self) -> AbstractAsyncContextManager[Snapshot]:
        return state(self._connection, self._projection)

    async def state_hash(self) -> StateHash:
        async with self.state() as found:
            return await found.hash()

    def _names(self) -> list[str]:
        return [table.name for table in self._projection.tables]


@asynccontextmanager
async def state(connection: AsyncConnection[Any], projection: TableProjection[Any]) -> AsyncIterator[Snapshot]:
    """What the live generation of a projection holds, as one transaction sees it. Also for readers."""
    tables = sorted(projection.tables, key=lambda table: table.name)
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Before the first query takes the snapshot: a rebuild must not put tables of a later moment in their place.
        names = sql.SQL(", ").join(sql.Identifier(LIVE, table.name) for table in tables)
        await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
        standing = await _standing(connection, projection.name)
        async with aclosing(_chunks(connection, tables)) as chunks:
            yield Snapshot(standing or Standing(0, live=True, vector={}), chunks)


async def _chunks(connection: AsyncConnection[Any], tables: Sequence[Table]) -> AsyncGenerator[Chunk, None]:
    for table in tables:
        yield table, ()
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            sql.Identifier(LIVE, table.name),
            sql.SQL(", ").join(map(sql.Identifier, table.columns[: table.key])),
        )
        async with connection.cursor("state") as cursor:
            columns.read_plainly(cursor)
            await cursor.execute(query, binary=True)
            while rows := await cursor.fetchmany(CHUNK_ROWS):
                yield table, rows


async def _standing(connection: AsyncConnection[Any], projection: str) -> Standing | None:
    """Where the live generation stands; its code is that of the last move."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(_STANDING, (projection,))
    rows = await cursor.fetchall()
    if not rows:
        return None
    vector = {log: Position(position, leaf) for _, log, position, leaf, _ in rows if log is not None}
    return Standing(rows[0][0], live=True, vector=vector, code=rows[0][4])


def _statement(template: str, table: str) -> sql.Composed:
    return sql.SQL(template).format(live=sql.Identifier(LIVE, table), next=sql.Identifier(NEXT, table))
