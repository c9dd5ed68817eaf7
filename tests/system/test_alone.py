"""A deployment of one region: roles that are about the others have nothing to do, and stay."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.conftest import running
from tests.system.test_heads import newest

NOTHING_TO_DO = ["applier", "witness"]


@pytest.mark.fault
def test_a_region_alone_is_signed_and_loses_no_process(tmp_path: Path) -> None:
    with running(tmp_path, ["eu"]) as deployment:
        eu, stack = deployment.clients["eu"], deployment.local.stack
        eu.register()
        size = deployment.heads("eu")["eu"]
        end = time.monotonic() + 60
        while newest(deployment, "eu", "eu")[0] < size:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert {each.program.role: each.starts for each in stack.supervisor.keepers() if each.starts != 1} == {}


@pytest.mark.fault
@pytest.mark.parametrize("role", NOTHING_TO_DO)
def test_a_role_that_has_nothing_to_do_ends_when_it_is_told_to(tmp_path: Path, role: str) -> None:
    with running(tmp_path, ["eu"]) as deployment:
        [program] = [each.program for each in deployment.local.stack.supervisor.keepers() if role in each.program.role]
        process = subprocess.Popen([sys.executable, "-m", "app", "serve", role], env=program.env)
        while process.poll() is None and not hears(process.pid, signal.SIGTERM):
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process does something of its own when it gets the signal, as in proc(5)."""
    [mask] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)
