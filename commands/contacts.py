"""
Commands on contacts with players of whom there is a marker of harm: open one, try, speak, follow up; and what happens by itself
with a marker, or if the player cannot be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands import steps
from commands.edge import Edge, Endpoint, Nothing, PersonalText, Word, suffix_in
from commands.plan import Fact, Plan
from commands.sealing import KeyNotHeld
from domain import contacts, notices, players, protection
from domain.contacts import (
    Channel,
    Contact,
    ContactDone,
    ContactMade,
    ContactNotMade,
    FollowUpPast,
    Outcome,
    Status,
)
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import AnyStream, ContactId, Event, NoticeId, PlayerId
from domain.players import Player
from policies import harm

DueAt = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339.")]


class OpenContact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason`: a word; `due_at`: by default the law's or the house's time; `trigger`: a notice of the player."""

    reason: Word
    channel: Channel = Channel.ANY
    due_at: DueAt | None = None
    trigger: str | None = None


class AttemptContact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The player was not reached."""

    channel: Channel
    note: PersonalText | None = None


class MakeContact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """We have spoken with the player. `follow_up_due`: until when we look again; without it the contact is over."""

    channel: Channel
    outcome: Outcome
    note: PersonalText | None = None
    follow_up_due: DueAt | None = None


class FollowUpContact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of it. `follow_up_due`: until when we look once more; without it the contact is over."""

    outcome: Outcome
    note: PersonalText | None = None
    follow_up_due: DueAt | None = None


class ContactChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the command has made of the contact. `due_at`: what is due next, if that is new."""

    contact: str
    status: Status | None = None
    outcome: Outcome | None = None
    due_at: datetime | None = None


class OtherPlayer(NotFound):
    code = "notice_of_another_player"
    title = "The player has no such notice"


def open_(player_id: str, command: OpenContact, edge: Edge) -> Plan:
    """Plan a contact with a player. Raises NotFound, InvalidId, OtherPlayer, FollowUpPast."""
    id_ = PlayerId(player_id)
    player = players.stream(id_)
    contact_id = ContactId("contact_" + edge.new_child(player.partition))
    trigger = NoticeId(command.trigger) if command.trigger else None
    due_at = _utc(command.due_at, "/due_at")
    reads: dict[str, AnyStream[Any]] = {"player": player}
    if trigger:
        reads["notice"] = noticed = notices.stream(trigger)
        if noticed.partition != player.partition:
            raise OtherPlayer

    def decision(at: datetime, contact: Contact, player: Player, notice: Any = None) -> list[contacts.ContactEvent]:
        if notice is not None and notices.owner(notice) != id_:
            raise OtherPlayer
        opened = contacts.Opened(
            player=id_,
            channel=command.channel,
            due_at=due_at or harm.contact_due(jurisdiction=player.jurisdiction, at=at),
            reason=command.reason,
            trigger=trigger,
        )
        return contacts.open_(contact, player, opened=opened, at=at)

    return Plan(
        edge.context,
        require=(Action.CONTACT_WORK,),
        writes={"contact": contacts.stream(contact_id)},
        reads=reads,
        fresh=frozenset({"contact"}),
        decision=decision,
        answer=lambda facts: _changed(f"contact_{suffix_in(facts, 'contact')}", facts),
    )


def attempt(contact_id: str, command: AttemptContact, edge: Edge) -> Plan:
    """We have tried, and not reached the player. Raises NotFound, ContactMade, KeyNotHeld."""
    attempted = contacts.Attempted(command.channel, command.note)
    return _written(contact_id, edge, lambda _at, contact: contacts.attempt(contact, attempted=attempted))


def make(contact_id: str, command: MakeContact, edge: Edge) -> Plan:
    """We have spoken with the player. Raises NotFound, ContactMade, FollowUpPast, KeyNotHeld."""
    made = contacts.Made(
        channel=command.channel,
        outcome=command.outcome,
        note=command.note,
        follow_up_due=_utc(command.follow_up_due, "/follow_up_due"),
    )
    return _written(contact_id, edge, lambda at, contact: contacts.make(contact, made=made, at=at))


def follow_up(contact_id: str, command: FollowUpContact, edge: Edge) -> Plan:
    """We have looked again. Raises NotFound, ContactNotMade, ContactDone, FollowUpPast, KeyNotHeld."""
    followed = contacts.FollowedUp(
        outcome=command.outcome, note=command.note, follow_up_due=_utc(command.follow_up_due, "/follow_up_due")
    )
    return _written(contact_id, edge, lambda at, contact: contacts.follow_up(contact, followed=followed, at=at))


def lapse(contact_id: str, _command: Nothing, edge: Edge) -> Plan:
    """The time is over in which the player had to be reached: record it, and suspend them. For timers. Raises NotFound,
    NotYetUnanswered.
    """

    def follow(contact: Contact, **_states: Any) -> Mapping[str, AnyStream[Any]]:
        whose = contacts.owner(contact)
        return {"player": players.stream(whose), "protection": protection.stream(whose)}

    def decision(at: datetime, contact: Contact, player: Player, protection: protection.Protection) -> Sequence[Event]:
        unanswered = contacts.leave_unanswered(contact, at=at)
        stopped = steps.stop(protection, player, steps.SUSPENDED, steps.NO_REPLY) if unanswered else []
        return [*unanswered, *stopped]

    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"contact": contacts.stream(ContactId(contact_id))},
        follow=follow,
        decision=decision,
        answer=lambda facts: _changed(contact_id, facts),
    )


def _written(contact_id: str, edge: Edge, decision: Callable[[datetime, Contact], list[contacts.ContactEvent]]) -> Plan:
    """Where something may be written that must be sealed under the player's key."""

    def key(player: Player | None = None, **_states: Any) -> tuple[str, str]:
        if player is None:
            raise NotFound("no such player")
        return player.sealing_key()

    return Plan(
        edge.context,
        require=(Action.CONTACT_WORK,),
        writes={"contact": contacts.stream(ContactId(contact_id))},
        follow=lambda contact, **_: {"player": players.stream(contacts.owner(contact))},
        key=key,
        decision=lambda at, contact, **_: decision(at, contact),
        answer=lambda facts: _changed(contact_id, facts),
    )


