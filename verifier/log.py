"""
Checks a log: every entry since its opening, the chain that ties each to the one before, and what the entries say.

It is an independent reading of docs/reference/record-format.md: it recomputes everything from the stored bytes and takes over
no figure from whoever keeps the log.

Invariants:
    - checks run in the order of `verifier.faults.Reason`, entry by entry, and the first fault found is the one named;
    - memory does not grow with the log, apart from one number for each stream (none with streams=False).

What this check cannot know, for lack of signed tree heads (they come in a later version): whether the keeper of a
single source rewrote the log from some position to its end, for then the whole chain is recomputed and fits; and whether
entries are missing after the last one shown. Compare with another region's copy, and keep the leaf of every report:
a later one must still hold it. Neither does it know whether a command id stands twice.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

from verifier.body import region_of
from verifier.book import Book
from verifier.faults import Broken, Fault, Reason
from verifier.merkle import HASH_BYTES
from verifier.quick import BodyReader

Source = Iterable[tuple[int, bytes, bytes]]
"""Position, entry and leaf of each entry from position 1 on, as the keeper of a log gives them."""

HEADER_BYTES = HASH_BYTES + 8 + 8

_numbers: Callable[[int, int], bytes] = struct.Struct(">QQ").pack
_header = struct.Struct(">32sQQ").unpack_from


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. Up to `position`, whose leaf is `leaf`, the log is in order; times are µs since 1970 UTC."""

    log: str
    origin: str
    position: int
    leaf: str
    entries: int
    intact: bool
    fault: Fault | None
    not_counted: int
    recorded_first_us: int | None
    recorded_last_us: int | None

    def to_json(self) -> dict[str, object]:
        return {
            "log": self.log,
            "origin": self.origin,
            "position": self.position,
            "leaf": self.leaf,
            "entries": self.entries,
            "intact": self.intact,
            "fault": None if self.fault is None else self.fault.to_json(),
            "not_counted": self.not_counted,
            "recorded_first_us": self.recorded_first_us,
            "recorded_last_us": self.recorded_last_us,
        }


def genesis(origin: str) -> bytes:
    """The leaf that stands before position 1: it ties a log to its name."""
    return sha256(b"countroom/log/v1\n" + origin.encode()).digest()


def entry_bytes(prev_leaf: bytes, position: int, recorded: int, body: bytes) -> bytes:
    """
    What the log hashes. Raises ValueError for a previous leaf that is not 32 bytes, struct.error for a number that does
    not fit into 8 bytes.
    """
    if len(prev_leaf) != HASH_BYTES:
        raise ValueError(f"a leaf has {HASH_BYTES} bytes, not {len(prev_leaf)}")
    return prev_leaf + _numbers(position, recorded) + body


def leaf(prev_leaf: bytes, position: int, recorded: int, body: bytes) -> bytes:
    """`merkle.leaf_hash(entry_bytes(...))` with one copy of the body instead of two. Raises as `entry_bytes` does."""
    if len(prev_leaf) != HASH_BYTES:
        raise ValueError(f"a leaf has {HASH_BYTES} bytes, not {len(prev_leaf)}")
    return sha256(b"\x00" + prev_leaf + _numbers(position, recorded) + body).digest()


def split_entry(entry: bytes) -> tuple[bytes, int, int, bytes]:
    """Previous leaf, position, recorded and body. Raises ValueError when the entry is too short to hold them."""
    if len(entry) < HEADER_BYTES:
        raise ValueError(f"an entry has at least {HEADER_BYTES} bytes, not {len(entry)}")
    prev_leaf, position, recorded = _header(entry)
    return prev_leaf, position, recorded, entry[HEADER_BYTES:]


def verify(source: Source, *, origin: str, head: tuple[int, bytes] | None = None, streams: bool = True) -> Report:
    """
    Read a log from its opening to the end of `source`, or to the first fault.

    `head` is the position and leaf at which the log's keeper said that it ends; None if nothing was said.
    `streams=False` leaves out the check that versions of a stream have no gaps, which needs memory for each stream.

    Raises ValueError when `origin` is no origin, and whatever `source` raises when it cannot be read.
    """
    region = region_of(origin)
    if region is None:
        raise ValueError(f"{origin!r} is not an origin, countroom.<deployment>/<region>")
    read_body = BodyReader().read
    book = Book(origin=origin, region=region, streams=streams)
    follow = book.follow
    position, last_leaf, last_recorded = 0, genesis(origin), -1
    first_recorded: int | None = None
    fault: Fault | None = None
    due = 1
    try:
        for given, entry, claimed in source:
            this_leaf = sha256(b"\x00" + entry).digest()
            try:
                prev_leaf, stated, recorded = _header(entry)
            except struct.error:
                prev_leaf, stated, recorded = b"", 0, 0
            if not (
                given == due == stated and prev_leaf == last_leaf and this_leaf == claimed and recorded > last_recorded
            ):
                raise _broken_link(due, last_leaf, last_recorded, given, entry, claimed)
            body = entry[HEADER_BYTES:]
            follow(read_body(body), body)
            if first_recorded is None:
                first_recorded = recorded
            position, last_leaf, last_recorded = due, this_leaf, recorded
            due += 1
        due = max(position, 1)  # what is wrong with the end is said of the last entry
        book.close()
        _check_head(position, last_leaf, head)
    except Broken as broken:
        fault = Fault(due, broken.reason, broken.detail)
    return Report(
        log=region,
        origin=origin,
        position=position,
        leaf=last_leaf.hex(),
        entries=position,
        intact=fault is None,
        fault=fault,
        not_counted=book.not_counted,
        recorded_first_us=first_recorded,
        recorded_last_us=last_recorded if position else None,
    )


def _broken_link(due: int, last_leaf: bytes, last_recorded: int, given: int, entry: bytes, claimed: bytes) -> Broken:
    """Why the entry does not continue the chain."""
    if given != due:
        return Broken(Reason.POSITION_GAP, f"position {due} was due, and the source gave {given}")
    if len(entry) < HEADER_BYTES:
        return Broken(Reason.ENTRY_TOO_SHORT, f"the entry has {len(entry)} bytes, of at least {HEADER_BYTES}")
    prev_leaf, stated, recorded, _ = split_entry(entry)
    if stated != due:
        return Broken(Reason.POSITION_MISMATCH, f"the entry was made for position {stated}")
    if prev_leaf != last_leaf:
        return Broken(
            Reason.PREV_LEAF_MISMATCH,
            f"the entry was made to follow leaf {prev_leaf.hex()}, but follows {last_leaf.hex()}",
        )
    this_leaf = sha256(b"\x00" + entry).digest()
    if this_leaf != claimed:
        return Broken(
            Reason.LEAF_MISMATCH, f"the stored bytes hash to {this_leaf.hex()}, but the leaf is {claimed.hex()}"
        )
    return Broken(
        Reason.RECORDED_NOT_INCREASING,
        f"the entry was recorded at {recorded} microseconds, but the one before at {last_recorded}",
    )


def _check_head(position: int, last_leaf: bytes, head: tuple[int, bytes] | None) -> None:
    if position == 0:
        raise Broken(Reason.NOT_OPENED, "the log is empty: not even its opening is there")
    if head is not None and head != (position, last_leaf):
        raise Broken(
            Reason.HEAD_MISMATCH,
            f"the log ends at position {position} with leaf {last_leaf.hex()}, "
            f"but was announced to end at {head[0]} with leaf {head[1].hex()}",
        )
