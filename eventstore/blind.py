"""The blind index: what a player is found by, though it is written down nowhere. A value is a digest under the region's index keys."""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Sequence
from enum import Enum


class Among(Enum):
    """Which registered players are looked for. OWNED: those of partitions that are owned here now, of whom alone an append may make a
    condition. OURS: them, and those whom the own log has registered. ALL: whoever is held here; of others' players the words come
    with their keys, whenever that is, and what is decided as it is recorded must not depend on that.
    """

    OWNED = "owned"
    OURS = "ours"
    ALL = "all"


def normalised(text: str) -> str:
    """However a value is written (case, width and surrounding blanks), this is the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def blind(layers: Sequence[bytes], field: str, text: str) -> bytes:
    """The digest by which a value is found, made with each of the index keys, from the first on."""
    first, *further = layers
    digest = hmac.digest(first, f"{field}\n{normalised(text)}".encode(), "sha256")[:16]
    for key in further:
        digest = again(key, digest)
    return digest


def again(key: bytes, digest: bytes) -> bytes:
    """The digest with one more index key laid over it."""
    return hmac.digest(key, digest, "sha256")[:16]


def last_two(layers: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
    """While a rotation is under way, words lie under all of the index keys or under all but the last."""
    return (layers, layers[:-1]) if len(layers) > 1 else (layers,)


FIND_REGISTERED = """
    SELECT i.field, i.digest, i.subject
      FROM unnest(%b, %b) AS q (field, digest) JOIN vault.blind_index AS i USING (field, digest)
     WHERE EXISTS (SELECT FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
                    WHERE e.stream = 'player-' || i.subject AND e.version = 1
                          AND (%s OR %s AND l.own
                               OR EXISTS (SELECT FROM ledger.log AS o WHERE o.own AND o.epochs[e.partition + 1] > 0)))
     ORDER BY i.subject"""
"""Of fields and digests, whether ALL are looked for, whether OURS are: (field, digest, subject)."""
