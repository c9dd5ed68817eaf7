"""
A log as static files: tiles of 256 hashes, from which any proof can be computed, and bundles of 256 entries.

The layout is C2SP tlog-tiles. Tiles of level 0 hold leaf hashes; a tile of level L holds the roots of 256 full tiles of
level L - 1. What does not fill a tile yet stands in a partial one, whose path says how many hashes it holds.

Invariants:
    - `TileReader` hands out nothing that does not hash to the root that it was given;
    - every path, and every bundle, has one spelling: reading refuses what writing would not write.

Sizes, indices and positions count leaves, from 0; a width is a number of hashes or entries, 1 to 256.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from verifier.encoding import NUMBER_MAX
from verifier.faults import quoted
from verifier.merkle import HASH_BYTES, Tree, leaf_hash, node_hash

HEIGHT = 8  # levels of the binary tree that one tile spans
WIDTH = 1 << HEIGHT
LEVEL_MAX = 63
ENTRY_BYTES_MAX = 0xFFFF
CACHED_TILES_MAX = 64  # a good MiB

Fetch = Callable[[str], bytes]
"""
What stands at a path such as 'tile/0/x001/234' or 'tile/entries/007.p/12', below the log's prefix.

It raises LookupError or FileNotFoundError when nothing stands there, and whatever it likes when it cannot tell.
"""

NOTHING_THERE = (LookupError, FileNotFoundError)

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_length = struct.Struct(">H")


class TileError(Exception):
    """A path, a tile or a bundle is not what it should be."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One file of a log: a tile of hashes, or a bundle of entries, whose level is None."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Its path (tlog-tiles, "Merkle Tree" and "Log entries"). Raises TileError when there is no such tile."""
        if not ((self.level is None or 0 <= self.level <= LEVEL_MAX) and 0 <= self.index <= NUMBER_MAX):
            raise TileError(f"there is no tile {self.index} at level {self.level}")
        if not 1 <= self.width <= WIDTH:
            raise TileError(f"a tile is 1 to {WIDTH} wide, not {self.width}")
        *groups, last = (digits.zfill(3) for digits in f"{self.index:,}".split(","))
        index = "".join(f"x{group}/" for group in groups) + last
        level = "entries" if self.level is None else self.level
        return f"tile/{level}/{index}" + (f".p/{self.width}" if self.width < WIDTH else "")


def parse_path(path: str) -> Tile:
    """The tile that stands at a path. Raises TileError for every spelling that `Tile.path` would not give."""
    match = _PATH.fullmatch(path)
    if match is not None:
        level, index, width = match.group("level", "index", "width")
        number = int(index.replace("x", "").replace("/", ""))
        tile = Tile(None if level == "entries" else int(level), number, WIDTH if width is None else int(width))
        try:
            if tile.path == path:
                return tile
        except TileError:
            pass
    raise TileError(f"{quoted(path)} is not the path of a tile or of a bundle of entries")


def width_in(size: int, level: int | None, index: int) -> int:
    """How wide that tile or bundle is in a tree of `size` leaves: 0 where there is none (tlog-tiles, "Partial Tiles")."""
    return max(0, min(WIDTH, (size >> HEIGHT * (level or 0)) - index * WIDTH))


def tiles_of(size: int) -> Iterator[Tile]:
    """All files that a tree of `size` leaves consists of: the tiles, level by level, then the bundles of entries."""
    levels: list[int | None] = [*range(_levels(size)), None]
    for level in levels:
        hashes = size >> HEIGHT * (level or 0)
        for index in range(-(-hashes // WIDTH)):
            yield Tile(level, index, width_in(size, level, index))


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """
    A bundle of 1 to 256 entries, each behind its length in two bytes, big endian (tlog-tiles, "Log entries").

    Raises TileError for more or fewer entries, or for one of more than 65,535 bytes.
    """
    listed = list(entries)
    if not 1 <= len(listed) <= WIDTH:
        raise TileError(f"a bundle holds 1 to {WIDTH} entries, not {len(listed)}")
    if (longest := max(map(len, listed))) > ENTRY_BYTES_MAX:
        raise TileError(f"an entry of {longest} bytes does not fit into a bundle, which allows {ENTRY_BYTES_MAX}")
    return b"".join(part for entry in listed for part in (_length.pack(len(entry)), entry))


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. Raises TileError when it is cut off, or anything follows."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    for number in range(width):
        start = at + 2
        if start > end:
            raise TileError(f"the bundle ends before entry {number}, of {width}")
        at = start + (data[at] << 8 | data[at + 1])
        if at > end:
            raise TileError(f"the bundle ends inside entry {number}, of {width}")
        entries.append(data[start:at])
    if at < len(data):
        raise TileError(f"the bundle goes on for {len(data) - at} bytes behind its {width} entries")
    return entries


def root_of_tiles(fetch: Fetch, size: int) -> bytes:
    """
    The root of the tree of `size` leaves, from the tiles at its right edge: at most one for each level.

    Raises TileError when one has another length than its path says, and what `fetch` raises.
    """
    return _root_of_edge(size, _read_edge(fetch, size))


class TileReader:
    """
    Reads the tree that a verified checkpoint names by size and root, from whoever serves its tiles.

    Every method raises TileError when something does not hash to the root, what `fetch` raises, and ValueError when more
    is asked for than the tree holds. Smaller sizes are those of the trees that this one began with.
    """

    def __init__(self, fetch: Fetch, size: int, root: bytes) -> None:
        self.size = size
        self.root = root
        self._fetch = fetch
        self._edge: dict[int, list[bytes]] | None = None  # the partial tiles, by level; verified
        self._full: dict[tuple[int, int], list[bytes]] = {}  # full tiles, verified; the latest used is the last

    def tree(self, size: int | None = None) -> Tree:
        """The tree of the first `size` leaves, to take its root, or to go on with the leaves that follow."""
        size = self._checked(size)
        return Tree(size, self._subtrees(0, size))

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """
        The proof that leaf `index` is in the tree of the first `size` leaves: PATH of RFC 6962, section 2.1.1.

        It takes at most two tiles of each level, and one of the highest.
        """
        size = self._checked(size)
        if not 0 <= index < size:
            raise ValueError(f"a tree of {size} leaves has no leaf at index {index}")
        siblings: list[tuple[int, int]] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _half(end - start)
            if index < middle:
                siblings.append((middle, end))
                end = middle
            else:
                siblings.append((start, middle))
                start = middle
        return [self._root_of(*sibling) for sibling in reversed(siblings)]

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]:
        """
        The proof that the tree of `size2` leaves begins with that of `size1`, from 1: PROOF of RFC 6962, section 2.1.2.

        It takes at most two tiles of each level, and one of the highest.
        """
        size2 = self._checked(size2)
        if not 1 <= size1 <= size2:
            raise ValueError(f"there is no proof from {size1} to {size2} leaves")
        ranges: list[tuple[int, int]] = []
        start, end = 0, size2
        while end != size1:
            middle = start + _half(end - start)
            if size1 <= middle:
                ranges.append((middle, end))
                end = middle
            else:
                ranges.append((start, middle))
                start = middle
        if start > 0:
            ranges.append((start, end))
        return [self._root_of(*one) for one in reversed(ranges)]

    def leaf_hashes(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The leaf hashes from index `start` to before `end`, tile by tile."""
        for index, first, last in self._parts(start, self._checked(end)):
            yield from self._tile(0, index)[first:last]

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The entries from index `start` to before `end`, each compared with its leaf hash, bundle by bundle."""
        for index, first, last in self._parts(start, self._checked(end)):
            bundle = read_bundle(self._fetch, Tile(None, index, width_in(self.size, None, index)))
            hashes = self._tile(0, index)
            for offset in range(first, last):
                if leaf_hash(bundle[offset]) != hashes[offset]:
                    raise TileError(f"the entry at index {index * WIDTH + offset} is not the one that was hashed")
                yield bundle[offset]

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"{size} leaves are asked for, of {self.size}")
        return size

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Tile by tile: its index, and the offsets in it between which `start` to `end` lies."""
        if not 0 <= start <= end:
            raise ValueError(f"there are no leaves from {start} to {end}")
        for index in range(start // WIDTH, -(-end // WIDTH)):
            yield index, max(start - index * WIDTH, 0), min(end - index * WIDTH, WIDTH)

    def _root_of(self, start: int, end: int) -> bytes:
        return Tree(end - start, self._subtrees(start, end)).root()

    def _subtrees(self, start: int, end: int) -> list[bytes]:
        """
        The roots of the complete subtrees that these leaves consist of, largest first.

        `start` is a multiple of the largest power of two that is not above their number.
        """
        roots: list[bytes] = []
        while start < end:
            height = (end - start).bit_length() - 1
            roots.append(self._subtree(height, start >> height))
            start += 1 << height
        return roots

    def _subtree(self, height: int, index: int) -> bytes:
        """The root of the complete subtree of 2^height leaves that is the index-th of that height."""
        level, above = divmod(height, HEIGHT)
        tile, offset = divmod(index << above, WIDTH)
        return fold(self._tile(level, tile)[offset : offset + (1 << above)])

    def _tile(self, level: int, index: int) -> list[bytes]:
        """A tile of the tree, verified: the partial ones by the root, a full one by the tile above it."""
        if self._edge is None:
            edge = _read_edge(self._fetch, self.size)
            if (root := _root_of_edge(self.size, edge)) != self.root:
                raise TileError(f"the tiles of the tree of {self.size} leaves hash to another root, {root.hex()}")
            self._edge = edge
        if width_in(self.size, level, index) < WIDTH:
            return self._edge[level]
        hashes = self._full.pop((level, index), None)
        if hashes is None:
            hashes = read_tile(self._fetch, Tile(level, index))
            above, offset = divmod(index, WIDTH)
            if fold(hashes) != self._tile(level + 1, above)[offset]:
                raise TileError(f"{Tile(level, index).path} does not hash to what stands in the tile above it")
            if len(self._full) >= CACHED_TILES_MAX:
                del self._full[next(iter(self._full))]
        self._full[level, index] = hashes
        return hashes


def _half(leaves: int) -> int:
    """The largest power of two below a number from 2: the leaves of a left subtree (RFC 6962, section 2.1)."""
    return 1 << (leaves - 1).bit_length() - 1


def _levels(size: int) -> int:
    """How many levels of tiles a tree has."""
    return -(-size.bit_length() // HEIGHT)


def _fetch_either(fetch: Fetch, tile: Tile) -> tuple[bytes, Tile]:
    """
    The file, or instead of a partial one that is gone the full one, which begins with it; and which of them it is.

    A log may delete partial files once the full one is there (tlog-tiles, "Partial Tiles").
    """
    try:
        return fetch(tile.path), tile
    except NOTHING_THERE:
        if tile.width == WIDTH:
            raise
    full = replace(tile, width=WIDTH)
    return fetch(full.path), full


def read_hashes(fetch: Fetch, tile: Tile) -> bytes:
    """Its hashes side by side, not verified."""
    data, asked = _fetch_either(fetch, tile)
    if len(data) != asked.width * HASH_BYTES:
        raise TileError(f"{asked.path} has {len(data)} bytes instead of {asked.width * HASH_BYTES}")
    return data[: tile.width * HASH_BYTES]


def read_tile(fetch: Fetch, tile: Tile) -> list[bytes]:
    """Its hashes, not verified."""
    data = read_hashes(fetch, tile)
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def read_bundle(fetch: Fetch, tile: Tile) -> list[bytes]:
    """Its entries, not verified."""
    data, asked = _fetch_either(fetch, tile)
    return decode_bundle(data, asked.width)[: tile.width]


def _read_edge(fetch: Fetch, size: int) -> dict[int, list[bytes]]:
    """The partial tiles of a tree, by level. Not verified."""
    widths = {level: (size >> HEIGHT * level) % WIDTH for level in range(_levels(size))}
    return {
        level: read_tile(fetch, Tile(level, size >> HEIGHT * (level + 1), width))
        for level, width in widths.items()
        if width
    }


def _root_of_edge(size: int, edge: dict[int, list[bytes]]) -> bytes:
    roots: list[bytes] = []
    for tile in reversed(edge.values()):  # the highest level has the largest subtrees
        hashes = tile
        while hashes:
            complete = 1 << len(hashes).bit_length() - 1
            roots.append(fold(hashes[:complete]))
            hashes = hashes[complete:]
    return Tree(size, roots).root()


def fold(hashes: list[bytes]) -> bytes:
    """The root of a complete subtree, from the hashes of one of its levels."""
    while len(hashes) > 1:
        hashes = list(map(node_hash, hashes[::2], hashes[1::2]))
    return hashes[0]
