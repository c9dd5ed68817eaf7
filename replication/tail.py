"""
Reads the own log to its end as frames: as full as what is there allows, cut at whole commands.

Rows that were read but do not fill a frame, or end within a command, wait here for the rest.
"""

from replication import store
from replication.errors import Interrupted
from replication.frame import ENTRY_OVERHEAD, FRAME_BYTES_MAX, Frame, Row, fill
from replication.store import Connection, Log

_ROWS_MIN, _ROWS_MAX = 64, 4096


class Tail:
    """The log after a position, at which a command ended. `leaf` is that position's."""

    def __init__(self, connection: Connection, log: Log, position: int, leaf: bytes) -> None:
        self.position = position  # of the last entry handed out
        self._leaf = leaf
        self._connection = connection
        self._log = log
        self._rows: list[Row] = []
        self._bytes = 0
        self._entry_bytes = 512.0  # a running average

    @property
    def _read(self) -> int:
        """The position up to which the log has been read."""
        return self.position + len(self._rows)

    def waiting_bytes(self, end: int) -> float:
        """About how much there is to send if the log ends at `end`."""
        return self._bytes + max(0, end - self._read) * self._entry_bytes

    async def next_frame(self, end: int) -> Frame | None:
        """The next frame of the log, which goes to `end` at least; None if there is nothing to send."""
        while self._read < end and self._bytes < FRAME_BYTES_MAX:
            wanted = int((FRAME_BYTES_MAX - self._bytes) / self._entry_bytes) + 1
            limit = min(max(wanted, _ROWS_MIN), _ROWS_MAX)
            rows = await store.rows(self._connection, self._log, self._read, limit)
            if not rows:
                break
            self._take(rows)
        frame = fill(self.position + 1, self._leaf, self._rows)
        if frame is not None:
            self.position, self._leaf = frame.last, frame.leaves[-1]
            del self._rows[: len(frame)]
            self._bytes -= sum(map(len, frame.bodies)) + ENTRY_OVERHEAD * len(frame)
        return frame

    def _take(self, rows: list[Row]) -> None:
        size = sum(len(body) for _, _, body in rows) + ENTRY_OVERHEAD * len(rows)
        self._rows += rows
        self._bytes += size
        self._entry_bytes += 0.2 * (size / len(rows) - self._entry_bytes)


async def one_frame(connection: Connection, log: Log, first: int, last: int) -> Frame | None:
    """
    One frame of the entries from `first`, at which a command must begin, to at most `last`; None if there are none.

    Raises FrameError if no command begins at `first`, or the first one ends beyond `last`.
    """
    before = await store.leaves(connection, log, range(first - 1, first))
    if not before:
        return None
    limit = _ROWS_MIN
    while True:
        limit = min(limit, last - first + 1)
        rows = await store.rows(connection, log, first - 1, limit)
        size = sum(len(body) for _, _, body in rows) + ENTRY_OVERHEAD * len(rows)
        if size >= FRAME_BYTES_MAX or len(rows) < limit or limit == last - first + 1:
            break
        limit = max(2 * limit, int(1.1 * limit * FRAME_BYTES_MAX / size))
    if not rows:
        return None
    frame = fill(first, before[0], rows)
    if frame is None:
        raise Interrupted(f"the command at position {first} does not end before {last}")
    return frame
