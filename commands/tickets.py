"""Commands on tickets: open one, assign, answer, note, escalate, close and reopen it, and record a promise that was missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands.edge import PERSONAL, Edge, Endpoint, Nothing, Word, suffix_in, whole
from commands.plan import Fact, Plan
from domain import players, tickets, transactions
from domain.errors import InvalidId, NotFound
from domain.kernel import AnyStream, PlayerId, TicketId, TransactionId
from domain.players import Player
from domain.tickets import Author, Resolution, Status, TicketClosed
from policies.sla import Priority

TEXT_MAX = 10_000
"""Characters; sealed, the longest still fits into an entry."""

Subject = Annotated[
    str, msgspec.Meta(min_length=1, max_length=200, description="Sealed under the player's own key.", extra=PERSONAL)
]
Message = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=TEXT_MAX, description="Sealed under the player's own key.", extra=PERSONAL),
]
Actor = Annotated[str, whole(r"[^\s\x00-\x1f]{1,100}", "As it stands in events.")]


class OpenTicket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`by`: whose words these are; `transaction`: which payment of the player it is about."""

    channel: Word
    subject: Subject
    text: Message
    by: Author = Author.PLAYER
    priority: Priority = Priority.NORMAL
    transaction: str | None = None


class AssignTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: Actor


class AnswerTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Message


class NoteTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Message


class EscalateTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    priority: Priority
    reason: Word


class CloseTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    resolution: Resolution


class ReopenTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Word


