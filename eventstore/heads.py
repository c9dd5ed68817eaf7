"""
The tree over a log that is held here, from its leaves and the stored hashes of larger subtrees; and the heads that its key
signed.

A proof needs a few hundred hashes out of millions of entries. They are stored in tiles of 256, as C2SP tlog-tiles lays
them out: level 0 are the leaves, which stand in ledger.entry; a hash of level L is the root of 256^L leaves, ledger.subtree.

Invariants:
    - stored hashes are a cache: what is missing is computed from the level below, and whoever takes a proof to somebody
      compares it with a signed root;
    - of two heads of one size that disagree, the second is refused, and the first stays.

Sizes and indexes count leaves from 0, positions entries from 1.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection

from eventstore import tree
from eventstore.record import entry_bytes
from eventstore.tree import HASH_BYTES, Node, Range

WIDTH = 256
LEVEL_MAX = 7  # 256^8 leaves are more than a log can have
SIZE_MAX = 2**63 - 1
PAGE_HASHES = 16 * WIDTH

_CONFLICT = "CR012"
_length = struct.Struct(">H")

_STORED = """
    SELECT coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = %(log)s ORDER BY e.position DESC LIMIT 1), 0),
           ARRAY(SELECT coalesce((SELECT s.index + 1 FROM ledger.subtree AS s
                                   WHERE s.log = %(log)s AND s.level = l ORDER BY s.index DESC LIMIT 1), 0)
                   FROM generate_series(1, 7) AS l ORDER BY l)"""
_STORE = """
    INSERT INTO ledger.subtree (log, level, index, hash)
        SELECT %s, %s, %s + n - 1, hash FROM unnest(%s::bytea[]) WITH ORDINALITY AS u (hash, n)
    ON CONFLICT DO NOTHING"""
_HASHES = """
    SELECT CASE WHEN r.level = 0
                THEN (SELECT string_agg(e.leaf, '' ORDER BY e.position) FROM ledger.entry AS e
                       WHERE e.log = %(log)s AND e.position > r.first AND e.position <= r.last)
                ELSE (SELECT string_agg(s.hash, '' ORDER BY s.index) FROM ledger.subtree AS s
                       WHERE s.log = %(log)s AND s.level = r.level AND s.index >= r.first AND s.index < r.last) END
      FROM unnest(%(levels)s::smallint[], %(firsts)s::bigint[], %(lasts)s::bigint[])
               WITH ORDINALITY AS r (level, first, last, n)
     ORDER BY r.n"""
_ENTRIES = """
    SELECT 0 AS position, 0::bigint AS recorded, l.genesis AS leaf, ''::bytea AS body
      FROM ledger.log AS l WHERE l.id = %(log)s AND %(first)s = 0
    UNION ALL
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e
     WHERE e.log = %(log)s AND e.position BETWEEN %(first)s AND %(last)s
     ORDER BY position"""
_KEEP = "SELECT ledger.keep_checkpoint(%s::smallint, %s::bigint, %s::bytea, %s::bytea, %s)"
_NEWEST = """
    SELECT c.size, c.root, c.note, c.at, true FROM ledger.checkpoint AS c
     WHERE c.log = %s AND c.published_at IS NOT NULL ORDER BY c.size DESC LIMIT 1"""
_HEADS = """
    SELECT c.size, c.root, c.note, c.at, c.published_at IS NOT NULL FROM ledger.checkpoint AS c
     WHERE c.log = %s AND c.size > %s ORDER BY c.size LIMIT %s"""


class HeadConflict(Exception):
    """The log's key signed another root for the same size: the evidence of a fork."""


class StoredHead(NamedTuple):
    """A head that the log signed; `note` is the whole signed note."""

    size: int
    root: bytes
    note: bytes
    at: datetime
    published: bool


class _Span(NamedTuple):
    """The hashes from `first` to before `last` of one level."""

    level: int
    first: int
    last: int


