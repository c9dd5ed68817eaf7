"""
Drives reactions, each in its own task, and is patient with what cannot be done now.

Invariants:
    - a fault of one reaction, or of one thing to do, holds up nothing else;
    - what did not come off is tried again later and later, never in a busy loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from eventstore.writer import Unavailable

POLL_S = 1.0
_FIRST = timedelta(seconds=2)
_LONGEST = timedelta(hours=1)
_DOUBLINGS_MAX = 11  # of which the longest pause has made enough

_log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]


class Reaction(Protocol):
    async def step(self) -> None:
        """Do once what can be done now."""


class Patience:
    """When a thing is tried again: 2 s after the first time, then twice as long each time, an hour at most.

    Also after it was done: until the read model shows so, the thing seems to be open still. It is lost with the process,
    which costs another try.
    """

    def __init__(self) -> None:
        self._tries: dict[Hashable, tuple[int, datetime]] = {}

    def is_over(self, thing: Hashable, now: datetime) -> bool:
        """Whether it may be tried (again)."""
        _, again_at = self._tries.get(thing, (0, now))
        return now >= again_at

    def tried(self, thing: Hashable, now: datetime) -> None:
        tries, _ = self._tries.get(thing, (0, now))
        self._tries[thing] = (tries + 1, now + min(_LONGEST, _FIRST * 2 ** min(tries, _DOUBLINGS_MAX)))

    def forget_all_but(self, things: Collection[Hashable]) -> None:
        """What is open no more needs no patience."""
        for thing in self._tries.keys() - set(things):
            del self._tries[thing]


Thing = TypeVar("Thing", bound=Hashable)


class UnderWay(Generic[Thing]):
    """What was begun and goes on beside the next steps: each thing's task. `linger_s`: for how long a step waits for them."""

    def __init__(self, linger_s: float) -> None:
        self._linger_s = linger_s
        self._tasks: dict[Thing, asyncio.Task[None]] = {}

    def __contains__(self, thing: Thing) -> bool:
        return thing in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, thing: Thing, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[thing] = asyncio.create_task(work)

    async def linger(self) -> None:
        """Let what is under way come to its end, but do not wait for what takes its time. Raises what it has raised."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._linger_s)
        done = [thing for thing, task in self._tasks.items() if task.done()]
        await asyncio.gather(*[self._tasks.pop(thing) for thing in done])

    async def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()


async def run(reactions: Mapping[str, Reaction], *, poll_s: float = POLL_S) -> None:
    """Run the reactions until cancelled."""
    async with asyncio.TaskGroup() as group:
        for name, reaction in reactions.items():
            group.create_task(_repeat(name, reaction, poll_s), name=name)


async def _repeat(name: str, reaction: Reaction, poll_s: float) -> None:
    while True:
        pause_s = poll_s
        try:
            await reaction.step()
        except (psycopg.OperationalError, PoolTimeout, Unavailable) as error:
            _log.warning("a reaction waits for PostgreSQL", reaction=name, error=str(error).strip())
            pause_s = max(poll_s, POLL_S)
        except Exception:  # noqa: BLE001 — a fault of one reaction must not stop the others
            _log.exception("a reaction failed; it is tried again", reaction=name)
            pause_s = max(poll_s, POLL_S)
        await asyncio.sleep(pause_s)
