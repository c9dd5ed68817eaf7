"""
Who owns which partition: what the logs say of themselves, put together. No input or output: regions, tests and replays run this.

A partition changes hands in three steps. Its owner *drains*: what was decided before is appended before. It appends
`log.released`, the *cut*. The log that is named there *adopts*, once its copy of the other log holds the cut, and so
everything before it: `log.adopted`, with the epoch one higher. Between the two nobody owns the partition.

A log that was *closed* releases nothing. The region's next log says at its opening at which entry it continues it, and adopts with that
entry as the cut.

Invariants:
    - a partition has at most one owner at an epoch, and the next epoch begins in the log to which the last one was released, or in
      the one that continues it;
    - a log is continued by one other, the next of its region, and owns nothing afterwards;
    - of an epoch, entries count after the owner's `log.opened` or `log.adopted`, up to the cut, and nowhere else;
    - in which order logs are folded does not matter: who has folded the same entries knows the same owners;
    - an adoption whose release was not seen yet is taken as stated; if the release then says otherwise, that is a contradiction.
      So is another entry where a closed log was said to end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from domain.logs import Adopted, Continued, Cut, LogEvent, Opened, Released, Spans, comes_before, epochs, is_next, spans


class Owner(NamedTuple):
    """The log that owns a partition, and since which epoch. Not `adopted`: the last owner has released it to that log, of which no
    adoption was seen yet.
    """

    log: str
    epoch: int
    adopted: bool = True


class Term(NamedTuple):
    """A log's time as the owner of a partition: its entries after `since`, and up to the `cut` if there is one.

    `to`: to whom the log has released it, or by which it is continued; "" if neither. `after`: what the adoption says of the term
    before: log and cut.
    """

    log: str
    since: int
    cut: Cut | None = None
    to: str = ""
    after: tuple[str, Cut] | None = None


class Release(NamedTuple):
    """Partitions, at the epochs that ended, which the log `of` has released at `cut` and nobody has adopted yet."""

    of: str
    cut: Cut
    partitions: Spans


class Contradiction(Exception):
    """What a log says of ownership does not fit what is known. It was not folded."""


class Ownership:
    """A fold over the events of logs about themselves. Those of one log come in their order."""

    def __init__(self) -> None:
        self._terms: dict[int, dict[int, Term]] = {}
        self._continued: dict[str, tuple[str, Cut]] = {}

    def fold(self, log: str, position: int, leaf: str, event: LogEvent) -> None:
        """Take in an event of a log's own stream, and the position and leaf (hex) of its entry. Raises Contradiction."""
        match event:
            case Opened():
                if event.continues:
                    self._continue(log, event.continues)
                ranges = [(first, last, event.epoch) for first, last in event.partitions]
                self._begin(epochs(ranges), Term(log, position))
            case Released():
                self._release(log, Cut(position, leaf), event)
            case Adopted():
                self._adopt(log, position, event)

    def term(self, partition: int, epoch: int) -> Term | None:
        return self._terms.get(partition, {}).get(epoch)

    def owner(self, partition: int) -> Owner | None:
        """Who owns it now; None if nobody was ever seen to."""
        terms = self._terms.get(partition)
        if not terms:
            return None
        epoch = max(terms)
        term = terms[epoch]
        return Owner(term.to, epoch + 1, adopted=False) if term.to else Owner(term.log, epoch)

    def owned(self, log: str) -> dict[int, int]:
        """What the log may write now: partitions and their epochs."""
        newest = {partition: (epoch := max(terms), terms[epoch]) for partition, terms in self._terms.items()}
        return {p: epoch for p, (epoch, term) in sorted(newest.items()) if term.log == log and term.cut is None}

    def logs(self) -> set[str]:
        """All that have ever owned anything."""
        return {term.log for terms in self._terms.values() for term in terms.values()}

    def counts(self, log: str, partition: int, epoch: int, position: int) -> bool:
        """Whether an entry of the log stands in its term."""
        term = self.term(partition, epoch)
        return (
            term is not None
            and term.log == log
            and term.since < position
            and (term.cut is None or position <= term.cut.position)
        )

    def released(self, to: str) -> list[Release]:
        """What waits to be adopted by a log, as far as every release before it was seen, too."""
        waiting: dict[tuple[str, Cut], dict[int, int]] = {}
        for partition, terms in self._terms.items():
            term = terms[epoch := max(terms)]
            if term.to == to and term.cut is not None and self._is_whole(partition, epoch):
                waiting.setdefault((term.log, term.cut), {})[partition] = epoch
        return [Release(of, cut, spans(partitions)) for (of, cut), partitions in waiting.items()]

    def may_adopt(self, log: str, event: Adopted) -> bool:
        """Whether exactly this was released to the log, nobody has adopted it yet, and every release before it was seen.

        Who owned the partition before the log that releases it may be behind in its copy: what would be missing decides, too.
        """
        for found in self.inherited(log):
            if (found.of, found.cut) == (event.of, event.cut):
                due = {each: epoch + 1 for each, epoch in epochs(found.partitions).items()}
                return epochs(event.partitions).items() <= due.items()
        return all(
            (term := self.term(partition, epoch - 1)) is not None
            and (term.log, term.cut, term.to) == (event.of, event.cut, log)
            and self.term(partition, epoch) is None
            and self._is_whole(partition, epoch - 1)
            for partition, epoch in epochs(event.partitions).items()
        )

    def continued(self, by: str) -> tuple[str, Cut] | None:
        """The log that was closed and goes on as this one, and the last of its entries that count."""
        return next(((log, cut) for log, (name, cut) in self._continued.items() if name == by), None)

    def inherited(self, by: str) -> list[Release]:
        """What a log that continues another has not adopted yet: what that one owned, and what was released to it and it has not
        adopted. Only to be asked of whoever holds all of the closed log.
        """
        if (found := self.continued(by)) is None:
            return []
        of, cut = found
        waiting: dict[tuple[str, Cut], dict[int, int]] = {}
        for partition, terms in self._terms.items():
            term = terms[epoch := max(terms)]
            if not self._is_whole(partition, epoch - 1):
                continue
            if term.log == of and not term.to and term.since <= cut.position:
                waiting.setdefault((of, cut), {})[partition] = epoch
            elif term.cut is not None and comes_before(term.to, by):
                waiting.setdefault((term.log, term.cut), {})[partition] = epoch
        return [Release(of, cut, spans(partitions)) for (of, cut), partitions in waiting.items()]

    def _is_for(self, log: str, to: str) -> bool:
        """Whether a log may adopt what was released to `to`."""
        return log == to or (comes_before(to, log) and self.continued(log) is not None)

    def _continues(self, log: str, of: str, cut: Cut) -> bool:
        return self._continued.get(of) == (log, cut)

    def _is_whole(self, partition: int, epoch: int) -> bool:
        """Whether all terms up to this one were seen to be released."""
        terms = self._terms[partition]
        return all((term := terms.get(each)) is not None and term.to for each in range(1, epoch + 1))

    def _begin(self, begun: dict[int, int], term: Term) -> None:
        """Begin terms. One that the next owner has said to be over is."""
        for partition, epoch in begun.items():
            if other := self.term(partition, epoch):
                raise Contradiction(f"{other.log} and {term.log} both own partition {partition} in epoch {epoch}")
        for partition, epoch in begun.items():
            later = self.term(partition, epoch + 1)
            cut = later.after[1] if later and later.after and later.after[0] == term.log else None
            to = later.log if later and cut and self._continues(later.log, term.log, cut) else ""
            if to and cut and cut.position < term.since:
                raise Contradiction(f"{to} continues {term.log} before that owned partition {partition}, and adopts it")
            self._terms.setdefault(partition, {})[epoch] = term._replace(cut=cut, to=to)

    def _continue(self, log: str, closed: Continued) -> None:
        """Take in where another log of the region was closed."""
        if not is_next(log, closed.log) or closed.position < 1:
            raise Contradiction(f"{log} does not come next after {closed.log}, and continues it")
        if other := self._continued.get(closed.log):
            raise Contradiction(f"{other[0]} and {log} both continue {closed.log}")
        self._continued[closed.log] = (log, Cut(closed.position, closed.leaf))

    def _release(self, log: str, cut: Cut, event: Released) -> None:
        released = epochs(event.partitions)
        if event.to == log:
            raise Contradiction(f"{log} releases partitions to itself")
        for partition, epoch in released.items():
            term, later = self.term(partition, epoch), self.term(partition, epoch + 1)
            if term is None or term.log != log or term.to or term.cut not in {None, cut}:
                raise Contradiction(f"{log} does not own partition {partition} in epoch {epoch}, and releases it")
            if later and not (self._is_for(later.log, event.to) and later.after == (log, cut)):
                raise Contradiction(f"{later.log} has adopted partition {partition} otherwise than {log} released it")
        for partition, epoch in released.items():
            self._end(partition, epoch, cut, event.to)

    def _adopt(self, log: str, position: int, event: Adopted) -> None:
        adopted, goes_on = epochs(event.partitions), self._continues(log, event.of, event.cut)
        for partition, epoch in adopted.items():
            before = self.term(partition, epoch - 1)
            fits = before and (
                (before.to, before.cut) == ("", None) or (self._is_for(log, before.to) and before.cut == event.cut)
            )
            if before and not (fits and before.log == event.of):
                raise Contradiction(f"{log} adopts partition {partition}, which was not released to it there")
            if before and goes_on and (before.to or event.cut.position < before.since):
                raise Contradiction(f"{log} continues {event.of}, which did not own partition {partition} there")
        self._begin(adopted, Term(log, position, after=(event.of, event.cut)))
        for partition, epoch in adopted.items():
            if before := self.term(partition, epoch - 1):
                self._end(partition, epoch - 1, event.cut, log if goes_on else before.to)

    def _end(self, partition: int, epoch: int, cut: Cut, to: str) -> None:
        self._terms[partition][epoch] = self._terms[partition][epoch]._replace(cut=cut, to=to)


def folded(events: Iterable[tuple[str, int, str, LogEvent]]) -> Ownership:
    """Of (log, position, leaf, event). Raises Contradiction."""
    ownership = Ownership()
    for each in events:
        ownership.fold(*each)
    return ownership
