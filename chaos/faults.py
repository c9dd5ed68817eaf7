"""
What befalls the processes, stores, disks and clocks of a region. What befalls links and frames stands in `links` and `frames`.

Each fault is carried out by a function of site and step, which returns when it is over: what it held back goes on, what it ended is
ready again. One that could not be carried out raises: a run that met less than it says would prove less than it says.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from chaos.schedule import CLOCK_AHEAD, KILL, STOP, NotCarriedOut, Step
from chaos.shim import wait
from chaos.site import Site

Fault = Callable[[Site, Step], None]

HOUR_NS = 3600 * 10**9
SEEN_S = 60.0  # until what is asked of a disk or a clock has met somebody
POSTGRES_S = 90.0  # a PostgreSQL that has panicked takes connections again
_ALL = 10**12
_BATCH_S = 60.0  # until a batch has been caught on its way
_STILL_S = 0.3  # a batch that is held back and has no answer after this long has none


def faults() -> dict[str, Fault]:
    """All by name. Where nothing can be preloaded, those of disks and clocks raise LeftOut."""
    return {
        KILL: lambda site, step: site.kill(step.region, step.role),
        STOP: _stop,
        "batch-killed-api": _batch_killed_api,
        "batch-killed-postgres": _batch_killed_postgres,
        "cold-start": _cold_start,
        "nats-deleted": _nats_deleted,
        "nats-flipped": _nats_flipped,
        "postgres-fast": lambda site, step: site.restart(step.region, "postgres", signal.SIGINT),
        "postgres-immediate": lambda site, step: site.restart(step.region, "postgres", signal.SIGQUIT),
        "valkey-flushed": _valkey_flushed,
        "fsync-fails": _fsync_fails,
        "disk-fails": _disk_fails,
        "disk-full": _disk_full,
        CLOCK_AHEAD: lambda site, step: _clock(site, step, HOUR_NS),
        "clock-behind": lambda site, step: _clock(site, step, -HOUR_NS),
    }


# Processes


def _stop(site: Site, step: Step) -> None:
    site.stop(step.region, step.role)
    try:
        time.sleep(step.hold_s)
    finally:
        site.cont(step.region, step.role)


def _batch_killed_api(site: Site, step: Step) -> None:
    """The API is killed while a batch is being flushed: it is committed, and nobody is told."""
    with _batch_under_way(site, step.region):
        site.local.stack.kill(step.region, "api")
    site.await_ready(step.region, "api")


def _batch_killed_postgres(site: Site, step: Step) -> None:
    """All of PostgreSQL is killed in the middle of a batch: perhaps it is committed, perhaps not, and nobody is told."""
    with _batch_under_way(site, step.region, frozen=True), site.local.stack.down(step.region, "postgres"):
        pass
    site.await_ready(step.region, "postgres")


@contextmanager
def _batch_under_way(site: Site, region: str, *, frozen: bool = False) -> Iterator[None]:
    """Within, the load has sent a batch to the region, which has not been answered. Held back by its flush, or as it stands."""
    end = time.monotonic() + _BATCH_S
    hold = _frozen_postgres if frozen or not site.shim.is_there else _stalled_flush
    for batch in _asked(site, region, end):
        with hold(site, region):
            time.sleep(_STILL_S)
            if not _is_answered(site, batch):
                site.log(f"  a batch is under way, with {batch}")
                yield
                return
    raise NotCarriedOut(f"no batch to {region} was caught under way within {_BATCH_S:g} s")


@contextmanager
def _stalled_flush(site: Site, region: str) -> Iterator[None]:
    with site.shim.asked(region, ["postgres"], "stalled"):
        yield


@contextmanager
def _frozen_postgres(site: Site, region: str) -> Iterator[None]:
    site.stop(region, "postgres")
    try:
        yield
    finally:
        site.cont(region, "postgres")


def _asked(site: Site, region: str, end: float) -> Iterator[str]:
    """Of batches that the load sends to the region from now on, one command each, as soon as the record says so."""
    with _history(site).open() as file:
        file.seek(0, 2)
        part = ""
        while time.monotonic() < end:
            part += file.readline()
            if not part.endswith("\n"):
                time.sleep(0.002)
                continue
            line, part = json.loads(part), ""
            if line["phase"] == "asked" and line.get("region") == region and line.get("batch"):
                yield line["op"]
                file.seek(0, 2)  # what came meanwhile is not under way any more


def _is_answered(site: Site, op: str) -> bool:
    with _history(site).open() as file:
        lines: Iterator[dict[str, Any]] = (json.loads(line) for line in file if line.endswith("\n") and op in line)
        return any(line["op"] == op and line["phase"] != "asked" for line in lines)


def _history(site: Site) -> Path:
    if site.history is None:
        raise NotCarriedOut("there is no load, so no batch can be under way")
    return site.history


def _cold_start(site: Site, _step: Step) -> None:
    """Both regions lose their power at once, and come back with what is on their disks."""
    with site.all_down():
        site.log(f"  nothing runs in {', '.join(site.regions)}")


# Stores


def _streams(site: Site, region: str) -> Path:
    return site.folder / "data" / region / "nats" / "jetstream"


def _nats_deleted(site: Site, step: Step) -> None:
    """The region's NATS loses its data folder."""
    folder = _streams(site, step.region)
    with site.down(step.region, "nats"):
        if not any(folder.rglob("*.blk")):
            raise NotCarriedOut(f"NATS of {step.region} holds nothing that could be deleted")
        shutil.rmtree(folder)


