"""The read side of approvals on HTTP: what waits for a second person, and what has waited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from access.policy import Action
from app import openapi
from domain.errors import InvalidId, NotFound
from queries import approvals


def add(get: Callable[..., None], paging: Sequence[dict[str, Any]]) -> None:
    """Serve the queries with `get`; lists take `paging` as well."""
    text = {"type": "string"}
    chosen = [
        openapi.query_parameter("status", {**text, "enum": sorted(approvals.STATUSES)}),
        openapi.query_parameter("player", text, "Those that concern this player."),
        openapi.query_parameter("due_before", {**text, "format": "date-time"}, "Those that lapse before this time."),
    ]
    get(
        "/v1/approvals",
        approvals.ApprovalPage,
        Action.APPROVAL_READ,
        approvals.page,
        reads=("approvals", "players"),
        parameters=[*chosen, *paging],
        errors=(InvalidId,),
        filtered=True,
        opens=True,
    )
    get(
        "/v1/approvals/{approval_id}",
        approvals.Approval,
        Action.APPROVAL_READ,
        approvals.get,
        reads=("approvals", "players"),
        errors=(NotFound, InvalidId),
        opens=True,
    )
