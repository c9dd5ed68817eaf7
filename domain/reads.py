"""
Reads: who has looked at the log and at what was made of it for auditors, and whose personal data. Each reader has a stream of
the region that answered, `region-<region>-reads_<suffix>`.

Invariants:
    - a read is recorded before its answer begins;
    - it names persons by their identifiers, and holds nothing of what was read;
    - a reader's event holds at most READS_MAX reads of READS_BYTES_MAX together, so it always fits into an entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.kernel import EPOCH, Aggregate, Event, OperatorId, PlayerId, RegionStream, suffix

READS_MAX = 100
READS_BYTES_MAX = 56 * 1024
QUERY_CHARACTERS_MAX = 500
SUBJECTS_MAX = 200
"""Persons whose data one answer shows: as many as a page has items."""

# Events: the tags and fields are the storage format.


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`what`: the resource, e.g. audit.stream, or the route, e.g. GET /v1/players/{player_id}. `query`: its parameters, as
    application/x-www-form-urlencoded; one whose value may be personal stands there by its name alone. `subjects`: the players
    and operators whose personal data the answer told, in order.
    """

    what: str
    query: str
    subjects: tuple[PlayerId | OperatorId, ...] = ()


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


def fitting(made: Sequence[Read]) -> int:
    """How many of them, from the first on, one event holds: one at least."""
    left = READS_BYTES_MAX
    for count, each in enumerate(made[:READS_MAX]):
        left -= len(msgspec.json.encode(each)) + 1
        if left < 0:
            return max(count, 1)
    return min(len(made), READS_MAX)


def record(_reads: Reads, *, made: Sequence[Read]) -> list[ReadsRecorded]:
    """Nobody is refused here: whether they may read was asked before."""
    return [ReadsRecorded(tuple(made))] if made else []