class LogTree:
    """The tree over the log `log` (ledger.log.id). Not for two tasks at once. Every method but `extend` only reads."""

    def __init__(self, connection: AsyncConnection[Any], log: int) -> None:
        self._connection = connection
        self._log = log

    async def extend(self) -> int:
        """
        Store the roots of what became a complete tile, and return the log's size. Needs the role countroom_heads.

        Each hash is computed once, from 256 others; two processes that do it at once store the same.
        """
        ((size, stored),) = await self._fetch(_STORED, {"log": self._log})
        for level in range(1, LEVEL_MAX + 1):
            finished = size // WIDTH**level
            for first in range(stored[level - 1], finished, PAGE_HASHES // WIDTH):
                hashes = await self._computed(_Span(level, first, min(first + PAGE_HASHES // WIDTH, finished)))
                await self._connection.execute(_STORE, (self._log, level, first, _split(hashes)))
        return int(size)

    async def leaves(self, start: int, end: int) -> AsyncIterator[list[bytes]]:
        """The leaf hashes of [start, end), page after page. Raises LookupError where the log ends before."""
        for first in range(start, end, PAGE_HASHES):
            (page,) = await self._hashes([_Span(0, first, min(first + PAGE_HASHES, end))])
            yield _split(page)

    async def root(self, size: int) -> bytes:
        """The root of the first `size` leaves. Raises LookupError when the log has fewer."""
        (root,) = await self._roots([Range(0, size)], size)
        return root

    async def prefix(self, size: int) -> tree.Tree:
        """The tree of the first `size` leaves, to go on from. Raises LookupError when the log has fewer."""
        ranges = [Range(of.number << of.height, (of.number + 1) << of.height) for of in tree.complete(Range(0, size))]
        return tree.Tree(size, await self._roots(ranges, size))

    async def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """
        The hashes that prove leaf `index` to be in the tree of `size` leaves (RFC 6962, section 2.1.1).

        Raises LookupError when the log is smaller, ValueError unless 0 ≤ index < size.
        """
        return await self._roots(tree.inclusion(index, size), size)

    async def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """
        The hashes that prove the tree of `size2` leaves to begin with that of `size1` (RFC 6962, section 2.1.2).

        From size 0 it is empty. Raises LookupError when the log is smaller, ValueError unless 0 ≤ size1 ≤ size2.
        """
        return await self._roots(tree.consistency(size1, size2), size2)

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a tile (tlog-tiles, "Merkle Tree"). Raises LookupError when the log has fewer."""
        (hashes,) = await self._hashes([_Span(level, index * WIDTH, index * WIDTH + width)])
        return hashes

    async def bundle(self, index: int, width: int) -> bytes:
        """
        The first `width` entries of a bundle, each whole (prev_leaf ‖ position ‖ recorded ‖ body) and behind its length
        in two bytes (tlog-tiles, "Log entries"). Raises LookupError when the log has fewer.
        """
        first = index * WIDTH
        _refuse_beyond(first + width)
        rows = await self._fetch(_ENTRIES, {"log": self._log, "first": first, "last": first + width})
        if len(rows) != width + 1:
            raise LookupError(f"the log has no {width} entries from position {first + 1} on")
        entries = [
            entry_bytes(previous[2], position, recorded, body)
            for previous, (position, recorded, _, body) in pairwise(rows)
        ]
        return b"".join([part for entry in entries for part in (_length.pack(len(entry)), entry)])

    async def _roots(self, ranges: Sequence[Range], size: int) -> list[bytes]:
        """The roots over these ranges of a tree of `size` leaves, by one reading."""
        _refuse_beyond(size)
        nodes = [tree.complete(leaves) for leaves in ranges]
        last = [_Span(0, size - 1, size)] if size else []  # no proof of a tree that is not there
        found = iter(await self._hashes([*(_span(node) for of in nodes for node in of), *last]))
        return [tree.joined([tree.folded(next(found)) for _ in of]) for of in nodes]

    async def _hashes(self, spans: Sequence[_Span]) -> list[bytes]:
        """The hashes of each span, one behind the other. Raises LookupError where the log ends before."""
        for level, _, last in spans:
            _refuse_beyond(last << 8 * level)
        arguments = {
            "log": self._log,
            "levels": [span.level for span in spans],
            "firsts": [span.first for span in spans],
            "lasts": [span.last for span in spans],
        }
        answer = []
        for (found,), (level, first, last) in zip(await self._fetch(_HASHES, arguments), spans, strict=True):
            hashes = bytes(found or b"")
            stored = first + len(hashes) // HASH_BYTES
            answer.append(hashes + await self._computed(_Span(level, stored, last)) if stored < last else hashes)
        return answer

    async def _computed(self, span: _Span) -> bytes:
        """What is not stored, from the level below."""
        if span.level == 0:
            raise LookupError(f"the log has no position {span.first + 1}")
        hashes = []
        for first in range(span.first, span.last, PAGE_HASHES // WIDTH):
            last = min(first + PAGE_HASHES // WIDTH, span.last)
            (below,) = await self._hashes([_Span(span.level - 1, first * WIDTH, last * WIDTH)])
            tiles = range(0, len(below), WIDTH * HASH_BYTES)
            hashes += [tree.folded(below[at : at + WIDTH * HASH_BYTES]) for at in tiles]
        return b"".join(hashes)

    async def _fetch(self, query: LiteralString, arguments: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._connection.cursor(binary=True) as cursor:
            await cursor.execute(query, arguments)
            return await cursor.fetchall()


async def keep_head(
    connection: AsyncConnection[Any], log: int, head_size: int, root: bytes, note: bytes, *, published: bool
) -> None:
    """
    Keep a head that the log `log` signed; of one that is known, keep who else signed it. Needs the role countroom_heads.

    Durable once it returns. A signature, and that a head was published, are never taken back. Whether signatures are true
    is not looked at. Raises HeadConflict when another root of this size is known, psycopg's error CR005 when the note is
    no checkpoint of this log, size and root.
    """
    try:
        await connection.execute(_KEEP, (log, head_size, root, note, published))
    except psycopg.DatabaseError as error:
        if error.sqlstate == _CONFLICT:
            raise HeadConflict(str(error.diag.message_primary)) from error
        raise


async def newest_head(connection: AsyncConnection[Any], log: int) -> StoredHead | None:
    """The largest head of the log that is published."""
    found = await _stored(connection, _NEWEST, (log,))
    return found[0] if found else None


async def heads(connection: AsyncConnection[Any], log: int, after: int, limit: int) -> list[StoredHead]:
    """Heads of more than `after` leaves, published or not, by size. `after` = -1 begins with the first."""
    return await _stored(connection, _HEADS, (log, after, limit))


async def _stored(connection: AsyncConnection[Any], query: LiteralString, arguments: Iterable[Any]) -> list[StoredHead]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(query, tuple(arguments))
        return [StoredHead(*row) for row in await cursor.fetchall()]


def _span(node: Node) -> _Span:
    """The hashes that a complete subtree consists of, at the highest level of tiles that it spans."""
    level, above = divmod(node.height, 8)
    return _Span(level, node.number << above, (node.number + 1) << above)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def _refuse_beyond(size: int) -> None:
    if size > SIZE_MAX:
        raise LookupError(f"no log has {size} entries")
