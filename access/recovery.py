"""
Recovery codes: for whoever has lost the second factor. Ten of them, each for one use.

A code has 80 random bits, so its SHA-256 is not guessed; which of them were used stands in the log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Collection, Sequence

COUNT = 10
_BYTES = 10


def new_codes() -> list[str]:
    """As they are written down: four groups of four characters of base32."""
    return [_grouped(base64.b32encode(os.urandom(_BYTES)).decode().lower()) for _ in range(COUNT)]


def digest(code: str) -> str:
    """SHA-256 in hex; blanks, hyphens and case do not matter."""
    return hashlib.sha256("".join(code.lower().replace("-", " ").split()).encode()).hexdigest()


def number_of(digests: Sequence[str], code: str, used: Collection[int]) -> int | None:
    """The place (from 0) of the code among the digests, if it was not used yet."""
    given = digest(code)
    found = [n for n, each in enumerate(digests) if hmac.compare_digest(each, given)]
    return found[0] if found and found[0] not in used else None


def _grouped(text: str) -> str:
    return "-".join(text[place : place + 4] for place in range(0, len(text), 4))
