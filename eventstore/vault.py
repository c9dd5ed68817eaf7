"""
The vault: one AES-256 data key per player, wrapped by the region's key, and blind indexes for exact look-ups.

A field is AES-256-GCM under the player's key, with nonce 12 ‖ ciphertext ‖ tag 16, and the event id ‖ LF ‖ dotted path as
associated data, so that a sealed value cannot be moved to another field or event.

Invariants:
    - a data key is committed before the first entry that uses it (an orphan key is harmless, a keyless entry is not);
    - keys never leave the process in the clear, but encrypted to the recipient of a disclosure that stands in the log; the
      region key is never in the database;
    - no key opens anything before it was compared with what the event commits to, since GCM itself commits to none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import unicodedata
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from domain.kernel import Sealed
from eventstore import packing
from eventstore.writer import Unavailable

_CACHED_KEYS = 10_000


class DataKey(NamedTuple):
    """`id` is the text of a UUID, `key` 32 bytes."""

    id: str
    key: bytes

    @property
    def commitment(self) -> str:
        return hashlib.sha256(b"countroom/data-key/v1\n" + self.id.encode() + b"\n" + self.key).hexdigest()

    def seal(self, text: str, *, event_id: str, path: str, nonce: bytes) -> Sealed:
        """`path`: the field's dotted path in the body, e.g. data.email."""
        sealed = nonce + AESGCM(self.key).encrypt(nonce, text.encode(), _associated(event_id, path))
        return Sealed(_base64url(sealed), self.id)

    def open(self, sealed: Sealed, *, event_id: str, path: str) -> str:
        """Raises CannotOpen if the value was changed or moved."""
        refused = CannotOpen(f"{path} of event {event_id} was not sealed there with key {sealed.key}")
        try:
            data = base64.urlsafe_b64decode(sealed.sealed + "=" * (-len(sealed.sealed) % 4))
            text = AESGCM(self.key).decrypt(data[:12], data[12:], _associated(event_id, path)).decode()
        except (InvalidTag, ValueError):
            raise refused from None
        if _base64url(data) != sealed.sealed:  # base64 forgives what an auditor would not
            raise refused
        return text


class CannotOpen(Exception):
    """A sealed field does not open, or would under a key that is not the one of its registration."""


def _refuse_others(keys: Mapping[str, DataKey], commitments: Mapping[str, str]) -> None:
    for key in keys.values():
        if key.commitment != commitments.get(key.id):
            raise CannotOpen(f"data key {key.id} of the vault is not the one that the registration commits to")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _associated(event_id: str, path: str) -> bytes:
    return f"{event_id}\n{path}".encode()


