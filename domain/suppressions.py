"""
Suppressions: for a while a rule raises no notices, of one player or of all of a region. What it finds meanwhile is counted.

What holds for one player stands on `suppression-<the player's suffix>`, what holds for all on `region-<region>-suppressions`.
What was withheld is counted on the player's own stream, whichever of them held it back.

Invariants:
    - a rule that stands on the law is not suppressed;
    - a suppression ends by itself, and never lasts longer than the house allows;
    - nothing that was found is lost: what is not raised is withheld, by an event that names its cause.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from domain.errors import NotFound, RuleRefused
from domain.findings import ALL, Finding
from domain.kernel import Aggregate, Event, PlayerId, RegionStream, Stream, parse_id
from domain.players import Player

LONGEST: Final = timedelta(days=90)

# Events: the tags and fields are the storage format.


class Scope(StrEnum):
    PLAYER = "player"
    ALL = "all"


class Begun(Event, frozen=True, tag="suppression.begun"):
    """`rule` raises no notices until then. `reason`: a word. A later one stands instead of it."""

    rule: str
    until: datetime
    reason: str


class Ended(Event, frozen=True, tag="suppression.ended"):
    """The rule raises notices again. `reason`: a word."""

    rule: str
    reason: str


class Withheld(Event, frozen=True, tag="suppression.withheld"):
    """`rule_version` of `rule` has found something with the event that is this one's cause, and raised no notice. `by`: what held
    for whom.
    """

    rule: str
    rule_version: int
    by: Scope


SuppressionEvent = Begun | Ended | Withheld


# State


class Suppressions(msgspec.Struct, frozen=True):
    """By rule: until when it is suppressed, and how much was withheld."""

    until: dict[str, datetime] = {}
    withheld: dict[str, int] = {}

    def holds(self, rule: str, at: datetime) -> bool:
        ends = self.until.get(rule)
        return ends is not None and at < ends


def evolve(state: Suppressions, event: SuppressionEvent, _at: datetime) -> Suppressions:
    match event:
        case Begun(rule, until):
            return Suppressions({**state.until, rule: until}, state.withheld)
        case Ended(rule):
            return Suppressions({name: ends for name, ends in state.until.items() if name != rule}, state.withheld)
        case Withheld(rule):
            return Suppressions(state.until, {**state.withheld, rule: state.withheld.get(rule, 0) + 1})


SUPPRESSIONS = Aggregate(
    "suppression", kind="suppressions", initial=Suppressions(), evolve=evolve, events=[Begun, Ended, Withheld]
)


@lru_cache(1_000)
def of_player(player_id: PlayerId) -> Stream[Suppressions]:
    return Stream(SUPPRESSIONS, parse_id("player", player_id))


def of_all(region: str) -> RegionStream[Suppressions]:
    return RegionStream(SUPPRESSIONS, region)


# Decisions


class UnknownRule(NotFound):
    code = "unknown_rule"
    title = "No rule has this name"


class NotSuppressible(RuleRefused):
    """Facts: rule."""

    code = "not_suppressible"
    title = "This rule stands on the law and is not suppressed"


class SuppressionTooLong(RuleRefused):
    """Facts: earliest, latest."""

    code = "suppression_out_of_range"
    title = "A suppression ends in the future, and no later than the house allows"


def begin(
    state: Suppressions, player: Player | None, *, rule: str, until: datetime, reason: str, at: datetime
) -> list[SuppressionEvent]:
    """`player`: if it is of one. The same end again records nothing. Raises NotFound, UnknownRule, NotSuppressible,
    SuppressionTooLong.
    """
    _require(rule, player)
    if any(each.name == rule and each.of_law for each in ALL):
        raise NotSuppressible(rule=rule)
    if not at < until <= at + LONGEST:
        raise SuppressionTooLong(earliest=at, latest=at + LONGEST)
    return [] if state.until.get(rule) == until else [Begun(rule, until, reason)]


def end(state: Suppressions, player: Player | None, *, rule: str, reason: str, at: datetime) -> list[SuppressionEvent]:
    """What is over anyway records nothing. Raises NotFound, UnknownRule."""
    _require(rule, player)
    return [Ended(rule, reason)] if state.holds(rule, at) else []


def withheld(own: Suppressions, everywhere: Suppressions, *, finding: Finding, at: datetime) -> list[Withheld]:
    """What to record instead of a notice, if the rule is suppressed."""
    for state, scope in ((own, Scope.PLAYER), (everywhere, Scope.ALL)):
        if state.holds(finding.rule, at):
            return [Withheld(finding.rule, finding.version, scope)]
    return []


def _require(rule: str, player: Player | None) -> None:
    if player is not None:
        player.require()
    if not any(each.name == rule for each in ALL):
        raise UnknownRule(rule=rule)
