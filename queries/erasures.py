"""
Erasures: the certificate that a player was erased.

It is the entry of the log itself, with the proof that it stands under a head that the log has signed and witnesses have
cosigned: whoever has it needs nobody's word, and no connection, to check it (`countroom verify proof`). That it was also carried
out, each region says in its own log, which is proven in the same way.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from uuid import UUID

import msgspec

from domain.errors import NotFound
from domain.kernel import ApprovalId, PlayerId, instant, parse_id
from domain.players import Erased
from eventstore.record import decode_body, entry_bytes
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
_APPROVED = """
    SELECT a.stream, r.body, a.body
      FROM ledger.log AS l JOIN ledger.entry AS a ON a.log = l.id AND a.command_id = %s AND a.type = 'approval.approved'
           JOIN ledger.entry AS r ON r.stream = a.stream AND r.type = 'approval.requested'
     WHERE l.name = %s"""
_CARRIED_OUT = """
    SELECT l.name, e.position, e.recorded, e.body,
           coalesce((SELECT p.leaf FROM ledger.entry AS p WHERE p.log = e.log AND p.position = e.position - 1), l.genesis)
      FROM ledger.log AS l
           JOIN ledger.entry AS e ON e.log = l.id AND e.stream = 'region-' || l.name || '-vault_' || %s
                                     AND e.type = 'vault.keys_destroyed'
     ORDER BY l.name"""


class CarriedOut(msgspec.Struct, frozen=True):
    """That a region's vault holds nothing of the player any more, as the region has said in its own log. `entry`, `proof`: as of the
    erasure.
    """

    log: str
    position: int
    at: datetime
    entry: str
    proof: Inclusion | None


class Erasure(msgspec.Struct, frozen=True):
    """
    That a player was erased, who asked for it and who approved it, why, and which retention periods were over.

    `approval`, `requested_by`, `approved_by`: null if nobody had to agree. `carried_out`: by which regions, as far as their logs are
    here.
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
    carried_out: tuple[CarriedOut, ...] = ()
    approval: ApprovalId | None = None
    requested_by: str | None = None
    approved_by: str | None = None


class NotErased(NotFound):
    code = "not_erased"
    title = "The player was not erased"


async def get(context: Context, player_id: PlayerId) -> Erasure:
    """The certificate of a player's erasure. Raises InvalidId, NotErased."""
    suffix = parse_id("player", player_id)
    rows = await context.fetch(_ENTRY, f"player-{suffix}")
    if not rows:
        raise NotErased
    log, position, recorded, _leaf, raw, before, held = rows[0]
    body = decode_body(raw)
    event = msgspec.json.decode(body.data, type=Erased)
    carried_out = [
        CarriedOut(name, place, instant(at), _entry(previous, place, at, said), await _proof(context, name, place))
        for name, place, at, said, previous in await context.fetch(_CARRIED_OUT, suffix)
    ]
    return Erasure(
        player_id, instant(recorded), log, position, body.id, body.actor, event.basis, event.key, event.closed_at,
        event.kept, event.rules, held, _entry(before, position, recorded, raw), await _proof(context, log, position),
        tuple(carried_out), *await _approved(context, log, body.command.id),
    )  # fmt: skip


async def _approved(context: Context, log: str, command: str) -> tuple[ApprovalId | None, str | None, str | None]:
    """The approval by which a command has run, who asked for that, and who agreed."""
    for stream, requested, approved in await context.fetch(_APPROVED, UUID(command), log):
        return ApprovalId(stream.replace("-", "_", 1)), decode_body(requested).actor, decode_body(approved).actor
    return None, None, None


def _entry(previous: bytes, position: int, recorded: int, body: bytes) -> str:
    return b64encode(entry_bytes(previous, position, recorded, body)).decode()


async def _proof(context: Context, log: str, position: int) -> Inclusion | None:
    try:
        return await tiles.inclusion(context, log, position)
    except NotPublished:
        return None
