"""
Help-desk tickets: a player's request, what we said to it, and the times that we promised (the SLA).

Invariants:
    - a closed ticket changes only by being reopened;
    - escalating never moves a due time later;
    - a promise that was not kept is recorded once, at the latest with the answer or the end that came too late;
    - what people write is sealed under the player's own data key; every other field is a word or a time.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, NotFound
from domain.kernel import EPOCH, Aggregate, Event, Personal, PlayerId, Stream, TicketId, TransactionId, parse_id
from domain.players import Player
from domain.players import Status as PlayerStatus
from domain.transactions import Transaction
from policies import sla
from policies.sla import Priority

# Events: the tags and fields are the storage format.


class Author(StrEnum):
    PLAYER = "player"
    OPERATOR = "operator"


class Resolution(StrEnum):
    """How a ticket ended."""

    SOLVED = "solved"
    NO_REPLY = "no_reply"
    DUPLICATE = "duplicate"
    WITHDRAWN = "withdrawn"
    SPAM = "spam"


class Opened(Event, frozen=True, kw_only=True, tag="ticket.opened"):
    """A player wants something. `by`: whose words `subject` and `text` are; `channel`: how they came; `transaction`: which
    payment of theirs it is about.
    """

    player: PlayerId
    channel: str
    by: Author
    subject: Personal
    text: Personal
    priority: Priority
    first_response_due: datetime
    resolution_due: datetime
    transaction: TransactionId | None = None


class Assigned(Event, frozen=True, tag="ticket.assigned"):
    """From now on `to`, an actor, works on it."""

    to: str


class Answered(Event, frozen=True, tag="ticket.answered"):
    """We wrote to the player."""

    text: Personal


class Noted(Event, frozen=True, tag="ticket.noted"):
    """A note among ourselves."""

    text: Personal


class Escalated(Event, frozen=True, kw_only=True, tag="ticket.escalated"):
    """The priority was raised; `reason` is a word. A due time is omitted where nothing is waited for any more."""

    priority: Priority
    reason: str
    first_response_due: datetime | None = None
    resolution_due: datetime | None = None


class Closed(Event, frozen=True, tag="ticket.closed"):
    """The ticket has ended; if nobody had answered, nobody will."""

    resolution: Resolution


class Reopened(Event, frozen=True, tag="ticket.reopened"):
    """It goes on, with a new promise. `reason` is a word."""

    reason: str
    resolution_due: datetime


class FirstResponseMissed(Event, frozen=True, tag="ticket.first_response_missed"):
    """The first answer did not come in time."""


class ResolutionMissed(Event, frozen=True, tag="ticket.resolution_missed"):
    """The end did not come in time."""


TicketEvent = (
    Opened
    | Assigned
    | Answered
    | Noted
    | Escalated
    | Closed
    | Reopened
    | FirstResponseMissed
    | ResolutionMissed
)  # fmt: skip


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    OPEN = "open"
    CLOSED = "closed"


class Ticket(msgspec.Struct, frozen=True):
    """`awaits_answer`: a first answer is still promised. The missed flags belong to the due times beside them."""

    status: Status = Status.UNKNOWN
    player: PlayerId = PlayerId("")
    channel: str = ""
    by: Author = Author.PLAYER
    priority: Priority = Priority.LOW
    transaction: TransactionId | None = None
    assignee: str | None = None
    opened_at: datetime = EPOCH
    first_response_due: datetime = EPOCH
    resolution_due: datetime = EPOCH
    awaits_answer: bool = False
    first_response_missed: bool = False
    resolution_missed: bool = False
    answered_at: datetime | None = None
    closed_at: datetime | None = None
    resolution: Resolution | None = None

    @property
    def due_at(self) -> datetime:
        """What is due next; of a closed ticket, when its end was due."""
        return min(self.first_response_due, self.resolution_due) if self.awaits_answer else self.resolution_due


def evolve(ticket: Ticket, event: TicketEvent, at: datetime) -> Ticket:  # noqa: PLR0911 — one return a tag
    replace = msgspec.structs.replace
    match event:
        case Opened():
            return Ticket(
                Status.OPEN, event.player, event.channel, event.by, event.priority, event.transaction, None, at,
                event.first_response_due, event.resolution_due, awaits_answer=True,
            )  # fmt: skip
        case Assigned():
            return replace(ticket, assignee=event.to)
        case Answered():
            return replace(ticket, awaits_answer=False, answered_at=ticket.answered_at or at)
        case Noted():
            return ticket
        case Escalated():
            return replace(
                ticket,
                priority=event.priority,
                first_response_due=event.first_response_due or ticket.first_response_due,
                resolution_due=event.resolution_due or ticket.resolution_due,
            )
        case Closed():
            return replace(ticket, status=Status.CLOSED, awaits_answer=False, closed_at=at, resolution=event.resolution)
        case Reopened():
            return replace(
                ticket, status=Status.OPEN, resolution_due=event.resolution_due, resolution_missed=False,
                closed_at=None, resolution=None,
            )  # fmt: skip
        case FirstResponseMissed():
            return replace(ticket, first_response_missed=True)
        case ResolutionMissed():
            return replace(ticket, resolution_missed=True)


TICKETS = Aggregate(
    "ticket",
    initial=Ticket(),
    evolve=evolve,
    events=[
        Opened, Assigned, Answered, Noted, Escalated, Closed, Reopened, FirstResponseMissed, ResolutionMissed,
    ],
)  # fmt: skip


@lru_cache(1_000)
def stream(ticket_id: TicketId) -> Stream[Ticket]:
    return Stream(TICKETS, parse_id("ticket", ticket_id))


def owner(ticket: Ticket) -> PlayerId:
    """Whose ticket it is. Raises NotFound."""
    if ticket.status is Status.UNKNOWN:
        raise NotFound("no such ticket")
    return ticket.player


# Decisions


class TicketClosed(Conflict):
    code = "ticket_closed"
    title = "The ticket is closed; it changes only by being reopened"


def open_(
    ticket: Ticket,
    player: Player,
    payment: Transaction | None,
    *,
    player_id: PlayerId,
    channel: str,
    by: Author,
    subject: str,
    text: str,
    priority: Priority,
    transaction: TransactionId | None,
    at: datetime,
) -> list[TicketEvent]:
    """Take up what a player wants, whatever the player's status. `payment` is that of `transaction`. Raises NotFound."""
    if player.status is PlayerStatus.UNKNOWN:
        raise NotFound("no such player")
    if payment is not None and payment.player != player_id:
        raise NotFound("the player has no such transaction")
    if ticket.status is not Status.UNKNOWN:
        raise Conflict("the ticket exists already")
    due = sla.due(priority, at)
    return [
        Opened(
            player=player_id,
            channel=channel,
            by=by,
            subject=subject,
            text=text,
            priority=priority,
            first_response_due=due.first_response,
            resolution_due=due.resolution,
            transaction=transaction,
        )
    ]


