"""
Whether a frame continues the log that is held here: the reason why nobody on the way needs to be trusted.

Everything is recomputed by the verifier's code, which knows nothing of the SQL that checks the same again at the door.

Invariants:
    - what `joined` returns follows the head without a gap, entry by entry, from stored leaf to new leaf;
    - what is already held is compared, never replaced.
"""

from collections.abc import Sequence
from typing import NamedTuple

from replication.errors import Mismatch
from replication.frame import Frame, command_part
from verifier.log import leaf as leaf_of


class Head(NamedTuple):
    """The newest entry of a log; position 0, recorded 0 and the genesis hash before the first."""

    position: int
    recorded: int
    leaf: bytes


class Cursor(NamedTuple):
    """Up to where a stream has been taken. A stream made anew begins its sequence at 1: `created` tells it from the old."""

    created: str
    sequence: int


def verify(frame: Frame) -> None:
    """
    Check a frame in itself: leaves chained from its prev_leaf, times increasing, commands whole.

    Raises Mismatch at the first entry that is wrong, FrameError for a body that names no command.
    """
    leaf, before, position = frame.prev_leaf, -1, frame.first
    command, i, n = "", 0, 0
    for recorded, claimed, body in zip(frame.recorded, frame.leaves, frame.bodies, strict=True):
        leaf = leaf_of(leaf, position, recorded, body)
        if leaf != claimed:
            raise Mismatch(f"position {position} hashes to {leaf.hex()}, but its leaf is {claimed.hex()}", position)
        if recorded <= before:
            raise Mismatch(f"position {position} was not recorded after its predecessor", position)
        part = command_part(body)
        if i == n:
            command, n, i = part.id, part.n, 0
        i += 1
        if part.i != i or part.n != n or part.id != command or i > n:
            raise Mismatch(f"position {position}: a command is not whole", position)
        before = recorded
        position += 1
    if i != n:
        raise Mismatch(f"position {position}: a command is not whole", position)


def overlap(head: Head, frame: Frame) -> range:
    """The positions whose held leaves `joined` must be given: what the frame repeats, and the one before."""
    if frame.first > head.position:
        return range(0)
    return range(frame.first - 1, min(frame.last, head.position) + 1)


def joined(head: Head, frame: Frame, held: Sequence[bytes] = ()) -> Frame | None:
    """
    What a verified frame adds after `head`, None if nothing. `held` are the leaves held at `overlap` (position 0: the
    genesis hash). The frame must not begin beyond head.position + 1.

    Raises Mismatch if the frame forks off.
    """
    if frame.first > head.position + 1:
        raise ValueError(f"position {head.position + 1} is next, not {frame.first}")
    if frame.first == head.position + 1:
        if frame.prev_leaf != head.leaf:
            raise _fork(head.position, frame.prev_leaf, head.leaf)
        if frame.recorded[0] <= head.recorded:
            raise Mismatch(f"position {frame.first} was not recorded after its predecessor", frame.first)
        return frame
    repeated = overlap(head, frame)
    given = [frame.prev_leaf, *frame.leaves][: len(repeated)]
    for position, mine, theirs in zip(repeated, held, given, strict=True):
        if mine != theirs:
            raise _fork(position, theirs, mine)
    return frame.after(head.position) if frame.last > head.position else None


def start_sequence(cursor: Cursor | None, created: str, last_sequence: int) -> int:
    """
    From which message on to read a stream.

    A first copy reads all that the stream has. Of a stream that was made anew (its folder was lost) the newest frame is
    enough: it says how far the log goes, and what lies between is fetched from the origin's PostgreSQL. A stream that
    lost its tail in a crash is read from its end on; sequence numbers come twice then, positions never.
    """
    if cursor is None:
        return 1
    if cursor.created != created:
        return max(last_sequence, 1)
    return min(cursor.sequence, last_sequence) + 1


def _fork(position: int, theirs: bytes, mine: bytes) -> Mismatch:
    return Mismatch(f"fork: position {position} has the leaf {theirs.hex()} there, {mine.hex()} here", position)
