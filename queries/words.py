"""
What people wrote, as read models hold it (projections/sealed.py): opened for whoever may read what is personal.

Invariant: a key is the one to which the registration in the log commits, whatever the read model holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from domain.kernel import OperatorId, PlayerId
from domain.players import DataKey
from projections.sealed import Words
from queries.context import Context

_KEYS = """
    SELECT replace(e.stream, '-', '_'), convert_from(e.body, 'UTF8')::json -> 'data' ->> 'key' FROM ledger.entry AS e
     WHERE e.stream = ANY (%s) AND e.version = 1"""
_words = msgspec.json.Decoder(Words).decode
_key = msgspec.json.Decoder(DataKey).decode

_OPERATOR = "operator_"

NOTHING: Mapping[str, str] = {}


async def opened(
    context: Context, columns: Sequence[tuple[PlayerId | OperatorId, str | None]]
) -> list[Mapping[str, str]]:
    """Of each player's or operator's column, the texts by their dotted path in the body: those that can be opened here, and by this token."""
    held = {player.replace("_", "-", 1) for player, column in columns if column}
    rows = await context.fetch(_KEYS, sorted(held)) if held else []
    keys = {player: _key(key) for player, key in rows}
    return [await _opened(context, player, keys.get(player), column) for player, column in columns]


async def _opened(
    context: Context, whose: PlayerId | OperatorId, key: DataKey | None, column: str | None
) -> Mapping[str, str]:
    if key is None or column is None:
        return NOTHING
    words = _words(column)
    open_ = context.open_operators if whose.startswith(_OPERATOR) else context.open_personal
    return await open_(whose, words.event, key, words.sealed)
