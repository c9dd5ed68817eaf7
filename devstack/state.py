"""
What runs, for other programs to read: <data>/countroom.json, and the lock that says whether it still holds.

Invariants:
    - one supervisor at a time holds the lock of a data folder; the kernel frees it, however the supervisor ends;
    - the file is replaced whole, at every change; without a supervisor it means nothing, and `read_state` says None.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import TypedDict, cast

from devstack.errors import AlreadyRunning
from devstack.files import write_private

_STATE = "countroom.json"
_LOCK = "countroom.lock"
_READERS_MOMENT_S = 0.5  # read_state takes the lock for an instant


class ProcessState(TypedDict):
    role: str
    pid: int


class RegionState(TypedDict):
    """The addresses hold passwords: the file's mode is 0600."""

    name: str
    api: str
    postgres: str
    nats: str
    redis: str
    processes: list[ProcessState]


class StackState(TypedDict):
    regions: list[RegionState]
    supervisor: int


def read_state(data: Path) -> StackState | None:
    """What runs in this data folder; None when nothing does."""
    try:
        descriptor = os.open(data / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse(data / _STATE)
    finally:
        os.close(descriptor)
    return None


def _parse(path: Path) -> StackState | None:
    """None also in the moment between taking the lock and the first start."""
    try:
        return cast("StackState", json.loads(path.read_text()))
    except FileNotFoundError:
        return None


class DataFolder:
    """A data folder that this process holds alone. Raises AlreadyRunning, with the pid of the holder."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._state = path / _STATE
        self._descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited by children
        try:
            self._lock(path)
        except BaseException:
            os.close(self._descriptor)
            raise
        # A state file that is still here says that the last supervisor was killed.
        self.after_a_crash = self._state.exists()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def _lock(self, path: Path) -> None:
        deadline = time.monotonic() + _READERS_MOMENT_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(self._descriptor, 20, 0)
                    raise AlreadyRunning(path, int(holder) if holder.isdigit() else None) from None
                time.sleep(0.02)
            else:
                return

    def write(self, state: StackState) -> None:
        write_private(self._state, json.dumps(state, indent=2) + "\n")

    def release(self) -> None:
        """Everything has been stopped: forget the state and let another supervisor in."""
        self._state.unlink(missing_ok=True)
        os.close(self._descriptor)
