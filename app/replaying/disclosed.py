"""
Data keys that were disclosed to a regulator: the file keys.age of an export, opened with the regulator's own age identity.

Invariants:
    - keys and what they open live in memory only;
    - a key opens nothing unless it is the one that the player's registration in the log commits to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from app.keyfile import Undisclosed, opened
from domain.kernel import Sealed
from domain.players import DataKey as Committed
from eventstore.vault import CannotOpen, DataKey
from replay.timeline import Reveal
from verifier.faults import CouldNotCheck


def read_keys(export: Path, identity: Path) -> dict[str, DataKey]:
    """The data keys of all `keys*.age` of an export, by their ids. Raises CouldNotCheck."""
    files = sorted(export.glob("keys*.age"))
    if not files:
        raise CouldNotCheck(f"no keys were disclosed with {export}: there is no keys.age")
    try:
        return {key.id: key for key in opened(files, identity)}
    except Undisclosed as undisclosed:
        raise CouldNotCheck(f"{export}: {undisclosed}") from None


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
