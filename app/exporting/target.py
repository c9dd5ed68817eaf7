"""
What is to be exported: the logs at a target, each up to the newest head that was published.

Invariant: everything is fetched by the paths of C2SP tlog-tiles, from a region as from a database, so that one reader
(`verifier.tiles.TileReader`) holds all of it against the root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psycopg

from app.checking import is_dsn
from app.stored import or_could_not_check
from app.verifying import without_password
from eventstore import postgres
from eventstore.heads import LogTree
from eventstore.record import entry_bytes, genesis
from verifier.body import region_of
from verifier.faults import CouldNotCheck, quoted
from verifier.note import NoteError, parse_checkpoint
from verifier.source import Fetch as HttpFetch
from verifier.source import UrlSource
from verifier.tiles import WIDTH, Fetch, encode_bundle, parse_path

PAGE_BUNDLES = 16

_LOGS = """
    SELECT l.id, l.name, l.origin, coalesce(e.position, 0), c.note
      FROM ledger.log AS l
           LEFT JOIN LATERAL (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e ON true
           LEFT JOIN LATERAL (
               SELECT * FROM ledger.checkpoint AS c
                WHERE c.log = l.id AND c.published_at IS NOT NULL AND c.size <= e.position ORDER BY c.size DESC LIMIT 1
           ) AS c ON true
     ORDER BY l.id"""
_ENTRIES = """
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position BETWEEN %s AND %s ORDER BY e.position"""
_HEADS = """
    SELECT c.size, c.note FROM ledger.checkpoint AS c
     WHERE c.log = %s::smallint AND c.published_at IS NOT NULL AND c.size < %s ORDER BY c.size"""


class Exportable(NamedTuple):
    """A log at a target: `note` is its newest published head, or None; behind it stand entries up to `length`."""

    name: str
    origin: str
    length: int
    note: bytes | None
    fetch: Fetch
    heads: Callable[[int], Iterator[tuple[int, bytes]]]
    """Size and note of the published heads below a size."""


class Target(NamedTuple):
    """Where the logs are. `url` names it without any password; `is_url`: it is a region that can be asked for keys."""

    url: str
    is_url: bool
    logs: Sequence[Exportable]


@contextmanager
def opened(target: str, token: str) -> Iterator[Target]:
    """The logs at a URL or in a database. Raises CouldNotCheck, here and wherever something is fetched."""
    with ExitStack() as stack:
        if is_dsn(target):
            yield Target(without_password(target), False, _in_database(target, stack))
        elif target.startswith(("http://", "https://")):
            yield Target(target.rstrip("/"), True, list(_at_url(UrlSource(target, token))))
        else:
            raise CouldNotCheck(f"{quoted(target)} is neither the URL of a region nor the DSN of a database")


def checkpoint_of(note: bytes, origin: str) -> tuple[int, bytes]:
    """Size and root of a signed note. Raises CouldNotCheck unless it is a head of that log."""
    try:
        checkpoint = parse_checkpoint(note.decode().rpartition("\n\n")[0] + "\n")
    except (NoteError, UnicodeDecodeError) as error:
        raise CouldNotCheck(f"the newest head cannot be read: {error}") from None
    if checkpoint.origin != origin:
        raise CouldNotCheck(f"the newest head of {quoted(origin)} is one of {quoted(checkpoint.origin)}")
    return checkpoint.size, checkpoint.root


def _at_url(source: UrlSource) -> Iterator[Exportable]:
    for head in source.heads():
        if head.leaf is None or region_of(head.origin) != head.log:
            raise CouldNotCheck(f"{source.url} is no region: it shows a log in tiles, which is an export already")
        prefix = f"/v1/logs/{head.log}"
        fetch = HttpFetch(source, prefix)
        try:
            note = fetch("checkpoint")
        except LookupError:
            note = None
        pages = source.pages(head)

        def heads(size: int, pages: Any = pages) -> Iterator[tuple[int, bytes]]:
            return ((of, note) for of, note in pages.heads() if of < size)

        yield Exportable(head.log, head.origin, head.position, note, fetch, heads)


def _in_database(dsn: str, stack: ExitStack) -> list[Exportable]:
    runner = stack.enter_context(asyncio.Runner())
    with or_could_not_check():
        reader = stack.enter_context(
            psycopg.connect(postgres.acting_as(dsn, "countroom_reader"), autocommit=True)  # heads
        )
        connection = runner.run(postgres.connect(dsn, "countroom_reader"))
        stack.callback(lambda: runner.run(connection.close()))
        rows = reader.execute(_LOGS, binary=True).fetchall()

    def heads_of(log: int) -> Callable[[int], Iterator[tuple[int, bytes]]]:
        def heads(size: int) -> Iterator[tuple[int, bytes]]:
            with or_could_not_check():
                return iter(reader.execute(_HEADS, (log, size), binary=True).fetchall())

        return heads

    return [
        Exportable(
            name,
            origin,
            length,
            note,
            _DatabaseFetch(runner, LogTree(connection, log), reader, log, origin),
            heads_of(log),
        )
        for log, name, origin, length, note in rows
    ]


class _DatabaseFetch:
    """
    What a region would serve of a log in a database (verifier.tiles.Fetch). LookupError where the log ends before.

    Bundles and leaves are read by the page, for both are asked for one after the other.
    """

    def __init__(
        self, runner: asyncio.Runner, tree: LogTree, reader: psycopg.Connection[Any], log: int, origin: str
    ) -> None:
        self._run = runner.run
        self._tree = tree
        self._reader = reader
        self._log = log
        self._genesis = genesis(origin)
        self._page: tuple[int, list[bytes], list[bytes]] = (-1, [], [])

    def __call__(self, path: str) -> bytes:
        tile = parse_path(path)
        with or_could_not_check():
            if tile.level:
                return self._run(self._tree.tile(tile.level, tile.index, tile.width))
            entries, leaves = self._read(tile.index // PAGE_BUNDLES)
        start = tile.index % PAGE_BUNDLES * WIDTH
        found = (leaves if tile.level == 0 else entries)[start : start + tile.width]
        if len(found) != tile.width:
            raise LookupError(f"the log has no {tile.width} entries from position {tile.index * WIDTH + 1} on")
        return b"".join(found) if tile.level == 0 else encode_bundle(found)

    def _read(self, page: int) -> tuple[list[bytes], list[bytes]]:
        """The entries of a page and their leaves as they are stored, as far as there are any without a gap."""
        if self._page[0] != page:
            first = page * PAGE_BUNDLES * WIDTH  # the entry before, whose leaf is needed
            cursor = self._reader.cursor(binary=True)
            rows = cursor.execute(_ENTRIES, (self._log, first, first + PAGE_BUNDLES * WIDTH), prepare=True).fetchall()
            if first == 0:
                rows.insert(0, (0, 0, self._genesis, b""))
            positions, times, leaves, bodies = zip(*rows, strict=True) if rows else ((), (), (), ())
            if positions != tuple(range(first, first + len(rows))):
                raise CouldNotCheck(f"positions are missing behind {first}")
            entries = map(entry_bytes, leaves, positions[1:], times[1:], bodies[1:])
            self._page = page, list(entries), list(leaves[1:])
        return self._page[1:]
