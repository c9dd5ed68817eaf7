"""
What a read model holds, in one form whatever keeps it: canonical lines, their SHA-256, and the first difference between two.

A state is tables (or hashes, or sorted sets) in the order of their names, and their rows in the order of their keys, by code
point. Its canonical lines are, for each table, `# <name>` and then each row as a JSON array: integers, strings written as
RFC 8785 (3.2.2.2) writes them, and null; times are integers (µs since 1970 UTC), dates ISO 8601. Every line ends with LF.

As NDJSON (GET /v1/projections/{name}/state) the rows are the same bytes. Before them stands
{"projection","positions","code"}; a table is announced by {"table","columns","key","player"}, in which `key` says how many
columns are the key and `player` which one names the player; the last line is {"digest"}, without which it broke off.

Invariants:
    - equal digests and no difference are the same;
    - what is read is believed in nothing: an order, a shape or a digest of its own makes it unreadable or different, never equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

Value: TypeAlias = int | str | None
Row: TypeAlias = tuple[Any, ...]
"""A `Value` for each column, in the order of the table's."""

_PLAYER = "player_"
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class Table(msgspec.Struct, frozen=True, rename={"name": "table"}):
    """A table's columns. The first `key` of them are texts that identify and order its rows; `player` names the player's."""

    name: str
    columns: tuple[str, ...]
    key: int = 1
    player: str | None = None


Chunk: TypeAlias = tuple[Table, Sequence[Row]]
"""Some rows of a table. A table comes in one chunk or several, one after the other, an empty one in one that has no rows."""


class State(NamedTuple):
    """A read model at one moment: `positions` = the last entry of each log that it holds, `code` = what applied it."""

    projection: str
    positions: Mapping[str, int]
    code: str | None
    chunks: Iterable[Chunk]

    def digest(self) -> str:
        """SHA-256 over the canonical lines, in hex."""
        writer = Writer()
        for chunk in self.chunks:
            writer.add(chunk)
        return writer.digest()

    def ndjson(self) -> Iterator[bytes]:
        """Some lines at a time."""
        writer = Writer()
        yield writer.begin(self.projection, self.positions, self.code)
        for chunk in self.chunks:
            yield writer.add(chunk)
        yield writer.end()


