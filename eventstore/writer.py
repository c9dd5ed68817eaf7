"""
Natural group commit: while one batch commits, the next gathers; nobody lingers.

A batch takes half of the callers that are under way, so that the database commits for one half while this process decides
for the other; without that all callers fall into step, and the two take turns.

Invariants:
    - a batch holds no command whose streams another command of it writes: that one waits for the next batch, in order;
    - a command is answered after its commit; after a lost connection the same batch is sent again, which the command ids
      make harmless, so no acknowledged command is lost and none counts twice;
    - a malformed command fails alone: its batch is sent again one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import psycopg
import structlog

from eventstore.log import Command, Log, Malformed, Outcome, TooLarge, refuse_oversize

BATCH_COMMANDS_MAX = 500
BATCH_BYTES_MAX = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


class Unavailable(Exception):
    """The log cannot be written, and nothing was appended: send it again."""


class Uncertain(Unavailable):
    """The command may have been appended. Sent again, it says so, and has one effect."""


class _Call:
    """One caller's commands, whose outcomes come from one batch or several."""

    __slots__ = ("done", "missing", "outcomes")

    def __init__(self, length: int) -> None:
        self.outcomes: list[Outcome | Malformed | None] = [None] * length
        self.missing = length
        self.done: asyncio.Future[list[Outcome | Malformed]] = asyncio.get_running_loop().create_future()

    def settle(self, place: int, outcome: Outcome | Malformed) -> None:
        self.outcomes[place] = outcome
        self.missing -= 1
        if self.missing == 0 and not self.done.done():
            self.done.set_result(self.outcomes)  # type: ignore[arg-type]

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Queued(msgspec.Struct, frozen=True):
    command: Command
    call: _Call
    place: int


class Writer:
    """Appends commands of many tasks to one log. Run `run()` as a task; `close()` lets what is queued finish.

    `appended` is told of each batch that was committed, and in how many seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Log]],
        *,
        give_up_seconds: float = 20.0,
        appended: Callable[[Sequence[Command], float], None] = lambda _commands, _seconds: None,
    ) -> None:
        self._connect = connect
        self._give_up_seconds = give_up_seconds
        self._appended = appended
        self._log: Log | None = None
        self._queue: deque[_Queued] = deque()
        self._under_way = 0
        self._wake = asyncio.Event()
        self._closed = False

    async def append(self, commands: Sequence[Command]) -> list[Outcome | Malformed]:
        """Append commands that do not depend on one another; see eventstore.log.Log.append. Raises Unavailable, Uncertain.

        What is malformed fails alone: its outcome says why.
        """
        if self._closed:
            raise Unavailable("the writer is closing")
        if not commands:
            return []
        call = _Call(len(commands))
        for place, command in enumerate(commands):
            try:
                refuse_oversize(command)
            except TooLarge as error:
                call.settle(place, error)
            else:
                self._queue.append(_Queued(command, call, place))
        self._wake.set()
        return await call.done

    async def run(self) -> None:
        """Returns once closed and done. If it ends in any other way, everybody who waits hears Unavailable."""
        batch: list[_Queued] = []
        try:
            while not (self._closed and not self._queue):
                if self._queue:
                    batch = self._take()
                    await self._commit(batch)
                    self._count_under_way(batch)
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            self._closed = True
            for item in batch:
                item.call.fail(Uncertain("the writer has ended"))
            for item in self._queue:
                item.call.fail(Unavailable("the writer has ended"))

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _take(self) -> list[_Queued]:
        """The next independent commands. One that must wait holds back later ones on its streams, so order is kept."""
        batch: list[_Queued] = []
        later: list[_Queued] = []
        written: set[str] = set()
        read: set[str] = set()
        ids: set[bytes] = set()
        size = 0
        callers: set[_Call] = set()
        half = (max(self._under_way, len({item.call for item in self._queue})) + 1) // 2
        while self._queue and len(batch) < BATCH_COMMANDS_MAX and size < BATCH_BYTES_MAX:
            if self._queue[0].call not in callers and len(callers) == half:
                break
            item = self._queue.popleft()
            callers.add(item.call)
            command = item.command
            writes, reads = command.writes, [stream for stream, _ in command.reads]
            waits = (
                command.id in ids
                or not (written.isdisjoint(writes) and read.isdisjoint(writes))
                or not written.isdisjoint(reads)
            )
            written |= writes
            read.update(reads)
            ids.add(command.id)
            if waits:
                later.append(item)
            else:
                batch.append(item)
                size += sum(map(len, command.bodies))
        self._queue.extendleft(reversed(later))
        return batch

    def _count_under_way(self, batch: list[_Queued]) -> None:
        self._under_way = len({item.call for item in batch} | {item.call for item in self._queue})

    async def _commit(self, batch: list[_Queued]) -> None:
        try:
            outcomes = await self._append([item.command for item in batch])
        except Malformed as error:
            if len(batch) == 1:
                batch[0].call.settle(batch[0].place, error)
            else:
                for item in batch:
                    await self._commit([item])
        except Unavailable as error:
            for item in batch:
                item.call.fail(error)
        else:
            for item, outcome in zip(batch, outcomes, strict=True):
                item.call.settle(item.place, outcome)

    async def _append(self, commands: list[Command]) -> list[Outcome]:
        """Send a batch until it is answered. Raises Unavailable when that takes too long, Uncertain if it may have been appended by then."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._give_up_seconds
        pause = 0.05
        is_uncertain = False
        while True:
            is_sent = False
            try:
                if self._log is None:
                    self._log = await self._connect()
                began, is_sent = time.perf_counter(), True
                outcomes = await self._log.append(commands)
            except (psycopg.Error, OSError) as error:
                is_uncertain |= is_sent and not _is_refusal(error)
                await self._leave()  # and send the same again: looking could not tell «not yet» from «never»
                if loop.time() > give_up:
                    kind = Uncertain if is_uncertain else Unavailable
                    raise kind(f"no answer from the log for {self._give_up_seconds:.0f} s: {error}") from error
                _log.warning("append is sent again", error=str(error).strip(), commands=len(commands))
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)
            else:
                self._appended(commands, time.perf_counter() - began)
                return outcomes

    async def _leave(self) -> None:
        """Close the connection: PostgreSQL has a hundred, and a log that may not be written is asked every second."""
        log, self._log = self._log, None
        if log is not None:
            with suppress(psycopg.Error, OSError):
                await log.close()


def _is_refusal(error: Exception) -> bool:
    """Whether PostgreSQL itself has said that the transaction failed. (FATAL ends a connection, and may come after a commit.)"""
    return isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized == "ERROR"
