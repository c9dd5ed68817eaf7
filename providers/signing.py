"""
Signatures between us and a provider, over the bytes as they travel, with a time against replay:

    Countroom-Signature: t=<seconds since 1970 UTC>,v1=<hex>
    v1 = HMAC-SHA-256(secret, t ‖ "." ‖ body)                          (RFC 2104; t as it stands in the header)

Several v1 may stand there while a secret is being changed; one that fits is enough.

Invariants:
    - the bytes are checked before anything reads them;
    - what is older or newer than WINDOW_S is refused, whoever signed it.
"""

from __future__ import annotations

import hashlib
import hmac
import re

HEADER = "Countroom-Signature"
WINDOW_S = 300
SECRET_BYTES_MIN = 16

_BLOCK_BYTES = 64  # SHA-256's

_FORM = re.compile(r"t=(0|[1-9][0-9]{0,11})((?:,v1=[0-9a-f]{64}){1,4})")


class BadSignature(Exception):
    """What came was not signed with this secret, or not now."""


def sign(secret: bytes, body: bytes, at: int) -> str:
    """The header's value. `at`: seconds since 1970 UTC."""
    return f"t={at},v1={_mac(secret, str(at), body)}"


def verify(secret: bytes, header: str, body: bytes, now: int) -> None:
    """Raises BadSignature."""
    found = _FORM.fullmatch(header)
    if found is None:
        raise BadSignature(f"{HEADER} is not t=…,v1=…")
    right = _mac(secret, found[1], body)
    fits = [hmac.compare_digest(right, given.removeprefix("v1=")) for given in found[2][1:].split(",")]
    if not any(fits):
        raise BadSignature("the signature is another's, or of other bytes")
    if abs(now - int(found[1])) > WINDOW_S:
        raise BadSignature(f"it was signed more than {WINDOW_S} s from now")


def name_of(secret: bytes) -> bytes:
    """The same for two secrets that sign alike, and for no others: HMAC hashes a long key, and fills a short one up with zeros."""
    key = hashlib.sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret
    return hashlib.sha256(b"secret" + key.ljust(_BLOCK_BYTES, b"\0")).digest()


def _mac(secret: bytes, at: str, body: bytes) -> str:
    return hmac.digest(secret, f"{at}.".encode() + body, "sha256").hex()
