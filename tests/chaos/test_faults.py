"""That a fault does what it says: on two real regions, seen from outside."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from chaos import faults
from chaos.catching_up import await_caught_up
from chaos.faults import flip
from chaos.runner import Run
from chaos.schedule import SERVERS, LeftOut, NotCarriedOut, Step
from chaos.shim import Shim
from chaos.site import Site, running_site
from tests.asking import Answer, send
from tests.registering import key_within
from tests.stack import PORTS

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

HOUR_S = 3600


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("chaos"), seed=1, ports=PORTS) as running:
        yield running


@pytest.fixture(autouse=True)
def _healed(site: Site) -> Iterator[None]:
    yield
    site.heal()
    site.await_all_ready()


def carry_out(site: Site, fault: str, region: str = "eu", role: str = "", hold_s: float = 1.0) -> None:
    faults.faults()[fault](site, Step(0, fault, region, role, hold_s))


def register(site: Site, region: str = "eu") -> Answer:
    headers = {
        "Authorization": f"Bearer {site.local.tokens['operator']}",
        "Idempotency-Key": key_within(site.local.settings[region].partitions_of(region)),
    }
    return send(
        "POST",
        f"{site.local.url(region)}/v1/players",
        json.dumps({"country": "AT", "currency": "EUR"}).encode(),
        headers,
    )


def eventually(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def registered(site: Site, region: str = "eu") -> bool:
    try:
        return register(site, region).status == 201
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def under_way(work: Callable[[], object]) -> Iterator[None]:
    """Within, it is done again and again; what it raises is what faults do."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            try:
                work()
            except (psycopg.Error, OSError, urllib.error.URLError):
                time.sleep(0.05)
            stop.wait(0.01)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def asked(site: Site, region: str, query: str) -> Any:
    with site.postgres(region) as connection:
        [(found,)] = connection.execute(query).fetchall()
        return found


def log_of(site: Site, region: str, role: str) -> str:
    return (site.folder / "data" / region / "logs" / f"{role}.log").read_text(errors="replace")


def greet(site: Site, role: str) -> None:
    """Raises OSError, OperationalError where nobody answers within a moment."""
    if role == "api":
        urllib.request.urlopen(f"{site.local.url('eu')}/readyz", timeout=1)
    else:
        psycopg.connect(site.local.settings["eu"].postgres, connect_timeout=2)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# Processes


@pytest.mark.parametrize("role", ["api", *SERVERS])
def test_who_is_killed_is_another_process_afterwards_and_works(site: Site, role: str) -> None:
    before = site.pids()
    carry_out(site, "kill", "eu", role)
    changed = {key for key, pid in site.pids().items() if before[key] != pid}
    assert changed == {("eu", role)}
    eventually(lambda: registered(site))


@pytest.mark.parametrize("role", ["api", "postgres"])
def test_who_is_stopped_does_nothing_until_it_goes_on(site: Site, role: str) -> None:
    before = site.pids()
    site.stop("eu", role)
    assert state_of(before["eu", role]) == "T"
    with pytest.raises((OSError, psycopg.OperationalError)):
        greet(site, role)
    site.cont("eu", role)
    eventually(lambda: registered(site))
    assert site.pids()["eu", role] == before["eu", role]


def test_a_cold_start_leaves_no_process_and_all_data(site: Site) -> None:
    eventually(lambda: registered(site))
    await_caught_up(site, 60)
    before, entries = site.pids(), asked(site, "eu", "SELECT count(*) FROM ledger.entry")
    with site.all_down():
        assert site.pids() == {}
    assert site.pids().keys() == before.keys()
    assert not set(site.pids().values()) & set(before.values())
    assert asked(site, "eu", "SELECT count(*) FROM ledger.entry") >= entries
    eventually(lambda: registered(site))


def test_a_batch_is_caught_on_its_way_and_has_no_answer(site: Site, tmp_path: Path) -> None:
    run = Run(tmp_path, [], seed=3, regions=site.regions)
    site.history = tmp_path / "history.jsonl"
    site.history.touch()
    try:
        with run._load(site, run._describe(site), site.history):
            for fault in ("batch-killed-api", "batch-killed-postgres"):
                carry_out(site, fault)
    finally:
        history, site.history = site.history, None
    assert not run.errors
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    in_batches = {line["op"] for line in lines if line.get("batch")}
    failed = {line["op"] for line in lines if line["phase"] == "failed"}
    assert in_batches & failed, "nobody's batch was left without an answer"


def test_without_a_load_no_batch_can_be_killed(site: Site) -> None:
    with pytest.raises(NotCarriedOut, match="no load"):
        carry_out(site, "batch-killed-api")


# Stores


def test_the_streams_are_gone_after_the_folder_was_deleted_and_come_again(site: Site) -> None:
    eventually(lambda: registered(site))
    [block] = faults._streams(site, "eu").rglob("LOG_EU/msgs/1.blk")
    with block.open("rb") as kept:  # while it is open, no new file gets its number
        before = os.fstat(kept.fileno()).st_ino
        carry_out(site, "nats-deleted")
        eventually(lambda: registered(site))
        eventually(lambda: block.exists() and block.stat().st_ino != before)
    await_caught_up(site, 60)


