"""Every read model, with the store that keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain.catalog import AGGREGATES
from eventstore.record import Codec
from projections.dashboard import Dashboard
from projections.players import Players
from projections.postgres import PostgresStore, TableProjection, exclusive
from projections.projection import Store
from projections.redis import CacheProjection, RedisStore
from projections.segments import Segments
from projections.source import LogSource
from projections.transactions import Transactions
from projections.wallets import Wallets

TABLES: tuple[TableProjection[Any], ...] = (Players(), Transactions(), Wallets())
CACHES: tuple[CacheProjection, ...] = (Dashboard(), Segments())
NAMES = tuple(projection.name for projection in (*TABLES, *CACHES))


def stores(connection: AsyncConnection[Any], client: Redis) -> dict[str, Store]:
    """By name. `connection` is one of projections.postgres.connect."""
    tables = {projection.name: PostgresStore(projection, connection) for projection in TABLES}
    caches = {projection.name: RedisStore(projection, client, partial(exclusive, connection)) for projection in CACHES}
    return {**tables, **caches}


def source(connection: AsyncConnection[Any], regions: Iterable[str]) -> LogSource:
    """The logs of these regions, with every event of this release."""
    return LogSource(connection, Codec(AGGREGATES), regions)
