"""
A log as its regulator reads it: signed heads, tiles of hashes, bundles of entries, and proofs (docs/reference/log-interface.md).

Checkpoint, tiles and bundles are C2SP tlog-tiles; a proof in a file is a C2SP tlog-proof.

Invariants:
    - nothing is shown beyond the newest published head, so whatever is shown can be checked against a signature;
    - each file has one path, and what stands there never changes, except the checkpoint;
    - a copy of another region's log is served as that region serves it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg import AsyncConnection

from domain.errors import Invalid, NotFound
from eventstore.heads import WIDTH, LogTree
from queries.context import Context, page_size, read_cursor, write_cursor

POSITION_MAX = 2**63 - 1

_NAME = re.compile(r"[a-z][a-z0-9]*(\.[1-9][0-9]*)?")
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x(?!000)[0-9]{3}/(?:x[0-9]{3}/)*)?[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_SERVED = """
    SELECT l.id, c.size, c.note
      FROM ledger.log AS l
           LEFT JOIN LATERAL (
               SELECT * FROM ledger.checkpoint AS c
                WHERE c.log = l.id AND c.published_at IS NOT NULL
                      AND c.size <= coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id
                                               ORDER BY e.position DESC LIMIT 1), 0)
                ORDER BY c.size DESC LIMIT 1) AS c ON true
     WHERE l.name = %s"""
_HEADS = """
    SELECT c.size, c.root, c.note FROM ledger.checkpoint AS c
     WHERE c.log = %s::smallint AND c.published_at IS NOT NULL AND c.size > %s AND c.size <= %s ORDER BY c.size LIMIT %s"""


class NotPublished(NotFound):
    code = "not_published"
    title = "No published head of the log covers this"


class Head(msgspec.Struct, frozen=True):
    """A head that the log signed and published; `root` in hex, `note` the whole signed note."""

    size: int
    root: str
    note: str


class HeadPage(msgspec.Struct, frozen=True):
    """Heads by size."""

    items: list[Head]
    next_cursor: str | None


class Inclusion(msgspec.Struct, frozen=True):
    """That an entry stands in the tree of a signed head: `index` = position - 1, hashes in hex from its sibling up."""

    position: int
    index: int
    leaf: str
    size: int
    hashes: list[str]
    checkpoint: str

    def file(self) -> bytes:
        """The same as a file (C2SP tlog-proof, "Format")."""
        hashes = [b64encode(bytes.fromhex(each)).decode() for each in self.hashes]
        return "\n".join(["c2sp.org/tlog-proof@v1", f"index {self.index}", *hashes, "", self.checkpoint]).encode()


class Consistency(msgspec.Struct, frozen=True, rename={"first": "from", "second": "to"}):
    """That the tree of the size `to` begins with that of the size `from`; hashes in hex (RFC 6962, section 2.1.2)."""

    first: int
    second: int
    hashes: list[str]


class Path(NamedTuple):
    """A file of the log: a tile of hashes, or of no level a bundle of entries."""

    level: int | None
    number: int
    width: int


class _Served(NamedTuple):
    """A log's number, and its newest head that is published and whose entries are here."""

    log: int
    size: int
    note: bytes


async def checkpoint(context: Context, log: str) -> bytes:
    """The newest published head of a log, as a signed note. Raises NotFound, NotPublished."""
    async with context.pool.connection() as connection:
        return (await _served(connection, log)).note


async def file(context: Context, log: str, path: str) -> bytes:
    """What stands at a path such as tile/0/x001/234 or tile/entries/007.p/12. Raises NotFound, NotPublished."""
    level, index, width = parse_path(path)
    async with context.pool.connection() as connection:
        served = await _served(connection, log)
        if index * WIDTH + width > served.size >> 8 * (level or 0):
            raise NotPublished(f"the log's newest head has {served.size} entries", log=log, size=served.size)
        tree = LogTree(connection, served.log)
        return await (tree.bundle(index, width) if level is None else tree.tile(level, index, width))


async def heads(context: Context, log: str, after: int = 0, limit: int = 50, cursor: str | None = None) -> HeadPage:
    """The published heads of more than `after` entries, the smallest first. Raises Invalid, NotFound, NotPublished."""
    page_size(limit)
    if cursor is not None:
        (after,) = read_cursor(cursor, tuple[int])
    if not 0 <= after <= POSITION_MAX:
        raise Invalid("a size is an integer from 0", after=after)
    async with context.pool.connection() as connection:
        served = await _served(connection, log)
    rows = await context.fetch(_HEADS, served.log, after, served.size, limit)
    items = [Head(size, root.hex(), note.decode()) for size, root, note in rows]
    return HeadPage(items, write_cursor(items[-1].size) if items and items[-1].size < served.size else None)


async def inclusion(context: Context, log: str, position: int) -> Inclusion:
    """The proof that the entry at a position stands in the newest published head. Raises NotFound, NotPublished."""
    async with context.pool.connection() as connection:
        served = await _served(connection, log)
        if not 1 <= position <= served.size:
            raise NotPublished(f"the log's newest head has {served.size} entries", log=log, size=served.size)
        tree = LogTree(connection, served.log)
        hashes = await tree.inclusion_proof(position - 1, served.size)
        [leaf] = await anext(tree.leaves(position - 1, position))
    found = [each.hex() for each in hashes]
    return Inclusion(position, position - 1, leaf.hex(), served.size, found, served.note.decode())


async def inclusions(context: Context, log: str, positions: Sequence[int]) -> tuple[int, dict[int, list[str]]]:
    """The size of the newest published head, and the proofs (hashes in hex) of those of the positions that it covers.

    Raises NotFound, NotPublished.
    """
    async with context.pool.connection() as connection:
        served = await _served(connection, log)
        tree = LogTree(connection, served.log)
        found = {}
        for position in positions:
            if position <= served.size:
                found[position] = [each.hex() for each in await tree.inclusion_proof(position - 1, served.size)]
    return served.size, found


async def consistency(context: Context, log: str, first: int, second: int) -> Consistency:
    """The proof that the tree of `second` leaves begins with that of `first`. Raises Invalid, NotFound, NotPublished."""
    if not 1 <= first <= second:
        raise Invalid(
            "a proof leads from a size of 1 or more to one that is not smaller", **{"from": first, "to": second}
        )
    async with context.pool.connection() as connection:
        served = await _served(connection, log)
        if second > served.size:
            raise NotPublished(f"the log's newest head has {served.size} entries", log=log, size=served.size)
        hashes = await LogTree(connection, served.log).consistency_proof(first, second)
    return Consistency(first, second, [each.hex() for each in hashes])


def parse_path(path: str) -> Path:
    """The file of a path, which has one spelling (tlog-tiles, "Merkle Tree"). Raises NotFound for any other."""
    match = _PATH.fullmatch(path)
    width = int((match and match["width"]) or WIDTH)
    if match is None or width > WIDTH or (match["width"] and width == WIDTH):
        raise NotFound("no tile and no bundle of entries has this path")
    index = int(match["index"].replace("x", "").replace("/", ""))
    return Path(None if match["level"] == "entries" else int(match["level"]), index, width)


async def _served(connection: AsyncConnection[Any], log: str) -> _Served:
    async with connection.cursor(binary=True) as cursor:
        rows = await (await cursor.execute(_SERVED, (log,))).fetchall() if _NAME.fullmatch(log) else []
    if not rows:
        raise NotFound("no such log is held here", log=log)
    number, size, note = rows[0]
    if note is None:
        raise NotPublished("the log has no published head yet", log=log)
    return _Served(number, size, note)
