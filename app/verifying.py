"""
Verifying a region's database: the verifier's own reading of every stored byte, then what only the database has beside
the log: index columns and snapshots, compared with the bodies.

Invariants:
    - an answer «intact» means that every entry up to the head was read and recomputed;
    - what cannot be read is «could not check», never «intact».
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import psycopg

from commands.decider import state_schema
from domain.catalog import AGGREGATES
from eventstore.postgres import acting_as
from eventstore.record import Codec, Entry, decode_body, entry_bytes
from verifier.log import Report, verify

_PAGE = 2_000
_KINDS = {aggregate.name: aggregate for aggregate in AGGREGATES}


class Checked(NamedTuple):
    """A log's report; `beside` names what disagrees with an intact log, if anything does."""

    report: Report
    beside: str | None = None
    beside_position: int | None = None

    @property
    def intact(self) -> bool:
        return self.report.intact and self.beside is None

    def to_json(self) -> dict[str, Any]:
        shown = self.report.to_json()
        if self.beside is not None:
            fault = {"position": self.beside_position, "reason": "index_differs", "detail": self.beside}
            shown |= {"intact": False, "fault": fault}
        return shown


def verify_database(
    dsn: str, *, only: str | None = None, progress: Callable[[str, int, int], None] = lambda *_: None
) -> dict[str, Checked]:
    """Check every log in a database (or one). Raises psycopg.Error, KeyError for a log that is not there."""
    with psycopg.connect(acting_as(dsn, "countroom_reader"), autocommit=True) as connection:
        logs = connection.execute(
            """SELECT l.id, l.name, l.origin, l.genesis, coalesce(e.position, 0), coalesce(e.leaf, l.genesis)
                 FROM ledger.log AS l LEFT JOIN LATERAL
                      (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e ON true
                ORDER BY l.id""",
            binary=True,
        ).fetchall()
        if only is not None and only not in {row[1] for row in logs}:
            raise KeyError(only)
        checked = {}
        for log, name, origin, genesis, position, leaf in logs:
            if only in {None, name} and position:
                index = _Index(name)
                source = _entries(connection, log, genesis, position, index, progress, name)
                report = verify(source, origin=origin, head=(position, bytes(leaf)))
                checked[name] = Checked(report, index.fault, index.position)
        if all(c.intact for c in checked.values()):
            _check_snapshots(connection, checked)
        return checked


def _entries(
    connection: psycopg.Connection[Any],
    log: int,
    genesis: bytes,
    head: int,
    index: _Index,
    progress: Callable[[str, int, int], None],
    name: str,
) -> Iterator[tuple[int, bytes, bytes]]:
    """Pages in short transactions; the previous leaf is the stored one, so a changed leaf shows at its own position too."""
    cursor = connection.cursor(binary=True)
    leaf, after = genesis, 0
    while after < head:
        rows = cursor.execute(
            """SELECT position, recorded, leaf, body, stream, version, type, partition, command_id FROM ledger.entry
                WHERE log = %s::smallint AND position > %s AND position <= %s ORDER BY position LIMIT %s""",
            (log, after, head, _PAGE),
            prepare=True,
        ).fetchall()
        if not rows:
            return
        for position, recorded, this, body, *columns in rows:
            yield position, entry_bytes(leaf, position, recorded, body), this
            index.compare(position, body, columns)
            leaf, after = this, position
        progress(name, after, head)


class _Index:
    """Compares the index columns of entries that the verifier has just accepted."""

    def __init__(self, log: str) -> None:
        self.fault: str | None = None
        self.position: int | None = None
        self._own = f"region-{log}-"
        self._epochs: dict[int, int] = {}

    def compare(self, position: int, raw: bytes, columns: list[Any]) -> None:
        if self.fault is not None:
            return
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
        if found != expected:
            names = ("stream", "version", "type", "partition", "command_id")
            wrong = next(n for n, a, b in zip(names, found, expected, strict=True) if a != b)
            self.fault, self.position = f"the index column {wrong} differs from the body", position


def _check_snapshots(connection: psycopg.Connection[Any], checked: dict[str, Checked]) -> None:
    """Fold every snapshot's stream again. The first that differs is reported at the position of its last entry."""
    codec = Codec(AGGREGATES)
    for stream, version, leaf, shape, state in connection.execute(
        "SELECT stream, version, leaf, schema, state FROM ledger.snapshot ORDER BY stream", binary=True
    ).fetchall():
        rows = connection.execute(
            """SELECT l.name, e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
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
            report = checked[last.log].report
            checked[last.log] = Checked(report, f"the snapshot of {stream} differs from its events", last.position)
            return
