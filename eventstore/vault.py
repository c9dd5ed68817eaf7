"""
The vault: one AES-256 data key per player, wrapped by the region's key, and blind indexes for exact look-ups.

A field is AES-256-GCM under the player's key, with nonce 12 ‖ ciphertext ‖ tag 16, and the event id ‖ LF ‖ dotted path as
associated data, so that a sealed value cannot be moved to another field or event.

A blind index has a key of its own, or several one upon another: each rotation of the region's key lays one more over the
digests that are there (eventstore.rewrapping), so that nothing has to be opened for it.

Invariants:
    - a data key is committed before the first entry that uses it (an unused key is destroyed later, a keyless entry is lost);
    - keys never leave the process in the clear, but encrypted: to the recipient of a disclosure that stands in the log, or to
      another region that may hold them (replication.keys); the region key is never in the database;
    - a copy of a key that another region made is kept only while no log held here says that its player was erased;
    - no key opens anything before it was compared with what the event commits to, since GCM itself commits to none;
    - nothing is opened, or found, before every erasure in the logs held here was applied to this vault, once for each start of
      PostgreSQL: what a restored backup brings back is destroyed again first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from domain.kernel import Sealed
from eventstore import packing
from eventstore.blind import FIND_REGISTERED, Among, blind, last_two, normalised
from eventstore.writer import Unavailable

_CACHED_KEYS = 10_000


class DataKey(NamedTuple):
    """`id` is the text of a UUID, `key` 32 bytes."""

    id: str
    key: bytes

    @property
    def commitment(self) -> str:
        return hashlib.sha256(b"countroom/data-key/v1\n" + self.id.encode() + b"\n" + self.key).hexdigest()

    def fingerprint(self, whole: str) -> str:
        """Of a request in which something is personal; without the key it tells nothing."""
        return hmac.digest(self.key, b"countroom/fingerprint/v1\n" + whole.encode(), "sha256")[:16].hex()

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


class RegionKey:
    """Wraps data keys and keys the blind indexes; 32 secret bytes from a file that only the service may read.

    `id` names it, and tells nothing of it. `index`: the key of the blind indexes before the first rotation.
    """

    def __init__(self, secret: bytes) -> None:
        self.id = hmac.digest(secret, b"countroom/region-key/v1", "sha256")[:8].hex()
        self.index = hmac.digest(secret, b"countroom/blind-index/v1", "sha256")
        self._wrap = AESGCM(hmac.digest(secret, b"countroom/wrap/v1", "sha256"))

    @classmethod
    def from_file(cls, path: Path) -> RegionKey:
        secret = bytes.fromhex(path.read_text().strip())
        if len(secret) != 32:  # noqa: PLR2004 — AES-256
            raise ValueError(f"{path} must hold 32 bytes in hex")
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} may be read by others; chmod 600 it")
        return cls(secret)

    def held(self) -> Sequence[RegionKey]:
        return (self,)

    def wrap(self, key: DataKey, nonce: bytes) -> bytes:
        return nonce + self._wrap.encrypt(nonce, key.key, key.id.encode())

    def unwrap(self, key_id: str, wrapped: bytes) -> DataKey:
        try:
            return DataKey(key_id, self._wrap.decrypt(wrapped[:12], wrapped[12:], key_id.encode()))
        except InvalidTag:
            raise CannotOpen(f"data key {key_id} was wrapped by another region key") from None

    def digest(self, field: str, text: str) -> bytes:
        """The blind index of a value, however it is written (case, width and surrounding blanks do not matter)."""
        return blind((self.index,), field, text)


class RegionKeys(Protocol):
    def held(self) -> Sequence[RegionKey]:
        """The region's key and, while it is being changed, the next one."""


def layer_name(layer: int) -> str:
    """Under which name the index key of a layer (from 1) is wrapped."""
    return f"index-key/{layer}"


class Owed(NamedTuple):
    """What must be in the vault before an entry of a subject: a new key (none if it has one), and (field, value) to be found by."""

    subject: str
    key: DataKey | None
    found_by: Sequence[tuple[str, str]]


