from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from devstack import Stack
from replication.config import Config
from replication.wire import Realm
from tests.replication.regions import DEPLOYMENT, PARTITIONS, Keys, Region, World, forget_stream, fresh_database
from tests.stack import running_stack, throw_away

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("regions"), list(PARTITIONS)) as running:
        yield running
        throw_away(running)


@pytest.fixture
async def world(stack: Stack, tmp_path: Path) -> AsyncIterator[World]:
    """Three regions whose logs are open and empty otherwise. What a test starts ends with it."""
    number = next(_numbers)
    regions = {}
    for name in PARTITIONS:
        at = stack.endpoints(name)
        dsn = fresh_database(stack, name, f"replication_{number}")
        config = Config(region=name, deployment=DEPLOYMENT, postgres=dsn, nats=at.nats, seeds=at.seeds)
        await forget_stream(config)
        regions[name] = Region(name, config, dsn, Realm(name))
        regions[name].open()
    made = World(stack, regions, Keys(tmp_path))
    yield made
    await made.close()
