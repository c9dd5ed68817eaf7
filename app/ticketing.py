"""Tickets on HTTP, as they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from access.policy import Action
from app import openapi
from domain.errors import InvalidId, NotFound
from policies.sla import Priority
from queries import tickets

_TEXT = {"type": "string"}
_READS = ("tickets", "players")


def add(get: Callable[..., None], paging: Sequence[dict[str, Any]]) -> None:
    """`get` serves a query (app.querying); `paging` are the parameters of every list."""
    chosen = [
        openapi.query_parameter("status", {**_TEXT, "enum": sorted(tickets.STATUSES)}),
        openapi.query_parameter("priority", {**_TEXT, "enum": list(Priority)}),
        openapi.query_parameter("assignee", _TEXT, "Those that were given to this actor."),
        openapi.query_parameter("player", _TEXT, "Those of this player."),
        openapi.query_parameter("due_before", {**_TEXT, "format": "date-time"}, "Those due before this time."),
    ]
    get(
        "/v1/tickets",
        tickets.TicketPage,
        Action.TICKET_READ,
        tickets.page,
        reads=_READS,
        parameters=[*chosen, *paging],
        errors=(InvalidId,),
        filtered=True,
    )
    get(
        "/v1/tickets/{ticket_id}",
        tickets.Conversation,
        Action.TICKET_READ,
        tickets.get,
        reads=_READS,
        parameters=paging,
        errors=(NotFound, InvalidId),
        opens=True,
    )
