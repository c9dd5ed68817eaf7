"""
A log as somebody shows it: what stands in a database or in a directory of tiles, as plain values that an attack may change.

Invariant: whatever an attack makes of it is written into the real database (by a superuser, past all triggers) or into real
files, read back by the real verifier, and put back afterwards.
"""

from __future__ import annotations

import shutil
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg

from app.stored import DatabasePages
from app.verifying import DatabaseSource
from eventstore.record import Body, decode_body, encode_body, entry_bytes, genesis, leaf_hash
from tamper.logs import CleanLog, subtrees_of
from verifier.sheet import Pages
from verifier.source import Head
from verifier.tiles import Tile, encode_bundle, tiles_of

Columns = tuple[str | None, int | None, str | None, int | None, str | None]
"""stream, version, type, partition, command_id (hex): an index over the body, in a database only."""

_COLUMNS = "log, position, recorded, leaf, body, stream, version, type, partition, command_id"


class Row(NamedTuple):
    """An entry with its leaf. `prev` stands in tiles only: a database takes the leaf of the row before."""

    position: int
    recorded: int
    prev: bytes
    leaf: bytes
    body: bytes
    columns: Columns

    def chained(self, prev: bytes, position: int) -> Row:
        """The same, made to follow this leaf."""
        leaf = leaf_hash(prev, position, self.recorded, self.body)
        return self._replace(position=position, prev=prev, leaf=leaf)

    def saying(self, body: bytes) -> Row:
        """With another body, and index columns to match."""
        return self._replace(body=body, columns=columns_of(body))

    @property
    def entry(self) -> bytes:
        return entry_bytes(self.prev, self.position, self.recorded, self.body)


@dataclass
class Shown:
    """`rows` in their order; `tiled`: they end at the newest head, which is the checkpoint. Snapshots: state by stream."""

    log: CleanLog
    tiled: bool
    rows: list[Row]
    heads: dict[int, bytes]
    subtrees: dict[tuple[int, int], bytes]
    snapshots: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> Shown:
        return Shown(self.log, self.tiled, [*self.rows], {**self.heads}, {**self.subtrees}, {**self.snapshots})

    @property
    def size(self) -> int:
        return len(self.rows)

    def number(self) -> None:
        """Restate the positions by the places."""
        self.rows = [row._replace(position=place) for place, row in enumerate(self.rows, 1)]

    def chain(self, place: int) -> None:
        """Chain all from this place on anew, and with it the tree."""
        prev = self.rows[place - 2].leaf if place > 1 else genesis(self.log.origin)
        for nth in range(place, self.size + 1):
            self.rows[nth - 1] = self.rows[nth - 1].chained(prev, nth)
            prev = self.rows[nth - 1].leaf
        self.subtrees = subtrees_of([row.leaf for row in self.rows])


def clean(log: CleanLog, *, tiled: bool) -> Shown:
    heads = dict(log.heads)
    rows, prev = [], genesis(log.origin)
    for entry in log.entries[: max(heads)] if tiled else log.entries:
        rows.append(Row(entry.position, entry.recorded, prev, entry.leaf, entry.body, columns_of(entry.body)))
        prev = entry.leaf
    snapshots = {} if tiled else {each.stream: each.state for each in log.snapshots}
    return Shown(log, tiled, rows, heads, subtrees_of([row.leaf for row in rows]), snapshots)


