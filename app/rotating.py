"""
Changing the key by which a log signs its heads, on the machine that keeps it.

The new key is announced by an event that the old and the new one have signed; from then on both sign, until everybody who
checks the log knows the new one; then the old one is retired.

Invariants:
    - a key signs heads only after the log says so;
    - whatever step it stops at, asking again goes on from there.
"""

from __future__ import annotations

import os
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from commands.identity import command_id
from domain.catalog import AGGREGATES
from domain.kernel import uuid7_texts
from domain.logs import KeyRotated, rotation_text
from eventstore import postgres, signer
from eventstore.log import Appended, Command
from eventstore.note import SigningKey
from eventstore.postgres import PostgresLog
from eventstore.record import Body, Codec, CommandPart, Entry, Recorded, encode_body

_STREAM = """
    SELECT l.name, e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE e.stream = %s ORDER BY e.version"""


class RotationRefused(Exception):
    """The key is not to be changed now, and why."""


class Rotation(NamedTuple):
    """`position`: the entry that announces the new key; the old one may sign alone until `until`, with it for longer."""

    old: str
    new: str
    until: datetime
    position: int


async def rotate(dsn: str, region: str, folder: Path, origin: str, overlap: timedelta) -> Rotation:
    """Announce a new key, and let both sign. Raises RotationRefused, SignerError and what the database raises."""
    signing = signer.active(folder, origin)
    async with await postgres.connect(dsn, "countroom_writer") as connection:
        stream = f"region-{region}-log"
        rows = await (await connection.cursor(binary=True).execute(_STREAM, (stream,))).fetchall()
        codec = Codec(AGGREGATES)
        history = [codec.decode(Entry(*row)) for row in rows]
        announced = _announced(history)
        if len(signing) > 1:
            until = f" from {announced[1].until:%Y-%m-%d} on" if announced else ""
            raise RotationRefused(f"two keys sign already: retire the old one{until} (countroom region retire-key)")
        if announced is None or announced[1].new == signing[0].vkey:
            announced = await _announce(
                await PostgresLog.open(connection, region), stream, len(history), folder, signing[0], overlap
            )
    position, event = announced
    fresh = next((key for key in signer.keys_of(folder, origin) if key.vkey == event.new), None)
    if fresh is None:
        raise RotationRefused(f"the log announces {event.new}, whose private key is not in {folder}")
    signer.add_key(folder, fresh)
    return Rotation(event.old, event.new, event.until, position)


def retire(folder: Path, origin: str) -> str:
    """Let the oldest of two keys sign no more; its vkey. Raises RotationRefused, SignerError."""
    signing = signer.active(folder, origin)
    if len(signing) < 2:  # noqa: PLR2004 - old and new
        raise RotationRefused("one key signs, and no other: there is none to retire")
    signer.retire_key(folder, origin, signing[0].vkey)
    return signing[0].vkey


def _announced(history: list[Recorded]) -> tuple[int, KeyRotated] | None:
    """The newest announcement of a key."""
    found = [(each.position, each.event) for each in history if isinstance(each.event, KeyRotated)]
    return found[-1] if found else None


async def _announce(
    log: PostgresLog, stream: str, version: int, folder: Path, old: SigningKey, overlap: timedelta
) -> tuple[int, KeyRotated]:
    fresh = SigningKey.generate(log.origin)
    signer.keep_key(folder, fresh)
    now = datetime.now(UTC)
    until = (now + overlap).replace(microsecond=0)
    text = rotation_text(log.origin, old.vkey, fresh.vkey, msgspec.to_builtins(until))
    by_old, by_new = (b64encode(key.key.sign(text)).decode() for key in (old, fresh))
    event = KeyRotated(old.vkey, fresh.vkey, until, by_old, by_new)
    id_ = command_id("system", f"log.key_rotated\n{fresh.vkey}")
    body = Body(
        stream=stream,
        version=version + 1,
        type=KeyRotated.tag,
        id=uuid7_texts(now, os.urandom(10))[0],
        actor="system",
        command=CommandPart(id=id_.hex(), i=1, n=1),
        data=msgspec.Raw(msgspec.json.encode(event)),
    )
    (outcome,) = await log.append([Command(id_, [encode_body(body)], (), frozenset({stream}))])
    if not isinstance(outcome, Appended):
        raise RotationRefused("the log has moved meanwhile: try again")
    return outcome.position, event
