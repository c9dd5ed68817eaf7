from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.reactions.moving import Pair, two
from tests.reactions.region import Region, begin_again, migrate, opened
from tests.reactions.table import Table, laid
from tests.stack import Servers


@pytest.fixture(scope="session")
def region_dsn(servers: Servers) -> str:
    dsn = servers.fresh_database("reactions")
    migrate(dsn)
    return dsn


@pytest.fixture
async def region(region_dsn: str) -> AsyncIterator[Region]:
    """Freshly opened. One database serves all tests: a new one takes as long as ten of them."""
    begin_again(region_dsn)
    async with opened(region_dsn) as made:
        yield made


@pytest.fixture(scope="session")
def us_dsn(servers: Servers) -> str:
    dsn = servers.fresh_database("reactions_us")
    migrate(dsn, own="us")
    return dsn


@pytest.fixture
async def pair(region_dsn: str, us_dsn: str) -> AsyncIterator[Pair]:
    """Two regions, freshly opened."""
    async with two(region_dsn, us_dsn) as made:
        yield made


@pytest.fixture
async def table(region: Region) -> AsyncIterator[Table]:
    async with laid(region) as made:
        yield made
