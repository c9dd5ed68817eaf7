"""Notices: the list by when somebody is to look at them, and one of them."""

from __future__ import annotations

from typing import LiteralString

import msgspec

from domain import notices
from domain.errors import NotFound
from domain.kernel import NoticeId, PlayerId, parse_id
from domain.notices import Status
from policies.findings import Kind, Severity
from queries import seeing
from queries.by_due import ByDue
from queries.context import Context
from queries.listing import Listing

_COLUMNS: LiteralString = "n.id, n.version, n.player, n.state::text"
_LEADS = [("player",), ("status",), ("rule",), ("kind", "status"), ("assignee", "status")]
STATUSES = frozenset(Status) - {Status.UNKNOWN}
_state = msgspec.json.Decoder(notices.Notice).decode


class Notice(msgspec.Struct, frozen=True):
    """A notice with its rule's version, the exact `events` that the rule counts, and the figures. `state`: how it stands."""

    id: NoticeId
    version: int
    player: PlayerId
    state: notices.Notice


class NoticePage(msgspec.Struct, frozen=True):
    """Notices, those due first first."""

    items: list[Notice]
    next_cursor: str | None


def _notice(id_: NoticeId, version: int, player: PlayerId, state: str) -> Notice:
    return Notice(id_, version, player, _state(state))


_ALL = ByDue(
    "notice",
    Listing("read.notice AS n", _COLUMNS, "due_at", _LEADS, attributes=seeing.NOTICES),
    _notice,
    words={"status": STATUSES, "kind": frozenset(Kind), "severity": frozenset(Severity)},
    ids={"player": "player"},
)


async def page(
    context: Context,
    status: str | None = None,
    rule: str | None = None,
    kind: str | None = None,
    severity: str | None = None,
    assignee: str | None = None,
    player: str | None = None,
    due_before: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> NoticePage:
    """Notices by when somebody is to look at them. Raises Invalid, InvalidId, UnknownMoment."""
    given = {
        "status": status, "rule": rule, "kind": kind, "severity": severity, "assignee": assignee, "player": player,
    }  # fmt: skip
    return NoticePage(*await _ALL.page(context, given, due_before, cursor, limit))


async def get(context: Context, notice_id: NoticeId) -> Notice:
    """A notice. Raises InvalidId, NotFound."""
    parse_id("notice", notice_id)
    rows = await context.fetch(f"SELECT {_COLUMNS} FROM read.notice AS n WHERE n.id = %s", notice_id)
    if not rows:
        raise NotFound("no such notice")
    return _notice(*rows[0])
