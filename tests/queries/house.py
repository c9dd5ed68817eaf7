"""A region whose read side can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain.kernel import Sealed
from domain.players import DataKey
from projections import catalog
from projections.runner import Runner, Stop
from queries.context import Context
from tests.projections.books import PARTITIONS, Book, write


@dataclass
class House:
    dsn: str
    client: Redis
    connection: AsyncConnection[Any]
    context: Context
    opened: list[tuple[str, DataKey, Mapping[str, Sealed]]]

    async def project(self, *books: Book) -> None:
        """Append what is new in the books, and wait until it can be read."""
        write(self.dsn, *books)
        stores = catalog.stores(self.connection, self.client).values()
        runner = Runner(catalog.source(self.connection, PARTITIONS), stores, unexpected)
        while await runner.step():
            pass


async def unexpected(stop: Stop) -> None:
    raise AssertionError(stop)
