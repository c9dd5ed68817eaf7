"""
Keeps programs alive: a program that ends is started again, until its keeper is told to stop.

Each program has a thread of its own, which starts it, waits until it is ready, waits until it ends, and begins again.
It is a thread and not a loop over all of them, since Linux sends a child's death signal when the *thread* that forked it
ends: this one cannot end before its child.

Invariants:
    - a program ends no later than we do, also when we are killed -9 (`launch`);
    - it is in a session of its own: Ctrl-C in the terminal reaches only us, and we decide the order;
    - whatever it started in that session dies with it (but only it itself, if it is we who are killed -9);
    - a signal goes to a child that has not been reaped, so never to a stranger who got its pid.
"""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack import launch
from devstack.errors import StartFailed
from devstack.launch import Identity
from devstack.ready import Check

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
STABLE_S = 10.0  # who has lived this long starts the back-off from its beginning
_POLL_S = 0.02
_KILLED_S = 5.0  # what a kernel may take to end a process that has been killed

_log = logging.getLogger("devstack")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how to treat it. `env` is the whole environment; None means ours."""

    region: str
    role: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    prepare: Callable[[], None] | None = None  # before every start; what it raises counts as a failed start
    ready: Check | None = None  # None: ready as soon as it runs
    identity: Identity = "plain"
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL


class Keeper:
    """One program, kept running. `after` are keepers whose programs must be ready before each of its starts."""

    def __init__(self, program: Program, *, after: Sequence["Keeper"], changed: threading.Condition) -> None:
        self.program = program
        self.ready = False
        self.starts = 0
        self.failure: str | None = None  # why it did not start, as long as it never has been ready
        self._after = after
        self._changed = changed  # guards all of the above, and is notified of every change
        self._child: subprocess.Popen[bytes] | None = None
        self._has_been_ready = False
        self._held = False
        self._stopping = threading.Event()
        name = f"{program.region}/{program.role}"
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def pid(self) -> int | None:
        child = self._child
        return child.pid if child else None

    def retire(self) -> None:
        """Do not start it again. It goes on running until it is signalled."""
        self._stopping.set()

    def hold(self) -> None:
        """Do not start it again until it is released. It goes on running until it is signalled."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def send(self, sent: signal.Signals) -> int | None:
        """Signal the program. Returns its pid, or None if it is not running. After SIGSTOP, all of its threads have stopped."""
        with self._changed:
            if self._child is None:
                return None
            os.kill(self._child.pid, sent)  # perhaps a zombie, but its pid is still its own: see _reap
            if sent == signal.SIGSTOP:  # the kernel reports the last thread's stop, and a stop only of who lives
                os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            return self._child.pid

    def join(self, timeout_s: float) -> bool:
        """Wait until a retired program has ended. True if it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _keep(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._run_once()
            except Exception as error:  # noqa: BLE001 (a keeper that dies takes its program with it)
                self._failed(f"{type(error).__name__}: {error}")
            if time.monotonic() - began > STABLE_S:
                backoff_s = BACKOFF_FIRST_S
            self._stopping.wait(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def _run_once(self) -> None:
        with self._changed:
            self._changed.wait_for(self._may_start)
        if self.program.prepare and not self._stopping.is_set():
            self.program.prepare()
        child = self._spawn()
        if child is None:
            return
        try:
            self._await_ready(child)
        finally:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            self._reap(child)

    def _may_start(self) -> bool:
        return self._stopping.is_set() or (not self._held and all(other.ready for other in self._after))

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        program = self.program
        argv = launch.command(program.argv, identity=program.identity, death_signal=program.death_signal)
        with self._changed, program.log.open("ab") as log:
            if self._stopping.is_set() or self._held:
                return None
            self._child = subprocess.Popen(
                argv,
                env=program.env,
                cwd=program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.starts += 1
            self._changed.notify_all()
            return self._child

    def _await_ready(self, child: subprocess.Popen[bytes]) -> None:
        while not _has_ended(child.pid):
            if self._is_ready():
                with self._changed:
                    self.ready = self._has_been_ready = True
                    self.failure = None
                    self._changed.notify_all()
                return
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        try:
            return self.program.ready is None or self.program.ready()
        except OSError:
            return False
        except Exception as error:  # noqa: BLE001 (the check is the caller's; its fault must not end the program)
            self._failed(f"its readiness check raised {type(error).__name__}: {error}")
            return False

    def _reap(self, child: subprocess.Popen[bytes]) -> None:
        """The child has ended but is a zombie still, so its pid and its process group are nobody else's."""
        with self._changed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
            self.ready, self._child = False, None
            self._changed.notify_all()
        if not self._stopping.is_set():
            self._failed(f"it {_how(code)}")

    def _failed(self, why: str) -> None:
        _log.info("%s of %s: %s", self.program.role, self.program.region, why)
        with self._changed:
            if not self._has_been_ready:
                self.failure = why
            self._changed.notify_all()


class Supervisor:
    """
    All programs of a stack, in the order in which they were added.

    `changed` is notified whenever one starts, gets ready or ends; hold it to see several of them at one moment.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._keepers: dict[tuple[str, str], Keeper] = {}

    def __getitem__(self, key: tuple[str, str]) -> Keeper:
        """The keeper of (region, role)."""
        return self._keepers[key]

    def keepers(self) -> list[Keeper]:
        return list(self._keepers.values())

    def add(self, program: Program, *, after: Sequence[Keeper] = ()) -> Keeper:
        """Start a program and keep it running, from now on and without waiting until it is ready."""
        key = (program.region, program.role)
        keeper = Keeper(program, after=after, changed=self.changed)
        with self.changed:
            if key in self._keepers:
                raise ValueError(f"region {program.region} already has a process in the role {program.role}")
            self._keepers[key] = keeper
        keeper.start()
        return keeper

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until every program is ready. Raises StartFailed for the first that failed, or was too slow."""
        with self.changed:
            self.changed.wait_for(
                lambda: all(keeper.ready for keeper in self.keepers()) or any(k.failure for k in self.keepers()),
                timeout_s,
            )
            for keeper in sorted(self.keepers(), key=lambda keeper: keeper.failure is None):
                if not keeper.ready:
                    why = keeper.failure or f"it was not ready within {timeout_s:g} s"
                    raise StartFailed(keeper.program.region, keeper.program.role, why, keeper.program.log)

    def stop(self, tiers: Sequence[Sequence[Keeper]], *, limit_s: float) -> None:
        """
        Stop tier after tier. What has not ended limit_s after its stop signal is killed.

        An interrupt (a second Ctrl-C) makes the limit zero, and nothing is left running when it is raised again.
        """
        for keeper in self.keepers():
            keeper.retire()
        with self.changed:
            self.changed.notify_all()  # who waits for another's readiness
        try:
            for tier in tiers:
                _end(tier, limit_s)
        except BaseException:
            for tier in tiers:
                _end(tier, 0)
            raise


def _end(keepers: Sequence[Keeper], limit_s: float) -> None:
    for keeper in keepers:
        keeper.send(keeper.program.stop_signal)
    deadline = time.monotonic() + limit_s
    for keeper in keepers:
        if not keeper.join(max(0.0, deadline - time.monotonic())):
            _log.warning("%s of %s did not stop: killing it", keeper.program.role, keeper.program.region)
            keeper.send(signal.SIGKILL)
            keeper.join(_KILLED_S)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """
    Within, SIGTERM and SIGHUP do what Ctrl-C does: raise KeyboardInterrupt in the main thread, which is the only one to
    call this. SIGINT, too, which is ignored in a job that a script put into the background.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
