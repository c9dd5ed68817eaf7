"""
Read models made again from verified logs: as of a moment, or at exactly the positions at which live ones stand.

Invariant: a batch holds whole commands, so a read model is only ever made up to the end of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

import msgspec

from app.replaying.verified import Verified
from domain.logs import Adopted
from eventstore.record import Entry, Recorded, UnknownEvent, decode_body
from projections import catalog
from projections.memory import MemoryStore
from projections.projection import START, Barrier, Batch, Events, OutOfOrder, Position
from replay.moment import Moment
from verifier.faults import CouldNotCheck

BATCH_ENTRIES = 5_000

Stops = Mapping[str, Mapping[str, int]]
"""By read model and log: the last position that is to be applied."""


def as_of(logs: Verified, moment: Moment, names: Collection[str] = catalog.NAMES) -> dict[str, MemoryStore]:
    """
    Read models as of a moment, or rather of the last command that had ended by then. Raises CouldNotCheck, also where a log goes
    on from another that is not part of it up to there (replay.moment.Moment.closed).
    """
    stores = {name: store for name, store in catalog.in_memory().items() if name in names}

    def apply(batch: Batch) -> bool:
        if not all(_may_take(store, batch) for store in stores.values()):
            return False
        for store in stores.values():
            _apply(store, batch)
        return True

    left = _in_order(
        {
            log: batches(logs, log, lambda entry: moment.covers(entry.log, entry.position, entry.recorded))
            for log in logs.logs
        },
        apply,
    )
    for batch in left:
        barrier, first = batch.barrier, batch.before.position + 1
        where = f", which goes on from {barrier.log}/{barrier.position}" if barrier else ""
        raise CouldNotCheck(f"{batch.log} from {first} on{where}: that is not part of what is looked at, {moment.said}")
    return stores


def at(logs: Verified, stops: Stops) -> dict[str, MemoryStore]:
    """
    Read models at exactly these positions. Raises CouldNotCheck, also if that is impossible: a position that the logs
    do not reach, or inside a command.
    """
    stores = {name: store for name, store in catalog.in_memory().items() if name in stops}
    for log in {log for where in stops.values() for log in where} - logs.logs.keys():
        raise CouldNotCheck(f"a read model has applied the log {log}, which is not at {logs.target}")
    ends = {log: {name: where.get(log, 0) for name, where in stops.items()} for log in logs.logs}

    def apply(batch: Batch) -> bool:
        wanted = [store for name, store in stores.items() if batch.after.position <= ends[batch.log][name]]
        if not all(_may_take(store, batch) for store in wanted):
            return False
        for store in wanted:
            _apply(store, batch)
        return True

    read = {}
    for log, ending in ends.items():
        last = max(ending.values(), default=0)
        read[log] = batches(logs, log, lambda entry, last=last: entry.position <= last, set(ending.values()))  # type: ignore[misc]
    _in_order(read, apply)
    for log, ending in ends.items():
        for name, end in ending.items():
            if stores[name].at(log).position != end:
                raise CouldNotCheck(
                    f"{name} stands at {log}/{end}, which is beyond what was verified at {logs.target} or inside a command"
                )
    return stores


def batches(logs: Verified, log: str, covers: Callable[[Entry], bool], stops: Collection[int] = ()) -> Iterator[Batch]:
    """The events that count of the log's first entries, as far as `covers` says; some batch ends at each of `stops`."""
    if logs.logs[log].kind != "whole":
        raise CouldNotCheck(
            f"figures are made of whole logs, and {logs.shown} holds a {logs.logs[log].kind} of log {log}"
        )
    events: list[Recorded] = []
    before, after, whole = START, START, 0
    barrier: Barrier | None = None
    covered = True
    for entry in logs.entries(log):  # to the end, which proves the rest
        covered = covered and covers(entry)
        if not covered:
            continue
        recorded = _event(logs, entry)
        if recorded is not None:
            if isinstance(recorded.event, Adopted):  # comes by itself
                if after != before:
                    yield Batch(log, before, after, Events(events[:whole]), barrier)
                    before, events, whole = after, events[whole:], 0
                barrier = Barrier(recorded.event.of, recorded.event.cut.position)
            events.append(recorded)
        if recorded is None or recorded.body.command.i == recorded.body.command.n:
            after, whole = Position(entry.position, entry.leaf), len(events)
            if whole >= BATCH_ENTRIES or after.position in stops:
                yield Batch(log, before, after, Events(events[:whole]), barrier)
                before, events, whole, barrier = after, events[whole:], 0, None
    if after != before:
        yield Batch(log, before, after, Events(events[:whole]), barrier)


def _in_order(read: Mapping[str, Iterator[Batch]], apply: Callable[[Batch], bool]) -> list[Batch]:
    """Apply what is read of each log; what `apply` does not take yet waits for the others. Returns the first that was not taken of
    each log where anything was not.
    """
    waiting: dict[str, Batch | None] = {log: next(batches, None) for log, batches in read.items()}
    moved = True
    while moved:
        moved = False
        for log, batches in read.items():
            while (batch := waiting[log]) is not None and apply(batch):
                waiting[log], moved = next(batches, None), True
    for batches in read.values():
        for _ in batches:  # to the end, which proves the rest
            pass
    return [batch for batch in waiting.values() if batch is not None]


def _may_take(store: MemoryStore, batch: Batch) -> bool:
    return batch.barrier is None or store.at(batch.barrier.log).position >= batch.barrier.position


def _event(logs: Verified, entry: Entry) -> Recorded | None:
    """The event of an entry that counts. Raises CouldNotCheck."""
    try:
        recorded = logs.codec.decode(entry)
        return recorded if logs.ownership.counts(entry.log, entry.position, recorded.body) else None
    except (UnknownEvent, msgspec.MsgspecError) as error:
        with suppress(msgspec.MsgspecError):
            if not logs.ownership.counts(entry.log, entry.position, decode_body(entry.body)):
                return None
        raise CouldNotCheck(f"{entry.log}/{entry.position} cannot be replayed by this release: {error}") from None


def _apply(store: MemoryStore, batch: Batch) -> None:
    try:
        store.apply(batch)
    except OutOfOrder as error:
        raise CouldNotCheck(f"{store.name} cannot be made from these logs: {error}") from None
