"""
The regions that run, as faults see them: processes by region and role, links, frames and disks between and below them.

Roles are those of app.local (`api`, `projector`, `reactor`, `relay+applier`, `checkpointer+witness`, `custodian`) and of the servers
(`postgres`, `nats`, `valkey`). A signal goes to a process and all that descends from it: a frozen PostgreSQL has no backend that runs.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

import psycopg

from app import local
from app.local import Local
from chaos.frames import Frames
from chaos.links import Links
from chaos.schedule import SERVERS
from chaos.shim import Shim, built
from devstack import PortTaken
from devstack.memory import family
from devstack.region import PORTS_PER_REGION
from devstack.stack import is_free
from devstack.supervisor import Keeper

REGIONS = ("eu", "us", "ap", "sa")
BACK_S = 90.0  # a process that is killed is ready again, on a machine that does much else
_PORTS = range(12_000, 30_000)  # below those that Linux gives to outgoing connections
_NATS, _LEAF = 2, 3  # devstack.region
_THIS_RELEASE: Mapping[str, Path] = MappingProxyType({})


class Site:
    """`folder` holds the regions' data, logs and what a run says; `history` is the load's record, once there is a load."""

    def __init__(self, running: Local, folder: Path, *, links: Links, frames: Frames, shim: Shim, seed: int) -> None:
        self.local = running
        self.folder = folder
        self.links = links
        self.frames = frames
        self.shim = shim
        self.seed = seed
        self.regions = list(running.settings)
        self.history: Path | None = None
        self.checkouts: dict[str, Path] = {}  # of the regions that run another release (releases)
        self._began = time.monotonic()
        self._frozen: set[tuple[str, str]] = set()
        self._saying = threading.Lock()

    def pids(self) -> dict[tuple[str, str], int]:
        """(region, role) → pid of everything that runs at this moment."""
        return self.local.stack.pids()

    @property
    def roles(self) -> list[str]:
        return [keeper.program.role for keeper in self._keepers() if keeper.program.region == self.regions[0]]

    def kill(self, region: str, role: str) -> None:
        """Kill -9, and wait until it is ready again. Raises TimeoutError."""
        self.local.stack.kill(region, role)
        self.await_ready(region, role)

    def stop(self, region: str, role: str) -> None:
        """Freeze it by SIGSTOP, with all that descends from it. The parent first, so that it makes no more children."""
        pid = self.local.stack.send(region, role, signal.SIGSTOP)
        self._frozen.add((region, role))
        _signal(family([pid]) - {pid}, signal.SIGSTOP)

    def cont(self, region: str, role: str) -> None:
        self._frozen.discard((region, role))
        pid = self.pids().get((region, role))
        if pid is not None:
            _signal(family([pid]) - {pid}, signal.SIGCONT)
            _signal([pid], signal.SIGCONT)

    def restart(self, region: str, role: str, sent: signal.Signals | None = None) -> None:
        """Stop it in its own way (or by another signal) and wait until it is ready again. Raises TimeoutError."""
        program = self.local.stack.supervisor[region, role].program
        with self.down(region, role, sent=sent or program.stop_signal):
            pass

    @contextmanager
    def down(self, region: str, role: str, *, sent: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """Within, it is ended and not started again, so that something may be done to its files. Afterwards it is ready."""
        with self.local.stack.down(region, role, sent=sent):
            yield
        self.await_ready(region, role)

    @contextmanager
    def all_down(self) -> Iterator[None]:
        """Within, nothing of any region runs: all of it was killed -9 at once. Afterwards all is ready."""
        keepers = self._keepers()
        with ExitStack() as held:
            for keeper in keepers:
                keeper.hold()
                held.callback(keeper.release)
            _signal(family(self.pids().values()), signal.SIGKILL)
            for keeper in keepers:
                with contextlib.suppress(KeyError):  # it ended before
                    held.enter_context(self.local.stack.down(keeper.program.region, keeper.program.role))
            yield
        self.await_all_ready()

    def await_ready(self, region: str, role: str, timeout_s: float = BACK_S) -> None:
        """Raises TimeoutError."""
        self.local.stack.wait_restarted(region, role, timeout_s=timeout_s)

    def await_all_ready(self, timeout_s: float = 2 * BACK_S) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        for keeper in self._keepers():
            self.await_ready(keeper.program.region, keeper.program.role, max(0.0, end - time.monotonic()))

    def heal(self) -> None:
        """Take back whatever holds something back: frozen processes, links, frames, disks, clocks."""
        for region, role in list(self._frozen):
            self.cont(region, role)
        self.links.heal_all()
        for region in self.regions:
            self.frames.disarm(region)
        self.shim.reset()

    def postgres(self, region: str) -> psycopg.Connection:
        """As its administrator, autocommit, straight to the database."""
        return psycopg.connect(self.local.settings[region].postgres, autocommit=True, connect_timeout=10)

    def processes(self, *, servers: Sequence[str] = ()) -> list[str]:
        """The roles of our own processes, and of these servers."""
        return [role for role in self.roles if role not in SERVERS or role in servers]

    def log(self, line: str) -> None:
        """Say it, with the seconds since the regions run."""
        told = f"{time.monotonic() - self._began:7.1f} s  {line}\n"
        with self._saying:
            sys.stderr.write(told)
            sys.stderr.flush()
            with (self.folder / "chaos.log").open("a") as file:
                file.write(told)

    def _keepers(self) -> list[Keeper]:
        return self.local.stack.supervisor.keepers()


@contextmanager
def running_site(
    folder: Path,
    *,
    seed: int,
    regions: Sequence[str] = REGIONS[:2],
    checkouts: Mapping[str, Path] = _THIS_RELEASE,
    ports: range = _PORTS,
) -> Iterator[Site]:
    """Start the regions with their data in `folder`/data, on free ports; whatever a fault holds back is healed before they are stopped.

    `checkouts`: of another release, by the region that begins with it (`releases.older`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(5):
        with ExitStack() as stack:
            base = _free_base(len(regions), ports)
            links, frames, shim = Links(), Frames(seed), stack.enter_context(built())
            stack.callback(links.stop)
            stack.callback(frames.stop)
            links.start(regions, {name: _port(base, at, _LEAF) for at, name in enumerate(regions)})
            frames.start({name: _port(base, at, _NATS) for at, name in enumerate(regions)})
            try:
                running = stack.enter_context(
                    local.running(
                        folder / "data",
                        regions,
                        base,
                        via=links.via | frames.via,
                        added=shim.environment,
                        checkouts=checkouts,
                    )
                )
            except PortTaken:  # somebody was faster
                continue
            site = Site(running, folder, links=links, frames=frames, shim=shim, seed=seed)
            site.checkouts.update(checkouts)
            stack.callback(site.heal)
            yield site
            return
    raise RuntimeError("found no free ports")


def _free_base(regions: int, ports: range) -> int:
    chance = random.Random()  # ports are no part of what a seed repeats
    while True:
        base = chance.randrange(ports.start, ports.stop - PORTS_PER_REGION * regions)
        if all(is_free(_port(base, at, port)) for at in range(regions) for port in range(5)):
            return base


def _port(base: int, at: int, port: int) -> int:
    return base + PORTS_PER_REGION * at + port


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
