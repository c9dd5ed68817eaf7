"""One region's PostgreSQL for a benchmark, in a folder that is removed afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from app import local
from devstack import Stack


@contextmanager
def postgres() -> Iterator[str]:
    """The administrator's DSN; `fresh_database` makes databases beside it."""
    with (
        tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as folder,
        Stack(data=Path(folder), regions=["eu"], port_base=local.free_port_base(1)) as stack,
    ):
        stack.start_servers()
        yield stack.endpoints("eu").postgres


def fresh_database(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    return dsn.rpartition("/")[0] + f"/{name}"
