"""
keys.age: the data keys of a disclosure, in an age file (C2SP age) that only its recipient opens.

Invariant: a secret is in memory or under the recipient's key, never in the clear anywhere else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

import msgspec

from domain.kernel import PlayerId
from eventstore.vault import DataKey

FORMAT = "countroom/data-keys/1"
_KEY_BYTES = 32


class Undisclosed(Exception):
    """These are not keys of a disclosure that the identity opens; says why."""


class DisclosedKey(msgspec.Struct, frozen=True):
    """`secret`: the 32 bytes of the AES-256 key in unpadded base64url; `commitment`: that of the registration, in hex."""

    player: str
    key: str
    secret: str
    commitment: str


class DataKeys(msgspec.Struct, frozen=True):
    """What the recipient finds in the file. `missing`: players whose key is not here, or was destroyed."""

    format: str
    keys: list[DisclosedKey]
    missing: list[PlayerId]


def disclosed(player: str, key: DataKey, commitment: str) -> DisclosedKey:
    secret = base64.urlsafe_b64encode(key.key).rstrip(b"=").decode()
    return DisclosedKey(player, key.id, secret, commitment)


def encrypted(keys: Sequence[DisclosedKey], missing: Sequence[PlayerId], recipient: str) -> bytes:
    """The age file for the recipient (age1…) alone."""
    from pyrage import encrypt, x25519

    text = msgspec.json.encode(DataKeys(FORMAT, list(keys), list(missing)))
    sealed: bytes = encrypt(text, [x25519.Recipient.from_str(recipient)])
    return sealed


def opened(files: Sequence[Path], identity: Path) -> list[DataKey]:
    """The keys in the files, opened with an age identity file. Raises Undisclosed."""
    import pyrage

    try:
        lines = [line.strip() for line in identity.read_text().splitlines()]
        identities = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        found = [msgspec.json.decode(pyrage.decrypt(file.read_bytes(), identities), type=DataKeys) for file in files]
    except (OSError, ValueError, pyrage.IdentityError, pyrage.DecryptError) as error:
        raise Undisclosed(f"the keys do not open with the identity {identity}: {error}") from None
    if any(file.format != FORMAT for file in found):
        raise Undisclosed(f"the keys are of another format than {FORMAT}")
    return [_key(given) for file in found for given in file.keys]


def _key(given: DisclosedKey) -> DataKey:
    try:
        secret = base64.b64decode(given.secret + "=" * (-len(given.secret) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise Undisclosed(f"the disclosed key {given.key} has not {_KEY_BYTES} bytes")
    return DataKey(given.key, secret)
