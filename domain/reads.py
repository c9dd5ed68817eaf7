"""
Reads: who has looked at the log and at what was made of it for auditors. Each reader has a stream of the region that
answered, `region-<region>-reads_<suffix>`.

Invariants:
    - a read is recorded before its answer begins;
    - a reader's event holds at most READS_MAX reads, so it always fits into an entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.kernel import EPOCH, Aggregate, Event, RegionStream, suffix

READS_MAX = 100
QUERY_CHARACTERS_MAX = 500

# Events: the tags and fields are the storage format.


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`what`: the resource, e.g. audit.stream. `query`: its parameters, as application/x-www-form-urlencoded."""

    what: str
    query: str


class ReadsRecorded(Event, frozen=True, tag="reads.recorded"):
    """What the actor asked for and was let see, in the order in which it was asked."""

    reads: tuple[Read, ...]


# State


class Reads(msgspec.Struct, frozen=True):
    """How many reads there were, and when the last were recorded."""

    count: int = 0
    at: datetime = EPOCH


def evolve(reads: Reads, event: ReadsRecorded, at: datetime) -> Reads:
    return Reads(reads.count + len(event.reads), at)


READS = Aggregate("reads", kind="reads", initial=Reads(), evolve=evolve, events=[ReadsRecorded])


def stream(region: str, actor: str) -> RegionStream[Reads]:
    """The reader's own stream. Its suffix is the beginning of SHA-256(actor), as a UUID is written."""
    return RegionStream(READS, region, reader_suffix(actor))


def reader_suffix(actor: str) -> str:
    return suffix(hashlib.sha256(actor.encode()).digest()[:16])


# Decisions


def record(_reads: Reads, *, made: Sequence[Read]) -> list[ReadsRecorded]:
    """Nobody is refused here: whether they may read was asked before."""
    return [ReadsRecorded(tuple(made))] if made else []