class Ticket(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the command has made of the ticket. `missed`: which promises were not kept, as recorded by it."""

    ticket: str
    status: Status | None = None
    priority: Priority | None = None
    assignee: str | None = None
    first_response_due: datetime | None = None
    resolution_due: datetime | None = None
    missed: list[str] = []


def open_ticket(player_id: str, command: OpenTicket, edge: Edge) -> Plan:
    """Open a ticket of a player; its priority says until when an answer and an end are promised. Raises NotFound."""
    player = players.stream(PlayerId(player_id))
    ticket = TicketId("ticket_" + edge.new_child(player.partition))
    transaction = TransactionId(command.transaction) if command.transaction else None
    reads: dict[str, AnyStream[Any]] = {"player": player}
    if transaction:
        reads["payment"] = payment = transactions.stream(transaction)
        if payment.partition != player.partition:
            raise NotFound("the player has no such transaction")
    return Plan(
        edge.context,
        require=(Action.TICKET_OPEN,),
        writes={"ticket": tickets.stream(ticket)},
        reads=reads,
        fresh=frozenset({"ticket"}),
        decision=lambda at, ticket, player, payment=None: tickets.open_(
            ticket,
            player,
            payment,
            player_id=PlayerId(player_id),
            channel=command.channel,
            by=command.by,
            subject=command.subject,
            text=command.text,
            priority=command.priority,
            transaction=transaction,
            at=at,
        ),
        key=lambda player, **_: _key(player),
        answer=lambda facts: _ticket(f"ticket_{suffix_in(facts, 'ticket')}", facts),
    )


def assign(ticket_id: str, command: AssignTicket, edge: Edge) -> Plan:
    """Give a ticket to someone. Raises NotFound, TicketClosed."""
    return _plan(ticket_id, edge, lambda _at, ticket: tickets.assign(ticket, to=command.to))


def answer(ticket_id: str, command: AnswerTicket, edge: Edge) -> Plan:
    """Answer a ticket: what the player reads. Raises NotFound, TicketClosed, KeyNotHeld."""
    return _written(ticket_id, edge, lambda at, ticket: tickets.answer(ticket, text=command.text, at=at))


def note(ticket_id: str, command: NoteTicket, edge: Edge) -> Plan:
    """Note something on a ticket: what the player does not read. Raises NotFound, TicketClosed, KeyNotHeld."""
    return _written(ticket_id, edge, lambda _at, ticket: tickets.note(ticket, text=command.text))


def escalate(ticket_id: str, command: EscalateTicket, edge: Edge) -> Plan:
    """Raise a ticket's priority; due times only come nearer. Raises NotFound, TicketClosed."""
    return _plan(
        ticket_id,
        edge,
        lambda at, ticket: tickets.escalate(ticket, to=command.priority, reason=command.reason, at=at),
    )


def close(ticket_id: str, command: CloseTicket, edge: Edge) -> Plan:
    """Close a ticket. Raises NotFound, TicketClosed if it was closed with another resolution."""
    return _plan(ticket_id, edge, lambda at, ticket: tickets.close(ticket, resolution=command.resolution, at=at))


def reopen(ticket_id: str, command: ReopenTicket, edge: Edge) -> Plan:
    """Reopen a closed ticket: its end is promised anew. Raises NotFound."""
    return _plan(ticket_id, edge, lambda at, ticket: tickets.reopen(ticket, reason=command.reason, at=at))


def miss(ticket_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Record which promises of a ticket were not kept until now. Raises NotFound."""
    return _plan(ticket_id, edge, lambda at, ticket: tickets.miss(ticket, at=at), Action.TIMER_FIRE)


_Decision = Callable[[datetime, tickets.Ticket], list[tickets.TicketEvent]]


def _plan(ticket_id: str, edge: Edge, decision: _Decision, require: Action = Action.TICKET_WORK) -> Plan:
    return Plan(
        edge.context,
        require=(require,),
        writes={"ticket": tickets.stream(TicketId(ticket_id))},
        decision=decision,
        answer=lambda facts: _ticket(ticket_id, facts),
    )


def _written(ticket_id: str, edge: Edge, decision: _Decision) -> Plan:
    """The same where something is written that must be sealed."""
    return msgspec.structs.replace(
        _plan(ticket_id, edge, decision),
        decision=lambda at, ticket, **_: decision(at, ticket),
        follow=_owner,
        key=lambda player=None, **_: _key(player),
    )


def _owner(ticket: tickets.Ticket, **_states: Any) -> Mapping[str, AnyStream[Any]]:
    return {"player": players.stream(tickets.owner(ticket))}


def _key(player: Player | None) -> tuple[str, str]:
    """The player's data key: its id, and what the registration commits to. Raises NotFound."""
    if player is None or not player.key:
        raise NotFound("no such player")
    return player.key, player.commitment


def _ticket(ticket_id: str, facts: Sequence[Fact]) -> Ticket:
    known: dict[str, Any] = {}
    missed = []
    for fact in facts:
        match event := fact.event:
            case tickets.Opened():
                known |= {"status": Status.OPEN, "priority": event.priority}
                known |= {"first_response_due": event.first_response_due, "resolution_due": event.resolution_due}
            case tickets.Assigned():
                known["assignee"] = event.to
            case tickets.Escalated():
                known |= {"priority": event.priority}
                known |= {"first_response_due": event.first_response_due, "resolution_due": event.resolution_due}
            case tickets.Closed():
                known["status"] = Status.CLOSED
            case tickets.Reopened():
                known |= {"status": Status.OPEN, "resolution_due": event.resolution_due}
            case tickets.FirstResponseMissed():
                missed.append("first_response")
            case tickets.ResolutionMissed():
                missed.append("resolution")
    return Ticket(ticket_id, **known, missed=missed)


_REFUSALS = (NotFound, TicketClosed)

ENDPOINTS = (
    Endpoint("/v1/players/{player_id}/tickets", open_ticket, OpenTicket, Ticket, 201, (NotFound, InvalidId)),
    Endpoint("/v1/tickets/{ticket_id}/assign", assign, AssignTicket, Ticket, 200, _REFUSALS),
    Endpoint("/v1/tickets/{ticket_id}/answer", answer, AnswerTicket, Ticket, 200, _REFUSALS),
    Endpoint("/v1/tickets/{ticket_id}/note", note, NoteTicket, Ticket, 200, _REFUSALS),
    Endpoint("/v1/tickets/{ticket_id}/escalate", escalate, EscalateTicket, Ticket, 200, _REFUSALS),
    Endpoint("/v1/tickets/{ticket_id}/close", close, CloseTicket, Ticket, 200, _REFUSALS),
    Endpoint("/v1/tickets/{ticket_id}/reopen", reopen, ReopenTicket, Ticket, 200, (NotFound,)),
    Endpoint("/v1/tickets/{ticket_id}/miss", miss, Nothing, Ticket, 200, (NotFound,)),
)
