"""
Logs: what a region's log says of itself, on its own stream `region-<name>-log`.

Invariant:
    - a log's first entry opens it, with the partitions that it owns from the beginning.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.kernel import Aggregate, Event

# Events: the tags and fields are the storage format.


class Opened(Event, frozen=True, tag="log.opened"):
    """`partitions`: ranges [first, last], owned at `epoch` from here on."""

    origin: str
    epoch: int
    partitions: tuple[tuple[int, int], ...]


# State


class Log(msgspec.Struct, frozen=True):
    origin: str = ""


def evolve(_log: Log, event: Opened, _at: datetime) -> Log:
    return Log(origin=event.origin)


LOGS = Aggregate("region", initial=Log(), evolve=evolve, events=[Opened])
