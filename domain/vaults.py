"""
What happened to a region's vault as a whole: its key was changed. On the region's own stream, `region-<region>-vault`.

Invariant: an event names keys by their ids, which tell nothing of them.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.kernel import Aggregate, Event, RegionStream

# Events: the tags and fields are the storage format.


class RegionKeyRotated(Event, frozen=True, tag="vault.key_rotated"):
    """Everything in the vault is under the region key `new` by now, and `old` opens nothing any more. It is destroyed next.

    `keys`: how many data keys there were.
    """

    old: str
    new: str
    keys: int


# State


class VaultHistory(msgspec.Struct, frozen=True):
    """The newest key that is known by name, and how many rotations there were."""

    key: str = ""
    rotations: int = 0


def evolve(history: VaultHistory, event: RegionKeyRotated, _at: datetime) -> VaultHistory:
    return VaultHistory(event.new, history.rotations + 1)


VAULTS = Aggregate("vault", kind="vault", initial=VaultHistory(), evolve=evolve, events=[RegionKeyRotated])


def stream(region: str) -> RegionStream[VaultHistory]:
    return RegionStream(VAULTS, region)
