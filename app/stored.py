"""
A log as a database stores it, page by page, for the processes that verify it.

Invariants:
    - what is read is compared with nothing but itself: hashes and forms are the verifier's part, index columns are ours;
    - every row of the log is read, wherever it stands and however often its position is there: one that nobody could reach
      by its position would still be found by its stream;
    - a process that reads imports no more than that needs, since it begins anew with each check.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from operator import itemgetter
from typing import Any, LiteralString, NamedTuple

import msgspec
import psycopg

from domain.logs import next_name
from eventstore.postgres import acting_as
from eventstore.record import decode_body
from verifier.body import Columns
from verifier.faults import Broken, CouldNotCheck, Reason
from verifier.sheet import Entries
from verifier.source import Head
from verifier.terms import ADOPTED, OPENED, TAGS, Terms, check_form
from verifier.tiles import WIDTH

_PAGE = 1_024
_LEAST = -(2**63)  # of the numbers of a bigint
_LEAF_BYTES = 32
_NO_LEAF = bytes(_LEAF_BYTES)  # in the place of what cannot be one
_numbers = struct.Struct(">qq").pack  # below zero there is none in a sound log, but a column can hold it
_HEADS_A_PAGE = 500
_NOTHING = (None,) * 5
_NO_TERM = {(None, None)}
_ENTRIES: LiteralString = """
    SELECT position, recorded, leaf, body, stream, version, type, partition, encode(uuid_send(command_id), 'hex')
      FROM ledger.entry WHERE log = %s::smallint AND position BETWEEN %s AND %s ORDER BY position LIMIT %s"""
_SUBTREES: LiteralString = """
    SELECT index, hash FROM ledger.subtree WHERE log = %s::smallint AND level = %s::smallint AND index >= %s AND index < %s"""
_HEADS: LiteralString = (
    "SELECT size, note FROM ledger.checkpoint WHERE log = %s::smallint AND size > %s ORDER BY size LIMIT %s"
)


class _CommandPart(msgspec.Struct, gc=False):
    id: str
    i: int


class _Indexed(msgspec.Struct, gc=False):
    """What of a body stands in columns, and what decides whether it does."""

    stream: str
    version: int
    type: str
    command: _CommandPart
    partition: int | None = None
    epoch: int | None = None
    claims: str | None = None


_read_body = msgspec.json.Decoder(_Indexed).decode


@contextmanager
def or_could_not_check() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise CouldNotCheck(str(error).strip()) from error


class DatabasePages:
    """
    One log in a database (verifier.sheet.Pages). Each process that reads it has a connection of its own.

    Pages are read in short transactions; the previous leaf is the stored one, so a changed leaf shows at its own position too.
    """

    differing = Reason.SUBTREE_DIFFERS

    def __init__(self, dsn: str, head: Head, log: int, genesis: bytes) -> None:
        self._made_of = (dsn, head, log, genesis)
        self._dsn, self._head, self._log, self._genesis = self._made_of
        self._index: _Index | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return DatabasePages, self._made_of

    def length(self) -> int:
        ((length,),) = self._fetch(
            "SELECT coalesce(max(position), 0) FROM ledger.entry WHERE log = %s::smallint", self._log
        )
        return int(length)

    def entries(self, first: int, last: int) -> Iterator[Entries]:
        index = self._index = self._index or _Index(self._head.log, self._said(), self._adopted())
        previous = self._leaf_before(first)
        for start in range(first, last + 1, _PAGE):
            lowest = start if start > 1 else _LEAST
            rows = self._fetch(_ENTRIES, self._log, lowest, min(start + _PAGE - 1, last), 2 * _PAGE)
            if not rows:
                return
            positions, times, stored, texts, *columns = zip(*rows, strict=True)
            leaves = [leaf if leaf and len(leaf) == _LEAF_BYTES else _NO_LEAF for leaf in stored]
            bodies = texts if all(texts) else [text or b"" for text in texts]  # where somebody has let in a null
            prefixes = (previous, *leaves)  # the last one is one too many
            yield Entries(
                positions,
                [
                    prev_leaf + _numbers(position, time or 0) + body
                    for prev_leaf, position, time, body in zip(prefixes, positions, times, bodies, strict=False)
                ],
                b"".join(leaves),
                _Beside(index, positions, bodies, columns),
            )
            previous = leaves[-1]

    def hashes(self, level: int, index: int, width: int) -> list[bytes | None]:
        """As far as they are kept: the table is a cache."""
        start = index * WIDTH
        kept = dict(self._fetch(_SUBTREES, self._log, level, start, start + width))
        return [kept.get(start + offset) for offset in range(width)]

    def heads(self) -> Iterator[tuple[int, bytes]]:
        after = -1
        while rows := self._fetch(_HEADS, self._log, after, _HEADS_A_PAGE):
            yield from rows
            after = rows[-1][0]

    def _said(self) -> list[tuple[int, bytes]]:
        """What stands on the log's own stream. An entry that its columns hide from here is found by them to differ."""
        query: LiteralString = """
            SELECT position, body FROM ledger.entry
             WHERE log = %s::smallint AND stream = %s ORDER BY position"""
        return [
            (position, body or b"") for position, body in self._fetch(query, self._log, f"region-{self._head.log}-log")
        ]

    def _adopted(self) -> list[bytes]:
        """What other logs say that they have adopted; of a closed log they tell where it ends."""
        query: LiteralString = (
            "SELECT body FROM ledger.entry WHERE log <> %s::smallint AND stream = %s AND type = 'log.adopted'"
        )
        following = next_name(self._head.log)
        return [body or b"" for (body,) in self._fetch(query, self._log, f"region-{following}-log")]

    def _leaf_before(self, position: int) -> bytes:
        """No leaf where an entry is missing: the reader will come to that gap."""
        if position == 1:
            return self._genesis
        rows = self._fetch(
            "SELECT leaf FROM ledger.entry WHERE log = %s::smallint AND position = %s", self._log, position - 1
        )
        return rows[0][0] if rows and len(rows[0][0] or b"") == _LEAF_BYTES else _NO_LEAF

    def _fetch(self, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        with or_could_not_check():
            return self._connection.cursor(binary=True).execute(query, parameters, prepare=True).fetchall()

    @cached_property
    def _connection(self) -> psycopg.Connection[Any]:
        return psycopg.connect(acting_as(self._dsn, "countroom_reader"), autocommit=True)


class _Index:
    """Compares the index columns of entries with their bodies."""

    def __init__(self, log: str, said: Sequence[tuple[int, bytes]], adopted: Sequence[bytes]) -> None:
        """`said`: position and body of what the log says of itself; `adopted`: what the next log of its region has adopted."""
        self._own = f"region-{log}-"
        self._owned: list[tuple[int, Mapping[int | None, int]]] = [(0, {})]  # behind which position, until the next one
        terms = Terms()
        for position, body in said:
            with suppress(
                msgspec.MsgspecError, LookupError, TypeError, ValueError, Broken
            ):  # else the log is not in order
                read = decode_body(body)
                if read.stream != f"{self._own}log" or read.type not in TAGS:
                    continue
                data = msgspec.json.decode(read.data)
                if read.type == OPENED:
                    ranges = data["partitions"]
                    terms.owned = {p: data["epoch"] for first, last in ranges for p in range(first, last + 1)}
                else:
                    terms.take(read.type, data)
                owned: dict[int | None, int] = {partition: epoch for partition, epoch in terms.owned.items()}  # noqa: C416 — its key type
                self._owned.append((position, owned))
        self._end(log, adopted)

    def _end(self, log: str, adopted: Sequence[bytes]) -> None:
        """What the next log of the region went on with has ended here without a release."""
        for body in adopted:
            with suppress(msgspec.MsgspecError, LookupError, TypeError, ValueError, Broken):
                data = msgspec.json.decode(decode_body(body).data)
                if data["of"] == log:
                    cut, left = data["cut"]["position"], check_form(ADOPTED, data)
                    owned = {p: epoch for p, epoch in self._epochs(cut + 1).items() if p not in left}
                    before = [each for each in self._owned if each[0] <= cut]
                    self._owned = [*before, (cut, owned)]

    def _epochs(self, position: int) -> Mapping[int | None, int]:
        """What the log owns when an entry at this position is judged."""
        return self._owned[bisect_left(self._owned, position, key=itemgetter(0)) - 1][1]

    def agrees(self, positions: Sequence[int], facts: Columns, columns: Sequence[Sequence[Any]]) -> bool:
        """Whether the columns are these facts, of entries that count. Facts do not tell who claims another command's id."""
        owned = self._epochs(positions[0])
        if owned is not self._epochs(positions[-1]):
            return False
        streams, versions, types, partitions, epochs, commands, nths, _ = facts
        ids = tuple([command if i == 1 else None for command, i in zip(commands, nths, strict=True)])
        return owned.items() >= set(zip(partitions, epochs, strict=True)) - _NO_TERM and tuple(map(tuple, columns)) == (
            tuple(streams),
            tuple(versions),
            tuple(types),
            tuple(partitions),
            ids,
        )

    def compare(
        self, positions: Sequence[int], bodies: Sequence[bytes], columns: list[tuple[Any, ...]]
    ) -> tuple[int, str] | None:
        """The first entry of which a column says something else than its body, and which column."""
        own = self._own
        try:
            expected = [
                (b.stream, b.version, b.type, b.partition, b.claims or (b.command.id if b.command.i == 1 else None))
                if (
                    self._epochs(position).get(b.partition) == b.epoch
                    if b.partition is not None
                    else b.stream.startswith(own)
                )
                else _NOTHING
                for position, b in zip(positions, map(_read_body, bodies), strict=True)
            ]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None  # the log is not in order, as its reader will say
        streams, versions, types, partitions, ids = columns
        found = list(zip(streams, versions, types, partitions, ids, strict=True))
        if found == expected:
            return None
        place = next(place for place, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
        names = ("stream", "version", "type", "partition", "command_id")
        wrong = next(n for n, a, b in zip(names, found[place], expected[place], strict=True) if a != b)
        return positions[place], f"the index column {wrong} differs from the body"


class _Beside(NamedTuple):
    """The index columns of some entries (verifier.sheet.Index)."""

    compared: _Index
    positions: Sequence[int]
    bodies: Sequence[bytes]
    columns: list[tuple[Any, ...]]

    def agrees(self, facts: Columns) -> bool:
        claims = any(b'claims"' in body or b"\\u" in body for body in self.bodies)  # or may, in other letters
        return not claims and self.compared.agrees(self.positions, facts, self.columns)

    def differing(self) -> tuple[int, str] | None:
        return self.compared.compare(self.positions, self.bodies, self.columns)
