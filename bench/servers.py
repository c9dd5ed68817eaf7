"""
Servers for a benchmark, in a folder that is removed afterwards: PostgreSQL set up as a region's, and whatever a peer needs.

Invariant: every server of one run is slowed down alike, or none is. `slow=True` adds 1 ms to each fdatasync and fsync.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import psycopg

from app import local
from devstack import launch
from devstack import postgres as devstack_postgres
from devstack.files import private_folder
from devstack.ready import Check
from devstack.region import Region
from devstack.supervisor import Program, Supervisor

_SHIM = Path(__file__).with_name("slow_fsync.c")
_READY_S = 30.0
_STOP_S = 10.0
_MORE_CONNECTIONS = {"max_connections": "150"}
"""All contenders of a run have theirs open at the same time."""
_AS_THEY_ARE: Mapping[str, str] = MappingProxyType({})


class Missing(Exception):
    """Something that a benchmark needs is not on this machine and cannot be fetched; says what."""


class Servers(NamedTuple):
    """`dsn`: the administrator's, of PostgreSQL. `port`: a free one. `env`: what every server's environment must hold."""

    dsn: str
    folder: Path
    port: int
    env: Mapping[str, str]
    supervisor: Supervisor

    def database(self, name: str) -> str:
        """A new database, by its DSN."""
        return fresh_database(self.dsn, name)

    def at(self, name: str) -> str:
        """The DSN of a database that is there."""
        return self.dsn.rpartition("/")[0] + f"/{name}"

    def start(self, role: str, argv: Sequence[str], *, env: Mapping[str, str], ready: Check) -> None:
        """Start another server and wait until it is ready. Raises devstack's StartFailed."""
        log = self.folder / f"{role}.log"
        self.supervisor.add(
            Program(region="eu", role=role, argv=argv, log=log, env={**env, **self.env}, cwd=self.folder, ready=ready)
        )
        self.supervisor.wait_ready(_READY_S)


@contextmanager
def running(*, slow: bool = False, settings: Mapping[str, str] = _AS_THEY_ARE) -> Iterator[Servers]:
    """PostgreSQL with the settings of a region's, but for those given and for more connections. Raises Missing if `slow` needs a compiler."""
    with (
        tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as made,
        tempfile.TemporaryDirectory(prefix="countroom-shim-") as beside,
    ):
        folder, shim = Path(made), Path(beside)
        env = {"LD_PRELOAD": str(_compiled(shim))} if slow else {}
        region = Region(name="eu", index=0, data=folder, port_base=some_port_base())
        for each in (region.folder, region.folder / "postgres", region.logs):
            private_folder(each)
        program = devstack_postgres.program(region, launch.server_identity())
        chosen = _MORE_CONNECTIONS | dict(settings)
        given = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        supervisor = Supervisor()
        supervisor.add(replace(program, argv=[*program.argv, *given], env={**(program.env or {}), **env}))
        try:
            supervisor.wait_ready(_READY_S)
            yield Servers(region.dsn("postgres"), folder, region.ports.nats, env, supervisor)
        finally:
            supervisor.stop([supervisor.keepers()], limit_s=_STOP_S)


def some_port_base() -> int:
    """Anywhere, since whoever else looks for free ports at this moment finds the same."""
    return local.free_port_base(1, first=random.randrange(10_000, 30_000))


@contextmanager
def postgres() -> Iterator[str]:
    """The administrator's DSN; `fresh_database` makes databases beside it."""
    with running() as servers:
        yield servers.dsn


def fresh_database(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    return dsn.rpartition("/")[0] + f"/{name}"


def commit_ms(dsn: str, commits: int = 50) -> float:
    """The median time of a commit that writes next to nothing, in ms: mostly what making it durable costs."""
    times = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(commits):
            began = time.perf_counter()
            connection.execute("SELECT pg_logical_emit_message(true, 'bench', '')")
            times.append(time.perf_counter() - began)
    return round(sorted(times)[commits // 2] * 1e3, 2)


def _compiled(folder: Path) -> Path:
    """The shim as a library that PostgreSQL may load whoever it runs as."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("there is no C compiler (cc) to build the shim that slows fsync down")
    folder.chmod(0o755)
    library = folder / "slow_fsync.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SHIM, "-ldl"], check=True)
    library.chmod(0o755)
    return library