class Copy(NamedTuple):
    """A key that another region made, opened and compared, and what its subject is found by up to the entry `upto` of that region's log,
    and up to the `version` of their stream.
    """

    subject: str
    key: DataKey
    found_by: Sequence[tuple[str, str]]
    upto: int
    version: int


KEPT = 0x434F5641  # 'COVA'
"""The advisory lock that whoever keeps something shares, and a change of the region's key, or an erasure, has alone for a moment."""

_WRITABLE = """
    SELECT NOT EXISTS (SELECT FROM ledger.log AS l WHERE l.own AND NOT ledger.may_write(l.id)), pg_advisory_xact_lock_shared(%s)"""
_ANY_ERASED = """
    SELECT EXISTS (SELECT FROM unnest(%b) AS s (subject) JOIN ledger.entry AS e ON e.stream = 'player-' || s.subject
                    WHERE e.type = 'player.erased')"""
_WRAPS = "SELECT (SELECT k.id FROM vault.region_key AS k ORDER BY k.number DESC LIMIT 1), (SELECT count(*) FROM vault.index_key)"
_KEEP = "INSERT INTO vault.data_key (id, subject, wrapped, wrapped_by) SELECT *, %s FROM unnest(%b, %b, %b)"
_FOUND_BY = """
    INSERT INTO vault.blind_index (field, digest, subject, layers) SELECT *, %s FROM unnest(%b, %b, %b) ON CONFLICT DO NOTHING"""
_KEEP_COPIES = _KEEP + " ON CONFLICT DO NOTHING"
_MAY_KEEP = """
    SELECT DISTINCT c.subject FROM vault.copy AS c JOIN unnest(%b, %b) AS r (subject, version) USING (subject)
     WHERE c.jurisdiction = ANY (%b)
           AND NOT EXISTS (SELECT FROM ledger.entry AS e
                            WHERE e.stream = 'player-' || c.subject
                                  AND (e.type = 'player.erased'
                                       OR e.type = 'player.profile_recorded' AND e.log <> c.log AND e.version > r.version))"""
_MAY_INDEX = """
    SELECT DISTINCT k.subject FROM vault.data_key AS k
     WHERE k.subject = ANY (%b)
           AND NOT EXISTS (SELECT FROM ledger.entry AS e WHERE e.stream = 'player-' || k.subject AND e.type = 'player.erased')"""
_KEPT_COPIES = """
    UPDATE vault.copy AS c SET done = greatest(c.done, k.upto), refused = NULL
      FROM unnest(%b, %b) AS k (subject, upto) WHERE c.subject = k.subject"""
_DESTROY_UNUSED = "SELECT u.last::text, u.destroyed FROM vault.destroy_unused(%s::uuid, %s) AS u"
_INDEX_KEYS = "SELECT k.layer, k.wrapped, k.wrapped_by FROM vault.index_key AS k ORDER BY k.layer"
_FIND = "SELECT DISTINCT subject FROM vault.blind_index WHERE field = %s AND digest = ANY (%s) ORDER BY subject"
_ERASED = """
    SELECT l.id, e.position,
           NOT EXISTS (SELECT FROM ledger.log AS own WHERE own.own AND NOT ledger.may_write(own.id))
      FROM ledger.log AS l
           CROSS JOIN LATERAL (SELECT coalesce(max(e.position), 0) AS position FROM ledger.entry AS e
                                WHERE e.log = l.id AND e.type = 'player.erased') AS e"""


