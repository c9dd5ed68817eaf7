"""The import: a file is read, and its batches are sent, several at a time; the first error stops all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from app import sending
from app.cdnow.batches import Batch, batches
from app.cdnow.history import parse
from app.cdnow.stopped import ItemRefused, MalformedLine
from app.sending import PATIENCE_S, ImportStopped, Progress, Result, Sender, Silent

IN_FLIGHT = 4


class Imported(msgspec.Struct, frozen=True):
    """
    What the ledger holds of the file. `amount` in minor units.

    `repeated`: how many of these players and deposits it held before they were sent (for the last time: a command that was
    sent again because its answer got lost counts here).
    """

    players: int
    deposits: int
    skipped: int
    amount: dict[str, int]
    repeated: int
    seconds: float

    @property
    def new(self) -> int:
        return self.players + self.deposits - self.repeated


async def import_cdnow(
    path: Path, url: str, token: str, *, progress: Progress | None = None, patience_s: float = PATIENCE_S
) -> Imported:
    """
    Import a file into the region whose API is at `url`. Needs a token with the import permission.

    A batch that is not answered is sent again for `patience_s`. Raises ImportStopped.
    """
    started = time.monotonic()
    try:
        history = parse(await asyncio.to_thread(path.read_bytes))
    except OSError as error:
        raise ImportStopped(f"{path} cannot be read: {error.strerror}") from None
    except MalformedLine as error:
        error.args = (f"{path.name}, {error}",)
        raise
    progress = progress or Silent()
    progress.start(len(history.customers) + history.lines - history.skipped)
    try:
        async with sending.to(url, token, progress, patience_s) as sender:
            counted = _Count()
            await _send_all(sender, batches(history), counted, progress)
    finally:
        progress.stop()
    return Imported(
        players=counted.players,
        deposits=counted.deposits,
        skipped=history.skipped,
        amount={"USD": counted.cents},
        repeated=counted.repeated,
        seconds=round(time.monotonic() - started, 3),
    )


class _Count:
    """What the ledger holds of what was sent."""

    def __init__(self) -> None:
        self.players = self.deposits = self.cents = self.repeated = 0

    def add(self, batch: Batch, results: Sequence[Result]) -> int:
        """How many of a batch's items are counted here. Raises ItemRefused."""
        counted = 0
        for item, result in zip(batch.items, results, strict=True):
            if result.refused:
                problem = result.problem()
                raise ItemRefused(item.line, problem.detail or problem.title, problem.code)
            if not item.counted:
                continue
            counted += 1
            if item.cents:
                self.deposits += 1
                self.cents += item.cents
            else:
                self.players += 1
            self.repeated += result.repeated
        return counted


async def _send_all(sender: Sender, waiting: Iterator[Batch], count: _Count, progress: Progress) -> None:
    async def worker() -> None:
        for batch in waiting:
            results = await sender.send(batch.body, len(batch.items))
            progress.advance(count.add(batch, results))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
    except ExceptionGroup as errors:  # not except*: Python 3.11.2 wraps what is raised there in a group again
        stopped, others = errors.split(ImportStopped)
        if stopped is None or others is not None:
            raise
        raise _first(stopped) from None


def _first(errors: BaseExceptionGroup[ImportStopped]) -> ImportStopped:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