def _nats_flipped(site: Site, step: Step) -> None:
    """A bit changes in a block of the stream of the region's log, while NATS is down."""
    chance = random.Random(f"{site.seed} {step}")
    with site.down(step.region, "nats"):
        token = step.region.upper().replace(".", "_")
        blocks = sorted(
            block for block in _streams(site, step.region).rglob(f"LOG_{token}/msgs/*.blk") if block.stat().st_size
        )
        if not blocks:
            raise NotCarriedOut(f"NATS of {step.region} holds no block of its log")
        block = chance.choice(blocks)
        where = flip(block, chance)
        site.log(f"  bit {where % 8} of byte {where // 8} of {block.relative_to(site.folder)}")


def flip(file: Path, chance: random.Random) -> int:
    """Change one bit of a file, in place. Returns its number."""
    where = chance.randrange(8 * file.stat().st_size)
    with file.open("r+b") as opened:
        opened.seek(where // 8)
        found = opened.read(1)[0]
        opened.seek(where // 8)
        opened.write(bytes([found ^ 1 << where % 8]))
    return where


def _valkey_flushed(site: Site, step: Step) -> None:
    with redis.Redis.from_url(site.local.settings[step.region].redis) as connection:
        if not connection.dbsize():
            raise NotCarriedOut(f"Valkey of {step.region} is empty")
        connection.flushall()


# Disks and clocks


def _fsync_fails(site: Site, step: Step) -> None:
    """One flush fails with EIO: PostgreSQL takes down what it does not know to be on the disk, and recovers by itself."""
    with _failing_flushes(site, step.region, 1):
        pass
    await_postgres(site, step.region)


def _disk_fails(site: Site, step: Step) -> None:
    """Every flush fails until the disk is another one. Then PostgreSQL is started again, as an operator has to: it may hang."""
    with _failing_flushes(site, step.region, _ALL):
        time.sleep(step.hold_s)
    site.restart(step.region, "postgres", signal.SIGQUIT)


@contextmanager
def _failing_flushes(site: Site, region: str, count: int) -> Iterator[None]:
    """Within, one at least has failed."""
    before = site.shim.get(region, "postgres", "eio_given")
    with site.shim.asked(region, ["postgres"], "eio", count):
        wait(lambda: site.shim.get(region, "postgres", "eio_given") > before, "a flush that fails", SEEN_S)
        yield


def _disk_full(site: Site, step: Step) -> None:
    """Nothing that the region writes can grow. (NATS, which nothing can be preloaded into, has another disk.)"""
    roles = site.processes(servers=("postgres", "valkey"))
    before = site.shim.get(step.region, "postgres", "full_given")
    with site.shim.asked(step.region, roles, "full"):
        time.sleep(step.hold_s)
        wait(lambda: site.shim.get(step.region, "postgres", "full_given") > before, "a full disk", SEEN_S)
    await_postgres(site, step.region)


def _clock(site: Site, step: Step, ns: int) -> None:
    """The region's own processes, PostgreSQL and Valkey are told another time of day."""
    roles = site.processes(servers=("postgres", "valkey"))
    with site.shim.asked(step.region, roles, "clock_ns", ns):
        before = {role: site.shim.get(step.region, role, "clock_asked") for role in ("api", "postgres")}
        time.sleep(step.hold_s)
        for role, asked in before.items():
            wait(
                lambda role=role, asked=asked: site.shim.get(step.region, role, "clock_asked") > asked,  # type: ignore[misc]
                f"the clock of {role} of {step.region}",
                SEEN_S,
            )


def await_postgres(site: Site, region: str, timeout_s: float = POSTGRES_S) -> None:
    """Wait until it takes connections again, whether it was started anew or has recovered by itself. Raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(psycopg.OperationalError), site.postgres(region) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'chaos', '')")
            return
        if time.monotonic() > end:
            raise TimeoutError(f"PostgreSQL of {region} took no connection for {timeout_s:g} s")
        time.sleep(0.1)
