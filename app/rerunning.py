"""
`countroom notices rerun`: what rules would have found in a time that is over, from verified logs alone. Nothing is changed.

With the rules as they are, it finds what was found live; with a version, or with rules of a file, what these would have found had
they been in force all the time. Beside each finding stands what came of it.

Invariants:
    - the fold is the one that runs live, over the same events in the same order, from the beginning of each log;
    - no database and no read model is asked, but for the entries of logs, which are verified first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.replaying import figures
from app.replaying.verified import Verified
from domain import notices, suppressions
from domain.findings import ALL, Facts, Finding, Picture, Rulebook, Seen
from domain.kernel import instant
from eventstore.record import Recorded
from policies import findings
from policies.findings import Unusable, Watch
from projections.findings import concerning
from projections.projection import Events
from replay.moment import parse_time


class Asked(NamedTuple):
    """`first` ≤ … < `last`: when causes were recorded (RFC 3339). `rules`: a file, instead of the house's own."""

    first: str
    last: str
    rule: str | None = None
    version: int | None = None
    rules: Path | None = None


class Line(msgspec.Struct, frozen=True):
    """A finding, and what came of it: the notice that was raised, or for whom it was withheld; both null: neither."""

    rule: str
    version: int
    player: str
    at: datetime
    log: str
    position: int
    cause: str
    events: tuple[str, ...]
    facts: Facts
    notice: str | None
    withheld: str | None


class Rerun(msgspec.Struct, frozen=True):
    """`rules`: names and versions; `always`: they were held to be in force all the time. `by_rule`: how many were found.

    `unfound`: notices of these rules, raised for causes in this time, that this run has not found.
    """

    first: datetime
    last: datetime
    rules: tuple[str, ...]
    always: bool
    by_rule: dict[str, int]
    raised: int
    withheld: int
    unfound: tuple[str, ...]
    findings: tuple[Line, ...]


class Outcome(NamedTuple):
    notice: str | None
    withheld: str | None


def refuse_nonsense(asked: Asked) -> None:
    """Before any log is read. Raises NoMoment, Unusable, OSError."""
    if parse_time(asked.last) <= parse_time(asked.first):
        raise Unusable("--from lies before --to")
    chosen(asked)


def rerun(logs: Verified, asked: Asked, say: Callable[[str], object] = lambda _line: None) -> Rerun:
    """Raises NoMoment, Unusable, CouldNotCheck."""
    first, last = parse_time(asked.first), parse_time(asked.last)
    rules = chosen(asked)
    always = asked.rules is not None or asked.version is not None
    looked = _Look(Rulebook(rules, always=always), first, last)
    for log in logs.logs:
        for batch in figures.batches(logs, log, lambda _entry: True):
            looked.at(batch.events)
            say(f"  {log}: {batch.after.position:,} entries, {len(looked.found)} findings\n")
    names = {rule.name for rule in rules}
    outcomes = {key: outcome for key, outcome in looked.outcomes.items() if key[1] in names and key[0] in looked.causes}
    lines = tuple(_line(outcomes, *each) for each in looked.found)
    told = {(line.cause, line.rule) for line in lines}
    return Rerun(
        instant(first),
        instant(last),
        tuple(rule.key for rule in rules),
        always,
        dict(sorted(Counter(f"{line.rule}/{line.version}" for line in lines).items())),
        sum(line.notice is not None for line in lines),
        sum(line.withheld is not None for line in lines),
        tuple(sorted(each.notice for key, each in outcomes.items() if each.notice and key not in told)),
        lines,
    )


class _Look:
    """The fold over all players. `causes`: every event in the time at which a rule has looked."""

    def __init__(self, book: Rulebook, first: int, last: int) -> None:
        self._book = book
        self._first, self._last = first, last
        self._pictures: dict[str, Picture] = {}
        self.found: list[tuple[str, Recorded, Finding]] = []
        self.causes: set[str] = set()
        self.outcomes: dict[tuple[str, str], Outcome] = {}

    def at(self, events: Events) -> None:
        for suffix, recorded in concerning(events):
            before = self._pictures.get(suffix, _NOTHING)
            self._pictures[suffix], findings_ = self._book.follow(
                before, Seen(recorded.body.id, recorded.at, recorded.event)
            )
            if self._first <= recorded.recorded < self._last:
                self.causes.add(recorded.body.id)
                self.found += [(suffix, recorded, finding) for finding in findings_]
        for recorded, raised in events.of(notices.Raised):
            notice = f"notice_{recorded.body.stream.partition('-')[2]}"
            self.outcomes[recorded.body.cause or "", raised.rule] = Outcome(notice, None)
        for recorded, withheld in events.of(suppressions.Withheld):
            self.outcomes[recorded.body.cause or "", withheld.rule] = Outcome(None, withheld.by)


_NOTHING = Picture()


def _line(outcomes: Mapping[tuple[str, str], Outcome], suffix: str, recorded: Recorded, finding: Finding) -> Line:
    came = outcomes.get((finding.cause, finding.rule), Outcome(None, None))
    return Line(
        finding.rule, finding.version, f"player_{suffix}", recorded.at, recorded.log, recorded.position, finding.cause,
        finding.events, finding.facts, came.notice, came.withheld,
    )  # fmt: skip


def in_words(found: Rerun) -> str:
    lines = [
        f"{line.at:%Y-%m-%d %H:%M:%S}  {line.rule}/{line.version}  {line.player}  {line.log}/{line.position}  "
        f"{line.notice or (line.withheld and f'withheld ({line.withheld})') or 'no notice'}"
        for line in found.findings
    ]
    counted = [f"{rule}: {number}" for rule, number in found.by_rule.items()] or ["nothing found"]
    unfound = [f"raised, and not found again: {notice}" for notice in found.unfound]
    return "\n".join([*lines, *counted, *unfound]) + "\n"


def chosen(asked: Asked) -> tuple[Watch, ...]:
    """The rules that are to look. Raises Unusable."""
    rules: Sequence[Watch] = ALL if asked.rules is None else findings.read(asked.rules.read_bytes())
    wanted = tuple(rule for rule in rules if asked.rule in (None, rule.name) and asked.version in (None, rule.version))
    if not wanted:
        raise Unusable(f"no rule is called {asked.rule or 'so'}, in version {asked.version or 'any'}")
    return wanted
