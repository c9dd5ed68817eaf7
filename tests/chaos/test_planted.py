"""
Four bugs, each planted into two regions that run under load, and each found by the judge. Without them the same runs are clean.

A bug is in one process or one database of the test alone: a module that Python imports at its start (sitecustomize) changes the
process, a function is replaced in the database. Nothing of it is in the product.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import redis

from app import local
from app.local import Local
from chaos.place import Place, Region
from devstack import PortTaken
from tests.stack import free_port_base

pytestmark = [pytest.mark.fault, pytest.mark.timeout(500)]

CHECKOUT = Path(__file__).parent.parent.parent
LOADED_LINES = 250

ANSWER_BEFORE_COMMIT = """
import asyncio
from eventstore.postgres import PostgresLog

append, open_ = PostgresLog.append, set()

async def early(self, commands):
    if commands and id(self) not in open_:
        await self._connection.execute("BEGIN")
        open_.add(id(self))
        tasks.append(asyncio.create_task(commit(self)))
    return await append(self, commands)

async def commit(self):
    await asyncio.sleep(0.8)
    open_.discard(id(self))
    await self._connection.execute("COMMIT")

tasks = []
PostgresLog.append = early
"""

NO_BARRIER = """
import projections.source
from projections.projection import Standing

class Nothing:
    pass

projections.source.Adopted = Nothing
Standing.may_take = lambda self, batch: True
"""

NO_COMPARE = """
import projections.redis as redis

for line in (
    "if ARGV[2] == '1' and redis.call('GET', KEYS[1] .. 'live') ~= ARGV[1] then return 0 end",
    "if redis.call('GET', own .. 'vector') ~= ARGV[3] then return 0 end",
):
    assert line in redis._APPLY
    redis._APPLY = redis._APPLY.replace(line, "")
"""

BELIEVES = """
from commands.owners import Owners

know = Owners.know

async def keep(self, partitions):
    epochs, owners = self.epochs, self._owners
    await know(self, partitions)
    gone = epochs.keys() - self.epochs.keys()
    self.epochs = {**epochs, **self.epochs}
    self._owners = {**self._owners, **{partition: owners[partition] for partition in gone}}

Owners.know = keep
"""

NO_EPOCH = """
CREATE OR REPLACE FUNCTION ledger.follow_ownership() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.log AS l
       SET epochs = ARRAY(SELECT greatest(l.epochs[p + 1], (SELECT max(w.epoch) FROM ledger.ownership AS w
                                                             WHERE w.partition = p AND w.log = l.id))
                            FROM generate_series(0, 255) AS p);
    RETURN NULL;
END $$
"""
ASTRAY = """
    SELECT count(*) FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE l.own AND e.type = 'transaction.deposit_requested' AND NOT EXISTS (
           SELECT FROM ledger.ownership AS w
            WHERE w.partition = e.partition AND w.log = e.log AND e.position BETWEEN w.since AND coalesce(w.cut, e.position))
