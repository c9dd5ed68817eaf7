"""
What happened to a player, the newest first, and what people have noted about them: read from the logs themselves. Which
payments, tickets, approvals, notices and contacts are theirs, the read models tell, so a timeline is as late as these.

Invariants:
    - what is sealed stays sealed in the timeline; a note opens only for whoever may read what is personal;
    - why something was done of which most of the house must not learn it, is told to few (queries/secrecy.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

import msgspec

from domain.errors import NotFound
from domain.kernel import PlayerId, instant, parse_id
from domain.players import DataKey, Noted
from eventstore.record import decode_body
from queries import secrecy
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.history import LISTED, elsewhere_of, streams_of

_LAST = (2**63 - 1, "~", 2**63 - 1)
_CHILDREN: LiteralString = " UNION ALL ".join(
    [f"SELECT replace(id, '_', '-') FROM read.{name} WHERE player = %s" for name in LISTED]
)
_HAPPENED: LiteralString = f"""
    WITH page AS MATERIALIZED (
        SELECT e.recorded, l.name COLLATE "C" AS name, e.position, e.log
          FROM (SELECT unnest(%s::text[]) UNION ALL
                SELECT replace(id, 'transaction_', a.name || '-')
                  FROM read.transaction, unnest('{{transaction,payout}}'::text[]) AS a (name) WHERE player = %s UNION ALL
                {_CHILDREN}) AS s (stream)
               JOIN ledger.entry AS e USING (stream) JOIN ledger.log AS l ON l.id = e.log
         WHERE (e.recorded, l.name COLLATE "C", e.position) < (%s, %s, %s)
         ORDER BY e.recorded DESC, l.name COLLATE "C" DESC, e.position DESC LIMIT %s)
    SELECT p.recorded, p.name, p.position, e.body FROM page AS p JOIN ledger.entry AS e USING (log, position)
     ORDER BY p.recorded DESC, p.name DESC, p.position DESC"""
_NOTES = """
    SELECT e.version, e.recorded, e.body FROM ledger.entry AS e
     WHERE e.stream = %s AND e.type = 'player.noted' AND e.version < %s ORDER BY e.version DESC LIMIT %s"""
_KEY = """
    SELECT convert_from(e.body, 'UTF8')::json -> 'data' ->> 'key' FROM ledger.entry AS e
     WHERE e.stream = %s AND e.version = 1"""


class Happened(msgspec.Struct, frozen=True):
    """An event of the player, their payments, payouts, tickets, approvals, notices, contacts. `data` is what it says, sealed where it is personal."""

    id: str
    log: str
    position: int
    recorded: datetime
    occurred: str | None
    type: str
    stream: str
    version: int
    actor: str
    cause: str | None
    data: msgspec.Raw


class Timeline(msgspec.Struct, frozen=True):
    """Events, those recorded last first."""

    items: list[Happened]
    next_cursor: str | None


class Note(msgspec.Struct, frozen=True):
    """`text` is null where it cannot be opened here, or not by this token."""

    id: str
    at: datetime
    author: str
    text: str | None


class Notes(msgspec.Struct, frozen=True):
    """What was noted, the newest first."""

    items: list[Note]
    next_cursor: str | None


async def history(context: Context, player_id: PlayerId, cursor: str | None = None, limit: int = 50) -> Timeline:
    """A page of what happened to a player, the newest first. Raises InvalidId, NotFound, Invalid."""
    parse_id("player", player_id)
    page_size(limit)
    before = read_cursor(cursor, tuple[int, str, int]) if cursor else _LAST
    logs = [name for (name,) in await context.fetch("SELECT name FROM ledger.log")]
    streams = [*streams_of(player_id), *elsewhere_of(player_id, logs)]
    rows = await context.fetch(_HAPPENED, streams, *[player_id] * (1 + len(LISTED)), *before, limit + 1)
    if not rows:
        await _key(context, player_id)
    items = await _as_told(context, player_id, [_happened(*row) for row in rows[:limit]])
    return Timeline(items, write_cursor(*rows[limit - 1][:3]) if len(rows) > limit else None)


async def _as_told(context: Context, player_id: PlayerId, items: list[Happened]) -> list[Happened]:
    if not any(secrecy.is_secret(each.data) for each in items):
        return items
    rows = await context.fetch("SELECT brand, country FROM read.player WHERE id = %s", player_id)
    brand, country = rows[0] if rows else ("", "")
    if secrecy.is_told(context, brand, country):
        return items
    return [
        msgspec.structs.replace(each, data=secrecy.without(each.data)) if secrecy.is_secret(each.data) else each
        for each in items
    ]


async def notes(context: Context, player_id: PlayerId, cursor: str | None = None, limit: int = 50) -> Notes:
    """A page of the notes about a player. Raises InvalidId, NotFound, Invalid."""
    stream = f"player-{parse_id('player', player_id)}"
    page_size(limit)
    (before,) = read_cursor(cursor, tuple[int]) if cursor else (2**63 - 1,)
    key = await _key(context, player_id)
    rows = await context.fetch(_NOTES, stream, before, limit + 1)
    items = [await _note(context, player_id, key, recorded, body) for _, recorded, body in rows[:limit]]
    return Notes(items, write_cursor(rows[limit - 1][0]) if len(rows) > limit else None)


async def _key(context: Context, player_id: PlayerId) -> DataKey:
    """The player's data key, as their registration names it. Raises NotFound."""
    rows = await context.fetch(_KEY, f"player-{parse_id('player', player_id)}")
    if not rows:
        raise NotFound("no such player")
    return msgspec.json.decode(rows[0][0], type=DataKey)


def _happened(recorded: int, log: str, position: int, raw: Any) -> Happened:
    body = decode_body(bytes(raw))
    return Happened(
        body.id, log, position, instant(recorded), body.occurred, body.type, body.stream, body.version, body.actor,
        body.cause, body.data,
    )  # fmt: skip


async def _note(context: Context, player_id: PlayerId, key: DataKey, recorded: int, raw: Any) -> Note:
    body = decode_body(bytes(raw))
    noted = msgspec.json.decode(body.data, type=Noted)
    sealed = {} if isinstance(noted.text, str) else {"data.text": noted.text}
    opened = await context.open_personal(player_id, body.id, key, sealed)
    return Note(body.id, instant(recorded), body.actor, opened.get("data.text"))
