"""
What the relay and the applier read and write in PostgreSQL, which alone knows how far everything is.

Every function is one statement and one transaction. A connection serves one task at a time.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection

from eventstore import packing
from eventstore.postgres import connect as connect_as
from replication.chain import Cursor, Head
from replication.config import Config
from replication.errors import Broken, Interrupted, Mismatch
from replication.frame import Frame, Row, command_part

ROLE = "countroom_applier"
HEADS_ROLE = "countroom_heads"
LOCKS = {  # 'CORE', 'COPA', 'COSI', 'COWI', and the log
    "relay": 0x434F5245,
    "applier": 0x434F5041,
    "checkpointer": 0x434F5349,
    "witness": 0x434F5749,
}

_CLEARED_INTERVAL_S = 1.0

# append_copy's refusals of what came, besides any error in reading a body: data exceptions (22), constraints (23), limits (54)
_REFUSALS = frozenset({"CR004", "CR005", "CR006", "CR009", "CR010", "CR012"})
_REFUSAL_CLASSES = ("22", "23", "54")

_LOG = "SELECT id, name, origin, genesis FROM ledger.log WHERE name = %b AND own = %b"
_HEAD = """
    SELECT e.position, e.recorded, e.leaf FROM ledger.entry AS e
     WHERE e.log = %b::smallint ORDER BY e.position DESC LIMIT 1"""
_ROWS = """
    SELECT e.recorded, e.leaf, e.body FROM ledger.entry AS e
     WHERE e.log = %b::smallint AND e.position > %b ORDER BY e.position LIMIT %b"""
_LEAVES = """
    SELECT e.leaf FROM ledger.entry AS e
     WHERE e.log = %b::smallint AND e.position BETWEEN %b AND %b ORDER BY e.position"""
_APPLY = "SELECT replication.apply(%b::smallint, %b::bigint, %b, %b, %b, %b::text, %b::bigint)"
_RESTORE = "SELECT ledger.restore(%b::smallint, %b::bigint, %b, %b, %b)"
_ACKNOWLEDGE = "SELECT replication.acknowledge(%b::smallint, %b::text, %b::bigint, %b, %b, %b)"
_HALT = "SELECT replication.halt(%b::smallint, %b::text, %b::bigint, %b::text, %b::text, %b::bigint, %b)"
_HEADS_DOWN = """
    SELECT c.note, c.size FROM ledger.checkpoint AS c
     WHERE c.log = %b AND c.published_at IS NOT NULL AND c.size > %b::bigint AND c.size <= %b::bigint ORDER BY c.size DESC LIMIT %b"""
_HEADS_UP = """
    SELECT c.note, c.size FROM ledger.checkpoint AS c
     WHERE c.log = %b AND c.published_at IS NOT NULL AND c.size > %b::bigint ORDER BY c.size LIMIT %b"""
_HEADS_AT_ONCE = 100
_REPORT_CATCH_UP = "SELECT replication.report_catch_up(%b::smallint, %b::text, %b::bigint, %b::bigint, %b::bigint, %b::double precision, %b::bigint)"
_HEAR = "SELECT replication.hear(%b::smallint, %b::bigint, %b)"
_EXCUSED = """
    SELECT x.peer, x.by FROM replication.excused AS x
     WHERE x.log = %b::smallint AND x.postmaster = pg_postmaster_start_time() ORDER BY x.peer"""
_PASSED = "SELECT max(sequence) FROM replication.evidence WHERE log = %b AND role = %b AND created = %b AND cleared_at IS NOT NULL"

Connection = AsyncConnection[tuple[Any, ...]]


class Log(NamedTuple):
    """A log that is held here."""

    id: int
    name: str
    origin: str
    genesis: bytes


async def connect(config: Config, role: str = ROLE) -> Connection:
    return await connect_as(config.postgres, role)


async def find_log(connection: Connection, config: Config, name: str) -> Log:
    """The own log or a copy. Raises Interrupted while it is not registered, or as another deployment's."""
    row = await _one(connection, _LOG, name, name == config.region)
    if row is None:
        raise Interrupted(f"the log {name} is not registered here")
    log = Log(*row)
    if log.origin != config.origin(name):
        raise Interrupted(f"the log {name} is registered as {log.origin}, not {config.origin(name)}")
    return log


