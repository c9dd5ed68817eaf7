"""
Verifying a region's database: the verifier's own reading of every stored byte, then what only the database has beside
the log: index columns and snapshots, compared with the bodies.

Invariants:
    - an answer «intact» means that every entry up to the head was read and recomputed;
    - what cannot be read is «could not check», never «intact».
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from commands.decider import state_schema
from domain.catalog import AGGREGATES
from eventstore.postgres import acting_as
from eventstore.record import Codec, Entry, decode_body, entry_bytes
from verifier.source import CouldNotCheck, Entries, Head

_PAGE = 2_000
_KINDS = {aggregate.name: aggregate for aggregate in AGGREGATES}


class Beside(NamedTuple):
    """Something in a database disagrees with an intact log."""

    position: int
    detail: str


class DatabaseSource:
    """The logs in a database (verifier.source.Keeper). `beside` fills while they are read: the first fault, by log."""

    def __init__(self, dsn: str) -> None:
        self.url = without_password(dsn)
        self.beside: dict[str, Beside] = {}
        self._logs: dict[str, tuple[int, bytes]] = {}
        with _or_could_not_check():
            self._connection = psycopg.connect(acting_as(dsn, "countroom_reader"), autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def heads(self) -> list[Head]:
        with _or_could_not_check():
            logs = self._connection.execute(
                """SELECT l.id, l.name, l.origin, l.genesis, coalesce(e.position, 0), coalesce(e.leaf, l.genesis)
                     FROM ledger.log AS l LEFT JOIN LATERAL
                          (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e ON true
                    ORDER BY l.id""",
                binary=True,
            ).fetchall()
        self._logs = {name: (log, genesis) for log, name, _, genesis, _, _ in logs}
        return [Head(name, origin, position, leaf) for _, name, origin, _, position, leaf in logs]

    def entries(self, head: Head, *, progress: Callable[[int], None]) -> Entries:
        """Pages in short transactions; the previous leaf is the stored one, so a changed leaf shows at its own position too."""
        index = _Index(head.log)
        (log, leaf), after = self._logs[head.log], 0
        with _or_could_not_check(), self._connection.cursor(binary=True) as cursor:
            while after < head.position:
                rows = cursor.execute(
                    """SELECT position, recorded, leaf, body, stream, version, type, partition, command_id FROM ledger.entry
                        WHERE log = %s::smallint AND position > %s AND position <= %s ORDER BY position LIMIT %s""",
                    (log, after, head.position, _PAGE),
                    prepare=True,
                ).fetchall()
                if not rows:
                    return
                for position, recorded, this, body, *columns in rows:
                    yield position, entry_bytes(leaf, position, recorded, body), this
                    if head.log not in self.beside and (fault := index.compare(position, body, columns)):
                        self.beside[head.log] = Beside(position, fault)
                    leaf, after = this, position
                progress(after)

    def leaf_at(self, head: Head, position: int) -> bytes:
        """The stored one, which reading the entries has recomputed."""
        with _or_could_not_check():
            row = self._connection.execute(
                "SELECT leaf FROM ledger.entry WHERE log = %s::smallint AND position = %s",
                (self._logs[head.log][0], position),
                binary=True,
            ).fetchone()
        if row is None:
            raise CouldNotCheck(f"position {position} of log {head.log} has gone meanwhile")
        return bytes(row[0])

    def compare_snapshots(self) -> None:
        """Fold every snapshot's stream again. The first that differs is reported at the position of its last entry."""
        codec = Codec(AGGREGATES)
        with _or_could_not_check():
            for stream, version, leaf, shape, state in self._connection.execute(
                "SELECT stream, version, leaf, schema, state FROM ledger.snapshot ORDER BY stream", binary=True
            ).fetchall():
                rows = self._connection.execute(
                    """SELECT l.name, e.position, e.recorded, e.leaf, e.body
                         FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
                        WHERE e.stream = %s AND e.version <= %s ORDER BY e.version""",
                    (stream, version),
                    binary=True,
                ).fetchall()
                entries = [Entry(*row) for row in rows]
                if not entries or entries[-1].leaf != leaf:
                    continue  # its last entry does not count (any more): nobody uses it
                aggregate = _KINDS[stream.partition("-")[0]]
                if shape != state_schema(aggregate):
                    continue
                folded = aggregate.initial
                for entry in entries:
                    read = codec.decode(entry)
                    folded = aggregate.evolve(folded, read.event, read.at)
                if msgspec.json.encode(folded, order="sorted") != state:
                    last = entries[-1]
                    self.beside[last.log] = Beside(last.position, f"the snapshot of {stream} differs from its events")
                    return


@contextmanager
def _or_could_not_check() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise CouldNotCheck(str(error).strip()) from error


def without_password(dsn: str) -> str:
    """How to name a database without telling its password."""
    try:
        known = conninfo_to_dict(dsn)
    except psycopg.Error:
        return "the given DSN"
    return f"postgresql://{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"


class _Index:
    """Compares the index columns of entries that the verifier has just accepted."""

    def __init__(self, log: str) -> None:
        self._own = f"region-{log}-"
        self._epochs: dict[int, int] = {}

    def compare(self, position: int, raw: bytes, columns: list[Any]) -> str | None:
        """What is wrong, if anything is. For the entries from the first on."""
        body = decode_body(raw)
        if position == 1:
            opened = msgspec.json.decode(body.data)
            self._epochs = {p: opened["epoch"] for first, last in opened["partitions"] for p in range(first, last + 1)}
        id_ = body.claims or (body.command.id if body.command.i == 1 else None)
        expected = [body.stream, body.version, body.type, body.partition, id_]
        counts = (
            body.stream.startswith(self._own)
            if body.partition is None
            else self._epochs.get(body.partition) == body.epoch
        )
        if not counts:
            expected = [None] * 5
        found = [*columns[:4], columns[4].hex if columns[4] is not None else None]
        names = ("stream", "version", "type", "partition", "command_id")
        wrong = next((n for n, a, b in zip(names, found, expected, strict=True) if a != b), None)
        return wrong and f"the index column {wrong} differs from the body"
