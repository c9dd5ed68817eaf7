"""
The master file end to end: REST batches to one of two fresh regions, which sends half on; replicated both ways, projected in both;
speed per stage, and size.

A stage's speed is that of its last entry: from the first request to the last answer (commands), to the last acknowledged
copy (relay and copy), to the last figure in both dashboards (projections). All servers and processes of both regions share
the machine's cores with the client.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from app import calling, cdnow, local
from app.local import Local
from devstack.memory import pss_bytes
from eventstore.postgres import acting_as

FILE = "master"
_POLL_SECONDS = 0.1


def run() -> dict[str, Any]:
    """{"purchases", "seconds", "per_s", "stages": {…: per second}, "ready_s", "servers_ready_s", "pss_mib": {…}}."""
    path = cdnow.locate(FILE)
    with tempfile.TemporaryDirectory(prefix="countroom-bench-", ignore_cleanup_errors=True) as folder:
        began = time.monotonic()
        with local.running(Path(folder), ["eu", "us"], local.free_port_base(2)) as here:
            ready = time.monotonic() - began
            return {"ready_s": round(ready, 2), **_import(here, path)}


def _import(here: Local, path: Path) -> dict[str, Any]:
    watch = _Watch(here)
    watch.start()
    began = time.monotonic()
    imported = asyncio.run(cdnow.import_cdnow(path, here.url("eu"), here.tokens["importer"]))
    answered = time.monotonic()
    heads = {log: watch.head(log, log) for log in here.settings}
    copied = watch.until(
        lambda: all(watch.head(region, log) >= heads[log] for region in here.settings for log in heads)
    )
    projected = watch.until(lambda: all(_shown(here, region, heads) for region in here.settings))
    watch.stop = True
    watch.join()
    purchases = imported.deposits + imported.skipped

    def per_s(end: float) -> int:
        return round(purchases / (end - began))

    return {
        "purchases": purchases,
        "entries": sum(heads.values()),
        "seconds": round(projected - began, 2),
        "per_s": per_s(projected),
        "stages": {"commands": per_s(answered), "relay and copy": per_s(copied), "projections": per_s(projected)},
        "pss_mib": {"most": round(watch.most / 2**20)},
    }


def _shown(here: Local, region: str, heads: dict[str, int]) -> bool:
    """Whether the region's dashboard includes all logs up to these."""
    positions = calling.get(here.url(region) + "/v1/dashboard", here.tokens["viewer"])["positions"]
    return all(positions.get(log, 0) >= head for log, head in heads.items())


class _Watch(threading.Thread):
    """Looks at heads and memory beside the import."""

    def __init__(self, here: Local) -> None:
        super().__init__(daemon=True)
        self.stop = False
        self.most = 0
        self._here = here
        self._connections = {
            region: psycopg.connect(acting_as(settings.postgres, "countroom_reader"), autocommit=True)
            for region, settings in here.settings.items()
        }

    def run(self) -> None:
        while not self.stop:
            self.most = max(self.most, pss_bytes(list(self._here.stack.pids().values())))
            time.sleep(3)

    def head(self, region: str, log: str) -> int:
        row = (
            self._connections[region]
            .execute(
                "SELECT max(position) FROM ledger.entry WHERE log = (SELECT id FROM ledger.log WHERE name = %s)", (log,)
            )
            .fetchone()
        )
        return int(row[0] or 0) if row else 0

    def until(self, holds: Any) -> float:
        while not holds():
            time.sleep(_POLL_SECONDS)
        return time.monotonic()


def show(found: dict[str, Any]) -> str:
    lines = [f"regions ready in       {found['ready_s']:>8} s"]
    lines += [f"{name:<22} {speed:>8,} purchases/s" for name, speed in found["stages"].items()]
    lines.append(
        f"end to end             {found['per_s']:>8,} purchases/s   {found['purchases']:,} in {found['seconds']} s"
    )
    lines.append(f"memory (sum of PSS)    {found['pss_mib']['most']:>8,} MiB")
    return "\n".join(lines)
