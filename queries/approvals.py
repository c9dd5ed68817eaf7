"""Approvals: one, with exactly what was asked, and those that wait or have waited, by when they lapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from domain.approvals import Status
from domain.errors import Invalid, NotFound
from domain.kernel import ApprovalId, OperatorId, PlayerId, instant, parse_id
from queries import listing, seeing, words
from queries.asof import microseconds
from queries.context import Context, page_size, read_cursor
from queries.listing import Listing, Wanted

_COLUMNS: LiteralString = """id, version, player, operator, status, action, path, asked, hash, reasons, requester, requester_person,
              requested_at, expires_at, decided_at, decided_by, decider_person, refused"""
_GET = f"SELECT {_COLUMNS} FROM read.approval WHERE id = %s"
_ALL = Listing("read.approval", _COLUMNS, "expires_at", [("player",), ("status",)], attributes=seeing.APPROVALS)
STATUSES = frozenset(Status) - {Status.UNKNOWN}


class Approval(msgspec.Struct, frozen=True):
    """What waits for a second person, or has waited. `body`: the JSON text that was sent; SHA-256 of path, LF, `salt`, LF and
    `body` is `hash`. These two and `reject_reason` are null where they cannot be opened here, or not by this token.

    It concerns a `player` or an `operator`; the other is null. `reasons`: why a second person is needed. `requester_person`,
    `decider_person`: who is behind these accounts; empty or null where they speak for themselves. `decided_by` is also who has
    let it lapse.
    """

    id: ApprovalId
    version: int
    player: PlayerId | None
    operator: OperatorId | None
    status: Status
    action: str
    path: str
    body: str | None
    salt: str | None
    hash: str
    reasons: list[str]
    requester: str
    requester_person: str
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    decider_person: str | None
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
    [found] = await _approvals(context, rows)
    return found


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
    given = {"status": status, "player": player}
    wanted = Wanted({name: value for name, value in given.items() if value is not None})
    if due_before is not None:
        wanted = wanted._replace(until=instant(microseconds(due_before, "due_before")))
    if cursor is not None:
        expires_us, id_ = read_cursor(cursor, tuple[int, str])
        parse_id("approval", id_)
        wanted = wanted._replace(after=(instant(expires_us), id_))
    rows = await listing.rows(context, _ALL, wanted, limit)
    items = await _approvals(context, rows[:limit])
    more = listing.cursor(items[-1].expires_at, items[-1].id) if len(rows) > limit else None
    return ApprovalPage(items, more)


async def _approvals(context: Context, rows: Sequence[Sequence[Any]]) -> list[Approval]:
    texts = await words.opened(context, [(row[2] or row[3], column) for row in rows for column in (row[7], row[-1])])
    return [_approval(row, *texts[2 * n : 2 * n + 2]) for n, row in enumerate(rows)]


def _approval(row: Sequence[Any], asked: Mapping[str, str], refused: Mapping[str, str]) -> Approval:
    """A row, with what is opened of its two columns."""
    id_, version, player, operator, status, action, path, _, hash_, reasons, *more, _ = row
    requester, person, requested_at, expires_at, decided_at, decided_by, decider = more
    return Approval(
        ApprovalId(id_), version, player, operator, Status(status), action, path, asked.get("data.body"),
        asked.get("data.salt"), hash_, reasons.split(","), requester, person, requested_at, expires_at, decided_at,
        decided_by, decider, refused.get("data.reason"),
    )  # fmt: skip
