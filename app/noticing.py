"""Notices and contacts on HTTP, as they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from access.policy import Action
from app import openapi
from domain.errors import InvalidId, NotFound
from policies.findings import Kind, Severity
from queries import contacts, notices

_TEXT = {"type": "string"}
_READS = ("notices", "players")
_DUE = {**_TEXT, "format": "date-time"}


def add(get: Callable[..., None], paging: Sequence[dict[str, Any]]) -> None:
    """`get` serves a query (app.querying); `paging` are the parameters of every list."""
    player = openapi.query_parameter("player", _TEXT, "Those of this player.")
    due = openapi.query_parameter("due_before", _DUE, "Those due before this time.")
    get(
        "/v1/notices",
        notices.NoticePage,
        Action.NOTICE_READ,
        notices.page,
        reads=_READS,
        parameters=[
            openapi.query_parameter("status", {**_TEXT, "enum": sorted(notices.STATUSES)}),
            openapi.query_parameter("rule", _TEXT, "Those of this rule, in any version."),
            openapi.query_parameter("kind", {**_TEXT, "enum": list(Kind)}),
            openapi.query_parameter("severity", {**_TEXT, "enum": list(Severity)}),
            openapi.query_parameter("assignee", _TEXT, "Those that were given to this actor."),
            player,
            due,
            *paging,
        ],
        errors=(InvalidId,),
        filtered=True,
    )
    get(
        "/v1/notices/{notice_id}",
        notices.Notice,
        Action.NOTICE_READ,
        notices.get,
        reads=_READS,
        errors=(NotFound, InvalidId),
    )
    get(
        "/v1/contacts",
        contacts.ContactPage,
        Action.NOTICE_READ,
        contacts.page,
        reads=_READS,
        parameters=[
            openapi.query_parameter("status", {**_TEXT, "enum": sorted(contacts.STATUSES)}),
            openapi.query_parameter("reason", _TEXT, "Those for this reason; of a marker: its rule."),
            openapi.query_parameter("trigger", _TEXT, "That which this notice has led to."),
            player,
            due,
            *paging,
        ],
        errors=(InvalidId,),
        filtered=True,
    )
    get(
        "/v1/contacts/{contact_id}",
        contacts.ContactWithNotes,
        Action.NOTICE_READ,
        contacts.get,
        reads=_READS,
        parameters=paging,
        errors=(NotFound, InvalidId),
        opens=True,
    )