def _changed(contact_id: str, facts: Sequence[Fact]) -> ContactChanged:
    known: dict[str, Any] = {}
    for fact in facts:
        match event := fact.event:
            case contacts.Opened():
                known |= {"status": Status.OPEN, "due_at": event.due_at}
            case contacts.Made() | contacts.FollowedUp():
                status = Status.DONE if event.follow_up_due is None else Status.FOLLOWING_UP
                known |= {"status": status, "outcome": event.outcome, "due_at": event.follow_up_due}
            case contacts.Unanswered():
                known["status"] = Status.UNANSWERED
    return ContactChanged(contact_id, **known)


def _utc(at: datetime | None, pointer: str) -> datetime | None:
    """Raises Invalid for what is before or after the years that there are."""
    try:
        return at.astimezone(UTC) if at else None
    except OverflowError:
        raise Invalid("not an instant of the calendar", pointer=pointer) from None


_ONE = "/v1/contacts/{contact_id}"
_SEALED = (NotFound, KeyNotHeld, FollowUpPast)

ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/contacts", open_, OpenContact, ContactChanged, 201,
        (NotFound, InvalidId, OtherPlayer, FollowUpPast),
    ),
    Endpoint(f"{_ONE}/attempt", attempt, AttemptContact, ContactChanged, 200, (NotFound, KeyNotHeld, ContactMade)),
    Endpoint(f"{_ONE}/make", make, MakeContact, ContactChanged, 200, (*_SEALED, ContactMade)),
    Endpoint(f"{_ONE}/follow-up", follow_up, FollowUpContact, ContactChanged, 200, (*_SEALED, ContactNotMade, ContactDone)),
)  # fmt: skip
