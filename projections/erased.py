"""
What people wrote leaves the read models when their player is erased. (In the log it stays, as ciphertext without a key.)

Invariant: nothing sealed of a player is written after their erasure, since there is no key; so it is enough to look once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from domain.players import Erased
from projections.columns import text
from projections.memory import Tables
from projections.postgres import Cursor, TableProjection
from projections.projection import Events
from projections.state import Table


class Sealed(NamedTuple):
    """The sealed columns of a table, and what stands there when they are empty. `of`: the column that names a row of `through`,
    whose player it is; without these, the row names the player itself.
    """

    table: str
    columns: Mapping[str, str | None]
    through: str = ""
    of: str = ""


class Changes(NamedTuple):
    """`inner`: those of the projection itself. `erased`: ids of players."""

    inner: Any
    erased: Sequence[str]


class Forgetting:
    """A projection, and with each player who is erased the words in its tables go."""

    def __init__(self, inner: TableProjection[Any], *sealed: Sealed) -> None:
        self.name = inner.name
        self.tables: Sequence[Table] = inner.tables
        self._inner = inner
        self._sealed = sealed
        self._columns = {table.name: table.columns for table in inner.tables}

    def changes(self, events: Events) -> Changes:
        erased = ["player_" + recorded.body.stream.rpartition("-")[2] for recorded, _ in events.of(Erased)]
        return Changes(self._inner.changes(events), erased)

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        await self._inner.write(cursor, schema, changes.inner)
        if changes.erased:
            for table, columns, through, of in self._sealed:
                emptied = ", ".join(f"{name} = {_literal(value)}" for name, value in columns.items())
                joined = f"FROM {schema}.{through} AS t WHERE t.id = s.{of} AND t" if through else "WHERE s"
                await cursor.execute(
                    f"UPDATE {schema}.{table} AS s SET {emptied} {joined}.player = ANY (%b)", (text(changes.erased),)
                )

    def fold(self, tables: Tables, changes: Changes) -> None:
        self._inner.fold(tables, changes.inner)
        if changes.erased:
            for sealed in self._sealed:
                self._empty(tables, sealed, set(changes.erased))

    def _empty(self, tables: Tables, sealed: Sealed, erased: set[str]) -> None:
        columns = self._columns[sealed.table]
        for key, row in tables[sealed.table].items():
            shown = dict(zip(columns, row, strict=True))
            owner = shown
            if sealed.through:
                owner = dict(zip(self._columns[sealed.through], tables[sealed.through][shown[sealed.of]], strict=True))
            if owner["player"] in erased:
                tables[sealed.table][key] = tuple({**shown, **sealed.columns}.values())


def _literal(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"
