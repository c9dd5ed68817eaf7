"""
The vault, carried from a closed database into the one that goes on: the keys of its players' personal data, and what they are found by.

The keys stay wrapped by the region key, which is the same in both.

Invariant: what is there already stays as it is, so that carrying again changes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, Final

import psycopg
from psycopg import AsyncConnection, sql

TABLES: Final = ("data_key", "blind_index", "region_key", "index_key")
"""Of the schema vault. The others follow from the logs."""

_COLUMNS = """
    SELECT attname FROM pg_attribute WHERE attrelid = ('vault.' || %s)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_CHUNK = 1 << 16


def write(dsn: str, folder: Path) -> dict[str, int]:
    """Write the vault's tables into a folder, in one snapshot; how many rows of each. For an administrator's connection."""
    written = {}
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for table in TABLES:
            columns = [name for (name,) in connection.execute(_COLUMNS, (table,)).fetchall()]
            # What the columns are, stands in the first line: the other database may be of a later release.
            query = sql.SQL("COPY vault.{} ({}) TO STDOUT (FORMAT text, HEADER)").format(*_named(table, columns))
            with _private(folder / f"{table}.copy") as file, connection.cursor() as cursor:
                with cursor.copy(query) as copy:
                    for data in copy:
                        file.write(data)
                written[table] = max(cursor.rowcount, 0)
    return written


async def read(connection: AsyncConnection[Any], folder: Path) -> dict[str, int]:
    """Take what was written; how many rows of each table are new. For an administrator's connection."""
    taken = {}
    async with connection.transaction():
        for table in TABLES:
            file = folder / f"{table}.copy"
            with file.open("rb") as opened:
                columns = opened.readline().decode().rstrip("\n").split("\t")
            name, listed = _named(table, columns)
            await connection.execute(
                sql.SQL("CREATE TEMP TABLE carried ON COMMIT DROP AS SELECT {1} FROM vault.{0} LIMIT 0").format(
                    name, listed
                )
            )
            async with connection.cursor() as cursor:
                copying = sql.SQL("COPY carried ({}) FROM STDIN (FORMAT text, HEADER MATCH)").format(listed)
                with file.open("rb") as opened:
                    async with cursor.copy(copying) as copy:
                        while data := opened.read(_CHUNK):
                            await copy.write(data)
                await cursor.execute(
                    sql.SQL(
                        "INSERT INTO vault.{0} ({1}) OVERRIDING SYSTEM VALUE SELECT {1} FROM carried ON CONFLICT DO NOTHING"
                    ).format(name, listed)
                )
                taken[table] = max(cursor.rowcount, 0)
            await connection.execute("DROP TABLE carried")
        await connection.execute(
            "SELECT setval(pg_get_serial_sequence('vault.region_key', 'number'), greatest(max(number), 1), max(number) IS NOT NULL)"
            " FROM vault.region_key"
        )
    return taken


def _private(path: Path) -> BinaryIO:
    """To be written, and readable by nobody else."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _named(table: str, columns: list[str]) -> tuple[sql.Identifier, sql.Composed]:
    return sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
