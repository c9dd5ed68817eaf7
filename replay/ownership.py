"""
Who owned which partition when: what decides whether an entry counts.

An entry counts if and only if it stands on its log's own `region-` streams, or its log owned (partition, epoch) and its
position is not beyond that epoch's cut (docs/reference/record-format.md).

Invariants:
    - ownership follows from events that the logs hold, never from a database;
    - what nobody was seen to own does not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from domain.logs import Opened
from eventstore.record import Body, Recorded

UNCUT = 2**63 - 1
"""The last position of a term that nobody has ended."""


class Ownership:
    """A fold over the events of logs about themselves. In which order logs are folded does not matter."""

    def __init__(self, events: Iterable[Recorded] = ()) -> None:
        self._last: dict[tuple[str, int, int], int] = {}
        self.granted: set[str] = set()
        for recorded in events:
            self.fold(recorded)

    def fold(self, recorded: Recorded) -> None:
        """Take in an event of a log's own stream; those that say nothing of ownership change nothing."""
        match recorded.event:
            case Opened(epoch=epoch, partitions=ranges):
                for first, last in ranges:
                    for partition in range(first, last + 1):
                        self._last.setdefault((recorded.log, partition, epoch), UNCUT)

    def cut(self, log: str, partition: int, epoch: int, position: int) -> None:
        """Another log took the partition over: of that epoch nothing counts behind `position`."""
        term = (log, partition, epoch)
        if term in self._last:
            self._last[term] = min(self._last[term], position)

    def take_for_granted(self, log: str) -> None:
        """What the log owned is not shown, as in a part of a log: all its entries are taken to count."""
        self.granted.add(log)

    def owns(self, log: str) -> bool:
        """Whether a log has ever owned a partition. One that has not keeps something else than a casino's facts."""
        return log in self.granted or any(owner == log for owner, _, _ in self._last)

    def counts(self, log: str, position: int, body: Body) -> bool:
        if body.partition is None or body.epoch is None:
            return body.stream.startswith(f"region-{log}-")
        return log in self.granted or position <= self._last.get((log, body.partition, body.epoch), 0)
