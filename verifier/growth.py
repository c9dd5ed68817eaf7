"""
The tree over a log while its pages come in: the root at the size of every signed head, and what is kept as tiles.

Invariants:
    - memory grows with the number of heads, and with the logarithm of the log;
    - hashes that somebody keeps are compared, never used.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from verifier.faults import Fault
from verifier.merkle import EMPTY_ROOT, HASH_BYTES, Tree
from verifier.sheet import PAGE, Pages, Sheet, Task
from verifier.tiles import WIDTH, fold


class Marks:
    """Sizes of heads, rising, and what is known of the log there: the root, and when the entries around it were recorded."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.sizes = array("q", sizes)
        self.covered = 0  # heads of which all is known
        self._roots = bytearray(HASH_BYTES * len(self.sizes))
        self.recorded_us = array("q", bytes(8 * len(self.sizes)))  # of the head's last entry
        self.recorded_next_us = array("q", bytes(8 * len(self.sizes)))  # of the entry behind it, as far as there is one

    def root(self, number: int) -> bytes:
        return bytes(self._roots[number * HASH_BYTES : (number + 1) * HASH_BYTES])

    def within(self, first: int, last: int) -> range:
        """The heads of sizes from `first` to `last`, by number."""
        return range(bisect_left(self.sizes, first), bisect_right(self.sizes, last))

    def know(self, number: int, root: bytes, recorded_us: int) -> None:
        self._roots[number * HASH_BYTES : (number + 1) * HASH_BYTES] = root
        self.recorded_us[number] = recorded_us
        self.covered = number + 1


class Growth:
    """Takes in sheet after sheet."""

    def __init__(self, pages: Pages, sizes: Iterable[int], ends: Iterable[int]) -> None:
        """`sizes` are those of heads, rising; `ends` are positions whose leaf is wanted."""
        self.marks = Marks(sizes)
        self.leaves: dict[int, bytes] = {}
        self.size = 0
        self._ends = sorted(set(ends))
        self._pages = pages
        self._tree = Tree()  # its leaves are whole pages
        self._levels: list[tuple[int, list[bytes]]] = []  # of each level of tiles from 1 on: the newest, not full yet
        self.differing: Fault | None = None
        for number in self.marks.within(0, 0):  # an empty tree may be signed, too
            self.marks.know(number, EMPTY_ROOT, 0)

    def tasks(self, length: int) -> Iterator[Task]:
        """The pages of a log of that many entries."""
        for first in range(1, length + 1, PAGE):
            last = min(first + PAGE - 1, length)
            sizes = [self.marks.sizes[number] for number in self.marks.within(first, last)]
            after = (self.marks.sizes[number] + 1 for number in self.marks.within(first - 1, last - 1))
            ends = self._ends[bisect_left(self._ends, first) : bisect_right(self._ends, last)]
            yield Task(first, last, tuple(sorted({*sizes, *after, *ends})), tuple(sizes))

    def add(self, task: Task, sheet: Sheet) -> None:
        """The next page, all of whose entries were found in order. Raises CouldNotCheck."""
        marks = self.marks
        above = self._tree.frontier
        self.size = task.last
        whole = sheet.entries == PAGE
        if whole:
            self._tree.append(sheet.subtrees[0])
        for number in marks.within(task.first - 1, task.last - 1):
            marks.recorded_next_us[number] = sheet.marked[marks.sizes[number] + 1][1]
        for number in marks.within(task.first, task.last):
            size = marks.sizes[number]
            frontier = self._tree.frontier if whole and size == task.last else (*above, *sheet.frontiers[size])
            marks.know(number, Tree(size, frontier).root(), sheet.marked[size][1])
        for end in self._ends[bisect_left(self._ends, task.first) : bisect_right(self._ends, task.last)]:
            self.leaves[end] = sheet.marked[end][0]
        for tile in sheet.tiles:
            self._add_hash(1, tile)

    def finish(self) -> None:
        """Compare the tiles that are not full. Raises CouldNotCheck."""
        for level, (index, hashes) in enumerate(self._levels, start=1):
            self._compare(level, index, hashes)

    def _add_hash(self, level: int, added: bytes) -> None:
        if len(self._levels) < level:
            self._levels.append((0, []))
        index, hashes = self._levels[level - 1]
        hashes.append(added)
        if len(hashes) == WIDTH:
            self._compare(level, index, hashes)
            self._levels[level - 1] = (index + 1, [])
            self._add_hash(level + 1, fold(hashes))

    def _compare(self, level: int, index: int, hashes: list[bytes]) -> None:
        if not hashes:
            return
        for offset, (kept, computed) in enumerate(
            zip(self._pages.hashes(level, index, len(hashes)), hashes, strict=True)
        ):
            if kept not in (None, computed):
                self._differs(level, index * WIDTH + offset, kept or b"", computed)
                return

    def _differs(self, level: int, index: int, kept: bytes, computed: bytes) -> None:
        span = WIDTH**level
        fault = Fault(
            index * span + 1,
            self._pages.differing,
            f"the {span} entries from here on hash to {computed.hex()}, but {kept.hex()} is kept "
            f"as hash {index} of level {level}",
        )
        if self.differing is None or fault.position < self.differing.position:
            self.differing = fault
