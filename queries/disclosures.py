"""Disclosures: whose keys were handed to whom, and what their registrations commit to."""

from __future__ import annotations

import msgspec

from domain.disclosures import KeysDisclosed, NamedKey, stream
from domain.errors import NotFound
from domain.kernel import PlayerId
from domain.players import DataKey
from queries.context import Context

_FOUND = """
    SELECT convert_from(e.body, 'UTF8')::json ->> 'data' FROM ledger.entry AS e
     WHERE e.stream = %s AND convert_from(e.body, 'UTF8')::json ->> 'id' = %s LIMIT 1"""
_COMMITTED = """
    SELECT e.stream, convert_from(e.body, 'UTF8')::json -> 'data' ->> 'key' FROM ledger.entry AS e
     WHERE e.stream = ANY (%s) AND e.version = 1"""


class Named(msgspec.Struct, frozen=True):
    """A key of a disclosure, and the commitment in the player's registration (hex)."""

    player: PlayerId
    key: str
    commitment: str


class Disclosed(msgspec.Struct, frozen=True):
    """What a disclosure says, as the log has it."""

    recipient: str
    keys: list[Named]


async def get(context: Context, region: str, disclosure_id: str) -> Disclosed:
    """A disclosure of this region, by the id of its event. Raises NotFound.

    Its stream is read from the beginning: disclosures are rare.
    """
    rows = [] if "\0" in disclosure_id else await context.fetch(_FOUND, stream(region).name, disclosure_id)
    if not rows:
        raise NotFound("no such disclosure")
    event = msgspec.json.decode(rows[0][0], type=KeysDisclosed)
    names = {f"player-{named.player.removeprefix('player_')}": named for named in event.keys}
    commitments: dict[str, str] = {}
    for name, key in await context.fetch(_COMMITTED, list(names)):
        commitments[name] = msgspec.json.decode(key, type=DataKey).commitment
    return Disclosed(event.recipient, [_named(named, commitments[name]) for name, named in names.items()])


def _named(named: NamedKey, commitment: str) -> Named:
    return Named(named.player, named.key, commitment)
