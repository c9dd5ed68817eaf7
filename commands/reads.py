"""
Recording who reads: at most one event a second for each reader, however many requests there are.

The first read is recorded at once. Those that come within the next second wait, and are recorded together in one event. A
*bulk* read (a log, file by file) is recorded once for COVERS_SECONDS: its next files are let through by that record.

Invariants:
    - `record` returns only when the read stands in the log, so an answer that follows it has left its trace;
    - two events of one reader are at least GAP_SECONDS apart (as far as one process knows);
    - at most READS_MAX reads of a reader wait: whoever comes then is refused, and nothing is recorded of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec

from access.policy import Principal
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain import reads
from domain.errors import Invalid, Rejected
from domain.kernel import uuid7_texts
from domain.reads import QUERY_CHARACTERS_MAX, READS_MAX, Read

GAP_SECONDS = 1.0
COVERS_SECONDS = 60.0


class TooManyReads(Rejected):
    code = "too_many_reads"
    title = "More reads are asked for than are recorded in a second; ask again a little later"


class Recorded(msgspec.Struct, frozen=True):
    """How many reads were recorded together."""

    reads: int


def read_of(what: str, **query: object) -> Read:
    """A read, as it is recorded: parameters that were not given (None) are left out. Raises Invalid if they are too long."""
    text = urlencode({name: value for name, value in query.items() if value is not None})
    if len(text) > QUERY_CHARACTERS_MAX:
        raise Invalid(f"the parameters have more than {QUERY_CHARACTERS_MAX} characters, which is not recorded")
    return Read(what, text)


def record(log: str, principal: Principal, made: Sequence[Read], now: datetime) -> Plan:
    """Record what the principal reads. Each call describes another command."""
    key = uuid7_texts(now, os.urandom(10))[0]
    return Plan(
        Context(principal, now, command_id(principal.actor, f"reads\n{key}"), None),
        require=(),
        writes={"state": reads.stream(log, principal.actor)},
        decision=lambda _at, state: reads.record(state, made=made),
        answer=lambda _facts: Recorded(len(made)),
    )


class _Reader:
    """What is under way for one reader. A future's result is the time until which a bulk read is good."""

    __slots__ = ("bulk", "free_at", "task", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Read, asyncio.Future[float]]] = deque()
        self.bulk: dict[Read, asyncio.Future[float]] = {}
        self.free_at = 0.0
        self.task: asyncio.Task[None] | None = None


class Recorder:
    """Records reads of all readers in the log `log`. `monotonic` gives seconds; `sleep` waits that many."""

    def __init__(
        self,
        log: str,
        decide: Callable[[Plan], Awaitable[Receipt]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.log = log
        self._decide = decide
        self._monotonic = monotonic
        self._sleep = sleep
        self._now = now
        self._readers: dict[str, _Reader] = {}

    async def record(self, principal: Principal, read: Read, *, bulk: bool = False) -> None:
        """Return once the read stands in the log. Raises TooManyReads, and what the decider raises."""
        reader = self._readers.setdefault(principal.actor, _Reader())
        future = self._known(reader, read) if bulk else None
        if future is None:
            if len(reader.waiting) >= READS_MAX:
                raise TooManyReads
            future = asyncio.get_running_loop().create_future()
            reader.waiting.append((read, future))
            if bulk:
                reader.bulk[read] = future
            if reader.task is None:
                reader.task = asyncio.create_task(self._work(principal, reader))
        await asyncio.shield(future)

    def _known(self, reader: _Reader, read: Read) -> asyncio.Future[float] | None:
        """The same bulk read that waits, or was recorded not long ago."""
        now = self._monotonic()
        for each, future in list(reader.bulk.items()):
            if future.done() and (future.exception() is not None or future.result() <= now):
                del reader.bulk[each]
        return reader.bulk.get(read)

    async def _work(self, principal: Principal, reader: _Reader) -> None:
        """Record what waits, an event at a time, until nothing does."""
        while reader.waiting:
            while (left := reader.free_at - self._monotonic()) > 0:
                await self._sleep(left)
            part = [reader.waiting.popleft() for _ in range(min(len(reader.waiting), READS_MAX))]
            try:
                await self._decide(record(self.log, principal, [read for read, _ in part], self._now()))
            except Exception as error:  # noqa: BLE001 — raised again by whoever waits
                for _, future in part:
                    future.set_exception(error)
            else:
                for _, future in part:
                    future.set_result(self._monotonic() + COVERS_SECONDS)
            reader.free_at = self._monotonic() + GAP_SECONDS
        reader.task = None
