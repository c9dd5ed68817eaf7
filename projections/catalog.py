"""Every read model, with the store that keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain.catalog import AGGREGATES
from eventstore.record import Codec
from projections import redis
from projections.approvals import Approvals
from projections.dashboard import Dashboard
from projections.due import Due
from projections.erased import Forgetting, Sealed
from projections.findings import Findings
from projections.funds import Funds
from projections.ggr import Ggr
from projections.memory import MemoryStore
from projections.notices import Notices
from projections.operators import Operators
from projections.players import Players
from projections.postgres import PostgresStore, TableProjection, exclusive
from projections.projection import Store
from projections.redis import CacheProjection, RedisStore
from projections.rounds import Rounds
from projections.segments import Segments
from projections.sessions import Sessions
from projections.source import LogSource
from projections.tickets import Tickets
from projections.transactions import Transactions
from projections.wallets import Wallets

TABLES: tuple[TableProjection[Any], ...] = (
    Players(),
    Forgetting(Transactions(), Sealed("transaction", {"failure": None})),
    Wallets(),
    Funds(),
    Forgetting(Approvals(), Sealed("approval", {"asked": None, "refused": None})),
    Due(),
    Forgetting(Tickets(), Sealed("ticket_message", {"sealed": "{}"}, through="ticket", of="ticket")),
    Findings(),
    Forgetting(Notices(), Sealed("contact_note", {"sealed": None}, through="contact", of="contact")),
    Rounds(),
    Ggr(),
    Sessions(),
    Operators(),
)
CACHES: tuple[CacheProjection, ...] = (Dashboard(), Segments())
NAMES = (*(projection.name for projection in TABLES), *(projection.name for projection in CACHES))


def stores(connection: AsyncConnection[Any], client: Redis) -> dict[str, Store]:
    """By name. `connection` is one of projections.postgres.connect."""
    tables = {projection.name: PostgresStore(projection, connection) for projection in TABLES}
    caches = {projection.name: RedisStore(projection, client, partial(exclusive, connection)) for projection in CACHES}
    return {**tables, **caches}


def in_memory() -> dict[str, MemoryStore]:
    """By name, all empty."""
    stores = {}
    for projection in TABLES:
        layout = {table.name: table for table in projection.tables}
        stores[projection.name] = MemoryStore(projection, projection.fold, layout.__getitem__, layout)
    for cache in CACHES:
        stores[cache.name] = MemoryStore(cache, redis.fold, cache.table)
    return stores


def source(connection: AsyncConnection[Any], regions: Iterable[str]) -> LogSource:
    """The logs of these regions, with every event of this release."""
    return LogSource(connection, Codec(AGGREGATES), regions)
