"""
Who competes: our log, other event stores, and a bare INSERT. A module for each, all with the same task.

The task: a player's deposit limit is cut once more. A request in JSON is read, the decision is taken from the state of the
stream (a higher limit is refused), one event that says what, who and on whose command is made durable on the condition that the stream has not
moved, the answer is encoded. A command counts when its commit is known, and each player is used by one client only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from bench.servers import Servers

CLIENTS = 64
CACHED_STATES = 50_000
"""How many streams' states a contender keeps in memory; as many as our decider does."""


class Load(NamedTuple):
    """What stands in the store before the clock starts: streams of limits, and events in each."""

    players: int
    events: int


class Round(NamedTuple):
    """Commands done, in how many seconds, and how long each took (empty where nobody waits for a single one)."""

    commands: int
    seconds: float
    latencies: list[float]

    @property
    def per_s(self) -> float:
        return self.commands / self.seconds


Clock = Callable[[float], Awaitable[Round]]
"""Runs the task over and over for so many seconds."""


class Peer(Protocol):
    """One way to do the task."""

    @property
    def name(self) -> str: ...

    def open(self, servers: Servers, load: Load) -> AbstractAsyncContextManager[Clock]:
        """Prepare the store and fill it. Raises bench.servers.Missing if this machine cannot run it."""
        ...
