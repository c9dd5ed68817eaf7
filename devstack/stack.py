"""
A stack: one or more whole regions on this machine, started, watched and stopped together.

Order: the servers of all regions at once, then whatever processes the caller adds; a process that dies while a server of
its region is down waits for it. Stopping goes the other way round: processes first, so that servers see no lost clients.

Invariants:
    - nothing is started, and no file but the lock is written, unless every port is free and the data folder is ours;
    - after `stop`, which leaving the `with` block calls, nothing that we started is left.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from devstack import launch, nats, postgres, valkey
from devstack.errors import PortTaken
from devstack.files import private_folder
from devstack.launch import Identity
from devstack.ready import Check
from devstack.region import Endpoints, Given, Region
from devstack.state import DataFolder, RegionState, StackState
from devstack.supervisor import Keeper, Program, Supervisor, interruptible

SERVER_ROLES = frozenset({postgres.ROLE, nats.ROLE, valkey.ROLE})
_STOP_LIMIT_S = 8.0
_LEFTOVERS_S = 8.0  # a PostgreSQL whose supervisor was killed needs up to 5 s to be gone
_log = logging.getLogger("devstack")
_NONE_GIVEN: Mapping[str, Given] = MappingProxyType({})
_STRAIGHT: Mapping[tuple[str, str], int] = MappingProxyType({})


class Stack:
    """
    Use it as a context manager. All methods but `run_until_stopped` may be called from any thread; none is a coroutine,
    so an asyncio program calls those that wait by `asyncio.to_thread`.

    `given` names servers that run elsewhere, by region. A region whose NATS is given is linked with no other by us.
    `via` is a port by (from, to) through which the region `from` reaches the leaf port of `to`; where both are one region,
    through which its processes reach their NATS. Whoever listens there passes everything on, or does not: to cut links.
    `added` says by (region, role) what a program's environment has beside what it needs, such as a library to preload.
    `identity` is how to run PostgreSQL, which refuses root; None finds out what this machine allows.
    """

    def __init__(
        self,
        *,
        data: Path,
        regions: Sequence[str],
        port_base: int = 8100,
        given: Mapping[str, Given] = _NONE_GIVEN,
        via: Mapping[tuple[str, str], int] = _STRAIGHT,
        added: Callable[[str, str], Mapping[str, str]] | None = None,
        identity: Identity | None = None,
    ) -> None:
        if not regions or len(set(regions)) != len(regions):
            raise ValueError(f"a stack needs one or more different regions, not {list(regions)}")
        if unknown := set(given) - set(regions):
            raise ValueError(f"servers are given for {sorted(unknown)}, which are not among the regions")
        self.data = data.resolve()
        self.regions = tuple(
            Region(
                name=name,
                index=i,
                data=self.data,
                port_base=port_base,
                given=given.get(name, Given()),
                via={there: port for (here, there), port in via.items() if here == name},
            )
            for i, name in enumerate(regions)
        )
        self.supervisor = Supervisor()
        self._added = added
        self._identity = identity
        self._folder: DataFolder | None = None
        self._endpoints: dict[str, Endpoints] = {}
        self._written: dict[tuple[str, str], int] | None = None
        self._writing = threading.Lock()
        self._scribe = threading.Thread(target=self._keep_state_file, name="devstack/state", daemon=True)
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def endpoints(self, region: str) -> Endpoints:
        """Where a region's servers are. Known after `start_servers`."""
        return self._endpoints[region]

    def start_servers(self, *, timeout_s: float = 120.0) -> None:
        """
        Start the servers of all regions and wait until they answer. Leaf links follow within about a second.

        Raises AlreadyRunning, PortTaken, MissingServer, StartFailed.
        """
        self._folder = DataFolder(self.data)
        self._check_ports(patience_s=_LEFTOVERS_S if self._folder.after_a_crash else 0.0)
        programs = self._server_programs()
        self._endpoints = {region.name: region.endpoints() for region in self.regions}
        for program in programs:
            self.supervisor.add(self._with_added(program))
        self._scribe.start()
        self.wait_ready(timeout_s=timeout_s)

    def start_process(
        self,
        *,
        region: str,
        role: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Check | None = None,
    ) -> None:
        """
        Start a process and keep it running; its output goes to `log(region, role)`. Does not wait: see `wait_ready`.

        `env` is the whole environment, None ours. It is stopped by SIGTERM and must end within 8 s.
        """
        if role in SERVER_ROLES:
            raise ValueError(f"{role} is a server's role")
        program = Program(
            region=region, role=role, argv=argv, env=env, cwd=cwd, ready=ready, log=self.log(region, role)
        )
        self.supervisor.add(
            self._with_added(program),
            after=[keeper for keeper in self._servers() if keeper.program.region == region],
        )

    def wait_ready(self, *, timeout_s: float = 180.0) -> None:
        """Wait until all servers and processes are ready. Raises StartFailed, with the end of the log."""
        self.supervisor.wait_ready(timeout_s)
        self._write_state()

    def run_until_stopped(self) -> None:
        """Block until SIGINT, SIGTERM or SIGHUP, then stop. For the main thread."""
        with interruptible():
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                self.stop()

    def stop(self) -> None:
        """Stop processes, then servers. Harmless when repeated. A second Ctrl-C while it waits kills what is left."""
        if self._stopped:
            return
        self._stopped = True
        servers = self._servers()
        processes = [keeper for keeper in self.supervisor.keepers() if keeper not in servers]
        try:
            self.supervisor.stop([processes, servers], limit_s=_STOP_LIMIT_S)
        finally:
            with self.supervisor.changed:
                self.supervisor.changed.notify_all()
            if self._scribe.is_alive():
                self._scribe.join()
            with self._writing:
                if self._folder:
                    self._folder.release()

    def log(self, region: str, role: str) -> Path:
        return self._region(region).logs / f"{role}.log"

    def pids(self) -> dict[tuple[str, str], int]:
        """(region, role) → pid of everything that runs at this moment."""
        with self.supervisor.changed:
            found = {(k.program.region, k.program.role): k.pid for k in self.supervisor.keepers()}
        return {key: pid for key, pid in found.items() if pid is not None}

    def send(self, region: str, role: str, number: signal.Signals) -> int:
        """Signal a program, for example SIGSTOP as a fault, which it then has obeyed. Returns its pid."""
        pid = self.supervisor[region, role].send(number)
        if pid is None:
            raise ProcessLookupError(f"{role} of region {region} is not running")
        return pid

    def kill(self, region: str, role: str) -> int:
        """Kill it with -9, as a fault. Returns when the death has been noticed, with the pid; it will be started again."""
        pid = self.send(region, role, signal.SIGKILL)
        keeper = self.supervisor[region, role]
        self._wait(lambda: keeper.pid != pid, f"{role} of region {region} to end", timeout_s=60.0)
        return pid

    @contextlib.contextmanager
    def down(self, region: str, role: str, *, sent: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """Within, a program is ended and not started again, so that something may be done to its files."""
        keeper = self.supervisor[region, role]
        keeper.hold()
        try:
            keeper.send(sent)
            self._wait(lambda: keeper.pid is None, f"{role} of region {region} to end", timeout_s=60.0)
            yield
        finally:
            keeper.release()

    def wait_restarted(self, region: str, role: str, *, timeout_s: float = 100.0) -> int:
        """After `kill`: wait until the program is ready again. Returns the new pid."""
        keeper = self.supervisor[region, role]
        self._wait(lambda: keeper.ready, f"{role} of region {region} to be ready again", timeout_s)
        pid = keeper.pid
        if pid is None:
            raise ProcessLookupError(f"{role} of region {region} ended again")
        self._write_state()
        return pid

    def _with_added(self, program: Program) -> Program:
        added = self._added(program.region, program.role) if self._added else {}
        if not added:
            return program
        if program.env is None:
            raise ValueError(f"{program.role} of {program.region} has our own environment, to which nothing is added")
        return replace(program, env={**program.env, **added})

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        with self.supervisor.changed:
            if not self.supervisor.changed.wait_for(condition, timeout_s):
                raise TimeoutError(f"waited {timeout_s:g} s for {what}")

    def _region(self, name: str) -> Region:
        for region in self.regions:
            if region.name == name:
                return region
        raise KeyError(f"no region {name} in this stack")

    def _servers(self) -> list[Keeper]:
        return [keeper for keeper in self.supervisor.keepers() if keeper.program.role in SERVER_ROLES]

    def _server_programs(self) -> list[Program]:
        """Makes folders, passwords and configurations on the way."""
        for region in self.regions:
            region.folder.mkdir(exist_ok=True)
            for name in ("postgres", "nats", "valkey", "logs"):
                private_folder(region.folder / name)
        identity = self._identity or launch.server_identity()
        linked = [region for region in self.regions if not region.given.nats]
        programs = []
        for region in self.regions:
            if not region.given.postgres:
                programs.append(postgres.program(region, identity))
            if not region.given.nats:
                programs.append(nats.program(region, [other for other in linked if other is not region]))
            if not region.given.redis:
                programs.append(valkey.program(region))
        return programs

    def _check_ports(self, *, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        for region in self.regions:
            for port, purpose in region.wanted_ports().items():
                while not is_free(port):
                    if time.monotonic() > deadline:
                        raise PortTaken(port, purpose)
                    time.sleep(0.05)

    def _keep_state_file(self) -> None:
        while not self._stopped:
            self._write_state()
            with self.supervisor.changed:
                self.supervisor.changed.wait_for(lambda: self._stopped or self.pids() != self._written)

    def _write_state(self) -> None:
        """Write the state if it has changed. A full disk hurts nobody but the readers of this file."""
        with self._writing:
            pids = self.pids()
            if pids == self._written or self._stopped or not self._folder:
                return
            try:
                self._folder.write(self._state(pids))
            except OSError as error:
                _log.warning("cannot write the state file: %s", error)
            self._written = pids

    def _state(self, pids: Mapping[tuple[str, str], int]) -> StackState:
        regions = [
            RegionState(
                name=name,
                api=at.api,
                postgres=at.postgres,
                nats=at.nats,
                redis=at.redis,
                processes=[{"role": role, "pid": pid} for (region, role), pid in pids.items() if region == name],
            )
            for name, at in self._endpoints.items()
        ]
        return StackState(regions=regions, supervisor=os.getpid())


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT hinder no server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
