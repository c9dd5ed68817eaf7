"""
What is to be done by now, of the partitions that are owned here, the longest due first.

It is a read model, so it may lag: whoever acts on it leaves the decision to the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from domain.kernel import EPOCH

PAGE_ROWS = 200

Pool = AsyncConnectionPool[AsyncConnection[Any]]

_PAGE = """
    SELECT stream, kind, due_at, cause, log, position FROM read.due
     WHERE due_at <= %(until)s AND kind = ANY (%(kinds)s) AND partition = ANY (%(owned)s)
       AND (due_at, stream, kind) > (%(due_at)s, %(stream)s, %(kind)s)
     ORDER BY due_at, stream, kind LIMIT %(limit)s"""


class Pending(NamedTuple):
    """`cause`: the event that set the time; it stands at `position` of `log`."""

    stream: str
    kind: str
    due_at: datetime
    cause: str
    log: str
    position: int

    @property
    def suffix(self) -> str:
        return self.stream.partition("-")[2]


_BEGIN = Pending("", "", EPOCH, "", "", 0)


async def pages(
    pool: Pool, kinds: Collection[str], owned: Collection[int], until: datetime, rows: int = PAGE_ROWS
) -> AsyncIterator[list[Pending]]:
    """Everything of these kinds that is due until then, some rows at a time; each page is a transaction of its own."""
    last = _BEGIN
    while True:
        async with pool.connection() as connection:
            cursor = await connection.execute(
                _PAGE,
                {
                    "until": until,
                    "kinds": list(kinds),
                    "owned": list(owned),
                    "limit": rows,
                    "due_at": last.due_at,
                    "stream": last.stream,
                    "kind": last.kind,
                },
            )
            page = [Pending(*row) for row in await cursor.fetchall()]
        if page:
            yield page
            last = page[-1]
        if len(page) < rows:
            return
