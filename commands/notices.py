"""Commands on notices: one is raised by itself; people acknowledge, assign, link and close it, and suppress a rule for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands import steps
from commands.edge import Edge, Endpoint, Nothing, Word, suffix_in, whole
from commands.plan import Fact, Plan
from domain import contacts, notices, players, protection, suppressions
from domain.contacts import Channel
from domain.errors import Conflict, Forbidden, Invalid, InvalidId, NotFound
from domain.findings import Finding
from domain.kernel import AnyStream, ContactId, Event, NoticeId, PlayerId, parse_id
from domain.notices import NoticeClosed, Outcome, Status, TooManyLinks
from domain.players import Player
from domain.suppressions import NotSuppressible, Suppressions, SuppressionTooLong, UnknownRule
from policies import harm
from policies.findings import Kind
from policies.notices import LOOKED_AT_WITHIN

LINKABLE = ("ticket", "transaction", "player", "notice", "contact")

Actor = Annotated[str, whole(r"[^\s\x00-\x1f]{1,100}", "As it stands in events.")]
Link = Annotated[
    str,
    whole(
        rf"({'|'.join(LINKABLE)})_[0-7][0-9a-hjkmnp-tv-z]{{25}}", f"The id of a {', '.join(LINKABLE[:-1])} or contact."
    ),
]
Until = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339; at most the house's 90 days from now.")]


class AssignNotice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: Actor


class LinkNotice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`to`: what the notice belongs together with."""

    to: Link


class CloseNotice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    outcome: Outcome


class Suppress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule raises no notices until then: of the player, or without one of anybody in this region. No `until`: it raises them
    again.
    """

    rule: Word
    reason: Word
    until: Until | None = None
    player: str | None = None


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the command has made of the notice."""

    notice: str
    status: Status | None = None
    assignee: str | None = None
    linked: str | None = None
    outcome: Outcome | None = None


class NoticeRaised(msgspec.Struct, frozen=True):
    """`notice`: null if the rule is suppressed. `contact`: which was opened."""

    notice: str | None
    contact: str | None = None


class Suppressed(msgspec.Struct, frozen=True):
    """`until`: null if the rule raises notices."""

    rule: str
    player: str | None
    until: datetime | None


class PersonDecides(Forbidden):
    code = "person_decides"
    title = "Whether a marker of harm is settled is for people to say"


# Raised by itself


def raise_(player_id: PlayerId, finding: Finding, edge: Edge) -> Plan:
    """Raise a notice, and do with it what has to happen by itself; or count it if its rule is suppressed. Raises NotFound."""
    player = players.stream(player_id)
    notice_id = NoticeId("notice_" + edge.new_child(player.partition))
    contact_id = ContactId("contact_" + edge.new_child(player.partition))
    writes: dict[str, AnyStream[Any]] = {
        "notice": notices.stream(notice_id),
        "own": suppressions.of_player(player_id),
    }
    if finding.kind is Kind.HARM:
        writes |= {"contact": contacts.stream(contact_id), "protection": protection.stream(player_id)}

    def decision(
        at: datetime,
        *,
        notice: notices.Notice,
        own: Suppressions,
        everywhere: Suppressions,
        player: Player,
        **more: Any,
    ) -> Sequence[Event]:
        if held := suppressions.withheld(own, everywhere, finding=finding, at=at):
            return held
        if finding.kind is not Kind.HARM:
            due_at = at + LOOKED_AT_WITHIN[finding.severity]
            return notices.raise_(notice, player, player_id=player_id, finding=finding, due_at=due_at)
        opened = _contact(player_id, notice_id, finding, player, at)
        taken = harm.taken(finding.severity, finding.steps, jurisdiction=player.jurisdiction, at=at)
        return [
            *notices.raise_(
                notice,
                player,
                player_id=player_id,
                finding=finding,
                due_at=opened.due_at,
                steps=taken.steps,
                until=taken.until,
                contact=contact_id,
            ),
            *contacts.open_(more["contact"], player, opened=opened, at=at),
            *steps.take(more["protection"], player, taken.steps, notice_id),
        ]

    return Plan(
        edge.context,
        require=(Action.NOTICE_RAISE,),
        writes=writes,
        reads={"everywhere": suppressions.of_all(edge.log), "player": player},
        fresh=frozenset({"notice", "contact"} & writes.keys()),
        decision=decision,
        answer=_raised,
    )


def _contact(
    player_id: PlayerId, notice_id: NoticeId, finding: Finding, player: Player, at: datetime
) -> contacts.Opened:
    return contacts.Opened(
        player=player_id,
        channel=Channel.ANY,
        due_at=harm.contact_due(jurisdiction=player.jurisdiction, at=at),
        reason=finding.rule,
        trigger=notice_id,
        reply_due=harm.reply_due(finding.severity, jurisdiction=player.jurisdiction, at=at),
    )


def _raised(facts: Sequence[Fact]) -> NoticeRaised:
    if not any(isinstance(fact.event, notices.Raised) for fact in facts):
        return NoticeRaised(None)
    contact = next((fact.event.contact for fact in facts if isinstance(fact.event, notices.Raised)), None)
    return NoticeRaised(f"notice_{suffix_in(facts, 'notice')}", contact)


