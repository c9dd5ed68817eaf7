"""
Every single byte of a log, changed one at a time.

In tiles these are all bytes of all files below tile/: entries, the lengths before them, and hashes. In a database they are
body, leaf, time and position of every row. Which other byte is put there, chance decides.

A million checks of a thousand entries each would take hours. So most bytes are judged by the verifier's own reading as it
stood before the changed entry, which goes on from there to the end of the next command: it finds the fault there, or does
not. Every 97th byte, each byte of a position, and each of a tree's hashes is judged by a check of the whole log.

Invariant: what judges is the verifier's code, and it reads the changed byte from the file or the database.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random
from typing import NamedTuple

from psycopg import sql

from tamper.shown import Database, HeldSource, Shown, Tiles, read
from verifier.body import region_of
from verifier.faults import Fault, Found, Reason
from verifier.log import _Reading, verify
from verifier.policy import Policy
from verifier.sheet import PageReader, Pages, Task
from verifier.source import FolderSource, Head
from verifier.tiles import WIDTH, Tile, parse_path

WHOLE_EVERY = 97  # a prime: it meets every part of an entry
_LENGTH_BYTES = 2  # before each entry of a bundle
_HASH_BYTES = 32
_NUMBER_BYTES = 8
_BEFORE_THE_BODY = {*Reason} - {*list(Reason)[list(Reason).index(Reason.BODY_TOO_LONG) :]} | {Reason.TILE_MALFORMED}
"""What is found before anything of the entry is taken in."""


class Flip(NamedTuple):
    """What was said of a changed byte, and which position must be named: from `first` to `last`."""

    fault: Fault | None
    first: int
    last: int


class _Onward:
    """Reads a log from any entry on, as `verifier.log.verify` does from the first."""

    def __init__(self, pages: Pages, head: Head, shown: Shown, policy: Policy) -> None:
        self._pages = pages
        self._head = head
        self._policy = policy
        self._clean = [part for whole in pages.entries(1, shown.size) for part in whole.one_by_one()]
        self._reader = PageReader(pages, region_of(head.origin))
        self._reading = self._anew()
        self._ends = _ends_of(shown)

    def judge(self, place: int) -> Fault | None:
        """The fault that is found from here to the end of the next command, all before being as it was."""
        if self._reading.position >= place:
            self._reading = self._anew()
        reading, end = self._reading, self._ends[place - 1]
        reading.read(self._clean[reading.position : place - 1])
        task = Task(place, end, (), ())
        try:
            if not reading.follow(self._reader(task), task):
                for part in self._pages.entries(place, end):
                    reading.read(part.one_by_one())
        except Found as found:
            if found.fault.reason not in _BEFORE_THE_BODY:
                self._reading = self._anew()
            return found.fault
        return None

    def judge_whole(self) -> Fault | None:
        return verify(self._pages, self._policy, origin=self._head.origin).fault

    def _anew(self) -> _Reading:
        return _Reading(self._head.origin, region_of(self._head.origin) or "", streams=True)


def _ends_of(shown: Shown) -> list[int]:
    """For each position, where the command ends that the next entry is of."""
    ends, end = [shown.size] * shown.size, shown.size
    for place in range(shown.size - 1, 0, -1):
        command = read(shown.rows[place].body).command
        end = place + 1 if command.i == command.n else end
        ends[place - 1] = end
    return ends


class TileFlips:
    """The bytes of a directory of tiles, by number."""

    def __init__(self, tiles: Tiles, policy: Policy) -> None:
        self._tiles = tiles
        self._paths = [path for path in sorted(tiles.files) if path.startswith("tile/")]
        self._before = [0, *accumulate(len(tiles.files[path]) for path in self._paths)]
        self._starts = {path: _starts(tiles.files[path]) for path in self._paths if parse_path(path).level is None}
        source = FolderSource(str(tiles.folder))
        (head,) = source.heads()
        self._onward = _Onward(source.pages(head), head, tiles.clean, policy)
        self.count = self._before[-1]

    def run(self, number: int) -> Flip:
        """Change the byte of this number, verify, and put it back."""
        nth = bisect_right(self._before, number) - 1
        path, offset = self._paths[nth], number - self._before[nth]
        tile, byte = parse_path(path), self._tiles.files[path][offset]
        first, last = self._named(path, tile, offset)
        with (self._tiles.folder / path).open("r+b", buffering=0) as file:
            file.seek(offset)
            file.write(bytes([_other(byte, f"{path} {offset}")]))
            try:
                whole = tile.level or number % WHOLE_EVERY == 0
                fault = self._onward.judge_whole() if whole else self._onward.judge(last)
            finally:
                file.seek(offset)
                file.write(bytes([byte]))
        return Flip(fault, first, last)

    def _named(self, path: str, tile: Tile, offset: int) -> tuple[int, int]:
        """The entry; of a tile above level 0 the first entry below the hash. A wrong length spoils the whole bundle."""
        if tile.level is not None:
            position = (tile.index * WIDTH + offset // _HASH_BYTES) * WIDTH**tile.level + 1
            return position, position
        nth = bisect_right(self._starts[path], offset) - 1
        position, first = tile.index * WIDTH + nth + 1, tile.index * WIDTH + 1
        return first if offset - self._starts[path][nth] < _LENGTH_BYTES else position, position


def _starts(bundle: bytes) -> list[int]:
    """At which byte each entry begins, its length included."""
    starts, start = [], 0
    while start < len(bundle):
        starts.append(start)
        start += _LENGTH_BYTES + int.from_bytes(bundle[start : start + _LENGTH_BYTES])
    return starts


def _other(byte: int, seed: str) -> int:
    return byte ^ Random(seed).randrange(1, 256)


def row_bytes(body: bytes) -> int:
    """Of body, leaf, time and position."""
    return len(body) + _HASH_BYTES + 2 * _NUMBER_BYTES


class DatabaseFlips:
    """The bytes of a log's rows in a database, by number."""

    def __init__(self, database: Database, name: str, policy: Policy) -> None:
        self._database = database
        self._log = database.ids[name]
        self._shown = database.clean[name]
        self._before = [0, *accumulate(row_bytes(row.body) for row in self._shown.rows)]
        source = HeldSource(database)
        (head,) = (head for head in source.heads() if head.log == name)
        self._onward = _Onward(source.pages(head), head, self._shown, policy)
        self.count = self._before[-1]

    def run(self, number: int) -> Flip:
        """Change the byte of this number, verify inside the transaction, and roll it back."""
        place = bisect_right(self._before, number)
        row, offset = self._shown.rows[place - 1], number - self._before[place - 1]
        with self._database.connection.transaction(force_rollback=True):
            if offset < len(row.body):
                self._set("body", place, row.body, offset)
            elif (offset := offset - len(row.body)) < _HASH_BYTES:
                self._set("leaf", place, row.leaf, offset)
            elif (offset := offset - _HASH_BYTES) < _NUMBER_BYTES:
                self._set_number("recorded", place, row.recorded, offset)
            else:
                return self._moved(place, offset - _NUMBER_BYTES)
            whole = number % WHOLE_EVERY == 0
            return Flip(self._onward.judge_whole() if whole else self._onward.judge(place), place, place)

    def _moved(self, place: int, offset: int) -> Flip:
        """
        A row at another position leaves a gap, which is named. Before that, it stands where another one stands already, or
        before the first position of all.
        """
        moved = self._set_number("position", place, place, offset)
        first, last = (place, place) if moved >= place else (moved, moved + 1) if moved > 0 else (1, 1)
        return Flip(self._onward.judge_whole(), first, last)

    def _set(self, column: str, place: int, value: bytes, offset: int) -> None:
        other = _other(value[offset], f"{column} {place} {offset}")
        self._update(column, place, value[:offset] + bytes([other]) + value[offset + 1 :])

    def _set_number(self, column: str, place: int, value: int, offset: int) -> int:
        data = bytearray(value.to_bytes(_NUMBER_BYTES))
        data[offset] = _other(data[offset], f"{column} {place} {offset}")
        changed = int.from_bytes(data, signed=True)
        self._update(column, place, changed)
        return changed

    def _update(self, column: str, place: int, value: object) -> None:
        query = sql.SQL("UPDATE ledger.entry SET {} = %s WHERE log = %s::smallint AND position = %s")
        self._database.connection.execute(query.format(sql.Identifier(column)), (value, self._log, place), prepare=True)
