"""
Copying the entries of a log as tiles and bundles, with whatever proves them; of a long log by several processes.

Invariant: an entry is kept only when it hashes to its leaf, and the leaf through the tiles above it to the root. What an
earlier run has kept is held against them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.exporting import selection, target
from app.exporting.enclosed import write_file
from app.exporting.plan import Pinned
from app.exporting.stopped import NotIntact
from verifier.tiles import WIDTH, Fetch, Tile, TileReader, read_bundle, width_in

STRETCH = 64 * WIDTH  # entries that a process copies at once
STRETCHES_FOR_WORKERS = 4  # a shorter log is copied before further processes would have begun


class Stretch(NamedTuple):
    """Positions, both included."""

    first: int
    last: int


class Copied(NamedTuple):
    """Up to where, which types of events stand there, and, if that is asked, the suffixes of the players whose streams do."""

    last: int
    tags: set[str]
    persons: set[str]


class _Named(msgspec.Struct, gc=False):
    stream: str
    type: str


_read_named = msgspec.json.Decoder(_Named).decode


def stretches(first: int, last: int) -> Iterator[Stretch]:
    """Whole bundles, as far as the range goes."""
    while first <= last:
        end = min((first - 1) // STRETCH * STRETCH + STRETCH, last)
        yield Stretch(first, end)
        first = end + 1


class Copier:
    """Copies stretches of one log into a folder. It can be pickled until it is used; each process opens the target itself."""

    def __init__(self, at: str, token: str, log: Pinned, folder: Path, *, persons: bool) -> None:
        self._at = at
        self._token = token
        self._log = log
        self._folder = folder
        self._persons = persons
        self._stack: ExitStack | None = None

    def __call__(self, stretch: Stretch) -> Copied:
        """Raises NotIntact, TileError, CouldNotCheck, OSError."""
        fetch, reader = self._opened
        copied = Copied(stretch.last, set(), set())
        for index in range((stretch.first - 1) // WIDTH, (stretch.last - 1) // WIDTH + 1):
            start, width = index * WIDTH, width_in(self._log.size, None, index)
            bundle = read_bundle(fetch, Tile(None, index, width))
            leaves = list(reader.leaf_hashes(start, start + width))
            if [sha256(b"\x00" + entry).digest() for entry in bundle] != leaves:
                raise NotIntact(
                    f"the entries {start + 1} to {start + width} of log {self._log.name} are not those signed"
                )
            self._note(bundle[max(stretch.first - 1 - start, 0) : stretch.last - start], copied)
        return copied

    def _note(self, entries: list[bytes], copied: Copied) -> None:
        try:
            for entry in entries:
                event = _read_named(entry[selection.HEADER_BYTES :])
                copied.tags.add(event.type)
                if self._persons and (found := selection.person(event.stream)):
                    copied.persons.add(found)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NotIntact(f"an entry of log {self._log.name} before {copied.last} is no event: {error}") from None

    @cached_property
    def _opened(self) -> tuple[Fetch, TileReader]:
        self._stack = ExitStack()
        source = self._stack.enter_context(target.opened(self._at, self._token))
        there = next(each for each in source.logs if each.name == self._log.name)
        fetch = Keeping(there.fetch, self._folder)
        return fetch, TileReader(fetch, self._log.size, bytes.fromhex(self._log.root))

    def close(self) -> None:
        if self._stack is not None:
            self._stack.close()


class Keeping:
    """Fetches what a folder does not hold yet, and keeps it there (verifier.tiles.Fetch)."""

    def __init__(self, fetch: Fetch, folder: Path) -> None:
        self._fetch = fetch
        self._folder = folder

    def __call__(self, path: str) -> bytes:
        file = self._folder / path
        try:
            return file.read_bytes()
        except FileNotFoundError:
            data = self._fetch(path)
            write_file(file, data)
            return data
