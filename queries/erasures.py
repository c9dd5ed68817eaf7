"""
Erasures: the certificate that a player was erased.

It is the entry of the log itself, with the proof that it stands under a head that the log has signed and witnesses have
cosigned: whoever has it needs nobody's word, and no connection, to check it (`countroom verify proof`).
"""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime

import msgspec

from domain.errors import NotFound
from domain.kernel import PlayerId, instant, parse_id
from domain.players import Erased
from eventstore.record import decode_body
from policies.retention import Period
from queries import tiles
from queries.context import Context
from queries.tiles import Inclusion, NotPublished

ERASED = """
    SELECT e.recorded FROM ledger.entry AS e WHERE e.stream = %s AND e.type = 'player.erased' LIMIT 1"""
_ENTRY = """
    SELECT l.name, e.position, e.recorded, e.leaf, e.body,
           coalesce((SELECT p.leaf FROM ledger.entry AS p WHERE p.log = e.log AND p.position = e.position - 1), l.genesis),
           (SELECT count(*) FROM vault.data_key AS k WHERE k.subject = substr(e.stream, length('player-') + 1))
      FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE e.stream = %s AND e.type = 'player.erased' LIMIT 1"""


class Erasure(msgspec.Struct, frozen=True):
    """
    That a player was erased, by whom it was approved, why, and which retention periods were over.

    `keys_here`: how many data keys of the player this region still holds: 0, but for a moment after the erasure. `entry`: the
    bytes that the log has hashed (docs/reference/record-format.md), in base64; `proof`: that they stand under the newest
    published head, null if that does not cover them yet.
    """

    player: PlayerId
    erased_at: datetime
    log: str
    position: int
    event: str
    actor: str
    basis: str
    key: str
    closed_at: datetime
    kept: tuple[Period, ...]
    rules: str
    keys_here: int
    entry: str
    proof: Inclusion | None


class NotErased(NotFound):
    code = "not_erased"
    title = "The player was not erased"


async def get(context: Context, player_id: PlayerId) -> Erasure:
    """The certificate of a player's erasure. Raises InvalidId, NotErased."""
    rows = await context.fetch(_ENTRY, f"player-{parse_id('player', player_id)}")
    if not rows:
        raise NotErased
    log, position, recorded, _leaf, raw, before, held = rows[0]
    body = decode_body(raw)
    event = msgspec.json.decode(body.data, type=Erased)
    entry = before + position.to_bytes(8, "big") + recorded.to_bytes(8, "big") + raw
    try:
        proof = await tiles.inclusion(context, log, position)
    except NotPublished:
        proof = None
    return Erasure(
        player_id, instant(recorded), log, position, body.id, body.actor, event.basis, event.key, event.closed_at,
        event.kept, event.rules, held, b64encode(entry).decode(), proof,
    )  # fmt: skip
