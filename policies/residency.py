"""
Residency: which regions may hold the keys of a player's personal data, by the player's jurisdiction. The house says so in a file.

A region that may not holds the log all the same, verifies it and counts its money; what is personal there stays ciphertext.

Invariant: what holds for a country holds in its parts (ISO 3166-2), unless the file names the part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from policies.rules import country_of

OTHERWISE: Final = "*"


class ResidencyUnreadable(Exception):
    """The file says nothing that can be followed, and why."""


class Residency(NamedTuple):
    """By jurisdiction, the regions that may hold keys; `*`: of all others. Of whom nothing is said, any region may."""

    regions: Mapping[str, tuple[str, ...]] = {}

    def of(self, jurisdiction: str) -> tuple[str, ...] | None:
        """Those that may; None: all."""
        for name in (jurisdiction, country_of(jurisdiction), OTHERWISE):
            if name in self.regions:
                return self.regions[name]
        return None

    def allows(self, jurisdiction: str, log: str) -> bool:
        """Whether the region of this log (eu, eu.2) may hold the keys."""
        allowed = self.of(jurisdiction)
        return allowed is None or log.partition(".")[0] in allowed

    @property
    def digest(self) -> str:
        """SHA-256 as of any policy, for `service.started`."""
        told = {name: sorted(regions) for name, regions in self.regions.items()}
        return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()


EVERYWHERE: Final = Residency()
"""The house's default: every region of the deployment."""


def load(file: Path | None, deployed: Collection[str]) -> Residency:
    """What the file says: {"DE": ["eu"], "*": ["eu", "us"]}. Raises ResidencyUnreadable."""
    if file is None:
        return EVERYWHERE
    try:
        told = msgspec.json.decode(file.read_bytes(), type=dict[str, tuple[str, ...]])
    except (OSError, msgspec.MsgspecError) as error:
        raise ResidencyUnreadable(f"{file}: {error}") from error
    known = {region.partition(".")[0] for region in deployed}
    for jurisdiction, regions in told.items():
        if not regions:
            raise ResidencyUnreadable(
                f"{file}: no region may hold the keys of {jurisdiction}, so nobody could register"
            )
        if unknown := set(regions) - known:
            raise ResidencyUnreadable(f"{file}: {jurisdiction}: no region is called {', '.join(sorted(unknown))}")
    return Residency(told)