"""


class Regions:
    """Two regions under load."""

    def __init__(self, here: Local, folder: Path, load: subprocess.Popen[bytes], files: tuple[Path, Path]) -> None:
        self.here = here
        self.folder = folder
        self._load = load
        self._site, self.history = files

    def loaded(self, lines: int = LOADED_LINES) -> None:
        """Wait until so much more stands in the record."""
        target = self.lines() + lines
        until(lambda: self.lines() >= target or self._load.poll() is not None)
        assert self._load.poll() is None

    def lines(self) -> int:
        return self.history.read_bytes().count(b"\n") if self.history.exists() else 0

    def kill(self, region: str, role: str) -> None:
        self.here.stack.kill(region, role)
        self.here.stack.wait_restarted(region, role, timeout_s=100)

    def ends(self) -> None:
        self._load.send_signal(signal.SIGTERM)
        assert self._load.wait(100) == 0

    def judged(self, *, patience_s: int = 150) -> dict[str, Any]:
        command = [sys.executable, "-m", "chaos.checker", "--site", str(self._site), "--history", str(self.history)]
        done = subprocess.run(
            [*command, "--patience", str(patience_s)],
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            cwd=CHECKOUT,
        )
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        found["exit"] = done.returncode
        found["broken"] = {law: each["broken"] for law, each in found["laws"].items() if not each["holds"]}
        return found


@contextmanager
def loaded(folder: Path, planted: Mapping[tuple[str, str], str], seed: str) -> Iterator[Regions]:
    """`planted`: by (region, role) what its process does at its start."""

    def added(region: str, role: str) -> Mapping[str, str]:
        code = planted.get((region, role))
        if code is None:
            return {}
        place = folder / f"{region}-{role}"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": str(place)}

    with running(folder / "data", added) as here:
        files = folder / "site.json", folder / "history.jsonl"
        files[0].write_bytes(described(here))
        command = [
            sys.executable,
            "-m",
            "chaos.load",
            "--site",
            str(files[0]),
            "--history",
            str(files[1]),
            "--seed",
            seed,
        ]
        load = subprocess.Popen([*command, "--rate", "50", "--clients", "10"], cwd=CHECKOUT)
        try:
            yield Regions(here, folder, load, files)
        finally:
            load.kill()
            load.wait()


@contextmanager
def running(data: Path, added: Callable[[str, str], Mapping[str, str]]) -> Iterator[Local]:
    for _ in range(5):
        try:
            with local.running(data, ["eu", "us"], free_port_base(2), added=added) as here:
                yield here
                return
        except PortTaken:  # somebody was faster
            continue
    raise RuntimeError("found no free ports")


def described(here: Local) -> bytes:
    import msgspec

    regions = {name: Region(each.url, each.postgres, name) for name, each in here.settings.items()}
    return msgspec.json.encode(Place(regions, here.tokens, "demo", str(here.settings["eu"].policy)))


def until(holds: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def handed_over(here: Local, log: str, *, after: int = 0) -> Callable[[], bool]:
    """Whether `log` has adopted more often than that."""
    return lambda: adoptions(here, log) > after


def adoptions(here: Local, log: str) -> int:
    return counted(
        here,
        log,
        "SELECT count(*) FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log WHERE l.own AND e.type = 'log.adopted'",
    )


def counted(here: Local, region: str, query: LiteralString) -> int:
    with psycopg.connect(here.settings[region].postgres, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def test_an_answer_before_the_commit_is_found(tmp_path: Path) -> None:
    with loaded(tmp_path, {("eu", "api"): ANSWER_BEFORE_COMMIT}, "early") as regions:
        for _ in range(3):
            regions.loaded()
            regions.kill("eu", "postgres")
        regions.loaded()
        regions.ends()
        found = regions.judged()
    assert found["exit"] == 1, found
    assert found["lost"] > 0
    assert any("was acknowledged at eu/" in each for each in found["broken"]["acknowledged_once"])


def test_a_skipped_check_of_the_epoch_is_found(tmp_path: Path) -> None:
    """The database of eu goes on with the epochs of what it has handed over, and so does its API."""
    with loaded(tmp_path, {("eu", "api"): BELIEVES}, "epoch") as regions:
        with psycopg.connect(regions.here.settings["eu"].postgres, autocommit=True) as connection:
            connection.execute(NO_EPOCH)
        until(lambda: counted(regions.here, "eu", ASTRAY) > 0)
        regions.loaded()
        regions.ends()
        found = regions.judged()
    assert found["exit"] == 1, found
    assert "acknowledged_once" in found["broken"]
    assert found["lost"] > 0


def test_a_missing_barrier_in_projections_is_found(tmp_path: Path) -> None:
    with loaded(tmp_path, {("us", "projector"): NO_BARRIER}, "barrier") as regions:
        regions.loaded()
        pid = regions.here.stack.send("us", "projector", signal.SIGSTOP)
        until(handed_over(regions.here, "us", after=adoptions(regions.here, "us") + 1))
        regions.loaded(2 * LOADED_LINES)  # players who have moved go on in us
        regions.ends()
        os.kill(pid, signal.SIGCONT)
        found = regions.judged()
    assert found["exit"] == 1, found
    assert {"read_models", "reads_exact"} & set(found["broken"])
    assert (found["lost"], found["duplicated"], found["copies_equal"]) == (0, 0, True)


def test_a_cache_that_is_written_without_compare_is_found(tmp_path: Path) -> None:
    with loaded(tmp_path, {("eu", "projector"): NO_COMPARE}, "compare") as regions:
        regions.loaded()
        redis.Redis.from_url(regions.here.settings["eu"].redis).flushall()
        regions.loaded()
        regions.ends()
        found = regions.judged()
    assert found["exit"] == 1, found
    assert set(found["broken"]) == {"read_models"}
    assert all(
        "eu: dashboard" in each or "eu: segments" in each or "eu: the dashboard" in each
        for each in found["broken"]["read_models"]
    )


def test_without_a_bug_the_same_faults_break_no_law(tmp_path: Path) -> None:
    with loaded(tmp_path, {}, "clean") as regions:
        regions.loaded()
        regions.kill("eu", "postgres")
        pid = regions.here.stack.send("us", "projector", signal.SIGSTOP)
        redis.Redis.from_url(regions.here.settings["eu"].redis).flushall()
        until(handed_over(regions.here, "us", after=adoptions(regions.here, "us")))
        regions.loaded()
        os.kill(pid, signal.SIGCONT)
        regions.ends()
        found = regions.judged()
    assert found["broken"] == {}
    assert found["exit"] == 0
    assert found["acknowledged"] > 0
