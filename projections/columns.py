"""
Columns of rows, packed by hand for `unnest`, as eventstore.packing does it, with nulls and times; and rows read back plainly.

A batch reaches PostgreSQL as one statement a table, and a column as one binary array: psycopg's own dumpers take twice the time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import date
from typing import Any

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

from projections.state import Row, Value

_HEADER = struct.Struct("!iiiii")
_LENGTHS = [struct.pack("!i", length) for length in range(256)]
_EIGHT = struct.Struct("!iq")
_NULL = struct.pack("!i", -1)
_TEXT, _BIGINT, _TIME = 25, 20, 1184
_TIME_READ, _DATE_READ = struct.Struct("!q"), struct.Struct("!i")
_EPOCH_2000_US = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
_EPOCH_2000_DAY = date(2000, 1, 1).toordinal()


class Column:
    """An array that is ready to be sent; each subclass is one type of PostgreSQL."""

    __slots__ = ("data",)

    def __init__(self, element: int, parts: list[bytes]) -> None:
        count = len(parts)
        self.data = (
            b"".join((_HEADER.pack(1, 1, element, count, 1), *parts)) if count else struct.pack("!iii", 0, 0, element)
        )


class TextColumn(Column):
    __slots__ = ()


class BigintColumn(Column):
    __slots__ = ()


class TimeColumn(Column):
    __slots__ = ()


def shown(value: str) -> str:
    """PostgreSQL has no U+0000 in text, but JSON does: it is shown as U+FFFD, and no event can stop a projection with it."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in value else value


def as_shown(*row: Value) -> Row:
    """A row as PostgreSQL would show it."""
    return tuple([shown(value) if isinstance(value, str) else value for value in row])


def text(values: Sequence[str | None]) -> TextColumn:
    """Texts, as they are `shown`."""
    return TextColumn(_TEXT, [_NULL if value is None else _text(value) for value in values])


def bigint(values: Sequence[int | None]) -> BigintColumn:
    pack = _EIGHT.pack
    return BigintColumn(_BIGINT, [_NULL if value is None else pack(8, value) for value in values])


def times(values: Sequence[int | None]) -> TimeColumn:
    """Times (timestamptz) from µs since 1970 UTC."""
    pack = _EIGHT.pack
    return TimeColumn(_TIME, [_NULL if value is None else pack(8, value - _EPOCH_2000_US) for value in values])


def register(context: AdaptContext) -> None:
    """Teach a connection (or pool) to send columns as they are."""
    for kind, oid in ((TextColumn, 1009), (BigintColumn, 1016), (TimeColumn, 1185)):
        context.adapters.register_dumper(kind, _dumper(oid))


def read_plainly(context: AdaptContext) -> None:
    """Teach a binary cursor to read times as µs since 1970 UTC, dates as ISO 8601 and json as the text that it is."""
    context.adapters.register_loader("timestamptz", _Microseconds)
    context.adapters.register_loader("date", _Day)
    context.adapters.register_loader("json", _Text)


class _Microseconds(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        [value] = _TIME_READ.unpack(data)
        return value + _EPOCH_2000_US  # type: ignore[no-any-return]


class _Day(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        [value] = _DATE_READ.unpack(data)
        return date.fromordinal(value + _EPOCH_2000_DAY).isoformat()


class _Text(TextLoader):
    format = Format.BINARY


def _text(value: str) -> bytes:
    encoded = shown(value).encode()
    length = len(encoded)
    return (_LENGTHS[length] if length < len(_LENGTHS) else struct.pack("!i", length)) + encoded


def _dumper(oid_: int) -> type[Dumper]:
    class ColumnDumper(Dumper):
        format = Format.BINARY
        oid = oid_

        def dump(self, obj: Any) -> Buffer:
            return obj.data  # type: ignore[no-any-return]

    return ColumnDumper