# People


def acknowledge(notice_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Say that a notice was seen. Raises NotFound, NoticeClosed."""
    return _plan(notice_id, edge, notices.acknowledge)


def assign(notice_id: str, command: AssignNotice, edge: Edge) -> Plan:
    """Give a notice to someone. Raises NotFound, NoticeClosed."""
    return _plan(notice_id, edge, lambda notice: notices.assign(notice, to=command.to))


def link(notice_id: str, command: LinkNotice, edge: Edge) -> Plan:
    """Say what a notice belongs together with. Raises NotFound, NoticeClosed, TooManyLinks, Conflict."""
    return _plan(notice_id, edge, lambda notice: notices.link(notice, to=command.to, itself=NoticeId(notice_id)))


def close(notice_id: str, command: CloseNotice, edge: Edge) -> Plan:
    """Close a notice; a marker of harm is closed by a person. Raises NotFound, NoticeClosed, PersonDecides."""

    def decision(notice: notices.Notice) -> list[notices.NoticeEvent]:
        if notice.kind is Kind.HARM and not edge.context.principal.human:
            raise PersonDecides
        return notices.close(notice, outcome=command.outcome)

    return _plan(notice_id, edge, decision)


def _plan(notice_id: str, edge: Edge, decision: Callable[[notices.Notice], list[notices.NoticeEvent]]) -> Plan:
    return Plan(
        edge.context,
        require=(Action.NOTICE_WORK,),
        writes={"notice": notices.stream(NoticeId(notice_id))},
        decision=lambda _at, notice: decision(notice),
        answer=lambda facts: _notice(notice_id, facts),
    )


def _notice(notice_id: str, facts: Sequence[Fact]) -> Notice:
    known: dict[str, Any] = {}
    for fact in facts:
        match event := fact.event:
            case notices.Acknowledged():
                known["status"] = Status.ACKNOWLEDGED
            case notices.Assigned():
                known["assignee"] = event.to
            case notices.Linked():
                known["linked"] = event.to
            case notices.Closed():
                known |= {"status": Status.CLOSED, "outcome": event.outcome}
    return Notice(notice_id, **known)


# Timers


def release(notice_id: str, _command: Nothing, edge: Edge) -> Plan:
    """What a notice had stopped for a time is possible again, unless it is stopped for another reason, such as another notice.
    Raises NotFound, NotYetReleased.
    """
    id_ = NoticeId(notice_id)

    def follow(notice: notices.Notice, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        whose = notices.owner(notice)
        return {"player": players.stream(whose), "protection": protection.stream(whose)}

    def decision(
        at: datetime, notice: notices.Notice, player: Player, protection: protection.Protection
    ) -> Sequence[Event]:
        released = notices.release(notice, at=at)
        return [*released, *(steps.end(protection, player, notice.steps, id_) if released else [])]

    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"notice": notices.stream(id_)},
        follow=follow,
        decision=decision,
        answer=lambda _facts: Notice(notice_id),
    )


# Suppression


def suppress(command: Suppress, edge: Edge) -> Plan:
    """Have a rule raise no notices for a while, in which what it finds is counted; or raise them again. Raises NotFound,
    UnknownRule, NotSuppressible, SuppressionTooLong.
    """
    until = _utc(command.until)
    stream: AnyStream[Suppressions] = suppressions.of_all(edge.log)
    reads: Mapping[str, AnyStream[Any]] = {}
    if command.player is not None:
        parse_id("player", command.player)
        stream = suppressions.of_player(PlayerId(command.player))
        reads = {"player": players.stream(PlayerId(command.player))}

    def decision(at: datetime, state: Suppressions, player: Player | None = None) -> Sequence[Event]:
        if until is None:
            return suppressions.end(state, player, rule=command.rule, reason=command.reason, at=at)
        return suppressions.begin(state, player, rule=command.rule, until=until, reason=command.reason, at=at)

    return Plan(
        edge.context,
        require=(Action.NOTICE_SUPPRESS,),
        writes={"state": stream},
        reads=reads,
        decision=decision,
        answer=lambda _facts: Suppressed(command.rule, command.player, until),
    )


def _utc(until: datetime | None) -> datetime | None:
    """Raises Invalid for what is before or after the years that there are."""
    try:
        return until.astimezone(UTC) if until else None
    except OverflowError:
        raise Invalid("not an instant of the calendar", pointer="/until") from None


_ONE = "/v1/notices/{notice_id}"
_WORK = (NotFound, NoticeClosed)

ENDPOINTS = (
    Endpoint(f"{_ONE}/acknowledge", acknowledge, Nothing, Notice, 200, _WORK),
    Endpoint(f"{_ONE}/assign", assign, AssignNotice, Notice, 200, _WORK),
    Endpoint(f"{_ONE}/link", link, LinkNotice, Notice, 200, (*_WORK, TooManyLinks, Conflict)),
    Endpoint(f"{_ONE}/close", close, CloseNotice, Notice, 200, (*_WORK, PersonDecides)),
    Endpoint(
        "/v1/suppressions",
        suppress,
        Suppress,
        Suppressed,
        200,
        (NotFound, UnknownRule, InvalidId, NotSuppressible, SuppressionTooLong),
    ),
)
