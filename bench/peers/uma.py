"""
UmaDB (PyPI `umadb`): a server of its own, written for conditional appends, and its synchronous client in 32 threads.

An append fails if an event with the stream's tag stands after the position that the decision saw, which is how UmaDB wants a
consistency boundary to be drawn. It is as durable as it comes: the server makes each batch of appends durable by fdatasync before
it answers. Its --pipelined-writer is left out: with it, reads beside appends failed at times with CorruptionError (0.7.8). States are kept in memory, and a stream's last event is read only if its state is not there.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from bench.peers import Clock, Load, Round, cuts, packages
from bench.servers import Servers

VERSION = "0.7.8"
SHA256 = (
    "2a0762ee7645af12030aec1e965787ade25676493c2bf2018dbeb38c552a4978",
    "87192d507fe66cb19fd1858101bc34df3607c6f929b7abeb8a62fd8a36f54c8a",
    "9dbd839a22478215749931ef71099d8d21ad58850d47e1430a8f82fcb3c1cd27",
    "af94f680ebd2562223de45957d999601aff0a4128734a0ab3a251769a3d49677",
    "dd0ba1edfb0c692234804a4b04cf70908bb48a337318a4c6c7a6ef9edb31fbc0",
    "fd5d7c74a7504b395f33161e78aba36c7f681b010b447ba72ea5e6550a7cc49c",
    "fea90149a6fdd474c369a8efe45cd861bce2f1478d0048f0f20b1ccb9a76eb15",
)
THREADS = 32
_FILL_BATCH = 2_000
_SERVE = "import sys; sys.path.insert(0, sys.argv.pop(1)); import umadb; umadb.run_server_from_args(['umadb', *sys.argv[1:]])"


class Uma:
    """A server as it comes, and its clients."""

    name = "umadb"

    @asynccontextmanager
    async def open(self, servers: Servers, load: Load) -> AsyncIterator[Clock]:
        package = await asyncio.to_thread(packages.from_pypi, "umadb", VERSION, SHA256)
        address = ("127.0.0.1", servers.port)
        listen, data = f"127.0.0.1:{servers.port}", str(servers.folder / "uma.db")
        argv = [sys.executable, "-c", _SERVE, str(package), "--listen", listen, "--db-path", data]
        servers.start("umadb", argv, env={}, ready=lambda: _answers(address))
        application = _Application(_imported(str(package)), f"http://{listen}", load)
        await asyncio.to_thread(application.fill, load.events)
        yield application.round


def _answers(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=1):
        return True


def _imported(folder: str) -> Any:
    """The package, without the handler that it installs for Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    sys.path.append(folder)
    try:
        return importlib.import_module("umadb")
    finally:
        sys.path.remove(folder)
        signal.signal(signal.SIGINT, handler)


def _envelope() -> dict[str, str]:
    return {"envelope": cuts.metadata().decode()}


class _Application:
    """What serves the clients. They share one connection, which was faster than one for each thread."""

    def __init__(self, umadb: Any, url: str, load: Load) -> None:
        self._umadb = umadb
        self._client = umadb.Client(url)
        self._tags = [f"limits-{uuid.uuid4()}" for _ in range(load.players)]
        self._states = cuts.States()
        self._lock = threading.Lock()

    def fill(self, events: int) -> None:
        umadb, client = self._umadb, self._client
        for event in range(1, events + 1):
            data = cuts.data(cuts.nth(event))
            for start in range(0, len(self._tags), _FILL_BATCH):
                tags = self._tags[start : start + _FILL_BATCH]
                client.append([umadb.Event("LimitSet", data, [tag], uuid.uuid4(), _envelope()) for tag in tags])

    def command(self, player: int, asked: bytes) -> bytes:
        """The task. A state's version is the position up to which the log was seen."""
        umadb, tag = self._umadb, self._tags[player]
        query = umadb.Query([umadb.QueryItem(tags=[tag])])
        with self._lock:
            state = self._states.get(player)
        if state is None:
            (last,) = self._client.read(query, backwards=True, limit=1)
            state = cuts.State(cuts.limit_in(bytes(last.event.data)), last.position)
        event = cuts.decide(state, asked)
        answer = cuts.data(event)
        made = umadb.Event("LimitSet", answer, [tag], uuid.uuid4(), _envelope())
        position = self._client.append([made], umadb.AppendCondition(query, state.version))
        with self._lock:
            self._states.keep(player, cuts.State(event.limit.amount, position))
        return answer

    async def round(self, seconds: float) -> Round:
        return await asyncio.to_thread(self._round, seconds)

    def _round(self, seconds: float) -> Round:
        latencies: list[list[float]] = [[] for _ in range(THREADS)]
        began = time.perf_counter()
        end = began + seconds

        def work(n: int) -> None:
            mine = range(n, len(self._tags), THREADS)
            while (asked := time.perf_counter()) < end:
                self.command(random.choice(mine), cuts.request())
                latencies[n].append(time.perf_counter() - asked)

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work, range(THREADS)))
        done = [latency for each in latencies for latency in each]
        return Round(len(done), time.perf_counter() - began, done)
