"""
Verifying a region's database: the verifier's own reading of every stored byte, then what only the database has beside
the log: snapshots, folded again, and (`app.stored`) index columns and tiles.

Invariants:
    - an answer «intact» means that every entry up to the head was read and recomputed;
    - what cannot be read is «could not check», never «intact».
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.stored import DatabasePages, or_could_not_check
from domain.catalog import AGGREGATES, aggregate_of
from eventstore.log import state_schema
from eventstore.postgres import acting_as
from eventstore.record import Codec, Entry
from verifier.faults import CouldNotCheck
from verifier.sheet import Pages
from verifier.source import Head


class Beside(NamedTuple):
    """A snapshot in a database disagrees with an intact log."""

    position: int
    detail: str


class DatabaseSource:
    """The logs in a database (verifier.source.Keeper). `beside` is what `compare_snapshots` has found, by log."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.url = without_password(dsn)
        self.beside: dict[str, Beside] = {}
        self._logs: dict[str, tuple[int, bytes]] = {}
        with or_could_not_check():
            self._connection = psycopg.connect(acting_as(dsn, "countroom_reader"), autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def heads(self) -> list[Head]:
        with or_could_not_check():
            logs = self._connection.execute(
                """SELECT l.id, l.name, l.origin, l.genesis, coalesce(e.position, 0), coalesce(e.leaf, l.genesis)
                     FROM ledger.log AS l LEFT JOIN LATERAL
                          (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e ON true
                    ORDER BY l.id""",
                binary=True,
            ).fetchall()
        self._logs = {name: (log, genesis) for log, name, _, genesis, _, _ in logs}
        return [Head(name, origin, position, leaf) for _, name, origin, _, position, leaf in logs]

    def pages(self, head: Head) -> Pages:
        return DatabasePages(self._dsn, head, *self._logs[head.log])

    def leaf_at(self, head: Head, position: int) -> bytes:
        """The stored one, which reading the entries has recomputed."""
        with or_could_not_check():
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
        with or_could_not_check():
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
                aggregate = aggregate_of(stream)
                if aggregate is None or shape != state_schema(aggregate):
                    continue
                folded = aggregate.initial
                for entry in entries:
                    read = codec.decode(entry)
                    folded = aggregate.evolve(folded, read.event, read.at)
                if msgspec.json.encode(folded, order="sorted") != state:
                    last = entries[-1]
                    self.beside[last.log] = Beside(last.position, f"the snapshot of {stream} differs from its events")
                    return


def without_password(dsn: str) -> str:
    """How to name a database without telling its password."""
    try:
        known = conninfo_to_dict(dsn)
    except psycopg.Error:
        return "the given DSN"
    return f"postgresql://{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
