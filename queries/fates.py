"""What became of a command, by its id: where it stands, and which other regions hold it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from domain.errors import NotFound
from domain.kernel import instant
from queries.causal import PREFIX_BYTES
from queries.context import Context
from replication import geo

_FOUND = """
    SELECT l.name, l.own, e.recorded, b.body ->> 'actor', c.id, c.n, last.position, last.leaf
      FROM ledger.entry AS e
           JOIN ledger.log AS l ON l.id = e.log
           CROSS JOIN LATERAL (SELECT convert_from(e.body, 'UTF8')::json AS body) AS b
           CROSS JOIN LATERAL json_to_record(b.body -> 'command') AS c (id text, i int, n int)
           JOIN ledger.entry AS last ON last.log = e.log AND last.position = e.position - c.i + c.n
     WHERE e.command_id = %s::uuid
     ORDER BY e.partition IS NULL, l.own DESC, e.position"""
# What protects a player may stand in two logs: the one that counts by the player's own streams is the first.


class CommandFate(msgspec.Struct, frozen=True):
    """A command that is held here. `state`: `recorded`, or `claimed` if another command has taken its id, so that it never counts.

    `position`: log/position/leaf prefix of its last event, of which it has `events`. `copies`: whether each other region is known
    to hold that; `geo`: whether one is. What the command answered is said again to whoever sends it again with the same key.
    """

    id: str
    state: str
    position: str
    recorded: datetime
    events: int
    geo: bool
    copies: dict[str, bool]


class Found(NamedTuple):
    """`actor`: who sent it."""

    fate: CommandFate
    actor: str


async def find(context: Context, log: str, command_id: str, heard: Mapping[str, int]) -> Found:
    """
    `log`: the one that is written here; `command_id`: 32 hex digits. `heard`: what each other region has confirmed of `log`, in
    as far as it is known here before it is kept: whoever was just answered `geo` reads the same. Raises NotFound while no copy
    here has it.
    """
    rows = await context.fetch(_FOUND, command_id)
    if not rows:
        raise NotFound(MISSING)
    name, own, recorded, actor, named, count, position, leaf = rows[0]
    copies = await _copies(context, log, position, heard) if own else {log: True}
    state = "recorded" if named == command_id else "claimed"
    place = f"{name}/{position}/{leaf[:PREFIX_BYTES].hex()}"
    return Found(
        CommandFate(command_id, state, place, instant(recorded), count, any(copies.values()), copies), str(actor)
    )


MISSING = "no command of this id is known"


async def _copies(context: Context, log: str, position: int, heard: Mapping[str, int]) -> dict[str, bool]:
    async with context.pool.connection() as connection:
        kept = await geo.copies(connection, log)
    reached = {peer: max(kept.get(peer, 0), heard.get(peer, 0)) for peer in kept.keys() | heard.keys()}
    reached |= {peer: 0 for peer, at in kept.items() if not at}  # it differs, whatever was heard of it before
    return {peer: position <= at for peer, at in sorted(reached.items())}
