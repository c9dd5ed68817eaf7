"""
Changing a region's key in its vault: every data key is wrapped anew, and one more key is laid over the blind indexes.

The log is not touched, and nothing that is personal is opened.

Invariants:
    - what is kept from `begin` on is under the new key, also by processes that were started before;
    - a row says by which key it is wrapped, and by how many its digest was made, so it can be read at every moment;
    - whatever it stops at, asking again goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from eventstore import packing
from eventstore.blind import again
from eventstore.vault import KEPT, CannotOpen, DataKey, RegionKey, layer_name

ROLE = "countroom_vault"
BATCH = 500

_NEWEST = "SELECT k.id FROM vault.region_key AS k ORDER BY k.number DESC LIMIT 1"
_LAYERS = "SELECT k.layer, k.wrapped, k.wrapped_by FROM vault.index_key AS k ORDER BY k.layer"
_LAY = """
    INSERT INTO vault.index_key (layer, wrapped, wrapped_by) VALUES (%s, %s, %s)
    ON CONFLICT (layer) DO UPDATE SET wrapped = excluded.wrapped, wrapped_by = excluded.wrapped_by"""
_WRAPPED = """
    SELECT k.id, k.wrapped FROM vault.data_key AS k WHERE k.wrapped_by <> %s AND k.id > %s::uuid ORDER BY k.id LIMIT %s
       FOR UPDATE SKIP LOCKED"""
_REWRAP = """
    UPDATE vault.data_key AS k SET wrapped = n.wrapped, wrapped_by = %s
      FROM unnest(%b, %b) AS n (id, wrapped) WHERE k.id = n.id"""
_WORDS = """
    DELETE FROM vault.blind_index AS i USING (
        SELECT w.field, w.digest, w.subject FROM vault.blind_index AS w
         WHERE w.layers < %s AND (w.field, w.digest, w.subject) > (%s, %s, %s)
         ORDER BY w.field, w.digest, w.subject LIMIT %s) AS w
     WHERE (i.field, i.digest, i.subject) = (w.field, w.digest, w.subject) RETURNING i.field, i.digest, i.subject"""
_LAID = "INSERT INTO vault.blind_index (field, digest, subject, layers) SELECT *, %s FROM unnest(%b, %b, %b) ON CONFLICT DO NOTHING"
_LEFT = """
    SELECT (SELECT count(*) FROM vault.data_key AS k WHERE k.wrapped_by <> %s),
           (SELECT count(*) FROM vault.blind_index AS i WHERE i.layers < (SELECT count(*) FROM vault.index_key))"""
_OF_THE_FIRST = "SELECT k.id, k.wrapped FROM vault.data_key AS k ORDER BY k.id LIMIT 1"
DESTROYED = "UPDATE vault.region_key SET destroyed = now() WHERE id = ANY (%s) AND destroyed IS NULL RETURNING id"


class WrongKey(Exception):
    """The keys at hand are not those by which the vault is wrapped."""


class Left(NamedTuple):
    """What is still to be done: data keys, and words of blind indexes."""

    keys: int
    words: int


class Rewrapping:
    """From one region key to the next, over a connection as countroom_vault."""

    def __init__(
        self,
        connection: AsyncConnection[Any],
        old: RegionKey,
        new: RegionKey,
        *,
        random: Callable[[int], bytes] = os.urandom,
        batch: int = BATCH,
    ) -> None:
        self._connection = connection
        self._old = old
        self._new = new
        self._random = random
        self._batch = batch
        self._top = b""
        self._layers = 0
        self._last_key = "00000000-0000-0000-0000-000000000000"
        self._last_word: tuple[str, bytes, str] = ("", b"", "")

    async def begin(self) -> None:
        """From now on everything is kept under the new key, and a new index key is over the others. Raises WrongKey."""
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (KEPT,))
            newest = await self._one(_NEWEST)
            rows = await self._rows(_LAYERS)
            if newest not in (None, self._old.id, self._new.id):
                raise WrongKey(f"the vault is wrapped by the region key {newest}, which is not the one in the file")
            if newest is None:  # then nothing has named the key yet, and the index would follow from whichever this is
                self._unwrapped(await self._rows(_OF_THE_FIRST))
            if newest != self._new.id:
                layers = [self._open(layer, wrapped) for layer, wrapped, _ in rows] or [self._old.index]
                for layer, key in enumerate([*layers, self._random(32)], 1):
                    name = layer_name(layer)
                    wrapped = self._new.wrap(DataKey(name, key), self._random(12))
                    await self._connection.execute(_LAY, (layer, wrapped, self._new.id))
                for id_ in dict.fromkeys((newest or self._old.id, self._new.id)):
                    await self._connection.execute(
                        "INSERT INTO vault.region_key (id) VALUES (%s) ON CONFLICT DO NOTHING", (id_,)
                    )
            rows = await self._rows(_LAYERS)
            self._layers, self._top = len(rows), self._open(*rows[-1][:2])

    def _open(self, layer: int, wrapped: bytes) -> bytes:
        """Raises WrongKey."""
        for key in (self._new, self._old):
            with suppress(CannotOpen):
                return key.unwrap(layer_name(layer), wrapped).key
        raise WrongKey(f"neither key has wrapped the index key {layer}")

    async def step(self) -> int:
        """Wrap some data keys anew, or lay the new key over some words; how many. 0: nothing is left. Raises WrongKey."""
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (KEPT,))  # against an erasure
            return await self._rewrap() or await self._relay()

    async def _rewrap(self) -> int:
        rows = await self._rows(_WRAPPED, self._new.id, self._last_key, self._batch)
        if rows:
            keys = self._unwrapped(rows)
            wrapped = [self._new.wrap(key, self._random(12)) for key in keys]
            ids = packing.uuid_array([id_.bytes for id_, _ in rows])
            await self._connection.execute(_REWRAP, (self._new.id, ids, packing.bytea_array(wrapped)))
            self._last_key = str(rows[-1][0])
        return len(rows)

    def _unwrapped(self, rows: Sequence[tuple[Any, ...]]) -> list[DataKey]:
        """Data keys that are under the old key. Raises WrongKey."""
        try:
            return [self._old.unwrap(str(id_), wrapped) for id_, wrapped in rows]
        except CannotOpen as error:
            raise WrongKey(f"{error}: it can be rotated only once that is resolved") from None

    async def _relay(self) -> int:
        rows = sorted(await self._rows(_WORDS, self._layers, *self._last_word, self._batch))
        if rows:
            fields, digests, subjects = zip(*rows, strict=True)
            laid = [again(self._top, bytes(digest)) for digest in digests]
            await self._connection.execute(
                _LAID,
                (self._layers, packing.text_array(fields), packing.bytea_array(laid), packing.text_array(subjects)),
            )
            field, digest, subject = rows[-1]
            self._last_word = (field, bytes(digest), subject)
        return len(rows)

    async def left(self) -> Left:
        """What is still under the old key, as of now."""
        [(keys, words)] = await self._rows(_LEFT, self._new.id)
        return Left(keys, words)

    async def destroyed(self) -> None:
        """The old key is no more."""
        await self._connection.execute(DESTROYED, ([self._old.id],))

    async def _rows(self, query: Any, *arguments: object) -> list[tuple[Any, ...]]:
        return await (await self._connection.cursor(binary=True).execute(query, arguments)).fetchall()

    async def _one(self, query: Any) -> Any:
        rows = await self._rows(query)
        return rows[0][0] if rows else None
