"""
Real servers for tests: a fixture for those who need PostgreSQL, Valkey and NATS, and helpers for those who need more.

Register it once, in tests/conftest.py, by `pytest_plugins = ["tests.stack"]`: a fixture imported into several conftests
would be several fixtures, each with servers of its own. Every xdist worker has its own servers (about 30 MiB).
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devstack import Endpoints, PortTaken, Stack
from devstack.region import PORTS_PER_REGION
from devstack.stack import is_free

_WORKERS = 8
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_ALL_PORTS = range(12_000, 30_000)  # below those that Linux gives to outgoing connections
PORTS = _ALL_PORTS[_WORKER * len(_ALL_PORTS) // _WORKERS : (_WORKER + 1) * len(_ALL_PORTS) // _WORKERS]


def free_port_base(regions: int = 1) -> int:
    """A port base below which nothing listens now. Random, so that test runs side by side rarely meet; processes of one run never do."""
    while True:
        base = random.randrange(PORTS.start, PORTS.stop - PORTS_PER_REGION * regions)
        if all(is_free(base + PORTS_PER_REGION * i + port) for i in range(regions) for port in range(5)):
            return base


@contextmanager
def running_stack(data: Path, regions: Sequence[str] = ("eu",), **options: Any) -> Iterator[Stack]:
    """A stack whose servers are ready, on free ports."""
    for _ in range(5):
        with Stack(data=data, regions=regions, port_base=free_port_base(len(regions)), **options) as stack:
            try:
                stack.start_servers()
            except PortTaken:  # somebody was faster
                continue
            yield stack
            return
    raise RuntimeError("found no free ports")


@dataclass
class Servers:
    """The servers of one region, for tests that do not care which."""

    stack: Stack
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def endpoints(self) -> Endpoints:
        return self.stack.endpoints(self.stack.regions[0].name)

    def fresh_database(self, name: str = "scratch") -> str:
        """The administrator's DSN of a new and empty database. It goes away with the servers."""
        database = f"{re.sub('[^a-z0-9]+', '_', name.lower())[:50]}_{next(self._numbers)}"
        with psycopg.connect(self.endpoints.postgres, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}" TEMPLATE template0')
        return self.stack.regions[0].dsn(database)


def throw_away(stack: Stack) -> None:
    """Let PostgreSQL stop without its last checkpoint, which takes a quarter of a minute where tests have made databases."""
    for keeper in stack.supervisor.keepers():
        if keeper.program.role == "postgres":
            keeper.program = replace(keeper.program, stop_signal=signal.SIGQUIT)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running_stack(tmp_path_factory.mktemp("servers")) as stack:
        yield Servers(stack)
        throw_away(stack)