def columns_of(body: bytes) -> Columns:
    """Nothing for a body that cannot be read."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        read = decode_body(body)
        return read.stream, read.version, read.type, read.partition, read.command.id if read.command.i == 1 else None
    return None, None, None, None, None


def rewritten(body: bytes, **changes: Any) -> bytes:
    """The body with other members in its envelope."""
    return encode_body(msgspec.structs.replace(decode_body(body), **changes))


def read(body: bytes) -> Body:
    return decode_body(body)


# Tiles.


def files_of(shown: Shown) -> dict[str, bytes]:
    """By path. Entries and hashes are laid out for as many rows as there are."""
    files: dict[str, bytes] = {f"heads/{size}": note for size, note in shown.heads.items()}
    files["checkpoint"] = shown.heads[shown.size]
    for tile in tiles_of(shown.size):
        start = tile.index * 256
        if tile.level is None:
            data = encode_bundle(row.entry for row in shown.rows[start : start + tile.width])
        elif tile.level == 0:
            data = b"".join(row.leaf for row in shown.rows[start : start + tile.width])
        else:
            data = b"".join(shown.subtrees[tile.level, start + nth] for nth in range(tile.width))
        files[tile.path] = data
    return files


class Tiles:
    """A directory of tiles, in which one log is shown."""

    def __init__(self, folder: Path, log: CleanLog) -> None:
        self.folder = folder
        self.log = log
        self.clean = clean(log, tiled=True)
        self._files = files_of(self.clean)
        shutil.rmtree(folder, ignore_errors=True)
        self._write(self._files)

    @property
    def files(self) -> Mapping[str, bytes]:
        """As they are while nothing is tampered with."""
        return self._files

    @contextmanager
    def showing(self, shown: Shown) -> Iterator[None]:
        files = files_of(shown)
        try:
            self._write({path: data for path, data in files.items() if self._files.get(path) != data})
            for path in self._files.keys() - files.keys():
                (self.folder / path).unlink()
            yield
        finally:
            for path in files.keys() - self._files.keys():
                (self.folder / path).unlink()
            self._write({path: data for path, data in self._files.items() if files.get(path) != data})

    def _write(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)


def entry_at(tile: Tile, data: bytes, offset: int) -> tuple[int, bool]:
    """Which entry of the log a byte of a bundle belongs to, by position, and whether it is one of its length."""
    position, start = tile.index * 256 + 1, 0
    while True:
        end = start + 2 + int.from_bytes(data[start : start + 2])
        if offset < end:
            return position, offset < start + 2
        position, start = position + 1, end


# A database.


class Database:
    """
    A real database with several logs, by the administrator's one connection: it tampers in a transaction, the verifier reads
    inside it, and then it is rolled back.

    Its unique indexes are replaced by plain ones, as a superuser can: otherwise PostgreSQL itself would refuse some attacks.
    """

    def __init__(self, dsn: str, logs: Mapping[str, CleanLog]) -> None:
        self.logs = logs
        self.clean = {name: clean(log, tiled=False) for name, log in logs.items()}
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.connection.execute("SET session_replication_role = replica")  # no trigger fires, no foreign key is checked
        self.ids: dict[str, int] = dict(self.connection.execute("SELECT name, id FROM ledger.log").fetchall())

    def close(self) -> None:
        self.connection.close()

    def tidy(self) -> None:
        """Remove what transactions have left that were rolled back."""
        self.connection.execute("VACUUM ledger.entry, ledger.checkpoint, ledger.subtree, ledger.snapshot")

    @contextmanager
    def showing(self, name: str, shown: Shown) -> Iterator[None]:
        with self.connection.transaction(force_rollback=True):
            self._change_rows(name, shown)
            self._change_beside(name, shown)
            yield

    def _change_rows(self, name: str, shown: Shown) -> None:
        log = self.ids[name]
        before, after = Counter(self.clean[name].rows), Counter(shown.rows)
        before_in_table, after_in_table = (
            Counter({_stored(row): n for row, n in rows.items()}) for rows in (before, after)
        )
        changed = sorted({row[0] for row in before_in_table - after_in_table})
        added = [*(after_in_table - before_in_table).elements()]
        if changed:
            self.connection.execute(
                "DELETE FROM ledger.entry WHERE log = %s::smallint AND position = ANY (%s::bigint[])", (log, changed)
            )
            kept = [row for row in after_in_table.elements() if row[0] in set(changed)]
            added = [*(row for row in added if row[0] not in set(changed)), *kept]
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f"COPY ledger.entry ({_COLUMNS}) FROM STDIN".encode()) as copy,
        ):
            for row in added:
                copy.write_row((log, *row))

    def _change_beside(self, name: str, shown: Shown) -> None:
        log, before, run = self.ids[name], self.clean[name], self.connection.execute
        for size in before.heads.keys() - shown.heads.keys():
            run("DELETE FROM ledger.checkpoint WHERE log = %s AND size = %s", (log, size))
        for size, note in shown.heads.items():
            if before.heads[size] != note:
                run(
                    "UPDATE ledger.checkpoint SET note = %s, root = %s WHERE log = %s AND size = %s",
                    (note, _root_in(note), log, size),
                )
        for index in before.subtrees.keys() - shown.subtrees.keys():
            run("DELETE FROM ledger.subtree WHERE log = %s AND level = %s AND index = %s", (log, *index))
        for index, hash_ in shown.subtrees.items():
            if before.subtrees.get(index) != hash_:
                run(
                    "INSERT INTO ledger.subtree VALUES (%s, %s, %s, %s) ON CONFLICT (log, level, index) DO UPDATE"
                    " SET hash = excluded.hash",
                    (log, *index, hash_),
                )
        for stream, state in shown.snapshots.items():
            if before.snapshots[stream] != state:
                run("UPDATE ledger.snapshot SET state = %s WHERE stream = %s", (state, stream))


def loosen(connection: psycopg.Connection[Any], log: int) -> None:
    """Let the table of a log hold what no unique index would allow."""
    table = f"ledger.entry_{log}"
    for name in connection.execute(
        """
        SELECT p.relname FROM pg_index AS i JOIN pg_class AS p ON p.oid = i.indexrelid
         WHERE i.indrelid = 'ledger.entry'::regclass AND NOT i.indisunique"""
    ).fetchall():  # of all logs together: those of a single one cannot go without it
        connection.execute("DROP INDEX ledger.{}".format(*name).encode())
    for name, definition in connection.execute(
        "SELECT i.indexname, i.indexdef FROM pg_indexes AS i WHERE i.schemaname = 'ledger' AND i.tablename = %s",
        (f"entry_{log}",),
    ).fetchall():
        if name.endswith("_pkey"):
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
        else:
            connection.execute(f"DROP INDEX ledger.{name}".encode())
        connection.execute(definition.replace("UNIQUE ", "").encode())


class HeldSource(DatabaseSource):
    """The database as it is inside the tampering transaction: everything is read by that one connection."""

    def __init__(self, database: Database) -> None:
        self._dsn = ""
        self._connection = database.connection
        self.url = "the database"
        self.beside = {}
        self._logs = {}

    def pages(self, head: Head) -> Pages:
        pages = DatabasePages("", head, *self._logs[head.log])
        pages._connection = self._connection  # noqa: SLF001 - otherwise it would open one, and not see the transaction
        return pages


def _stored(row: Row) -> tuple[Any, ...]:
    return row.position, row.recorded, row.leaf, row.body, *row.columns


def _root_in(note: bytes) -> bytes:
    """What its text states; of one that is garbled, anything."""
    with suppress(ValueError, IndexError):
        root = b64decode(note.split(b"\n")[2], validate=True)
        return root if len(root) == sha256().digest_size else sha256(note).digest()
    return sha256(note).digest()
