"""
Reads a log from its tiles (C2SP tlog-tiles): from a directory, or from wherever a path can be fetched.

A directory may also hold every head that was signed, as heads/<size>; where that cannot be listed, the checkpoint is the
only head.

Invariant: what is not there is «could not check»; what is there and has a wrong form is a fault.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from verifier.body import region_of
from verifier.encoding import NUMBER_MAX
from verifier.faults import CouldNotCheck, Fault, Found, Reason, quoted
from verifier.merkle import HASH_BYTES, leaf_hash
from verifier.sheet import Entries
from verifier.tiles import NOTHING_THERE, WIDTH, Fetch, Tile, TileError, read_bundle, read_hashes, read_tile, width_in

T = TypeVar("T")

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class Folder:
    """Fetches files from a directory. It can be pickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, path: str) -> bytes:
        try:
            with open(os.path.join(self.path, path), "rb") as file:  # noqa: PTH118, PTH123 - twice as quick as pathlib
                return file.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CouldNotCheck(f"{quoted(path)} cannot be read: {error.strerror}") from None

    def sizes(self) -> list[int]:
        """Of the heads that are kept, rising."""
        folder = Path(self.path, "heads")
        if not folder.is_dir():
            return []
        return sorted(
            size
            for name in os.listdir(folder)  # noqa: PTH208 - names are enough
            if _SIZE.fullmatch(name) and (size := int(name)) <= NUMBER_MAX
        )


class Tiled:
    """A log in tiles, as its checkpoint says that it is (verifier.sheet.Pages)."""

    differing = Reason.TILE_DIFFERS

    def __init__(self, fetch: Callable[[str], bytes], size: int, checkpoint: bytes) -> None:
        """`fetch` can be pickled; it raises LookupError or FileNotFoundError for what is not there, else CouldNotCheck."""
        self._fetch = fetch
        self._size = size
        self._checkpoint = checkpoint

    def length(self) -> int:
        return read_checkpoint(self._fetch)[1]

    def entries(self, first: int, last: int) -> Iterable[Entries]:
        """Bundle by bundle; the leaves are those of the tiles of level 0."""
        for index in range((first - 1) // WIDTH, (last - 1) // WIDTH + 1):
            start = index * WIDTH  # entries before this bundle
            width = width_in(self._size, None, index)
            entries = self._read(read_bundle, Tile(None, index, width))
            leaves = self._read(read_hashes, Tile(0, index, width))
            low, high = max(first - 1 - start, 0), min(last - start, width)
            yield Entries(
                range(start + low + 1, start + high + 1),
                entries[low:high],
                leaves[HASH_BYTES * low : HASH_BYTES * high],
            )

    def hashes(self, level: int, index: int, width: int) -> list[bytes | None]:
        """Tiles are to be there as far as the checkpoint reaches; the tree may have grown beyond it."""
        there = min(width_in(self._size, level, index), width)
        kept = self._read(read_tile, Tile(level, index, width_in(self._size, level, index))) if there else []
        return [*kept[:there], *[None] * (width - there)]

    def heads(self) -> Iterator[tuple[int, bytes]]:
        """Those of the directory, and the checkpoint, by size."""
        size, note = self._size, self._checkpoint
        for kept in self._fetch.sizes() if isinstance(self._fetch, Folder) else []:
            if note and size <= kept:
                yield size, note
                note = b""
            if kept != size:
                yield kept, _there(self._fetch, f"heads/{kept}")
        if note:
            yield size, note

    def _read(self, read: Callable[[Fetch, Tile], T], tile: Tile) -> T:
        try:
            return read(self._fetch, tile)
        except TileError as error:
            position = tile.index * WIDTH ** ((tile.level or 0) + 1) + 1
            raise Found(Fault(position, Reason.TILE_MALFORMED, str(error))) from None
        except NOTHING_THERE:
            raise CouldNotCheck(f"there is no file {tile.path}") from None


def read_checkpoint(fetch: Callable[[str], bytes]) -> tuple[str, int, bytes]:
    """Origin and size as the checkpoint states them, and its note. Raises CouldNotCheck, and what means «not there»."""
    from verifier.note import NoteError, parse_checkpoint  # noqa: PLC0415 - needs cryptography

    note = fetch("checkpoint")
    try:
        checkpoint = parse_checkpoint(note.decode().rpartition("\n\n")[0] + "\n")
    except (NoteError, UnicodeDecodeError) as error:
        raise CouldNotCheck(f"the checkpoint cannot be read: {error}") from None
    return checkpoint.origin, checkpoint.size, note


def name_of(origin: str) -> str:
    """The short name of a log: its region, where it has one."""
    return region_of(origin) or origin


def leaf_at(pages: Tiled, position: int) -> bytes:
    """The leaf at a position, recomputed from the entry. Raises CouldNotCheck, Found."""
    for part in pages.entries(position, position):
        return leaf_hash(part.entries[0])
    raise CouldNotCheck(f"there is no entry at position {position}")


def _there(fetch: Callable[[str], bytes], path: str) -> bytes:
    try:
        return fetch(path)
    except NOTHING_THERE:
        raise CouldNotCheck(f"there is no file {path}") from None
