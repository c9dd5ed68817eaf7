"""
Findings: what the rules of policies.notices and policies.harm see in what a player does. A fold over the events of one player
in the order of their log, which answers with what was found.

Invariants:
    - the fold is pure: the same events and rules lead to the same findings, live, replayed or asked afterwards;
    - what is remembered of a player does not grow with what they do: parts of a span, a few events by name;
    - a rule looks back over the time before its first day too, but says nothing before it;
    - what is of the past (imported history) is seen by no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from domain.findings.looking import MICROSECOND, WAYS, Facts, Here, Hit, Looked, Memory
from domain.findings.signs import PLACES, SIGNS, Sign
from domain.ijson import exact
from domain.kernel import EPOCH, Event
from policies import harm, notices
from policies.findings import InForce, Kind, Severity, Signal, Step, Watch, in_force
from policies.rules import RULES as LAW
from policies.rules import Rules

__all__ = ["ALL", "PLACES", "SIGNS", "Facts", "Finding", "Memory", "Picture", "Rulebook", "Seen"]

ALL: Final = (*notices.RULES, *harm.RULES)
"""Every version of every rule."""

_HOUR_US: Final = 3_600_000_000


class Picture(msgspec.Struct, frozen=True):
    """What is remembered of a player; `birth_year`: 0 if it is not known; `memories` by rule and version."""

    jurisdiction: str = ""
    currency: str = ""
    birth_year: int = 0
    memories: dict[str, Memory] = {}


class Finding(msgspec.Struct, frozen=True):
    """A rule has found something. `cause`: the event with which; `events`: what it counts, the cause included, in order.

    `facts` are numbers, words and times: nothing personal.
    """

    rule: str
    version: int
    kind: Kind
    severity: Severity
    cause: str
    events: tuple[str, ...]
    facts: Facts
    steps: tuple[Step, ...] = ()


class Seen(NamedTuple):
    """An event as it stands in the log."""

    id: str
    at: datetime
    event: Event


# The fold


class _Watching(NamedTuple):
    """A rule that is ready to look; `key`: by which it remembers."""

    key: str
    in_force: InForce
    test: Any
    look: Callable[[Any, Memory, Sign, Here], Looked]


class Rulebook:
    """Rules, ready to look. `always`: each is held to be in force at all times, as when it is asked what it would have found."""

    def __init__(self, rules: Sequence[Watch] = ALL, *, always: bool = False, law: Rules = LAW) -> None:
        """Raises policies.findings.Unusable."""
        self.rules = in_force(rules)
        self._always = always
        self._law = law
        self._by_signal: dict[Signal, list[_Watching]] = {}
        for each in self.rules:
            way = WAYS[type(each.rule.test)]
            watching = _Watching(each.rule.key, each, each.rule.test, way.look)
            for signal in {signal for signal in way.signals(each.rule.test) if signal is not None}:
                self._by_signal.setdefault(signal, []).append(watching)

    def follow(self, picture: Picture, seen: Seen) -> tuple[Picture, list[Finding]]:
        """What is remembered after an event, and what was found with it."""
        tag = seen.event.tag
        if tag in PLACES:
            return _placed(picture, seen.event), []
        signs = SIGNS.get(tag)
        if signs is None:
            return picture, []
        found: list[Finding] = []
        memories = picture.memories.copy()
        here = Here(
            seen.id,
            seen.at,
            (seen.at - EPOCH) // MICROSECOND,
            picture.jurisdiction,
            picture.birth_year,
            picture.currency,
            self._law,
        )
        for sign in signs(seen.event):
            if sign.currency in ("", picture.currency):
                self._look(memories, sign, here, found)
        return msgspec.structs.replace(picture, memories=memories), found

    def _look(self, memories: dict[str, Memory], sign: Sign, here: Here, found: list[Finding]) -> None:
        for key, in_force_, test, look in self._by_signal.get(sign.signal, ()):
            before = memories.get(key, _NOTHING)
            memory, hit = look(test, before, sign, here)
            if hit is not None:
                if here.us < memory.quiet_until or not (self._always or in_force_.on(here.at.date())):
                    memory = msgspec.structs.replace(memory, last=before.last)
                else:
                    rule = in_force_.rule
                    memory = msgspec.structs.replace(memory, quiet_until=here.us + rule.quiet_hours * _HOUR_US)
                    found.append(_finding(rule, here.id, hit))
            memories[key] = memory


_NOTHING: Final = Memory()


def _finding(rule: Watch, cause: str, hit: Hit) -> Finding:
    return Finding(rule.name, rule.version, rule.kind, rule.severity, cause, hit.events, exact(hit.facts), rule.steps)


def _placed(picture: Picture, event: Any) -> Picture:
    change = msgspec.structs.replace
    if event.tag == "player.registered":
        return change(picture, jurisdiction=event.country, currency=event.currency, birth_year=event.birth_year)
    return change(
        picture,
        jurisdiction=event.jurisdiction or picture.jurisdiction,
        birth_year=event.birth_year or picture.birth_year,
    )
