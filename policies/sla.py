"""
How soon the house promises to answer a ticket and to resolve it, by priority.

The figures are the house's own. Time runs at all hours; opening hours and holidays, once there are any, enter in `due` and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class Priority(StrEnum):
    """In rising order."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"

    def exceeds(self, other: Priority) -> bool:
        return _RANK[self] > _RANK[other]


_RANK = {priority: rank for rank, priority in enumerate(Priority)}


class Promise(NamedTuple):
    """`first_response`: until the first answer; `resolution`: until the ticket is closed."""

    first_response: timedelta
    resolution: timedelta


SLA: Mapping[Priority, Promise] = {
    Priority.LOW: Promise(timedelta(hours=24), timedelta(days=7)),
    Priority.NORMAL: Promise(timedelta(hours=8), timedelta(days=3)),
    Priority.HIGH: Promise(timedelta(hours=2), timedelta(days=1)),
    Priority.URGENT: Promise(timedelta(minutes=30), timedelta(hours=8)),
}


class Due(NamedTuple):
    first_response: datetime
    resolution: datetime


def due(priority: Priority, since: datetime) -> Due:
    """When what is promised at `since` is due."""
    promise = SLA[priority]
    return Due(since + promise.first_response, since + promise.resolution)


def rules() -> Mapping[str, Sequence[int]]:
    """All of it, in seconds: what `service.started` hashes."""
    return {priority: [int(time.total_seconds()) for time in promise] for priority, promise in SLA.items()}