async def be_the_only(connection: Connection, role: str, log: Log) -> None:
    """Hold the role for this log as long as the connection lives. Raises Interrupted while somebody else does."""
    row = await _one(connection, "SELECT pg_try_advisory_lock(%b::int, %b::int)", LOCKS[role], log.id)
    if row != (True,):
        raise Interrupted(f"another {role} of {log.name} is at work")


async def head(connection: Connection, log: Log) -> Head:
    row = await _one(connection, _HEAD, log.id)
    return Head(0, 0, log.genesis) if row is None else Head(*row)


async def rows(connection: Connection, log: Log, after: int, limit: int) -> list[Row]:
    """Up to `limit` entries after a position. They may end within a command."""
    return await _all(connection, _ROWS, log.id, after, limit)


async def leaves(connection: Connection, log: Log, positions: range) -> list[bytes]:
    """The leaves held at consecutive positions; position 0 has the genesis hash. Those beyond the end are missing."""
    if not positions:
        return []
    found = [leaf for (leaf,) in await _all(connection, _LEAVES, log.id, positions.start, positions.stop - 1)]
    return [log.genesis, *found] if positions.start == 0 else found


async def end_of_command(connection: Connection, log: Log, position: int) -> int:
    """The last position up to `position` at which a command ends."""
    if position <= 0:
        return 0
    [(_, _, body)] = await rows(connection, log, position - 1, 1)
    part = command_part(body)
    return position if part.i == part.n else position - part.i


async def apply(connection: Connection, log: Log, frame: Frame, cursor: Cursor | None) -> None:
    """
    Commit a frame that continues the copy, and the cursor with it. Durable once it returns.

    Raises Mismatch when the ledger refuses the frame itself, Interrupted when the copy is not where we thought.
    """
    await _insert(connection, _APPLY, log, frame, *(cursor or (None, None)))


async def restore(connection: Connection, log: Log, frame: Frame) -> None:
    """Commit a frame that continues the own log, of which it was a part before. Durable once it returns. Raises as `apply`."""
    await _insert(connection, _RESTORE, log, frame)


async def _insert(connection: Connection, statement: LiteralString, log: Log, frame: Frame, *more: object) -> None:
    columns = (
        packing.int8_array(frame.recorded),
        packing.bytea_array(frame.leaves),
        packing.bytea_array(frame.bodies),
    )
    try:
        await connection.execute(statement, (log.id, frame.first, *columns, *more), prepare=True)
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if state in _REFUSALS or state.startswith(_REFUSAL_CLASSES):
            raise Mismatch(f"the ledger refuses it ({state}): {error.diag.message_primary}", frame.first) from error
        if state == "CR008":
            raise Interrupted(f"the copy has moved: {error.diag.message_primary}") from error
        raise


async def may_write(connection: Connection, log: Log) -> bool:
    """Whether the own log was cleared to be written since PostgreSQL started."""
    return await _one(connection, "SELECT ledger.may_write(%b::smallint)", log.id) == (True,)


async def until_may_write(connection: Connection, log: Log) -> None:
    """Wait until the own log was compared with what was signed and copied: before, entries may be missing from it."""
    while True:
        if await may_write(connection, log):
            return
        await asyncio.sleep(_CLEARED_INTERVAL_S / 4)


async def clear_to_write(connection: Connection, log: Log, why: str) -> None:
    await connection.execute("SELECT ledger.clear_to_write(%b::smallint, %b::text)", (log.id, why))


async def published_heads(
    connection: Connection, log: Log, after: int, stretch: int
) -> AsyncGenerator[tuple[bytes, int]]:
    """Notes and sizes of published heads beyond `after`: those within `stretch` entries, largest first, then the others, smallest first."""
    upper = after + stretch
    while rows := await _all(connection, _HEADS_DOWN, log.id, after, upper, _HEADS_AT_ONCE):
        for note, size in rows:
            yield bytes(note), size
        upper = size - 1
    lower = after + stretch
    while rows := await _all(connection, _HEADS_UP, log.id, lower, _HEADS_AT_ONCE):
        for note, size in rows:
            yield bytes(note), size
        lower = size


