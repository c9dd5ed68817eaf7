"""
A page of a log, and all that it comes to when it is read by itself: a sheet.

Pages are read and hashed side by side in several processes. What ties them together (where one ends, the next begins) is
left to `verifier.log`, to which a sheet says no more than that needs.

Invariants:
    - hashes are computed from the entries, never taken over from whoever shows them;
    - a sheet says that its entries are in order, or that they must be looked at one by one; it never accuses.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from operator import lt
from typing import NamedTuple, Protocol, runtime_checkable

from verifier.body import Columns
from verifier.book import Stretch, Stretcher
from verifier.faults import Broken, Found, Reason
from verifier.merkle import HASH_BYTES
from verifier.quick import BodyReader
from verifier.tiles import HEIGHT

HEADER_BYTES = HASH_BYTES + 8 + 8
PAGE_HEIGHT = 12
PAGE = 1 << PAGE_HEIGHT  # entries; a whole number of bundles, and a complete subtree

PAIR = 2 * HASH_BYTES

_headers = struct.Struct(">32sQQ").iter_unpack


class Index(Protocol):
    """What somebody keeps beside entries, to find them by."""

    def agrees(self, facts: Columns) -> bool:
        """Whether it says what the entries say. False may also mean that it takes a closer look to know."""
        ...

    def differing(self) -> tuple[int, str] | None:
        """The position of the first entry of which it says something else, and what; None if it does not."""
        ...


class Entries(NamedTuple):
    """Consecutive entries as somebody shows them, with the leaves that are claimed for them, side by side."""

    positions: Sequence[int]
    entries: list[bytes]
    leaves: bytes
    beside: Index | None = None

    def one_by_one(self) -> Iterator[tuple[int, bytes, bytes]]:
        """As `verifier.log.verify` takes them."""
        starts = range(0, len(self.leaves), HASH_BYTES)
        leaves = [self.leaves[start : start + HASH_BYTES] for start in starts]
        return zip(self.positions, self.entries, leaves, strict=True)


@runtime_checkable
class Pages(Protocol):
    """
    A log that can be read at any place, by several processes: it can be pickled. Every method raises CouldNotCheck, and
    Found for what cannot be part of any log.
    """

    differing: Reason  # what it is called when a hash that is kept is not the tree's

    def length(self) -> int:
        """How many entries the log has at this moment."""
        ...

    def entries(self, first: int, last: int) -> Iterable[Entries]:
        """The entries from one position to another, in parts of any size; none, for a gap is for the reader to find."""
        ...

    def hashes(self, level: int, index: int, width: int) -> list[bytes | None]:
        """What is kept as the first hashes of a tile from level 1 on; None for a hash that need not be kept."""
        ...

    def heads(self) -> Iterable[tuple[int, bytes]]:
        """Size and signed note of every head that is kept, by size."""
        ...


class Task(NamedTuple):
    """Which page to read, and of which positions in it the leaf and the time are wanted; `sizes` are those of heads."""

    first: int
    last: int
    marks: tuple[int, ...]
    sizes: tuple[int, ...]


class Sheet(NamedTuple):
    """What a page comes to. `stretch` is None when its entries are to be looked at one by one."""

    entries: int
    opening: bytes | None  # the first entry of the log, which the stretch leaves out
    prev_leaf: bytes
    last_leaf: bytes
    recorded_first: int
    recorded_last: int
    stretch: Stretch | None
    sound: bool  # the chain is in order inside the page, and each leaf is the one that is claimed
    subtrees: tuple[bytes, ...]  # the frontier of the page's own tree
    frontiers: dict[int, tuple[bytes, ...]]  # the same at each size that is wanted
    tiles: list[bytes]  # the root of each full tile of level 0
    marked: dict[int, tuple[bytes, int]]  # leaf and time at the positions that are wanted
    beside: tuple[int, str] | None


class PageReader:
    """Reads pages one after another. `region` is None when entries are opaque: only their hashes are looked at."""

    def __init__(self, pages: Pages, region: str | None) -> None:
        self._pages = pages
        self._region = region
        self._bodies = BodyReader()

    def __call__(self, task: Task) -> Sheet:
        """Raises CouldNotCheck."""
        region = self._region
        stretcher = Stretcher(region) if region is not None else None
        leaves: list[bytes] = []
        times: list[int] = []
        sound, due, last_leaf, prev_leaf = True, task.first, b"", b""
        beside: tuple[int, str] | None = None
        opening: bytes | None = None
        for positions, entries, claimed, index in self._parts(task):
            hashes = [sha256(b"\x00" + entry).digest() for entry in entries]
            after = due + len(entries)
            sound = sound and b"".join(hashes) == claimed and list(positions) == list(range(due, after))
            facts: Columns | None = None
            if region is not None and sound:
                sound = min(map(len, entries)) >= HEADER_BYTES and self._in_chain(
                    entries, hashes, due, last_leaf, times
                )
                prev_leaf = prev_leaf or entries[0][:HASH_BYTES]
                if sound and due == 1:
                    opening = entries[0]
                if sound and stretcher is not None and (rest := entries[due == 1 :]):
                    facts = self._follow(stretcher, rest)
                    stretcher = stretcher if facts else None
            if index is not None and beside is None and not (facts and due > 1 and index.agrees(facts)):
                beside = index.differing()
            leaves += hashes
            due, last_leaf = after, hashes[-1]
        whole = sound and due == task.last + 1
        levels = _levels(leaves)
        return Sheet(
            entries=len(leaves),
            opening=opening,
            prev_leaf=prev_leaf,
            last_leaf=last_leaf,
            recorded_first=times[0] if times else 0,
            recorded_last=times[-1] if times else 0,
            stretch=stretcher.finish() if whole and stretcher is not None else None,
            sound=whole,
            subtrees=_frontier(levels, len(leaves)),
            frontiers={size: _frontier(levels, size - task.first + 1) for size in task.sizes} if whole else {},
            tiles=levels[HEIGHT] if len(levels) > HEIGHT else [],
            marked={
                position: (leaves[position - task.first], times[position - task.first] if times else 0)
                for position in task.marks
            }
            if whole
            else {},
            beside=beside,
        )

    def _parts(self, task: Task) -> Iterator[Entries]:
        """Up to what cannot be read: whoever reads one by one will come to it again."""
        with suppress(Found):
            yield from (part for part in self._pages.entries(task.first, task.last) if part.entries)

    @staticmethod
    def _in_chain(entries: list[bytes], hashes: list[bytes], due: int, last_leaf: bytes, times: list[int]) -> bool:
        """Whether each entry names the one before, its own position, and a later time; the times are added to `times`."""
        headers = b"".join([entry[:HEADER_BYTES] for entry in entries])
        named, positions, recorded = zip(*_headers(headers), strict=True)
        before = times[-1] if times else -1
        times += recorded
        return (
            positions == tuple(range(due, due + len(entries)))
            and named == (last_leaf or named[0], *hashes[:-1])
            and before < recorded[0]
            and all(map(lt, recorded, recorded[1:]))
        )

    def _follow(self, stretcher: Stretcher, entries: list[bytes]) -> Columns | None:
        """What the entries say, if they are in order."""
        try:
            facts = self._bodies.read_all([entry[HEADER_BYTES:] for entry in entries])
            return facts if stretcher.follow(facts) else None
        except Broken:
            return None


def _levels(leaves: list[bytes]) -> list[list[bytes]]:
    """The complete subtrees of each height."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        pairs = b"".join(level)
        levels.append(
            [sha256(b"\x01" + pairs[at : at + PAIR]).digest() for at in range(0, len(pairs) - PAIR + 1, PAIR)]
        )
    return levels


def _frontier(levels: list[list[bytes]], size: int) -> tuple[bytes, ...]:
    """The complete subtrees of which the tree of `size` leaves consists, largest first (`merkle.Tree`)."""
    return tuple(
        levels[height][(size >> height) - 1] for height in reversed(range(size.bit_length())) if size >> height & 1
    )
