"""
Read models in memory: what whoever replays a log compares with those that answer.

Invariant: the changes are made by the functions that make the live read model's, and what is then held is, line by line, what
its store would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias

from projections.projection import START, Batch, Events, Moved, Position, StateHash
from projections.state import Chunk, Row, State, Table
from projections.version import CODE

Rows: TypeAlias = dict[Any, Row]
"""Rows by their keys: a text, or a tuple of texts where the key is of several columns."""

Tables: TypeAlias = dict[str, Rows]


class Pure(Protocol):
    """What all projections are, whatever keeps their read models."""

    name: str

    def changes(self, events: Events) -> Any: ...


class MemoryStore:
    """
    A projection with its tables in memory; catalog.in_memory() makes one of each.

    `fold(tables, changes)` applies changes, or raises OutOfOrder and changes nothing; `table(name)` describes a table.
    """

    def __init__(
        self,
        projection: Pure,
        fold: Callable[[Tables, Any], None],
        table: Callable[[str], Table],
        names: Iterable[str] = (),
    ) -> None:
        self.name = projection.name
        self.tables: Tables = {name: {} for name in names}
        self.vector: dict[str, Position] = {}
        self._changes = projection.changes
        self._fold = fold
        self._table = table

    def at(self, log: str) -> Position:
        return self.vector.get(log, START)

    @property
    def positions(self) -> dict[str, int]:
        """The last entry of each log that is held."""
        return {log: place.position for log, place in self.vector.items()}

    @property
    def code(self) -> str | None:
        return CODE if self.vector else None

    def apply(self, batch: Batch) -> None:
        """Apply whole commands of a log. Raises Moved unless they follow what is held, OutOfOrder; then nothing has changed."""
        if self.at(batch.log) != batch.before:
            raise Moved(self.name)
        self._fold(self.tables, self._changes(batch.events))
        self.vector[batch.log] = batch.after

    def rows(self, table: str) -> Iterable[Row]:
        """A table's rows, in no order; none if there is no such table."""
        return self.tables.get(table, {}).values()

    def state(self) -> State:
        """What is held now; its chunks are made while they are read, so nothing may be applied meanwhile."""
        return State(self.name, self.positions, self.code, self._chunks())

    def state_hash(self) -> StateHash:
        return StateHash(dict(self.vector), self.state().digest())

    def _chunks(self) -> Iterator[Chunk]:
        for name in sorted(self.tables):
            rows = self.tables[name]
            yield self._table(name), [rows[key] for key in sorted(rows)]
