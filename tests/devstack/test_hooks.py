"""What a run that lets faults befall a stack needs of it: programs that stay down, and environments with something more in them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from devstack import Stack
from devstack.supervisor import BACKOFF_FIRST_S, Program

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def program(env: dict[str, str] | None) -> Program:
    return Program(region="eu", role="worker", argv=SLEEP, log=Path("/dev/null"), env=env)


@pytest.mark.fault
def test_what_is_down_is_not_started_before_it_may_be(stack: Stack) -> None:
    stack.start_process(region="eu", role="held-down", argv=SLEEP)
    stack.wait_ready()
    before = stack.pids()["eu", "held-down"]
    with stack.down("eu", "held-down"):
        time.sleep(5 * BACKOFF_FIRST_S)
        assert ("eu", "held-down") not in stack.pids()
    assert stack.wait_restarted("eu", "held-down") != before


@pytest.mark.fault
def test_what_is_down_comes_back_though_what_was_done_meanwhile_failed(stack: Stack) -> None:
    stack.start_process(region="eu", role="failing", argv=SLEEP)
    stack.wait_ready()
    with pytest.raises(ZeroDivisionError), stack.down("eu", "failing"):
        raise ZeroDivisionError
    assert stack.wait_restarted("eu", "failing")


def test_an_environment_gets_what_is_added_for_this_role(tmp_path: Path) -> None:
    stack = Stack(
        data=tmp_path, regions=["eu"], added=lambda region, role: {"ADDED": region} if role == "worker" else {}
    )
    assert stack._with_added(program({"OWN": "1"})).env == {"OWN": "1", "ADDED": "eu"}
    other = Program(region="eu", role="other", argv=SLEEP, log=Path("/dev/null"), env={"OWN": "1"})
    assert stack._with_added(other) is other


def test_nothing_is_added_to_our_own_environment(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="own environment"):
        Stack(data=tmp_path, regions=["eu"], added=lambda *_: {"ADDED": "1"})._with_added(program(None))


def test_a_stack_adds_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    alone = program(None)
    assert Stack(data=tmp_path, regions=["eu"])._with_added(alone) is alone
