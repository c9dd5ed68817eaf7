"""
Frames: how a log travels. A frame is a run of consecutive entries of one log, cut at whole commands.

    frame  = "CRF" ‖ version (1 byte, 1)
             ‖ first (8 bytes: position of the first entry) ‖ prev_leaf (32) ‖ count (4)
             ‖ count times ( recorded (8) ‖ leaf (32) ‖ length of the body (4) ‖ body )         integers big endian

Invariants:
    - a frame has at most 512 KiB and never part of a command: a command's bodies have at most 256 KiB, so any command fits
      (JetStream's max_payload is 1 MiB);
    - a frame says nothing of its log: the chain does, from the genesis hash on (`chain`);
    - `parse` accepts exactly what `encode` gives. Whether the leaves are right is not asked here.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from eventstore.record import BODY_BYTES_MAX
from replication.errors import FrameError

FRAME_BYTES_MAX = 512 * 1024
ENTRY_OVERHEAD = 8 + 32 + 4
NUMBER_MAX = 2**63 - 1  # what PostgreSQL's bigint holds

_MAGIC = b"CRF\x01"
_HEADER = struct.Struct(">4sQ32sI")
_ENTRY = struct.Struct(">Q32sI")

Row = tuple[int, bytes, bytes]
"""Recorded, leaf and body of an entry, whose position follows from where it stands."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """This is event `i` of the `n` of command `id`."""

    id: str
    i: int
    n: int


class _Body(msgspec.Struct, frozen=True, gc=False):
    command: Part


_decode = msgspec.json.Decoder(_Body).decode


@dataclass(frozen=True, slots=True)
class Frame:
    """Entries `first` to `last` as columns, which is how PostgreSQL takes them."""

    first: int
    prev_leaf: bytes
    recorded: Sequence[int]
    leaves: Sequence[bytes]
    bodies: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.leaves)

    @property
    def last(self) -> int:
        return self.first + len(self.leaves) - 1

    def after(self, position: int) -> "Frame":
        """The part after `position`, which must be one of the frame's but the last."""
        done = position - self.first + 1
        return Frame(position + 1, self.leaves[done - 1], self.recorded[done:], self.leaves[done:], self.bodies[done:])


Told = Callable[[Frame, float], None]
"""Hears of a frame once it was sent or committed, and in how many seconds."""


def tell_nobody(_frame: Frame, _seconds: float) -> None:
    pass


def command_part(body: bytes) -> Part:
    """Which part of which command an entry is. Raises FrameError for a body that does not say."""
    try:
        return _decode(body).command
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a body does not say which command it belongs to: {error}") from None


def encode(frame: Frame) -> bytes:
    """Raises FrameError for what `parse` would refuse."""
    pack = _ENTRY.pack
    parts = [_HEADER.pack(_MAGIC, frame.first, frame.prev_leaf, len(frame))]
    for recorded, leaf, body in zip(frame.recorded, frame.leaves, frame.bodies, strict=True):
        parts.append(pack(recorded, leaf, len(body)))
        parts.append(body)
    data = b"".join(parts)
    if len(data) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {len(data)} bytes, of at most {FRAME_BYTES_MAX}", frame.first)
    return data


def parse(data: bytes) -> Frame:
    """Raises FrameError for anything but a well-formed frame, whatever the bytes."""
    if len(data) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {len(data)} bytes, of at most {FRAME_BYTES_MAX}")
    try:
        magic, first, prev_leaf, count = _HEADER.unpack_from(data)
    except struct.error:
        raise FrameError(f"a frame of only {len(data)} bytes") from None
    if magic != _MAGIC:
        raise FrameError(f"a frame begins with {_MAGIC.hex()}, not {magic.hex()}")
    if not 0 < count <= len(data) // ENTRY_OVERHEAD or not 0 < first <= NUMBER_MAX - count:
        raise FrameError(f"a frame cannot hold {count} entries from position {first} on")
    recorded, leaves, bodies = _entries(data, count, first)
    return Frame(first, prev_leaf, recorded, leaves, bodies)


def _entries(data: bytes, count: int, first: int) -> tuple[list[int], list[bytes], list[bytes]]:
    recorded: list[int] = []
    leaves: list[bytes] = []
    bodies: list[bytes] = []
    unpack = _ENTRY.unpack_from
    at = _HEADER.size
    try:
        for _ in range(count):
            time, leaf, length = unpack(data, at)
            start = at + ENTRY_OVERHEAD
            at = start + length
            recorded.append(time)
            leaves.append(leaf)
            bodies.append(data[start:at])
    except struct.error:
        raise FrameError(f"a frame of {count} entries ends within entry {len(leaves) + 1}", first) from None
    if at != len(data):
        raise FrameError(f"the entries of a frame take {at} bytes, of {len(data)}", first)
    if max(map(len, bodies)) > BODY_BYTES_MAX or max(recorded) > NUMBER_MAX:
        raise FrameError("an entry of a frame is beyond what a log holds", first)
    return recorded, leaves, bodies


def fill(first: int, prev_leaf: bytes, rows: Sequence[Row], *, bytes_max: int = FRAME_BYTES_MAX) -> Frame | None:
    """
    The longest frame of whole commands with which `rows`, from position `first` on, begin; None if the first command is
    not complete. Reads two bodies, not all.

    Raises FrameError if the rows do not begin with a command, or the first one alone is larger than bytes_max.
    """
    room = bytes_max - _HEADER.size
    fitting = 0
    for _, _, body in rows:
        room -= ENTRY_OVERHEAD + len(body)
        if room < 0:
            break
        fitting += 1
    if fitting == 0:
        if rows:
            raise FrameError("a command is larger than a frame", first)
        return None
    if command_part(rows[0][2]).i != 1:
        raise FrameError(f"position {first} is within a command", first)
    last = command_part(rows[fitting - 1][2])
    if last.i != last.n:
        whole = fitting - last.i
        if whole <= 0 and fitting < len(rows):
            raise FrameError("a command is larger than a frame", first)
        fitting = whole
    if fitting <= 0:
        return None
    recorded, leaves, bodies = zip(*rows[:fitting], strict=True)
    return Frame(first, prev_leaf, recorded, leaves, bodies)