class Writer:
    """Makes the lines of a state, chunk by chunk: what it returns is NDJSON, what it hashes are the canonical lines."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._table: Table | None = None

    def begin(self, projection: str, positions: Mapping[str, int], code: str | None) -> bytes:
        return _encode(_Head(projection, dict(sorted(positions.items())), code)) + b"\n"

    def add(self, chunk: Chunk) -> bytes:
        table, rows = chunk
        announced = b""
        if table != self._table:
            self._table = table
            self._hash.update(f"# {table.name}\n".encode())
            announced = _encode(table) + b"\n"
        lines = _encode_lines(rows)
        self._hash.update(lines)
        return announced + lines

    def digest(self) -> str:
        return self._hash.hexdigest()

    def end(self) -> bytes:
        return _encode(_End(self.digest())) + b"\n"


# Reading


class Unreadable(ValueError):
    """These lines are not the state of a read model, or not all of it."""


class _Head(msgspec.Struct, frozen=True):
    projection: str
    positions: dict[str, int]
    code: str | None


class _End(msgspec.Struct, frozen=True):
    digest: str


_head = msgspec.json.Decoder(_Head)
_table = msgspec.json.Decoder(Table)
_row = msgspec.json.Decoder(tuple[Value, ...])
_end = msgspec.json.Decoder(_End)


def read(lines: Iterable[bytes]) -> State:
    """The state that NDJSON tells, line by line with or without LF. Raises Unreadable, also while its chunks are read."""
    rest = iter(lines)
    try:
        head = _head.decode(next(rest, b""))
    except msgspec.DecodeError as error:
        raise Unreadable(f"a state begins with what it is of: {error}") from error
    return State(head.projection, head.positions, head.code, _chunks(rest))


def _chunks(lines: Iterator[bytes]) -> Iterator[Chunk]:
    digest = hashlib.sha256()
    table: Table | None = None
    try:
        for line in lines:
            if line.startswith(b"["):
                yield _checked(table, _row.decode(line))
                digest.update(line.rstrip(b"\n") + b"\n")
            elif line.startswith(b'{"table"'):
                table = _table.decode(line)
                yield table, ()
                digest.update(f"# {table.name}\n".encode())
            elif _end.decode(line).digest != digest.hexdigest():
                raise Unreadable("the lines do not have the digest that the last one tells")
            elif next(lines, None) is not None:
                raise Unreadable("nothing follows the digest")
            else:
                return
    except msgspec.DecodeError as error:
        raise Unreadable(f"not a line of a state: {error}") from error
    raise Unreadable("it ends before the digest")


def _checked(table: Table | None, row: Row) -> Chunk:
    if table is None or len(row) != len(table.columns) or not 1 <= table.key <= len(row):
        raise Unreadable("a row does not have the columns of its table")
    if not all(isinstance(part, str) for part in row[: table.key]):
        raise Unreadable("a key is made of texts")
    return table, (row,)


# Comparing


class Difference(msgspec.Struct, frozen=True):
    """
    The first row in which two states differ, and the first column of it.

    `field` is null if one of them has no such row: then its side is null, and the other the whole row by columns. The key is
    empty if it has not even the table.
    """

    projection: str
    table: str
    key: list[Value]
    player: str | None
    field: str | None
    live: Any
    replayed: Any

    def __str__(self) -> str:
        whose = f" of {self.player}" if self.player and self.player not in self.key else ""
        where = f"{self.projection}: {' '.join(map(str, [self.table, *self.key]))}{whose}"
        if self.field is not None:
            return f"{where}: {self.field} is {_shown(self.live)}, replayed {_shown(self.replayed)}"
        if self.replayed is None:
            return f"{where}: no event has made this: {_shown(self.live)}"
        return f"{where}: is missing: {_shown(self.replayed)}"


class _Place(NamedTuple):
    """A row, or with no row the beginning of a table, and what orders it: the table's name and the key."""

    order: tuple[str, ...]
    table: Table
    row: Row

    def whole(self) -> dict[str, Value]:
        return dict(zip(self.table.columns, self.row, strict=False))


def difference(live: State, own: State) -> Difference | None:
    """Where a live read model first differs from one that was replayed to the same positions. Raises ValueError at others, Unreadable."""
    if (live.projection, dict(live.positions)) != (own.projection, dict(own.positions)):
        raise ValueError(
            f"{live.projection} at {live.positions} and {own.projection} at {own.positions} do not compare"
        )
    theirs, ours = _places(live.chunks), _places(own.chunks)
    while True:
        one, other = next(theirs, None), next(ours, None)
        if one is not None and (other is None or one.order < other.order):
            return _differs(own, one, None, one.whole(), None)
        if other is None:
            return None
        if one is None or other.order < one.order:
            return _differs(own, other, None, None, other.whole())
        if one.row != other.row:
            mine, yours = other.whole(), one.whole()
            field = next(name for name in (*mine, *yours) if mine.get(name) != yours.get(name))
            return _differs(own, other, field, yours.get(field), mine.get(field))


def _places(chunks: Iterable[Chunk]) -> Iterator[_Place]:
    begun: Table | None = None
    for table, rows in chunks:
        if table != begun:
            begun = table
            yield _Place((table.name,), table, ())
        for row in rows:
            yield _Place((table.name, *row[: table.key]), table, row)


def _differs(own: State, place: _Place, field: str | None, live: Any, replayed: Any) -> Difference:
    key = list[Value](place.order[1:])
    return Difference(own.projection, place.table.name, key, _player(place), field, live, replayed)


def _player(place: _Place) -> str | None:
    """The id of the player whom a row is about."""
    id_ = place.whole().get(place.table.player or "")
    return None if id_ is None else _PLAYER + str(id_).removeprefix(_PLAYER)


def _shown(value: Any) -> str:
    return _encode(value).decode()
