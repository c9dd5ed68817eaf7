"""
Contacts: we get in touch with a player of whom there is a marker of harm, and follow it up. Trigger, contact, outcome and
follow-up stand in the log, so that it can be shown what was done when.

    opened → attempted … → made → followed up … → done          or: opened → unanswered, where the law suspends then → made …

Invariants:
    - a contact is opened with the time until which it is to be made;
    - what was talked about is sealed under the player's own key; outcomes are words;
    - time alone never ends a contact: it is made, or recorded as unanswered, and then still to be made.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, NotFound
from domain.kernel import EPOCH, Aggregate, ContactId, Event, NoticeId, Personal, PlayerId, Stream, parse_id
from domain.players import Player

# Events: the tags and fields are the storage format.


class Channel(StrEnum):
    """How we reach the player; any: whoever makes the contact chooses."""

    ANY = "any"
    PHONE = "phone"
    EMAIL = "email"
    CHAT = "chat"
    POST = "post"
    ON_SITE = "on_site"


class Outcome(StrEnum):
    """What came of talking, in the player's words or in our view of them."""

    NO_CONCERN = "no_concern"
    ADVISED = "advised"
    LIMITS_SET = "limits_set"
    TOOK_A_BREAK = "took_a_break"
    EXCLUDED = "excluded"
    RESTRICTED = "restricted"
    MEANS_CHECKED = "means_checked"
    CONTESTED = "contested"
    DECLINED_TO_TALK = "declined_to_talk"


class Opened(Event, frozen=True, kw_only=True, tag="contact.opened"):
    """The player is to be contacted until `due_at`. `trigger`: the notice because of which; `reply_due`: where the law suspends a
    player who could not be reached until then.
    """

    player: PlayerId
    channel: Channel
    due_at: datetime
    reason: str
    trigger: NoticeId | None = None
    reply_due: datetime | None = None


class Attempted(Event, frozen=True, tag="contact.attempted"):
    """We have tried, and not reached the player."""

    channel: Channel
    note: Personal | None = None


class Made(Event, frozen=True, kw_only=True, tag="contact.made"):
    """We have spoken with the player. `follow_up_due`: until when we look again."""

    channel: Channel
    outcome: Outcome
    note: Personal | None = None
    follow_up_due: datetime | None = None


class FollowedUp(Event, frozen=True, kw_only=True, tag="contact.followed_up"):
    """We have looked again at what came of it. `follow_up_due`: until when once more."""

    outcome: Outcome
    note: Personal | None = None
    follow_up_due: datetime | None = None


class Unanswered(Event, frozen=True, tag="contact.unanswered"):
    """The player was not reached in the time that the law gives; the same command has suspended them."""


ContactEvent = Opened | Attempted | Made | FollowedUp | Unanswered


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    OPEN = "open"
    UNANSWERED = "unanswered"
    FOLLOWING_UP = "following_up"
    DONE = "done"


class Contact(msgspec.Struct, frozen=True):
    """`due_at`: what is due next, as long as something is."""

    status: Status = Status.UNKNOWN
    player: PlayerId = PlayerId("")
    channel: Channel = Channel.ANY
    reason: str = ""
    trigger: NoticeId | None = None
    opened_at: datetime = EPOCH
    due_at: datetime | None = None
    reply_due: datetime | None = None
    attempts: int = 0
    made_at: datetime | None = None
    outcome: Outcome | None = None


def evolve(contact: Contact, event: ContactEvent, at: datetime) -> Contact:
    change = msgspec.structs.replace
    match event:
        case Opened():
            return Contact(
                Status.OPEN, event.player, event.channel, event.reason, event.trigger, at, event.due_at, event.reply_due
            )
        case Attempted():
            return change(contact, attempts=contact.attempts + 1)
        case Unanswered():
            return change(contact, status=Status.UNANSWERED)
        case Made():
            return change(_looked_at(contact, event), channel=event.channel, made_at=at)
        case FollowedUp():
            return _looked_at(contact, event)


def _looked_at(contact: Contact, event: Made | FollowedUp) -> Contact:
    due_at = event.follow_up_due
    status = Status.DONE if due_at is None else Status.FOLLOWING_UP
    return msgspec.structs.replace(contact, status=status, due_at=due_at, reply_due=None, outcome=event.outcome)


CONTACTS = Aggregate(
    "contact", initial=Contact(), evolve=evolve, events=[Opened, Attempted, Made, FollowedUp, Unanswered]
)


@lru_cache(1_000)
def stream(contact_id: ContactId) -> Stream[Contact]:
    return Stream(CONTACTS, parse_id("contact", contact_id))


def owner(contact: Contact) -> PlayerId:
    """Who is contacted. Raises NotFound."""
    if contact.status is Status.UNKNOWN:
        raise NotFound("no such contact")
    return contact.player


# Decisions


class ContactMade(Conflict):
    code = "contact_made"
    title = "The contact was made already; what comes now is a follow-up"


class ContactNotMade(Conflict):
    code = "contact_not_made"
    title = "There is nothing to follow up: the player was not spoken with yet"


class ContactDone(Conflict):
    code = "contact_done"
    title = "The contact is over"


class FollowUpPast(Conflict):
    code = "follow_up_past"
    title = "A follow-up is due in the future"


class NotYetUnanswered(Conflict):
    """Facts: due_at."""

    code = "not_yet_unanswered"
    title = "The player may still be reached"


def open_(contact: Contact, player: Player, *, opened: Opened, at: datetime) -> list[ContactEvent]:
    """Raises NotFound, FollowUpPast."""
    player.require()
    if contact.status is not Status.UNKNOWN:
        raise Conflict("the contact exists already")
    _refuse_past(opened.due_at, at)
    return [opened]


def attempt(contact: Contact, *, attempted: Attempted) -> list[ContactEvent]:
    """Each attempt is one more. Raises NotFound, ContactMade."""
    _require_open(contact)
    return [attempted]


def make(contact: Contact, *, made: Made, at: datetime) -> list[ContactEvent]:
    """Raises NotFound, ContactMade, FollowUpPast."""
    _require_open(contact)
    _refuse_past(made.follow_up_due, at)
    return [made]


def follow_up(contact: Contact, *, followed: FollowedUp, at: datetime) -> list[ContactEvent]:
    """Raises NotFound, ContactNotMade, ContactDone, FollowUpPast."""
    owner(contact)
    if contact.status in {Status.OPEN, Status.UNANSWERED}:
        raise ContactNotMade
    if contact.status is Status.DONE:
        raise ContactDone
    _refuse_past(followed.follow_up_due, at)
    return [followed]


def leave_unanswered(contact: Contact, *, at: datetime) -> list[ContactEvent]:
    """The law's time is over. Recorded once; nothing if the player was spoken with. Raises NotFound, NotYetUnanswered."""
    owner(contact)
    if contact.status is not Status.OPEN or contact.reply_due is None:
        return []
    if at < contact.reply_due:
        raise NotYetUnanswered(due_at=contact.reply_due)
    return [Unanswered()]


def _require_open(contact: Contact) -> None:
    owner(contact)
    if contact.status not in {Status.OPEN, Status.UNANSWERED}:
        raise ContactMade


def _refuse_past(due_at: datetime | None, at: datetime) -> None:
    if due_at is not None and due_at <= at:
        raise FollowUpPast(earliest=at)