class Vault:
    """Keys at rest in PostgreSQL, opened ones in a bounded cache. `region_key`: or what holds several (eventstore.keyring)."""

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        region_key: RegionKeys,
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._pool = pool
        self._region_keys = region_key
        self._random = random
        self._opened: OrderedDict[str, DataKey] = OrderedDict()
        self._layers: Sequence[bytes] = ()
        self._erased: dict[int, int] | None = None
        self._destroyed: set[str] = set()
        self._hears = True

    def new_key(self, key_id: bytes) -> DataKey:
        """A fresh key, not yet kept. `key_id`: a UUID's 16 bytes."""
        return DataKey(str(uuid.UUID(bytes=key_id)), self._random(32))

    async def keep(self, owed: Sequence[Owed]) -> None:
        """Commit keys and index; to be awaited before the entries that use them are appended.

        Raises Unavailable while the log is read-only: its entries would not come, and the keys would lie there for nothing; and of
        somebody who was erased since it was decided, of whom nothing may come back: it is to be decided anew.
        """
        keys = [(o.subject, o.key) for o in owed if o.key is not None]
        words = [(field, value, o.subject) for o in owed for field, value in o.found_by]
        async with self._keeping() as connection:  # from here on no erasure is carried out until this is committed
            subjects = packing.text_array(list({o.subject for o in owed}))
            (erased,) = await (await connection.execute(_ANY_ERASED, (subjects,))).fetchone() or (False,)
            if erased:
                raise Unavailable("a player was erased meanwhile; try again")
            await self._insert(connection, _KEEP, keys, words)

    async def keep_copies(self, copies: Sequence[Copy], jurisdictions: Iterable[str]) -> set[str]:
        """Commit copies and index; of whom. Left out is who was erased by any log held here at the moment at which the copy is kept, of whom
        another one has told more since, and who by now lives under none of these jurisdictions (vault.copy). Raises Unavailable as `keep` does.
        """
        async with self._keeping() as connection:  # from here on no erasure is carried out until this is committed
            subjects = packing.text_array([copy.subject for copy in copies])
            read = packing.int8_array([copy.version for copy in copies])
            asked = (subjects, read, packing.text_array(list(jurisdictions)))
            rows = await (await connection.execute(_MAY_KEEP, asked)).fetchall()
            may = {subject for (subject,) in rows}
            kept = [copy for copy in copies if copy.subject in may]
            words = [(field, value, copy.subject) for copy in kept for field, value in copy.found_by]
            await self._insert(connection, _KEEP_COPIES, [(copy.subject, copy.key) for copy in kept], words)
            await connection.execute(
                _KEPT_COPIES,
                (
                    packing.text_array([copy.subject for copy in kept]),
                    packing.int8_array([copy.upto for copy in kept]),
                ),
            )
        return may

    async def index(self, words: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """Commit more words, by subject, of whoever's key is held here and was not erased by now. Raises Unavailable as `keep` does."""
        async with self._keeping() as connection:
            rows = await (await connection.execute(_MAY_INDEX, (packing.text_array(list(words)),))).fetchall()
            found = [(field, value, subject) for (subject,) in rows for field, value in words[subject]]
            await self._insert(connection, _KEEP_COPIES, [], found)

    @asynccontextmanager
    async def _keeping(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A transaction in which something may be kept. Raises Unavailable."""
        async with self._pool.connection() as connection, connection.transaction():
            (writable, _) = await (await connection.execute(_WRITABLE, (KEPT,))).fetchone() or (False, None)
            if not writable:
                raise Unavailable("the log is read-only until it was compared with its signed head and its copies")
            yield connection

    async def _insert(
        self,
        connection: AsyncConnection[Any],
        keep: LiteralString,
        keys: Sequence[tuple[str, DataKey]],
        words: Sequence[tuple[str, str, str]],
    ) -> None:
        """`keys`: with their subjects. `words`: field, value, subject."""
        (newest, count) = await (await connection.execute(_WRAPS)).fetchone() or (None, 0)
        by = self._wrapping(newest)
        layers = await self._index_keys(connection, count)
        if keys:
            await connection.execute(
                keep,
                (
                    by.id,
                    packing.uuid_array([uuid.UUID(key.id).bytes for _, key in keys]),
                    packing.text_array([subject for subject, _ in keys]),
                    packing.bytea_array([by.wrap(key, self._random(12)) for _, key in keys]),
                ),
            )
        if words:
            await connection.execute(
                _FOUND_BY,
                (
                    len(layers),
                    packing.text_array([field for field, _, _ in words]),
                    packing.bytea_array([blind(layers, field, value) for field, value, _ in words]),
                    packing.text_array([subject for _, _, subject in words]),
                ),
            )

    def _wrapping(self, newest: str | None) -> RegionKey:
        """By which key new ones are wrapped. Raises Unavailable if it is not here."""
        held = self._region_keys.held()
        found = next((key for key in held if newest in (None, key.id)), None)
        if found is None:
            raise Unavailable(f"the region key {newest} is not here, by which keys are wrapped since the last rotation")
        return found

    def _unwrap(self, key_id: str, wrapped: bytes, by: str) -> DataKey:
        """Raises CannotOpen."""
        held = [key for key in self._region_keys.held() if by in ("", key.id)]
        for key in held[:-1]:
            with suppress(CannotOpen):
                return key.unwrap(key_id, wrapped)
        if not held:
            raise CannotOpen(f"data key {key_id} was wrapped by another region key, {by}")
        return held[-1].unwrap(key_id, wrapped)

    async def _index_keys(self, connection: AsyncConnection[Any], count: int) -> Sequence[bytes]:
        """The keys of the blind indexes, of which there are `count` in the vault. Raises CannotOpen."""
        if not count:
            return (self._region_keys.held()[0].index,)
        if len(self._layers) != count:
            rows = await (await connection.cursor(binary=True).execute(_INDEX_KEYS)).fetchall()
            self._layers = [self._unwrap(layer_name(layer), wrapped, by).key for layer, wrapped, by in rows]
        return self._layers

    async def keys(self, commitments: Mapping[str, str]) -> dict[str, DataKey]:
        """The keys that this region holds, of those asked for by id and commitment. Raises CannotOpen if one is another,
        Unavailable while it is not known who was erased.
        """
        await self._apply_first()
        cached = self._opened if self._hears else {}
        found = {key_id: cached[key_id] for key_id in commitments if key_id in cached}
        missing = [uuid.UUID(key_id).bytes for key_id in commitments.keys() - found.keys()]
        if missing:
            found |= await self._unwrapped(missing)
        _refuse_others(found, commitments)
        self._opened |= found
        while len(self._opened) > _CACHED_KEYS:
            self._opened.popitem(last=False)
        return found

    async def keys_to_compare(self, ids: Iterable[str]) -> dict[str, DataKey]:
        """Those that this region holds, whatever a log commits to: to compare fingerprints with, never to open anything."""
        await self._apply_first()
        return await self._unwrapped([uuid.UUID(key_id).bytes for key_id in ids])

    async def keys_to_disclose(self, commitments: Mapping[str, str]) -> dict[str, DataKey]:
        """The same, read anew: a key that was destroyed a moment ago is not disclosed. Raises CannotOpen, Unavailable."""
        await self._apply_first()
        found = await self._unwrapped([uuid.UUID(key_id).bytes for key_id in commitments])
        _refuse_others(found, commitments)
        return found

    async def _unwrapped(self, key_ids: Sequence[bytes]) -> dict[str, DataKey]:
        """Those that are there. (One that was destroyed before this look has come again, as a copy may; one that is during it has not.)"""
        before = frozenset(self._destroyed)
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(
                "SELECT id, wrapped, wrapped_by FROM vault.data_key WHERE id = ANY (%b)", (packing.uuid_array(key_ids),)
            )
            rows = await cursor.fetchall()
        found = {str(key_id): self._unwrap(str(key_id), wrapped, by) for key_id, wrapped, by in rows}
        self._destroyed -= before & found.keys()
        return {key_id: key for key_id, key in found.items() if key_id not in self._destroyed}

    # Erasure

    async def apply_erasures(self, *, anew: bool = False) -> int:
        """Destroy the keys and words of all who were erased since the last time, by any log held here; how many keys that were.
        `anew`: of all who ever were, whatever was done before: a vault may have been restored beside the log meanwhile.

        Raises Unavailable while entries may be missing from the own log: then nobody knows who else was.
        """
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_ERASED)).fetchall()
            newest = {log: position for log, position, _ in rows}
            destroyed = 0
            if anew or newest != self._erased:
                before = {} if anew else self._erased or {}
                cursor = await connection.execute(
                    "SELECT vault.destroy_erased(%s::smallint[], %s::bigint[])",
                    (list(before), list(before.values())),
                )
                (destroyed,) = await cursor.fetchone() or (0,)
        if not all(complete for *_, complete in rows):
            raise Unavailable("nothing personal is opened until the log was compared: erasures may be missing from it")
        self._erased = newest
        return int(destroyed)

    async def _apply_first(self) -> None:
        if self._erased is None:
            await self.apply_erasures()

    def forget(self, key_ids: Iterable[str]) -> None:
        """These keys were destroyed."""
        for key_id in key_ids:
            self._destroyed.add(key_id)
            self._opened.pop(key_id, None)

    async def give_up(self, subjects: Sequence[str]) -> int:
        """Destroy the copies of these players' keys, and their words; how many keys that were. What this region made stays."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT vault.give_up(%b)", (packing.text_array(subjects),))
            (destroyed,) = await cursor.fetchone() or (0,)
        return int(destroyed)

    async def destroy_unused(self, after: str | None, limit: int) -> tuple[str | None, int]:
        """Look at some keys, in the order of their ids after that one (None: from the first), and destroy those of whom no log held here
        has an entry a day after they were kept, with their words. The id after which to go on (None at the end), and how many went.
        """
        async with self._pool.connection() as connection:
            looked = await connection.execute(_DESTROY_UNUSED, (after or str(uuid.UUID(int=0)), limit))
            return await looked.fetchone() or (None, 0)

    def hears(self, hears: bool) -> None:
        """Whether this process is told of keys that are destroyed. As long as it is not, no opened key is used again; and whatever
        has happened meanwhile, a restored backup included, erasures are applied anew before anything is opened.
        """
        self._hears = hears
        self._opened.clear()
        self._erased = None

    # Look-ups

    async def find(self, field: str, value: str) -> list[str]:
        """The subjects whose `field` has exactly this value, as far as normalised writing goes. Raises Unavailable."""
        await self._apply_first()
        async with self._pool.connection() as connection:
            count = await self._layer_count(connection)
            while True:
                layers = await self._index_keys(connection, count)
                digests = [blind(some, field, value) for some in last_two(layers)]
                rows = await (await connection.execute(_FIND, (field, digests))).fetchall()
                if count == (count := await self._layer_count(connection)):
                    return [row[0] for row in rows]

    async def find_registered(
        self, words: Sequence[tuple[str, str]], among: Among = Among.OURS
    ) -> dict[tuple[str, str], list[str]]:
        """The same for many (field, value) at once, of players who are registered; what finds none is left out.

        (Words are kept before their registration is appended, and stay if it never comes.)
        """
        await self._apply_first()
        async with self._pool.connection() as connection:
            count = await self._layer_count(connection)
            while True:
                layers = await self._index_keys(connection, count)
                digests = {
                    (field, blind(some, field, value)): (field, normalised(value))
                    for field, value in words
                    for some in last_two(layers)
                }
                cursor = await connection.cursor(binary=True).execute(
                    FIND_REGISTERED,
                    (
                        packing.text_array([field for field, _ in digests]),
                        packing.bytea_array([digest for _, digest in digests]),
                        among is Among.ALL,
                        among is Among.OURS,
                    ),
                )
                rows = await cursor.fetchall()
                if count == (count := await self._layer_count(connection)):
                    break
        found: dict[tuple[str, str], dict[str, None]] = {}
        for field, digest, subject in rows:
            found.setdefault(digests[field, bytes(digest)], {})[subject] = None
        return {
            (field, value): list(there) for field, value in words if (there := found.get((field, normalised(value))))
        }

    @staticmethod
    async def _layer_count(connection: AsyncConnection[Any]) -> int:
        """How many index keys there are. Looked at again after a look-up: if a rotation has begun meanwhile, words have moved."""
        row = await (await connection.execute("SELECT count(*) FROM vault.index_key")).fetchone()
        return int(row[0]) if row else 0
