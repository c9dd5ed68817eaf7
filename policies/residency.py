"""
Residency: which regions may hold the keys of a player's personal data, by the player's jurisdiction, and which partitions new
players are given therefore. The house says so in a file.

A region that may not holds the log all the same, verifies it and counts its money; what is personal there stays ciphertext.

Invariants:
    - what holds for a country holds in its parts (ISO 3166-2), unless the file names the part;
    - which partitions a jurisdiction's new players are given is the same in all regions, whoever owns them now: a registration
      that is said again meets the same owner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from policies.rules import country_of

OTHERWISE: Final = "*"
PARTITIONS: Final = range(256)

Partition = Annotated[int, msgspec.Meta(ge=PARTITIONS.start, lt=PARTITIONS.stop)]


class ResidencyUnreadable(Exception):
    """The file says nothing that can be followed, and why."""


class Placed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Regions that may hold keys, where new players are not to be given the partitions that these own from the beginning.

    `partitions`: ranges [first, last].
    """

    regions: tuple[str, ...]
    partitions: tuple[tuple[Partition, Partition], ...]


class Residency(NamedTuple):
    """By jurisdiction, the regions that may hold keys; `*`: of all others. Of whom nothing is said, any region may.

    `partitions`: those that are stated for new players of a jurisdiction. `shares`: by log, those that a founder owns from the beginning.
    """

    regions: Mapping[str, tuple[str, ...]] = {}
    partitions: Mapping[str, Sequence[int]] = {}
    shares: Mapping[str, Sequence[int]] = {}

    def of(self, jurisdiction: str) -> tuple[str, ...] | None:
        """Those that may; None: all."""
        name = self._named(jurisdiction)
        return None if name is None else self.regions[name]

    def group(self, jurisdiction: str) -> Sequence[int]:
        """The partitions of new players: those that are stated, or that the regions which may hold the keys own from the beginning.

        All, where any region may, or nothing is known of shares.
        """
        name = self._named(jurisdiction)
        if name is not None and name in self.partitions:
            return self.partitions[name]
        if name is None or not self.shares:
            return PARTITIONS
        return sorted(p for log, share in self.shares.items() if self.allows(jurisdiction, log) for p in share)

    def _named(self, jurisdiction: str) -> str | None:
        """Under which name the file speaks of it."""
        for name in (jurisdiction, country_of(jurisdiction), OTHERWISE):
            if name in self.regions:
                return name
        return None

    def allows(self, jurisdiction: str, log: str) -> bool:
        """Whether the region of this log (eu, eu.2) may hold the keys."""
        allowed = self.of(jurisdiction)
        return allowed is None or log.partition(".")[0] in allowed

    @property
    def digest(self) -> str:
        """SHA-256 as of any policy, for `service.started`, of the file and the founders' shares: where it is the same, people are registered alike."""
        told: dict[str, object] = {name: sorted(regions) for name, regions in self.regions.items()}
        told |= {name: [told[name], list(partitions)] for name, partitions in self.partitions.items()}
        founders = {log.partition(".")[0]: list(share) for log, share in self.shares.items()}
        return hashlib.sha256(msgspec.json.encode([told, founders], order="sorted")).hexdigest()


EVERYWHERE: Final = Residency()
"""The house's default: every region of the deployment."""


def load(
    file: Path | None, deployed: Collection[str], shares: Mapping[str, Sequence[int]] = EVERYWHERE.shares
) -> Residency:
    """What the file says: {"DE": ["eu"], "AU": {"regions": ["ap"], "partitions": [[64, 127]]}, "*": ["eu", "us"]}.

    `deployed`: the logs that there are; `shares`: the partitions that each founder owns from the beginning. Raises ResidencyUnreadable.
    """
    if file is None:
        return EVERYWHERE._replace(shares=shares)
    try:
        said = msgspec.json.decode(file.read_bytes(), type=dict[str, tuple[str, ...] | Placed])
    except (OSError, msgspec.MsgspecError) as error:
        raise ResidencyUnreadable(f"{file}: {error}") from error
    regions = {name: each.regions if isinstance(each, Placed) else each for name, each in said.items()}
    partitions = {name: _stated(each, f"{file}: {name}") for name, each in said.items() if isinstance(each, Placed)}
    known = {region.partition(".")[0] for region in deployed}
    founders = {log.partition(".")[0] for log in shares}
    for name, allowed in regions.items():
        if not allowed:
            raise ResidencyUnreadable(f"{file}: no region may hold the keys of {name}, so nobody could register")
        if unknown := set(allowed) - known:
            raise ResidencyUnreadable(f"{file}: {name}: no region is called {', '.join(sorted(unknown))}")
        if founders and not founders.intersection(allowed) and name not in partitions:
            joined = f"{' and '.join(allowed)} joined later, and owned no partitions at the beginning"
            raise ResidencyUnreadable(f"{file}: {name}: {joined}; state the partitions of new players")
    return Residency(regions, partitions, shares)


def _stated(placed: Placed, where: str) -> Sequence[int]:
    """Raises ResidencyUnreadable."""
    if not placed.partitions or any(first > last for first, last in placed.partitions):
        raise ResidencyUnreadable(f"{where}: partitions are ranges [first, last], one at least")
    return sorted({partition for first, last in placed.partitions for partition in range(first, last + 1)})
