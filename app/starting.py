"""
The start of a process that runs commands: recorded in the log before the first of them.

Invariant: nothing is appended for a caller before `service.started` stands in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from app.problems import Busy
from commands import services
from commands.decider import Decider
from commands.plan import Plan, Receipt
from commands.reads import Recorder
from eventstore.writer import Unavailable

_AGAIN_SECONDS = 0.2
_MAY_WRITE = """
    SELECT ledger.may_write(l.id) FROM ledger.log AS l
     WHERE l.own AND EXISTS (SELECT FROM ledger.entry AS e WHERE e.log = l.id AND e.position = 1)"""
_log = structlog.get_logger(__name__)

Pool = AsyncConnectionPool[AsyncConnection[Any]]


class Start:
    """Whether this process has recorded its start. `told`: digests of what only this installation was told, by name.
    `adopted_only`: it does not start with policies that were not adopted.
    """

    def __init__(self, told: Mapping[str, str] | None = None, *, adopted_only: bool = False) -> None:
        self._told = told or {}
        self._adopted_only = adopted_only
        self._receipt: Receipt | None = None

    def require(self) -> None:
        """Raises Busy until the start is recorded."""
        if self._receipt is None:
            raise Busy("the service is starting: it takes commands once its start is recorded")

    async def record(self, decider: Decider, pool: Pool, service: str = "api") -> None:
        """Append `service.started`. While the log cannot be written, wait and try again."""
        from projections.version import CODE

        plan = services.start(
            decider.log,
            service,
            CODE.partition("+")[0],
            CODE,
            datetime.now(UTC),
            self._told,
            adopted_only=self._adopted_only,
        )
        said = ""
        while self._receipt is None:
            try:
                await refuse_unwritable(pool)
                self._receipt = await decider.decide(plan)
            except (Busy, Unavailable, psycopg.OperationalError) as error:
                if said != (said := str(error)):
                    _log.info("the start is not recorded yet", reason=said)
                await asyncio.sleep(_AGAIN_SECONDS)  # if it came through all the same, the next try is a repeat
        _log.info("the start is recorded", position=self._receipt.position, code=CODE)


def recorder(decider: Decider, pool: Pool, **time: Any) -> Recorder:
    """Who records what is read here. It does not wait for a log that cannot be written: nothing is read then. `time`: as for
    Recorder.
    """

    async def decide(plan: Plan) -> Receipt:
        await refuse_unwritable(pool)
        return await decider.decide(plan)

    return Recorder(decider.log, decide, **time)


async def refuse_unwritable(pool: Pool) -> None:
    """Raises Busy unless the log is open and may be written."""
    try:
        async with asyncio.timeout(2), pool.connection() as connection:
            row = await (await connection.execute(_MAY_WRITE)).fetchone()
    except (TimeoutError, psycopg.Error) as error:
        raise Busy("the database does not answer") from error
    if row is None:
        raise Busy("the log is not open yet")
    if not row[0]:
        raise Busy("the log is read-only until it was compared with its signed head and its copies")
