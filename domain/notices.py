"""
Notices: a rule has found something in what a player does, and somebody looks at it. Anomalies are for operations; markers of
harm lead to a contact with the player (domain/contacts.py).

Invariants:
    - a notice names the version of its rule and the exact events, and holds nothing personal;
    - a closed notice does not change any more;
    - who asks for the same again records nothing.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, NotFound
from domain.findings import Facts, Finding
from domain.kernel import EPOCH, Aggregate, ContactId, Event, NoticeId, PlayerId, Stream, parse_id
from domain.players import Player
from policies.findings import Kind, Severity, Step

LINKS_MAX = 50

# Events: the tags and fields are the storage format.


class Outcome(StrEnum):
    """What a notice has come to."""

    EXPLAINED = "explained"
    FALSE_ALARM = "false_alarm"
    ACTED_ON = "acted_on"
    REPORTED = "reported"
    DUPLICATE = "duplicate"


class Raised(Event, frozen=True, kw_only=True, tag="notice.raised"):
    """`rule_version` of `rule` has found something with the event that is this one's cause. `events`: those that it counts, in order;
    `facts`: with which figures; `due_at`: until when somebody looks at it; `steps`: what the same command has stopped, until `until` if that
    ends by itself; `contact`: which it has opened.
    """

    player: PlayerId
    rule: str
    rule_version: int
    kind: Kind
    severity: Severity
    events: tuple[str, ...]
    facts: Facts
    due_at: datetime
    steps: tuple[Step, ...] = ()
    until: datetime | None = None
    contact: ContactId | None = None


class Acknowledged(Event, frozen=True, tag="notice.acknowledged"):
    """Somebody has seen it."""


class Assigned(Event, frozen=True, tag="notice.assigned"):
    """From now on `to`, an actor, looks after it."""

    to: str


class Linked(Event, frozen=True, tag="notice.linked"):
    """It belongs together with `to`, the id of a ticket, a payment, a player, a contact or another notice."""

    to: str


class Released(Event, frozen=True, tag="notice.released"):
    """What the notice had stopped for a time is over."""


class Closed(Event, frozen=True, tag="notice.closed"):
    """Nothing more is to be done."""

    outcome: Outcome


NoticeEvent = Raised | Acknowledged | Assigned | Linked | Released | Closed


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


class Notice(msgspec.Struct, frozen=True):
    """As it was raised, and how it stands."""

    status: Status = Status.UNKNOWN
    player: PlayerId = PlayerId("")
    rule: str = ""
    rule_version: int = 0
    kind: Kind = Kind.OPERATIONS
    severity: Severity = Severity.LOW
    raised_at: datetime = EPOCH
    due_at: datetime = EPOCH
    acknowledged_at: datetime | None = None
    assignee: str | None = None
    links: tuple[str, ...] = ()
    closed_at: datetime | None = None
    outcome: Outcome | None = None
    contact: ContactId | None = None
    events: tuple[str, ...] = ()
    facts: Facts = {}
    steps: tuple[Step, ...] = ()
    until: datetime | None = None


def evolve(notice: Notice, event: NoticeEvent, at: datetime) -> Notice:
    change = msgspec.structs.replace
    match event:
        case Raised():
            return Notice(
                Status.OPEN,
                event.player,
                event.rule,
                event.rule_version,
                event.kind,
                event.severity,
                at,
                event.due_at,
                contact=event.contact,
                events=event.events,
                facts=event.facts,
                steps=event.steps,
                until=event.until,
            )
        case Released():
            return change(notice, until=None)
        case Acknowledged():
            return change(notice, status=Status.ACKNOWLEDGED, acknowledged_at=at)
        case Assigned(to):
            return change(notice, assignee=to)
        case Linked(to):
            return change(notice, links=(*notice.links, to))
        case Closed(outcome):
            return change(notice, status=Status.CLOSED, closed_at=at, outcome=outcome)


NOTICES = Aggregate(
    "notice", initial=Notice(), evolve=evolve, events=[Raised, Acknowledged, Assigned, Linked, Released, Closed]
)


@lru_cache(1_000)
def stream(notice_id: NoticeId) -> Stream[Notice]:
    return Stream(NOTICES, parse_id("notice", notice_id))


def owner(notice: Notice) -> PlayerId:
    """Of whom it is. Raises NotFound."""
    if notice.status is Status.UNKNOWN:
        raise NotFound("no such notice")
    return notice.player


# Decisions


class NoticeClosed(Conflict):
    code = "notice_closed"
    title = "The notice is closed"


class NotYetReleased(Conflict):
    """Facts: due_at."""

    code = "not_yet_released"
    title = "What the notice has stopped is stopped still"


class TooManyLinks(Conflict):
    code = "too_many_links"
    title = f"A notice has at most {LINKS_MAX} links"


def raise_(
    notice: Notice,
    player: Player,
    *,
    player_id: PlayerId,
    finding: Finding,
    due_at: datetime,
    steps: tuple[Step, ...] = (),
    until: datetime | None = None,
    contact: ContactId | None = None,
) -> list[NoticeEvent]:
    """Raises NotFound."""
    player.require()
    if notice.status is not Status.UNKNOWN:
        raise Conflict("the notice exists already")
    return [
        Raised(
            player=player_id,
            rule=finding.rule,
            rule_version=finding.version,
            kind=finding.kind,
            severity=finding.severity,
            events=finding.events,
            facts=finding.facts,
            due_at=due_at,
            steps=steps,
            until=until,
            contact=contact,
        )
    ]


def acknowledge(notice: Notice) -> list[NoticeEvent]:
    """Raises NotFound, NoticeClosed."""
    _refuse_closed(notice)
    return [Acknowledged()] if notice.status is Status.OPEN else []


def assign(notice: Notice, *, to: str) -> list[NoticeEvent]:
    """Raises NotFound, NoticeClosed."""
    _refuse_closed(notice)
    return [] if notice.assignee == to else [Assigned(to)]


def link(notice: Notice, *, to: str, itself: NoticeId) -> list[NoticeEvent]:
    """Raises NotFound, NoticeClosed, TooManyLinks, and Conflict for a link to itself."""
    _refuse_closed(notice)
    if to == itself:
        raise Conflict("a notice is not linked to itself")
    if to in notice.links:
        return []
    if len(notice.links) >= LINKS_MAX:
        raise TooManyLinks
    return [Linked(to)]


def close(notice: Notice, *, outcome: Outcome) -> list[NoticeEvent]:
    """The same end again records nothing. Raises NotFound, NoticeClosed if it has ended otherwise."""
    owner(notice)
    if notice.status is Status.CLOSED:
        if notice.outcome is not outcome:
            raise NoticeClosed
        return []
    return [Closed(outcome)]


def release(notice: Notice, *, at: datetime) -> list[NoticeEvent]:
    """Note that what was stopped for a time is over, also on a closed notice. Raises NotFound, NotYetReleased."""
    owner(notice)
    if notice.until is None:
        return []
    if at < notice.until:
        raise NotYetReleased(due_at=notice.until)
    return [Released()]


def _refuse_closed(notice: Notice) -> None:
    owner(notice)
    if notice.status is Status.CLOSED:
        raise NoticeClosed