async def hear(connection: Connection, log: Log, size: int, note: bytes) -> None:
    """Keep that a head of this size was heard of, which the log has signed."""
    await connection.execute(_HEAR, (log.id, size, note), prepare=True)


async def cursor(connection: Connection, log: Log) -> Cursor | None:
    row = await _one(connection, "SELECT created, sequence FROM replication.cursor WHERE log = %b", log.id)
    return None if row is None else Cursor(*row)


async def move_cursor(connection: Connection, log: Log, to: Cursor) -> None:
    await connection.execute("SELECT replication.move_cursor(%b::smallint, %b::text, %b::bigint)", (log.id, *to))


async def acknowledge(
    connection: Connection, log: Log, peer: str, position: int, leaf: bytes, *, keep: bool, tell: bool
) -> bool:
    """Whether the leaf is ours; if so, `keep` it as the peer's watermark and `tell` those who wait for it."""
    return await _one(connection, _ACKNOWLEDGE, log.id, peer, position, leaf, keep, tell) == (True,)


async def report_waiting(connection: Connection, role: str, log: Log, reason: str) -> None:
    report = "SELECT replication.report(%b::smallint, %b::text, 'waiting', NULL, %b::text)"
    await connection.execute(report, (log.id, role, reason))


async def excused(connection: Connection, log: Log) -> dict[str, str]:
    """The regions that are not waited for before the own log is written, since PostgreSQL started, and who says so."""
    return dict(await _all(connection, _EXCUSED, log.id))


async def report_running(connection: Connection, role: str, log: Log) -> None:
    await connection.execute("SELECT replication.report(%b::smallint, %b::text, 'running', NULL, NULL)", (log.id, role))


async def report_catch_up(
    connection: Connection, log: Log, source: str, first: int, position: int, target: int, seconds: float, vouched: int
) -> None:
    """Entries from `first` on, up to `target`, come from `source`; the copy goes to `position`, `seconds` later. `vouched`: of which head."""
    arguments = (log.id, source, first, position, target, seconds, vouched)
    await connection.execute(_REPORT_CATCH_UP, arguments, prepare=True)


async def halt(connection: Connection, role: str, log: Log, why: Broken, at: Cursor | None, data: bytes) -> None:
    """Stop the log until an operator clears it, and keep what it was stopped for."""
    await connection.execute(_HALT, (log.id, role, why.position, str(why), *(at or (None, None)), data))


async def halted(connection: Connection, role: str, log: Log) -> str | None:
    """Why the log is halted; None if it is not."""
    open_evidence = (
        "SELECT reason FROM replication.evidence WHERE log = %b AND role = %b AND cleared_at IS NULL LIMIT 1"
    )
    row = await _one(connection, open_evidence, log.id, role)
    return None if row is None else row[0]


async def until_cleared(connection: Connection, role: str, log: Log) -> None:
    """Wait until the log is not halted."""
    while True:
        if await halted(connection, role, log) is None:
            return
        await asyncio.sleep(_CLEARED_INTERVAL_S)


async def passed_over(connection: Connection, role: str, log: Log, created: str) -> int:
    """The last message of the stream that an operator has cleared; 0 if none."""
    row = await _one(connection, _PASSED, log.id, role, created)
    return 0 if row is None else row[0] or 0


class Announcements:
    """The newest position that we know of in a log, from NOTIFY. One may be lost: whoever waits looks now and then."""

    def __init__(self, connection: Connection, log: Log, wake: asyncio.Event) -> None:
        self.position = 0
        self._connection = connection
        self._log = log
        self._wake = wake

    async def look(self, connection: Connection) -> None:
        self.position = max(self.position, (await head(connection, self._log)).position)

    async def run(self) -> None:
        """Listen for ever, on a connection of its own."""
        await self._connection.execute("LISTEN ledger")
        async for notice in self._connection.notifies():
            log, _, position = notice.payload.partition(" ")
            if log == str(self._log.id) and int(position) > self.position:
                self.position = int(position)
                self._wake.set()


async def _one(connection: Connection, query: LiteralString, *arguments: object) -> tuple[Any, ...] | None:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(query, arguments, prepare=True)
        return await cursor.fetchone()


async def _all(connection: Connection, query: LiteralString, *arguments: object) -> list[Any]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(query, arguments, prepare=True)
        return await cursor.fetchall()
