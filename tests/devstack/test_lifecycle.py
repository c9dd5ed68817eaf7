"""Starting, starting again, and stopping, politely or not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from devstack import AlreadyRunning, PortTaken, Stack, read_state
from devstack.launch import NOBODY
from devstack.memory import family
from tests.devstack.processes import left_after
from tests.stack import free_port_base, running_stack

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up root")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that the tests of this module use one after the other, since initdb takes a second."""
    return tmp_path_factory.mktemp("data")


def test_data_is_kept_between_runs(data: Path) -> None:
    with running_stack(data) as stack, psycopg.connect(stack.endpoints("eu").postgres) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 'PostgreSQL'")
        with redis.Redis.from_url(stack.endpoints("eu").redis) as client:
            client.set("kept", "Valkey")
        seed = (stack.endpoints("eu").seeds / "own.seed").read_text()
    with running_stack(data) as stack, psycopg.connect(stack.endpoints("eu").postgres) as connection:
        assert connection.execute("TABLE kept").fetchall() == [("PostgreSQL",)]
        with redis.Redis.from_url(stack.endpoints("eu").redis) as client:
            assert client.get("kept") == b"Valkey"
        assert (stack.endpoints("eu").seeds / "own.seed").read_text() == seed


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    base = free_port_base(2)
    with (
        socket.create_server(("127.0.0.1", base + 104)),
        Stack(data=tmp_path, regions=["eu", "us"], port_base=base) as stack,
    ):
        with pytest.raises(PortTaken, match=rf"port {base + 104} .* Valkey of us, .* --port-base"):
            stack.start_servers()
        assert stack.pids() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["countroom.lock"]


def test_a_second_supervisor_on_the_same_data_is_refused(stack: Stack) -> None:
    with Stack(data=stack.data, regions=["eu"], port_base=free_port_base()) as second:
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as refusal:
            second.start_servers()
        assert refusal.value.pid == os.getpid()
    assert read_state(stack.data), "the refused one must leave the state of the first alone"


def test_after_stopping_nothing_is_left(data: Path) -> None:
    with running_stack(data) as stack:
        pids = family(stack.pids().values())
        assert len(pids) > 5
    assert left_after(30, pids) == []
    assert read_state(data) is None
    assert not (data / "countroom.json").exists()


@contextmanager
def supervised(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """A supervisor in a terminal's foreground group of its own, and all the processes it keeps."""
    supervisor = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("up.py")), str(data), str(free_port_base()), *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with supervisor:
        try:
            assert supervisor.stdout
            pids = family(json.loads(supervisor.stdout.readline()))
            assert len(pids) > 6
            yield supervisor, pids
        finally:
            supervisor.kill()


def write_out(data: Path) -> None:
    """Now, so that PostgreSQL need not when it is stopped: it has some seconds then, whatever the disk is."""
    state = read_state(data)
    assert state
    with psycopg.connect(state["regions"][0]["postgres"], autocommit=True) as connection:
        connection.execute("CHECKPOINT")


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_everything(data: Path, number: signal.Signals) -> None:
    with supervised(data) as (supervisor, pids):
        write_out(data)
        os.killpg(supervisor.pid, number)  # as a terminal does: to the whole foreground group
        assert supervisor.wait(timeout=30) == 0
        assert left_after(30, pids) == []
    assert "database system is shut down" in (data / "eu/logs/postgres.log").read_text().splitlines()[-1]


@pytest.mark.fault
def test_a_second_interrupt_does_not_wait_for_a_process_that_will_not_stop(data: Path) -> None:
    with supervised(data, "deaf") as (supervisor, pids):
        os.killpg(supervisor.pid, signal.SIGINT)
        time.sleep(0.5)
        assert supervisor.poll() is None
        os.killpg(supervisor.pid, signal.SIGINT)
        supervisor.wait(timeout=30)
        assert left_after(30, pids) == []


@pytest.mark.fault
def test_a_killed_supervisor_leaves_nothing_behind_and_can_be_started_again(data: Path) -> None:
    with supervised(data) as (supervisor, pids):
        supervisor.kill()
        supervisor.wait(timeout=30)
        assert read_state(data) is None
        assert left_after(30, pids) == []
    with running_stack(data) as stack:
        assert stack.pids()


@pytest.mark.fault
def test_a_new_supervisor_waits_for_what_a_killed_one_left(data: Path) -> None:
    with supervised(data) as (supervisor, _):
        state = read_state(data)
        supervisor.kill()
        supervisor.wait(timeout=30)
    assert state
    base = int(state["regions"][0]["api"].rpartition(":")[2])
    with Stack(data=data, regions=["eu"], port_base=base) as stack:
        stack.start_servers()


def test_a_pid_file_whose_number_somebody_else_has_got_does_not_hinder_the_start(data: Path) -> None:
    with running_stack(data) as stack:
        lines = (data / "eu/postgres/data/postmaster.pid").read_text().splitlines()
        pid = stack.kill("eu", "postgres")
        stack.wait_restarted("eu", "postgres")
    assert lines[0] == str(pid)
    (data / "eu/postgres/data/postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with running_stack(data) as stack:
        assert stack.pids()


@needs_root
def test_root_runs_postgresql_as_nobody_where_there_are_no_user_namespaces() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to nobody
        with running_stack(Path(folder), identity="setuid") as stack:
            pid = stack.pids()["eu", "postgres"]
            assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
            assert (Path(folder) / "eu/postgres/data").stat().st_uid == NOBODY
        with running_stack(Path(folder)) as stack:  # as this machine allows: the data has changed hands
            assert stack.pids()


@needs_root
def test_data_that_nobody_cannot_reach_moves_to_the_temporary_folder_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "closed"
    data.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory() as refuge:
        Path(refuge).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", refuge)
        with running_stack(data, identity="setuid") as stack:
            assert f"keeps its data in {refuge}" in caplog.text
            with psycopg.connect(stack.endpoints("eu").postgres) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 42")
        with (
            running_stack(data, identity="setuid") as stack,
            psycopg.connect(stack.endpoints("eu").postgres) as connection,
        ):
            assert connection.execute("TABLE kept").fetchall() == [(42,)]
        assert len(list(Path(refuge).iterdir())) == 1
