"""
Data keys that were disclosed to a regulator: the file keys.age of an export, opened with the regulator's own age identity.

Invariants:
    - keys and what they open live in memory only;
    - a key opens nothing unless it is the one that the player's registration in the log commits to.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from domain.kernel import Sealed
from domain.players import DataKey as Committed
from eventstore.vault import CannotOpen, DataKey
from replay.timeline import Reveal
from verifier.faults import CouldNotCheck

FORMAT = "countroom/data-keys/1"
_KEY_BYTES = 32


class _Key(msgspec.Struct, frozen=True):
    player: str
    key: str
    secret: str


class _File(msgspec.Struct, frozen=True):
    format: str
    keys: list[_Key]


def read_keys(export: Path, identity: Path) -> dict[str, DataKey]:
    """The data keys of all `keys*.age` of an export, by their ids. Raises CouldNotCheck."""
    import pyrage

    files = sorted(export.glob("keys*.age"))
    if not files:
        raise CouldNotCheck(f"no keys were disclosed with {export}: there is no keys.age")
    try:
        lines = [line.strip() for line in identity.read_text().splitlines()]
        identities = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        opened = [msgspec.json.decode(pyrage.decrypt(file.read_bytes(), identities), type=_File) for file in files]
    except (OSError, ValueError, pyrage.IdentityError, pyrage.DecryptError) as error:
        raise CouldNotCheck(f"the keys of {export} do not open with the identity {identity}: {error}") from None
    if any(file.format != FORMAT for file in opened):
        raise CouldNotCheck(f"the keys of {export} are of another format than {FORMAT}")
    return {given.key: _key(given) for file in opened for given in file.keys}


def revealing(keys: Mapping[str, DataKey], registered: Iterable[Committed]) -> Reveal:
    """Opens what was sealed under one of the keys. Raises CouldNotCheck for a key that no registration commits to."""
    committed = {each.id: each.commitment for each in registered}
    usable = {id_: key for id_, key in keys.items() if id_ in committed}
    for key in usable.values():
        if key.commitment != committed[key.id]:
            raise CouldNotCheck(
                f"the disclosed key {key.id} is not the one that the registration in the log commits to"
            )

    def reveal(event_id: str, path: str, sealed: Sealed) -> str | None:
        key = usable.get(sealed.key)
        try:
            return None if key is None else key.open(sealed, event_id=event_id, path=path)
        except CannotOpen as error:
            raise CouldNotCheck(str(error)) from None

    return reveal


def _key(given: _Key) -> DataKey:
    try:
        secret = base64.b64decode(given.secret + "=" * (-len(given.secret) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise CouldNotCheck(f"the disclosed key {given.key} has not {_KEY_BYTES} bytes")
    return DataKey(given.key, secret)