def assign(ticket: Ticket, *, to: str) -> list[TicketEvent]:
    """Give it to someone. Asking again records nothing. Raises NotFound, TicketClosed."""
    _refuse_closed(ticket)
    if ticket.assignee == to:
        return []
    return [Assigned(to)]


def answer(ticket: Ticket, *, text: str, at: datetime) -> list[TicketEvent]:
    """Write to the player. Raises NotFound, TicketClosed."""
    _refuse_closed(ticket)
    return [*_first_response_missed(ticket, at), Answered(text)]


def note(ticket: Ticket, *, text: str) -> list[TicketEvent]:
    """Write among ourselves. Raises NotFound, TicketClosed."""
    _refuse_closed(ticket)
    return [Noted(text)]


def escalate(ticket: Ticket, *, to: Priority, reason: str, at: datetime) -> list[TicketEvent]:
    """Raise the priority. Asking again, or for less, records nothing. Raises NotFound, TicketClosed."""
    _refuse_closed(ticket)
    if not to.exceeds(ticket.priority):
        return []
    due = sla.due(to, at)
    answer_waits = ticket.awaits_answer and not ticket.first_response_missed
    return [
        Escalated(
            priority=to,
            reason=reason,
            first_response_due=min(ticket.first_response_due, due.first_response) if answer_waits else None,
            resolution_due=None if ticket.resolution_missed else min(ticket.resolution_due, due.resolution),
        )
    ]


def close(ticket: Ticket, *, resolution: Resolution, at: datetime) -> list[TicketEvent]:
    """End it. The same end again records nothing. Raises NotFound, TicketClosed if it has ended otherwise."""
    owner(ticket)
    if ticket.status is Status.CLOSED:
        if ticket.resolution is not resolution:
            raise TicketClosed
        return []
    return [*_first_response_missed(ticket, at), *_resolution_missed(ticket, at), Closed(resolution)]


def reopen(ticket: Ticket, *, reason: str, at: datetime) -> list[TicketEvent]:
    """Go on with a closed ticket: its end is promised anew. An open one records nothing. Raises NotFound."""
    owner(ticket)
    if ticket.status is Status.OPEN:
        return []
    return [Reopened(reason, sla.due(ticket.priority, at).resolution)]


def miss(ticket: Ticket, *, at: datetime) -> list[TicketEvent]:
    """Record which promises of an open ticket were not kept by `at`, each once. Raises NotFound."""
    owner(ticket)
    if ticket.status is Status.CLOSED:
        return []
    return [*_first_response_missed(ticket, at), *_resolution_missed(ticket, at)]


def _refuse_closed(ticket: Ticket) -> None:
    owner(ticket)
    if ticket.status is Status.CLOSED:
        raise TicketClosed


def _first_response_missed(ticket: Ticket, at: datetime) -> list[TicketEvent]:
    missed = ticket.awaits_answer and not ticket.first_response_missed and at >= ticket.first_response_due
    return [FirstResponseMissed()] if missed else []


def _resolution_missed(ticket: Ticket, at: datetime) -> list[TicketEvent]:
    return [ResolutionMissed()] if not ticket.resolution_missed and at >= ticket.resolution_due else []
