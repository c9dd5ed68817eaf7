"""A program that dies comes back, and what it served works again."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import nats
import psycopg
import pytest
import redis

from devstack import Stack, StartFailed
from devstack.supervisor import BACKOFF_FIRST_S, BACKOFF_MAX_S, Program, Supervisor
from tests.devstack.processes import gone, left_after, states

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
BUSY = """
import hashlib, threading

def work():
    while True:
        hashlib.sha256(bytes(1_000_000))

for _ in range(8):
    threading.Thread(target=work).start()
"""


@pytest.mark.fault
def test_a_killed_postgresql_comes_back_with_what_was_committed(stack: Stack) -> None:
    dsn = stack.endpoints("us").postgres
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    killed = stack.kill("us", "postgres")
    assert stack.wait_restarted("us", "postgres") != killed
    with psycopg.connect(dsn) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(42,)]


@pytest.mark.fault
def test_postgresql_comes_back_though_a_backend_did_not_notice_the_kill(stack: Stack) -> None:
    with psycopg.connect(stack.endpoints("us").postgres) as connection:
        backend = connection.info.backend_pid

        def compute() -> None:
            with pytest.raises(psycopg.OperationalError):
                connection.execute("DO $$ BEGIN LOOP END LOOP; END $$")

        busy = threading.Thread(target=compute)
        busy.start()
        time.sleep(0.2)
        stack.kill("us", "postgres")
        stack.wait_restarted("us", "postgres")
        busy.join(timeout=30)
        assert gone(backend)


@pytest.mark.fault
async def test_a_killed_nats_comes_back_with_its_streams(stack: Stack) -> None:
    at = stack.endpoints("us")
    seed = str(at.seeds / "own.seed")
    client = await nats.connect(at.nats, nkeys_seed=seed)
    await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
    await client.jetstream().publish("kept", b"message")
    await client.close()
    stack.kill("us", "nats")
    stack.wait_restarted("us", "nats")
    client = await nats.connect(at.nats, nkeys_seed=seed)
    assert (await client.jetstream().get_msg("KEPT", 1)).data == b"message"
    await client.close()


@pytest.mark.fault
def test_a_killed_valkey_comes_back_with_its_keys(stack: Stack) -> None:
    with redis.Redis.from_url(stack.endpoints("us").redis) as client:
        client.set("kept", "value")
        stack.kill("us", "valkey")
        stack.wait_restarted("us", "valkey")
        assert client.get("kept") == b"value"


@pytest.mark.fault
def test_of_a_process_that_was_stopped_no_thread_does_anything(tmp_path: Path) -> None:
    supervisor = Supervisor()
    keeper = supervisor.add(program(tmp_path, "busy", BUSY))
    try:
        supervisor.wait_ready(60)
        assert keeper.pid
        while len(states(keeper.pid)) < 9:  # it has eight beside its first one
            time.sleep(0.02)
        for _ in range(20):
            keeper.send(signal.SIGSTOP)
            assert set(states(keeper.pid)) == {"T"}
            keeper.send(signal.SIGCONT)
    finally:
        supervisor.stop([[keeper]], limit_s=5)


@pytest.mark.fault
def test_a_killed_process_comes_back_and_its_log_goes_on(stack: Stack) -> None:
    stack.start_process(region="eu", role="talker", argv=[sys.executable, "-uc", "print('hello'); input()"], env={})
    stack.start_process(region="eu", role="sleeper", argv=SLEEP)
    stack.wait_ready(timeout_s=60)
    killed = stack.kill("eu", "sleeper")
    assert stack.wait_restarted("eu", "sleeper") != killed
    deadline = time.monotonic() + 60
    while stack.log("eu", "talker").read_text().count("hello") < 2:  # input() ends it at once: nothing is to be read
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_role_is_taken_once_in_a_region(stack: Stack) -> None:
    stack.start_process(region="us", role="unique", argv=SLEEP)
    with pytest.raises(ValueError, match="already has"):
        stack.start_process(region="us", role="unique", argv=SLEEP)
    with pytest.raises(ValueError, match="server's role"):
        stack.start_process(region="us", role="postgres", argv=SLEEP)


def program(tmp_path: Path, role: str, script: str, **options: object) -> Program:
    argv = [sys.executable, "-c", script]
    return Program(region="eu", role=role, argv=argv, log=tmp_path / f"{role}.log", **options)  # type: ignore[arg-type]


def test_a_process_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor()
    keeper = supervisor.add(program(tmp_path, "broken", "raise SystemExit('no such table')", ready=lambda: False))
    try:
        with pytest.raises(StartFailed, match=r"(?s)broken of region eu .* ended with code 1.*no such table"):
            supervisor.wait_ready(10)
    finally:
        supervisor.stop([[keeper]], limit_s=5)


def test_a_process_that_is_never_ready_is_reported_when_the_time_is_over(tmp_path: Path) -> None:
    supervisor = Supervisor()
    keeper = supervisor.add(program(tmp_path, "slow", SLEEP[2], ready=lambda: False))
    try:
        with pytest.raises(StartFailed, match=r"not ready within 0\.2 s"):
            supervisor.wait_ready(0.2)
    finally:
        supervisor.stop([[keeper]], limit_s=5)


def test_a_readiness_check_that_raises_is_reported_and_harms_nothing(tmp_path: Path) -> None:
    def check() -> bool:
        raise RuntimeError("mistake")

    supervisor = Supervisor()
    keeper = supervisor.add(program(tmp_path, "checked", SLEEP[2], ready=check))
    try:
        with pytest.raises(StartFailed, match="RuntimeError: mistake"):
            supervisor.wait_ready(10)
        assert keeper.pid
        assert not gone(keeper.pid)
    finally:
        supervisor.stop([[keeper]], limit_s=5)


def test_a_process_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    supervisor = Supervisor()
    began = time.monotonic()
    keeper = supervisor.add(program(tmp_path, "dying", "pass"))
    while keeper.starts < 5:
        assert time.monotonic() < began + 60
        time.sleep(0.01)
    took = time.monotonic() - began
    supervisor.stop([[keeper]], limit_s=5)
    assert took >= BACKOFF_FIRST_S * (1 + 2 + 4 + 8)
    assert BACKOFF_FIRST_S < BACKOFF_MAX_S


def test_a_process_waits_for_the_servers_it_needs(tmp_path: Path) -> None:
    supervisor = Supervisor()
    up = threading.Event()
    server = supervisor.add(program(tmp_path, "server", SLEEP[2], ready=up.is_set))
    process = supervisor.add(program(tmp_path, "process", SLEEP[2]), after=[server])
    time.sleep(0.2)
    assert process.starts == 0
    up.set()
    supervisor.wait_ready(10)
    assert process.starts == 1
    supervisor.stop([[process], [server]], limit_s=5)


def test_what_a_process_has_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = (
        f"import subprocess; p = subprocess.Popen({SLEEP!r}); open({str(child)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    supervisor = Supervisor()
    keeper = supervisor.add(
        program(tmp_path, "parent", script, ready=lambda: child.exists() and bool(child.read_text()))
    )
    supervisor.wait_ready(10)
    supervisor.stop([[keeper]], limit_s=5)
    assert left_after(30, [int(child.read_text())]) == []


def test_a_process_that_ignores_the_signal_is_killed_when_the_time_is_over(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    script = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(deaf)!r}, 'w'); {SLEEP[2]}"
    supervisor = Supervisor()
    keeper = supervisor.add(program(tmp_path, "deaf", script, ready=deaf.exists))
    supervisor.wait_ready(10)
    pid = keeper.pid
    supervisor.stop([[keeper]], limit_s=0.2)
    assert pid
    assert gone(pid)
