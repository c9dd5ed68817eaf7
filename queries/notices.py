"""Notices: the list by when somebody is to look at them, and one of them."""

from __future__ import annotations

from typing import LiteralString

import msgspec

from domain import notices
from domain.errors import Invalid, NotFound
from domain.kernel import NoticeId, PlayerId, instant, parse_id
from domain.notices import Status
from policies.findings import Kind, Severity
from queries import listing
from queries.asof import microseconds
from queries.context import Context, page_size, read_cursor
from queries.listing import Listing, Wanted

_COLUMNS: LiteralString = "n.id, n.version, n.player, n.state::text"
_ALL = Listing(
    "read.notice AS n",
    _COLUMNS,
    "due_at",
    [("player",), ("status",), ("rule",), ("kind", "status"), ("assignee", "status")],
)
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
    page_size(limit)
    for name, value, known in (
        ("status", status, STATUSES),
        ("kind", kind, set(Kind)),
        ("severity", severity, set(Severity)),
    ):
        if value is not None and value not in known:
            raise Invalid(f"not a {name} of a notice", parameter=name)
    if player is not None:
        parse_id("player", player)
    given = {
        "status": status, "rule": rule, "kind": kind, "severity": severity, "assignee": assignee, "player": player,
    }  # fmt: skip
    wanted = Wanted({name: value for name, value in given.items() if value is not None})
    if due_before is not None:
        wanted = wanted._replace(until=instant(microseconds(due_before, "due_before")))
    if cursor is not None:
        due_us, id_ = read_cursor(cursor, tuple[int, str])
        wanted = wanted._replace(after=(instant(due_us), id_))
    if "\0" in f"{assignee or ''}{rule or ''}":
        return NoticePage([], None)  # no text of PostgreSQL holds it
    rows = await listing.rows(context, _ALL, wanted, limit)
    items = [_notice(*row) for row in rows[:limit]]
    more = listing.cursor(items[-1].state.due_at, items[-1].id) if len(rows) > limit else None
    return NoticePage(items, more)


async def get(context: Context, notice_id: NoticeId) -> Notice:
    """A notice. Raises InvalidId, NotFound."""
    parse_id("notice", notice_id)
    rows = await context.fetch(f"SELECT {_COLUMNS} FROM read.notice AS n WHERE n.id = %s", notice_id)
    if not rows:
        raise NotFound("no such notice")
    return _notice(*rows[0])


def _notice(id_: NoticeId, version: int, player: PlayerId, state: str) -> Notice:
    return Notice(id_, version, player, _state(state))
