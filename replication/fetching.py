"""
Fetching a long stretch of a log by ranges: what is asked for next is under way while the last answer is being committed.

Invariants:
    - frames come one directly after another, each well-formed and right in itself;
    - an answer that is not is asked for again: only one that is wrong twice in the same way is what the other side says;
    - no more than AHEAD answers wait in memory;
    - whoever stops taking, for whatever reason, is not held up by what waits.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from replication.chain import Cursor, verify
from replication.errors import Broken, Interrupted, Mismatch
from replication.frame import Frame, parse
from replication.tasks import cancelled

AHEAD = 4
_ATTEMPTS = 4


class Range(NamedTuple):
    """An answer about a range: a frame, not checked, and the position at which the log ends there."""

    data: bytes
    end: int


Fetch = Callable[[int, int], Awaitable[Range | None]]
"""Entries from one position to at most another, as a frame; None if the log ends before. Raises Interrupted."""


class Piece(NamedTuple):
    """A checked frame, as it came, and the position at which the log ends there."""

    frame: Frame
    data: bytes
    end: int


class Refuted(Exception):
    """What came, and why it cannot be part of the log."""

    def __init__(self, why: Broken, at: Cursor | None, data: bytes) -> None:
        super().__init__(str(why))
        self.why = why
        self.at = at
        self.data = data


def checked(data: bytes, at: Cursor | None) -> Frame:
    """A frame that is well-formed and right in itself. Raises Refuted."""
    try:
        frame = parse(data)
        verify(frame)
    except Broken as why:
        raise Refuted(why, at, data) from why
    return frame


@contextlib.asynccontextmanager
async def pieces(fetch: Fetch, first: int, last: int) -> AsyncIterator[AsyncIterator[Piece]]:
    """From `first` on up to `last`, or as far as the log goes. Iterating raises Refuted, and what `fetch` raises."""
    arrived: asyncio.Queue[Piece | None] = asyncio.Queue(AHEAD)
    fetching = asyncio.create_task(_fetch(fetch, first, last, arrived))
    try:
        yield _taken(arrived, fetching)
    finally:
        await cancelled(fetching)


async def _fetch(fetch: Fetch, first: int, last: int, arrived: asyncio.Queue[Piece | None]) -> None:
    due = first
    try:
        while due <= last and (piece := await _again_if_damaged(fetch, due, last)) is not None:
            due = piece.frame.last + 1
            await arrived.put(piece)
    except Exception:
        await arrived.put(None)
        raise
    await arrived.put(None)  # not after a cancellation: nobody takes any more, and a full queue would stay full


async def _again_if_damaged(fetch: Fetch, due: int, last: int) -> Piece | None:
    """Raises Refuted for an answer that is wrong twice in the same way, Interrupted if it is always wrong in another."""
    before = None
    for _ in range(_ATTEMPTS):
        found = await fetch(due, last)
        if found is None:
            return None
        try:
            return _piece(found, due, last)
        except Refuted as refuted:
            if str(refuted) == before:
                raise
            before = str(refuted)
    raise Interrupted(f"{_ATTEMPTS} answers from position {due} on were damaged, each in its own way: {before}")


def _piece(found: Range, due: int, last: int) -> Piece:
    """Raises Refuted."""
    frame = checked(found.data, None)
    if frame.first != due or frame.last > last:
        why = Mismatch(f"asked for {due} to {last}, was given {frame.first} to {frame.last}", due)
        raise Refuted(why, None, found.data)
    return Piece(frame, found.data, found.end)


async def _taken(arrived: asyncio.Queue[Piece | None], fetching: asyncio.Task[None]) -> AsyncIterator[Piece]:
    while (piece := await arrived.get()) is not None:
        yield piece
    await fetching
