from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from psycopg import AsyncConnection
from redis.asyncio import Redis

from projections import postgres
from tests.projections.servers import database
from tests.stack import Servers


@pytest.fixture
def dsn(servers: Servers) -> Iterator[str]:
    return database(servers, "projections")


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await postgres.connect(dsn) as connected:
        yield connected


@pytest.fixture
async def client(servers: Servers) -> AsyncIterator[Redis]:
    connected = Redis.from_url(servers.endpoints.redis)
    await connected.flushall()
    yield connected
    await connected.aclose()
