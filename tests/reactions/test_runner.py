"""How a reaction is driven: often while all goes well, and not in a busy loop when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from reactions import runner

OFTEN_S = 0.02


class Failing:
    """Fails at every other step."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        self.steps = 0

    async def step(self) -> None:
        self.steps += 1
        if self.steps % 2:
            raise self.fault


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was paused for; nobody waits."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(runner.asyncio, "sleep", note)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("fault", [psycopg.OperationalError("it is being restarted"), ValueError("a defect")])
async def test_what_has_failed_is_tried_again_after_a_longer_pause(fault: Exception, pauses: list[float]) -> None:
    failing = Failing(fault)
    running = asyncio.ensure_future(runner.run({"failing": failing}, poll_s=OFTEN_S))
    await until(lambda: len(pauses) >= 4)
    running.cancel()
    assert pauses[:4] == [runner.POLL_S, OFTEN_S, runner.POLL_S, OFTEN_S]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
