"""Looking at processes from outside."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def gone(pid: int) -> bool:
    """Whether a process has ended. A zombie has: who inherits it may never reap it in a container."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def states(pid: int) -> list[str]:
    """The state of each of its threads, as in proc(5): R runs, S sleeps, T was stopped."""
    return [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]


def left_after(seconds: float, pids: Iterable[int]) -> list[int]:
    """Those that have not ended within this time."""
    deadline = time.monotonic() + seconds
    left = list(pids)
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [pid for pid in left if not gone(pid)]
    return left