def test_one_bit_is_flipped_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "block"
    content = random.Random(5).randbytes(999)
    file.write_bytes(content)
    where = flip(file, random.Random(6))
    different = [
        (at, old ^ new) for at, (old, new) in enumerate(zip(content, file.read_bytes(), strict=True)) if old != new
    ]
    assert different == [(where // 8, 1 << where % 8)]


def test_a_flipped_bit_of_the_stream_stops_nothing(site: Site) -> None:
    eventually(lambda: registered(site))
    carry_out(site, "nats-flipped")
    assert "bit " in (site.folder / "chaos.log").read_text()
    eventually(lambda: registered(site))
    await_caught_up(site, 60)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_is_stopped_in_its_own_way_and_started_again(site: Site, mode: str) -> None:
    before = asked(site, "eu", "SELECT pg_postmaster_start_time()")
    already = log_of(site, "eu", "postgres").count(f"received {mode} shutdown request")
    carry_out(site, f"postgres-{mode}")
    assert asked(site, "eu", "SELECT pg_postmaster_start_time()") > before
    assert log_of(site, "eu", "postgres").count(f"received {mode} shutdown request") == already + 1


def test_what_valkey_held_is_gone(site: Site) -> None:
    with redis.Redis.from_url(site.local.settings["eu"].redis) as connection:
        connection.set("chaos", "here")
        carry_out(site, "valkey-flushed")
        assert connection.get("chaos") is None


# Disks and clocks


def test_a_flush_that_fails_takes_postgresql_down_and_up_again(site: Site) -> None:
    with under_way(lambda: asked(site, "us", "SELECT pg_logical_emit_message(true, 'test', '')::text")):
        carry_out(site, "fsync-fails", "us")
    assert "Input/output error" in log_of(site, "us", "postgres")
    assert "PANIC:  could not f" in log_of(site, "us", "postgres")
    eventually(lambda: registered(site, "us"))


def test_a_disk_that_fails_for_long_is_replaced(site: Site) -> None:
    with under_way(lambda: asked(site, "us", "SELECT pg_logical_emit_message(true, 'test', '')::text")):
        carry_out(site, "disk-fails", "us")
    assert site.shim.get("us", "postgres", "eio_given") > 1
    eventually(lambda: registered(site, "us"))


def test_on_a_full_disk_nothing_grows_and_nothing_is_lost(site: Site) -> None:
    refused: list[str] = []

    def grow() -> None:
        try:
            with site.postgres("us") as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS public.grown (filler text)")
                connection.execute(
                    "INSERT INTO public.grown SELECT repeat(i::text, 100) FROM generate_series(1, 500) AS i"
                )
        except psycopg.errors.DiskFull as full:
            refused.append(str(full))

    with under_way(grow):
        carry_out(site, "disk-full", "us", hold_s=3.0)
    assert refused
    assert "No space left on device" in refused[0]
    grow()
    with site.postgres("us") as connection:
        connection.execute("DROP TABLE public.grown")
    eventually(lambda: registered(site, "us"))


@pytest.mark.parametrize(("fault", "hours"), [("clock-ahead", 1), ("clock-behind", -1)])
def test_the_clock_of_one_region_is_an_hour_off(site: Site, fault: str, hours: int) -> None:
    seen: list[tuple[float, float, float]] = []

    def look() -> None:
        here = asked(site, "eu", "SELECT clock_timestamp()").timestamp() - time.time()
        answer = register(site)
        served = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
        there = asked(site, "us", "SELECT clock_timestamp()").timestamp() - time.time()
        seen.append((here, served, there))

    with under_way(look):
        carry_out(site, fault, hold_s=4.0)
    assert any(abs(here - hours * HOUR_S) < 60 and abs(served - hours * HOUR_S) < 60 for here, served, _ in seen), seen
    assert all(abs(there) < 60 for _, _, there in seen)
    assert abs(asked(site, "eu", "SELECT clock_timestamp()").timestamp() - time.time()) < 60
    eventually(lambda: registered(site))


def test_recorded_time_never_goes_back_although_the_clock_does(site: Site) -> None:
    with site.shim.asked("eu", site.processes(servers=("postgres",)), "clock_ns", HOUR_S * 10**9):
        eventually(lambda: registered(site))
    eventually(lambda: registered(site))
    assert asked(
        site,
        "eu",
        "SELECT bool_and(later) FROM (SELECT recorded > lag(recorded) OVER (ORDER BY position) AS later"
        " FROM ledger.entry WHERE log = (SELECT id FROM ledger.log WHERE own)) AS pairs",
    )


def test_what_befalls_nobody_is_no_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "SEEN_S", 0.2)
    monkeypatch.setattr(site.shim, "get", lambda *_: 0)
    with pytest.raises(NotCarriedOut, match="a flush that fails"):
        carry_out(site, "fsync-fails")


def test_without_a_compiler_what_needs_one_is_left_out(tmp_path: Path) -> None:
    shim = Shim(None, tmp_path)
    assert shim.environment("eu", "api") == {}
    with pytest.raises(LeftOut, match="C compiler"):
        shim.set("eu", ["api"], "full", 1)
