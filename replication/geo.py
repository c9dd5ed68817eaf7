"""
The geo watermark: how far our log is safe from the loss of this region. What reaches outside of the house waits for it, and so does
the answer of a command that asked for it.

It is what watermarks.py keeps of the other regions' acknowledgements, read by whoever has an effect to wait with.

Invariants:
    - a peer whose copy differs from our log confirms nothing, not even what it had said before;
    - what is heard is what `replication.acknowledge` found to have our own leaf.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from structlog.typing import FilteringBoundLogger

from eventstore.postgres import connect

RETRY_S = 1.0

_COPIES = """
    SELECT w.peer, CASE WHEN w.alarm IS NULL AND e.leaf = w.leaf THEN w.position ELSE 0 END
      FROM replication.watermark AS w
           JOIN ledger.log AS l ON l.id = w.log
           LEFT JOIN ledger.entry AS e ON e.log = w.log AND e.position = w.position
     WHERE l.name = %s AND l.own"""
_OWN = "SELECT l.id FROM ledger.log AS l WHERE l.name = %s AND l.own"


async def watermark(connection: AsyncConnection[Any], log: str) -> int:
    """Up to which position of the own log at least one other region has committed a verified copy that agrees with it."""
    return max((await copies(connection, log)).values(), default=0)


async def copies(connection: AsyncConnection[Any], log: str) -> dict[str, int]:
    """The same by region, of those that have ever acknowledged; 0 for one whose copy differs from the log as it stands."""
    return dict(await (await connection.execute(_COPIES, (log,))).fetchall())


@dataclass(frozen=True, eq=False, slots=True)
class _Waiter:
    position: int
    done: asyncio.Future[None]


class Confirmations:
    """Tells who waits for a position of the own log when another region has copied it. Hears nothing while `run` does not."""

    def __init__(self, dsn: str, log: str, logger: FilteringBoundLogger) -> None:
        self._dsn = dsn
        self._log = log
        self._logger = logger
        self._peers: dict[str, int] = {}
        self._waiters: set[_Waiter] = set()

    @property
    def heard(self) -> Mapping[str, int]:
        """By region, up to which position it has confirmed, as far as was heard: perhaps more than `copies` keeps yet."""
        return self._peers

    async def until(self, position: int, *, timeout_s: float) -> bool:
        """Whether another region holds the entry at this position, in time."""
        if position <= max(self._peers.values(), default=0):
            return True
        waiter = _Waiter(position, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter.done], timeout=timeout_s)
            return waiter.done.done()
        finally:
            self._waiters.discard(waiter)

    async def run(self) -> None:
        """Listen for ever, with a new connection when one is lost."""
        while True:
            try:
                async with await connect(self._dsn, "countroom_reader") as connection:
                    await self._listen(connection)
            except psycopg.OperationalError as error:
                self._logger.warning("acknowledgements are not heard of", reason=str(error).strip())
            self._peers = {}
            await asyncio.sleep(RETRY_S)

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute("LISTEN replication")
        own = await (await connection.execute(_OWN, (self._log,))).fetchone()
        if own is None:  # not registered yet
            return
        self._peers = await copies(connection, self._log)
        self._tell()
        async for notice in connection.notifies():
            self._hear(notice.payload.split(" "), str(own[0]))

    def _hear(self, said: list[str], own: str) -> None:
        match said:
            case ["watermark", log, peer, position] if log == own:
                self._peers[peer] = int(position)
                self._tell()
            case ["alarm", log, peer] if log == own:
                self._peers[peer] = 0

    def _tell(self) -> None:
        reached = max(self._peers.values(), default=0)
        for waiter in self._waiters:
            if waiter.position <= reached and not waiter.done.done():
                waiter.done.set_result(None)
