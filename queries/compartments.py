"""
What is inside a compartment, for those who are inside; and who is, for those who look after it.

Invariants:
    - an entry is opened by the compartment's key alone, which whoever asks was given for this question (app/compartments.py);
    - an entry that is not there, since its append never came, is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain import compartments, sealed
from domain.compartments import Compartment, Status
from domain.errors import NotFound
from domain.kernel import PlayerId, instant
from domain.kernel import Sealed as SealedField
from domain.players import DataKey
from domain.sealed import CaseNote, CaseRead, Recorded
from eventstore.record import decode_body
from eventstore.vault import CannotOpen
from eventstore.vault import DataKey as OwnKey
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.states import folded

_ENTRIES = """
    SELECT e.stream, e.recorded, e.body FROM ledger.entry AS e WHERE e.stream = ANY (%s) AND e.version = 1 ORDER BY e.stream"""


class CompartmentCard(msgspec.Struct, frozen=True):
    """`members`: who is inside. `proposed`: who is to be, which another person than `proposed_by` confirms; null: nothing waits.
    `key`: the id of its data key.
    """

    compartment: str
    status: Status
    members: list[str]
    proposed: list[str] | None
    proposed_by: str
    key: str


class CompartmentNote(msgspec.Struct, frozen=True):
    """A note on a player, and who wrote it."""

    entry: str
    at: datetime
    actor: str
    person: str
    text: str


class CompartmentNotes(msgspec.Struct, frozen=True):
    """In the order in which they were written."""

    compartment: str
    player: PlayerId
    items: list[CompartmentNote]
    next_cursor: str | None


class CompartmentRead(msgspec.Struct, frozen=True):
    """Who was let see what there is on a player. `what`: notes or reads."""

    entry: str
    at: datetime
    actor: str
    person: str
    what: str


class CompartmentReads(msgspec.Struct, frozen=True):
    """In their order."""

    compartment: str
    player: PlayerId
    items: list[CompartmentRead]
    next_cursor: str | None


async def state(context: Context, region: str, name: str) -> Compartment:
    """The compartment as the log has it by now."""
    return await folded(context, compartments.stream(region, name))


async def card(context: Context, region: str, name: str) -> CompartmentCard:
    """Who is inside a compartment, and who is to be. Raises NotFound."""
    found = await state(context, region, name)
    if found.status is Status.UNKNOWN:
        raise NotFound("no such compartment")
    proposed = None if found.proposed is None else list(found.proposed)
    return CompartmentCard(found.name, found.status, list(found.members), proposed, found.person, found.key.id)


async def notes(
    context: Context, key: OwnKey, name: str, player: PlayerId, among: Sequence[str], limit: int, cursor: str | None
) -> CompartmentNotes:
    """The notes on a player, of those among the entries (suffixes). Raises Invalid, CannotOpen."""
    page, following = _page(among, limit, cursor)
    items = [
        CompartmentNote(entry, at, secret.actor, secret.person, secret.text)
        for entry, at, secret in await _opened(context, key, name, page)
        if isinstance(secret, CaseNote) and secret.player == player
    ]
    return CompartmentNotes(name, player, items, following)


async def reads(
    context: Context, key: OwnKey, name: str, player: PlayerId, among: Sequence[str], limit: int, cursor: str | None
) -> CompartmentReads:
    """Who was let see what there is on a player, of those among the entries. Raises Invalid, CannotOpen."""
    page, following = _page(among, limit, cursor)
    items = [
        CompartmentRead(entry, at, secret.actor, secret.person, secret.what)
        for entry, at, secret in await _opened(context, key, name, page)
        if isinstance(secret, CaseRead) and secret.player == player
    ]
    return CompartmentReads(name, player, items, following)


def _page(among: Sequence[str], limit: int, cursor: str | None) -> tuple[list[str], str | None]:
    """The next suffixes, which begin with the time when they were made, and where to go on. Raises Invalid."""
    page_size(limit)
    (after,) = ("",) if cursor is None else read_cursor(cursor, tuple[str])
    further = [suffix for suffix in sorted(among) if suffix > after]
    return further[:limit], write_cursor(further[limit - 1]) if len(further) > limit else None


async def _opened(
    context: Context, key: OwnKey, name: str, suffixes: Sequence[str]
) -> list[tuple[str, datetime, sealed.Secret]]:
    """Raises CannotOpen."""
    found = []
    for stream, recorded, raw in await context.fetch(_ENTRIES, [f"sealed-{suffix}" for suffix in suffixes]):
        body = decode_body(raw)
        event = msgspec.json.decode(body.data, type=Recorded)
        if event.compartment != name or not isinstance(event.payload, SealedField):
            raise CannotOpen(f"{stream} is not of the compartment {name}")
        text = key.open(event.payload, event_id=body.id, path="data.payload")
        found.append((stream.replace("-", "_", 1), instant(recorded), sealed.opened(text)))
    return found


def committed(compartment: Compartment, actor: str) -> DataKey:
    """The compartment's key, by its id and what it is committed to, for somebody inside. Raises NotInside."""
    compartment.require(actor)
    return compartment.key
