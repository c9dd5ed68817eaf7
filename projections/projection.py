"""
What a projection is: a pure function from a batch of events to changes, and a store that commits changes and positions together.

Invariants:
    - a batch is of one log, follows the position where the store stands, and holds whole commands;
    - the order of events is that of their log; logs have no common order, so what a projection keeps across streams must not
      depend on how they interleave (sums, counts; the newest version of a stream);
    - within a stream, order is that of versions, also where it goes on in another log: an adoption is a barrier;
    - a store that does not stand where the caller believes changes nothing and raises `Moved`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

from domain.kernel import Event
from eventstore.record import Recorded
from projections.state import Chunk, Writer
from projections.version import CODE

E = TypeVar("E", bound=Event)
T = TypeVar("T")


class Position(NamedTuple):
    """The last entry of a log that was applied. Its leaf tells a log from another that was put in its place."""

    position: int
    leaf: bytes


START = Position(0, b"")
"""Before the first entry of a log."""

Vector = Mapping[str, Position]
"""Where a read model stands, by the logs' names. A log that is missing stands at its start."""


class Events(list[Recorded]):
    """The events of a batch in order. What several projections need of them is worked out once for all."""

    __slots__ = ("_by_kind", "_derived")

    def __init__(self, events: Iterable[Recorded] = ()) -> None:
        super().__init__(events)
        self._by_kind: dict[type[Event], list[tuple[Recorded, Any]]] | None = None
        self._derived: dict[Callable[[Events], Any], Any] = {}

    def of(self, kind: type[E]) -> Sequence[tuple[Recorded, E]]:
        """Those of one kind, in order."""
        if self._by_kind is None:
            self._by_kind = {}
            for recorded in self:
                self._by_kind.setdefault(type(recorded.event), []).append((recorded, recorded.event))
        return self._by_kind.get(kind, ())

    def derive(self, function: Callable[[Events], T]) -> T:
        """What a pure function makes of the events."""
        if function not in self._derived:
            self._derived[function] = function(self)
        return self._derived[function]  # type: ignore[no-any-return]


class Barrier(NamedTuple):
    """The log takes partitions over: what follows is applied only where the other `log` was applied up to `position`, its cut."""

    log: str
    position: int


class Batch(NamedTuple):
    """Entries `before` + 1 … `after` of a log; `events` are those that count. A `barrier` stands before the first of them."""

    log: str
    before: Position
    after: Position
    events: Events
    barrier: Barrier | None = None


class Standing(NamedTuple):
    """
    A generation of a read model and where it stands. All but the live one are being built and answer nobody.

    `code`: projections.version.CODE of whoever moved it last; None before that, and until a release moves it that keeps it.
    """

    generation: int
    live: bool
    vector: Vector
    code: str | None = None

    def at(self, log: str) -> Position:
        return self.vector.get(log, START)

    def may_take(self, batch: Batch) -> bool:
        """Whether what the batch goes on from in another log was applied."""
        return batch.barrier is None or self.at(batch.barrier.log).position >= batch.barrier.position

    def moved(self, batch: Batch) -> Standing:
        return self._replace(vector={**self.vector, batch.log: batch.after}, code=CODE)


class StateHash(NamedTuple):
    """What the live generation holds, as the SHA-256 of its canonical lines (projections.state)."""

    vector: Vector
    digest: str


class Snapshot(NamedTuple):
    """What the live generation holds at one moment."""

    standing: Standing
    chunks: AsyncIterator[Chunk]

    async def hash(self) -> StateHash:
        writer = Writer()
        async for chunk in self.chunks:
            writer.add(chunk)
        return StateHash(self.standing.vector, writer.digest())


class Moved(Exception):
    """The read model does not stand where the caller believed, and was not changed: `open` it and see."""


class OutOfOrder(Exception):
    """An event speaks of what no earlier one has made: its log was read too early, or another too late."""


class RebuildRunning(Exception):
    """Somebody is rebuilding this read model already."""


class Store(Protocol):
    """One projection's read model, with the function that makes its changes."""

    name: str

    async def open(self) -> Standing:
        """Where the live generation stands. Makes an empty one if there is none, as after a flush."""

    async def apply(self, standing: Standing, batch: Batch) -> Standing:
        """Apply a batch that follows `standing`, once it returns. Raises Moved; if it is lost or fails, `open` tells."""

    def building(self) -> AbstractAsyncContextManager[None]:
        """The right to `begin` and `switch`. Raises RebuildRunning."""

    async def begin(self) -> Standing:
        """A new and empty generation beside the live one. What an interrupted rebuild left behind goes away."""

    async def switch(self, draft: Standing) -> bool:
        """Let `draft` answer from now on and delete its predecessor; False if that one stands further in some log."""

    def state(self) -> AbstractAsyncContextManager[Snapshot]:
        """What the live generation holds, readable within the block."""

    async def state_hash(self) -> StateHash: ...


class Reading(NamedTuple):
    """A batch, perhaps an empty one, and why the log cannot be read any further by this release, if so."""

    batch: Batch
    stopped: str | None = None


class Source(Protocol):
    """The logs, as projections read them (projections.source)."""

    async def heads(self) -> Mapping[str, int]: ...

    async def read(self, log: str, after: Position, limit: int) -> Reading: ...