def normalised(text: str) -> str:
    """However a value is written (case, width and surrounding blanks), this is the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


class RegionKey:
    """Wraps data keys and keys the blind indexes; 32 secret bytes from a file that only the service may read."""

    def __init__(self, secret: bytes) -> None:
        self._wrap = AESGCM(hmac.digest(secret, b"countroom/wrap/v1", "sha256"))
        self._index = hmac.digest(secret, b"countroom/blind-index/v1", "sha256")

    @classmethod
    def from_file(cls, path: Path) -> RegionKey:
        secret = bytes.fromhex(path.read_text().strip())
        if len(secret) != 32:  # noqa: PLR2004 — AES-256
            raise ValueError(f"{path} must hold 32 bytes in hex")
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} may be read by others; chmod 600 it")
        return cls(secret)

    def wrap(self, key: DataKey, nonce: bytes) -> bytes:
        return nonce + self._wrap.encrypt(nonce, key.key, key.id.encode())

    def unwrap(self, key_id: str, wrapped: bytes) -> DataKey:
        try:
            return DataKey(key_id, self._wrap.decrypt(wrapped[:12], wrapped[12:], key_id.encode()))
        except InvalidTag:
            raise CannotOpen(f"data key {key_id} was wrapped by another region key") from None

    def digest(self, field: str, text: str) -> bytes:
        """The blind index of a value, however it is written (case, width and surrounding blanks do not matter)."""
        return hmac.digest(self._index, f"{field}\n{normalised(text)}".encode(), "sha256")[:16]


class Owed(NamedTuple):
    """What must be in the vault before an entry of a subject: a new key (none if it has one), and (field, value) to be found by."""

    subject: str
    key: DataKey | None
    found_by: Sequence[tuple[str, str]]


_WRITABLE = "SELECT NOT EXISTS (SELECT FROM ledger.log AS l WHERE l.own AND NOT ledger.may_write(l.id))"
_KEEP = "INSERT INTO vault.data_key (id, subject, wrapped) SELECT * FROM unnest(%b, %b, %b)"


class Vault:
    """Keys at rest in PostgreSQL, opened ones in a bounded cache."""

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        region_key: RegionKey,
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._pool = pool
        self._region_key = region_key
        self._random = random
        self._opened: OrderedDict[str, DataKey] = OrderedDict()

    def new_key(self, key_id: bytes) -> DataKey:
        """A fresh key, not yet kept. `key_id`: a UUID's 16 bytes."""
        return DataKey(str(uuid.UUID(bytes=key_id)), self._random(32))

    async def keep(self, owed: Sequence[Owed]) -> None:
        """Commit keys and index; to be awaited before the entries that use them are appended.

        Raises Unavailable while the log is read-only: its entries would not come, and the keys would lie there for nothing.
        """
        words = [(field, self._region_key.digest(field, value), o.subject) for o in owed for field, value in o.found_by]
        keys = [(o.subject, o.key) for o in owed if o.key is not None]
        async with self._pool.connection() as connection, connection.transaction():
            (writable,) = await (await connection.execute(_WRITABLE)).fetchone() or (False,)
            if not writable:
                raise Unavailable("the log is read-only until it was compared with its signed head and its copies")
            if keys:
                await connection.execute(
                    _KEEP,
                    (
                        packing.uuid_array([uuid.UUID(key.id).bytes for _, key in keys]),
                        packing.text_array([subject for subject, _ in keys]),
                        packing.bytea_array([self._region_key.wrap(key, self._random(12)) for _, key in keys]),
                    ),
                )
            if words:
                await connection.execute(
                    "INSERT INTO vault.blind_index (field, digest, subject) SELECT * FROM unnest(%b, %b, %b) ON CONFLICT DO NOTHING",
                    (
                        packing.text_array([word[0] for word in words]),
                        packing.bytea_array([word[1] for word in words]),
                        packing.text_array([word[2] for word in words]),
                    ),
                )

    async def keys(self, commitments: Mapping[str, str]) -> dict[str, DataKey]:
        """The keys that this region holds, of those asked for by id and commitment. Raises CannotOpen if one is another."""
        found = {key_id: self._opened[key_id] for key_id in commitments if key_id in self._opened}
        missing = [uuid.UUID(key_id).bytes for key_id in commitments.keys() - found.keys()]
        if missing:
            found |= await self._unwrapped(missing)
        _refuse_others(found, commitments)
        self._opened |= found
        while len(self._opened) > _CACHED_KEYS:
            self._opened.popitem(last=False)
        return found

    async def keys_to_disclose(self, commitments: Mapping[str, str]) -> dict[str, DataKey]:
        """The same, read anew: a key that was destroyed a moment ago is not disclosed. Raises CannotOpen."""
        found = await self._unwrapped([uuid.UUID(key_id).bytes for key_id in commitments])
        _refuse_others(found, commitments)
        return found

    async def _unwrapped(self, key_ids: Sequence[bytes]) -> dict[str, DataKey]:
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(
                "SELECT id, wrapped FROM vault.data_key WHERE id = ANY (%b)", (packing.uuid_array(key_ids),)
            )
            rows = await cursor.fetchall()
        return {str(key_id): self._region_key.unwrap(str(key_id), wrapped) for key_id, wrapped in rows}

    async def find(self, field: str, value: str) -> list[str]:
        """The subjects whose `field` has exactly this value, as far as normalised writing goes."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT subject FROM vault.blind_index WHERE field = %s AND digest = %s ORDER BY subject",
                (field, self._region_key.digest(field, value)),
            )
            return [row[0] for row in await cursor.fetchall()]

    async def find_registered(self, words: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
        """The same for many (field, value) at once, of players who are registered in a log held here; what finds none is left out.

        (Words are kept before their registration is appended, and stay if it never comes.)
        """
        digests = {(field, self._region_key.digest(field, value)): (field, value) for field, value in words}
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(
                """SELECT i.field, i.digest, i.subject
                     FROM unnest(%b, %b) AS q (field, digest) JOIN vault.blind_index AS i USING (field, digest)
                    WHERE EXISTS (SELECT FROM ledger.entry AS e
                                   WHERE e.stream = 'player-' || i.subject AND e.version = 1)
                    ORDER BY i.subject""",
                (
                    packing.text_array([field for field, _ in digests]),
                    packing.bytea_array([digest for _, digest in digests]),
                ),
            )
            found: dict[tuple[str, str], list[str]] = {}
            for field, digest, subject in await cursor.fetchall():
                found.setdefault(digests[field, bytes(digest)], []).append(subject)
        return {
            (field, value): found[given]
            for field, value in words
            if (given := digests[field, self._region_key.digest(field, value)]) in found
        }
