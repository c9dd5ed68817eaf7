"""
Who owned which partition when: what decides whether an entry counts.

An entry counts if and only if it stands on its log's own `region-` streams, or its log owned (partition, epoch) at its position:
after the opening or the adoption, and not beyond the cut (docs/reference/record-format.md; domain/ownership.py).

Invariants:
    - ownership follows from events that the logs hold, never from a database;
    - what nobody was seen to own does not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from domain import ownership
from domain.logs import Adopted, Opened, Released
from eventstore.record import Body, Recorded
from replay.moment import END_US, Adoption


class Ownership:
    """A fold over the events of logs about themselves. In which order logs are folded does not matter."""

    def __init__(self, events: Iterable[Recorded] = ()) -> None:
        self._known = ownership.Ownership()
        self.granted: set[str] = set()
        self._adopted: list[tuple[Recorded, Adopted]] = []
        self._released: dict[tuple[str, int], int] = {}
        for recorded in events:
            self.fold(recorded)

    def fold(self, recorded: Recorded) -> None:
        """Take in an event of a log's own stream; those that say nothing of ownership change nothing. Raises Contradiction."""
        event = recorded.event
        if isinstance(event, Opened | Released | Adopted) and recorded.body.stream == f"region-{recorded.log}-log":
            self._known.fold(recorded.log, recorded.position, recorded.leaf.hex(), event)
            if isinstance(event, Adopted):
                self._adopted.append((recorded, event))
            elif isinstance(event, Released):
                self._released[recorded.log, recorded.position] = recorded.recorded

    def adoptions(self) -> list[Adoption]:
        """By which logs go on from others."""
        return [
            Adoption(
                recorded.log,
                recorded.position,
                recorded.recorded,
                event.of,
                event.cut.position,
                self._released.get((event.of, event.cut.position), END_US),
            )
            for recorded, event in self._adopted
        ]

    def take_for_granted(self, log: str) -> None:
        """What the log owned is not shown, as in a part of a log: all its entries are taken to count."""
        self.granted.add(log)

    def owns(self, log: str) -> bool:
        """Whether a log has ever owned a partition. One that has not keeps something else than a casino's facts."""
        return log in self.granted or log in self._known.logs()

    def counts(self, log: str, position: int, body: Body) -> bool:
        if body.partition is None or body.epoch is None:
            return body.stream.startswith(f"region-{log}-")
        return log in self.granted or self._known.counts(log, body.partition, body.epoch, position)
