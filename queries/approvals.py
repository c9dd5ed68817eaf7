"""Approvals: one, with exactly what was asked, and those that wait or have waited, by when they lapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

import msgspec

from domain.approvals import Status
from domain.errors import Invalid, NotFound
from domain.kernel import EPOCH, ApprovalId, PlayerId, instant, parse_id
from queries.asof import microseconds
from queries.context import Context, page_size, read_cursor, write_cursor

_COLUMNS = """id, version, player, status, action, path, body, hash, reasons, requester, requested_at, expires_at,
              decided_at, decided_by, reject_reason"""
_GET = f"SELECT {_COLUMNS} FROM read.approval WHERE id = %s"
_CHOSEN: Mapping[str, LiteralString] = {
    "status": "status = %s",
    "player": "player = %s",
    "due_before": "expires_at < %s",
    "cursor": "(expires_at, id) > (%s, %s)",
}
_MICROSECOND = timedelta(microseconds=1)
STATUSES = frozenset(Status) - {Status.UNKNOWN}


class Approval(msgspec.Struct, frozen=True):
    """What waits for a second person, or has waited. `body`: the JSON text that was sent, which with the path makes `hash`.

    `reasons`: why a second person is needed. `decided_by` is also who has let it lapse.
    """

    id: ApprovalId
    version: int
    player: PlayerId
    status: Status
    action: str
    path: str
    body: str
    hash: str
    reasons: list[str]
    requester: str
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    reject_reason: str | None


class ApprovalPage(msgspec.Struct, frozen=True):
    """Approvals, those that lapse first first."""

    items: list[Approval]
    next_cursor: str | None


async def get(context: Context, approval_id: ApprovalId) -> Approval:
    """An approval, with what was asked. Raises InvalidId, NotFound."""
    parse_id("approval", approval_id)
    rows = await context.fetch(_GET, approval_id)
    if not rows:
        raise NotFound("no such approval")
    return _approval(*rows[0])


async def page(
    context: Context,
    status: str | None = None,
    player: str | None = None,
    due_before: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> ApprovalPage:
    """Approvals by when they lapse: of a status, of a player, or that lapse before a time. Raises Invalid, InvalidId, UnknownMoment."""
    page_size(limit)
    if status is not None and status not in STATUSES:
        raise Invalid("not a status of an approval", parameter="status")
    if player is not None:
        parse_id("player", player)
    wanted: dict[str, Sequence[object]] = {
        name: (value,) for name, value in (("status", status), ("player", player)) if value is not None
    }
    if due_before is not None:
        wanted["due_before"] = (instant(microseconds(due_before, "due_before")),)
    if cursor is not None:
        expires_us, id_ = read_cursor(cursor, tuple[int, str])
        parse_id("approval", id_)
        wanted["cursor"] = (instant(expires_us), id_)
    chosen: LiteralString = " AND ".join([_CHOSEN[name] for name in wanted]) or "true"
    rows = await context.fetch(
        f"SELECT {_COLUMNS} FROM read.approval WHERE {chosen} ORDER BY expires_at, id LIMIT %s",
        *(argument for arguments in wanted.values() for argument in arguments),
        limit + 1,
    )
    items = [_approval(*row) for row in rows[:limit]]
    if len(rows) <= limit:
        return ApprovalPage(items, None)
    last = items[-1]
    return ApprovalPage(items, write_cursor((last.expires_at - EPOCH) // _MICROSECOND, last.id))


def _approval(id_: str, version: int, player: str, status: str, *rest: Any) -> Approval:
    action, path, body, hash_, reasons, *more = rest
    return Approval(
        ApprovalId(id_), version, PlayerId(player), Status(status), action, path, body, hash_, reasons.split(","), *more
    )
