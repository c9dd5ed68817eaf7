from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from redis.asyncio import Redis

from domain.kernel import OperatorId, PlayerId, Sealed
from domain.players import DataKey
from eventstore.postgres import pool
from projections import postgres
from queries.context import Context
from tests.projections.servers import database
from tests.queries.explaining import Explained
from tests.queries.house import House
from tests.stack import Servers


@pytest.fixture
async def house(servers: Servers) -> AsyncIterator[House]:
    dsn = database(servers, "queries")
    client = Redis.from_url(servers.endpoints.redis)
    await client.flushall()
    opened: list[tuple[str, DataKey, Mapping[str, Sealed]]] = []

    async def open_personal(
        _whose: PlayerId | OperatorId, event_id: str, key: DataKey, sealed: Mapping[str, Sealed]
    ) -> Mapping[str, str]:
        """Opens everything but e-mail addresses."""
        opened.append((event_id, key, sealed))
        return {path: value.sealed.removeprefix("sealed ") for path, value in sealed.items() if path != "data.email"}

    async with pool(dsn, "countroom_reader", size=3) as readers, await postgres.connect(dsn) as connection:
        yield House(dsn, client, connection, Context(readers, client, open_personal), opened)
    await client.aclose()


@pytest.fixture
def explained(house: House) -> Explained:
    """Asks the house."""
    return Explained(house.context.pool, house.context.redis, house.context.open_personal)
