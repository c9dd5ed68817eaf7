"""
The logs themselves, byte by byte, for whoever checks them (docs/reference/record-format.md), and their events with what
proves them, for whoever looks into what was done.

Invariants:
    - every entry is shown, also one that does not count, exactly as it was hashed;
    - no snapshot is held between pages.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import b2a_base64
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from domain.errors import Invalid, NotFound
from domain.kernel import instant
from eventstore.record import entry_bytes
from queries import tiles
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.events import Row

PAGE_ENTRIES = 2_000

_LOGS = """
    SELECT l.name, l.origin, coalesce(e.position, 0), coalesce(e.leaf, l.genesis)
      FROM ledger.log AS l
           LEFT JOIN LATERAL (SELECT * FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1) AS e ON true
     ORDER BY l.name"""
_PREVIOUS = """
    SELECT l.id, coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1), 0),
           CASE WHEN %s::bigint = 0 THEN l.genesis ELSE (SELECT e.leaf FROM ledger.entry AS e WHERE e.log = l.id AND e.position = %s) END
      FROM ledger.log AS l WHERE l.name = %s"""
_ENTRIES = """
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position > %s AND e.position <= %s ORDER BY e.position LIMIT %s"""

_ENTRY = """
    SELECT e.recorded, e.leaf, e.stream IS NOT NULL, e.body FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position = %s"""


class LogHead(msgspec.Struct, frozen=True):
    """A log held here and its newest entry; `leaf` in hex, before the first entry the log's genesis."""

    log: str
    origin: str
    position: int
    leaf: str


class AuditEntry(msgspec.Struct, frozen=True):
    """An entry: `entry` is base64 of what was hashed, `leaf` = SHA-256(0x00 ‖ entry) in hex."""

    position: int
    leaf: str
    entry: str


class Proof(msgspec.Struct, frozen=True):
    """That the entry stands in the published head of `size` entries: hashes in hex from its sibling up (RFC 6962, 2.1.1)."""

    size: int
    hashes: list[str]


class AuditEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of a log, to be read. `body` is what was recorded; `counts` is false for one that nothing is made of.

    `proof`: only where it was asked for; null beyond the newest published head.
    """

    log: str
    position: int
    recorded: datetime
    leaf: str
    counts: bool
    body: msgspec.Raw
    proof: Proof | msgspec.UnsetType | None = msgspec.UNSET


class AuditEvents(msgspec.Struct, frozen=True):
    """Events in the order of (recorded, log, position); `positions` (eu/12,us/3): how far each log was looked at.

    A page may be empty although there is a next one: a request looks at so many entries and no more.
    """

    items: list[AuditEvent]
    next_cursor: str | None
    positions: str


class AuditedEntry(msgspec.Struct, frozen=True):
    """One entry, with the very bytes that were hashed (base64), and its proof if that was asked for and there is one."""

    log: str
    position: int
    recorded: datetime
    leaf: str
    counts: bool
    body: msgspec.Raw
    entry: str
    proof: tiles.Inclusion | None


class AuditPage(msgspec.Struct, frozen=True):
    """Entries in the order of their positions."""

    items: list[AuditEntry]
    next_cursor: str | None


async def logs(context: Context) -> list[LogHead]:
    return [LogHead(name, origin, position, leaf.hex()) for name, origin, position, leaf in await context.fetch(_LOGS)]


async def page(context: Context, log: str, after: int = 0, limit: int = 50, cursor: str | None = None) -> AuditPage:
    """The entries of `log` after the position `after`, or after the last page. Raises Invalid, NotFound."""
    page_size(limit)
    if cursor is not None:
        (after,) = read_cursor(cursor, tuple[int])
    number, head, previous = await _start(context, log, after)
    items: list[AuditEntry] = []
    for position, recorded, leaf, body in await context.fetch(_ENTRIES, number, after, head, limit):
        entry = entry_bytes(previous, position, recorded, body)
        items.append(AuditEntry(position, leaf.hex(), b64encode(entry).decode()))
        previous = leaf
    return AuditPage(items, write_cursor(items[-1].position) if items and items[-1].position < head else None)


async def stream(context: Context, log: str, after: int = 0) -> AsyncGenerator[bytes, None]:
    """The entries from `after` to the head, which is taken at the start, as NDJSON of AuditEntry. Raises Invalid, NotFound."""
    number, head, previous = await _start(context, log, after)
    while after < head:
        rows = await context.fetch(_ENTRIES, number, after, head, PAGE_ENTRIES)
        yield _lines(previous, rows)
        after, previous = rows[-1][0], rows[-1][2]


def _lines(previous: bytes, rows: list[tuple[Any, ...]]) -> bytes:
    """Written by hand: an encoder would cost as much as all the rest."""
    lines = []
    for position, recorded, leaf, body in rows:
        entry = b2a_base64(entry_bytes(previous, position, recorded, body), newline=False)
        lines.append(b'{"position":%d,"leaf":"%b","entry":"%b"}\n' % (position, leaf.hex().encode(), entry))
        previous = leaf
    return b"".join(lines)


async def entry(context: Context, log: str, position: int, *, proof: bool = False) -> AuditedEntry:
    """The entry at a position. Raises Invalid, NotFound."""
    if position < 1:
        raise Invalid("positions begin at 1", position=position)
    number, head, previous = await _start(context, log, position - 1)
    rows = await context.fetch(_ENTRY, number, position)
    if not rows:
        raise NotFound("the log has no such position yet", log=log, position=position, head=head)
    recorded, leaf, counts, body = rows[0]
    proven: tiles.Inclusion | None = None
    if proof:
        try:
            proven = await tiles.inclusion(context, log, position)
        except tiles.NotPublished:
            proven = None
    whole = b64encode(entry_bytes(previous, position, recorded, body)).decode()
    event = shown(Row(log, position, recorded, leaf, counts, body))
    return AuditedEntry(log, position, event.recorded, event.leaf, counts, event.body, whole, proven)


async def with_proofs(context: Context, events: Sequence[AuditEvent]) -> list[AuditEvent]:
    """The same events, each with its proof against its log's newest published head, or null where that does not cover it."""
    proofs: dict[tuple[str, int], Proof] = {}
    for log in {event.log for event in events}:
        positions = [event.position for event in events if event.log == log]
        try:
            size, found = await tiles.inclusions(context, log, positions)
        except tiles.NotPublished:
            continue
        proofs |= {(log, position): Proof(size, hashes) for position, hashes in found.items()}
    return [msgspec.structs.replace(event, proof=proofs.get((event.log, event.position))) for event in events]


def shown(row: Row) -> AuditEvent:
    """As it is answered, on one line: between the members of a body there may be line feeds, in its texts never."""
    body = row.body.replace(b"\n", b" ").replace(b"\r", b" ")
    return AuditEvent(row.log, row.position, instant(row.recorded), row.leaf.hex(), row.counts, msgspec.Raw(body))


async def _start(context: Context, log: str, after: int) -> tuple[int, int, bytes]:
    """The log's number, its head, and the leaf of its entry `after`."""
    if after < 0:
        raise Invalid("positions begin at 1", after=after)
    rows = await context.fetch(_PREVIOUS, after, after, log)
    if not rows:
        raise NotFound("no such log is held here", log=log)
    number, head, previous = rows[0]
    if previous is None:
        raise NotFound("the log has no such position yet", log=log, position=after, head=head)
    return number, head, previous
