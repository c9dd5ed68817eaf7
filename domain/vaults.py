"""
What happened to a region's vault: its key was changed, on the region's own stream `region-<region>-vault`; and for each player who
was erased, that nothing is left there by which they could be known, on `region-<region>-vault_<suffix of the player>`.

Invariants:
    - an event names keys by their ids, which tell nothing of them;
    - that a player's keys are destroyed is said once by each region, and by none before it has looked.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.kernel import Aggregate, Event, PlayerId, RegionStream, parse_id

# Events: the tags and fields are the storage format.


class RegionKeyRotated(Event, frozen=True, tag="vault.key_rotated"):
    """Everything in the vault is under the region key `new` by now, and `old` opens nothing any more. It is destroyed next.

    `keys`: how many data keys there were.
    """

    old: str
    new: str
    keys: int


class KeysDestroyed(Event, frozen=True, tag="vault.keys_destroyed"):
    """Of a player who was erased (the cause) the region's vault holds no data key, also no copy of `key`, and no word of a blind index."""

    player: PlayerId
    key: str


# State


class VaultHistory(msgspec.Struct, frozen=True):
    """The newest key that is known by name, and how many rotations there were; of one player, whether their keys are destroyed."""

    key: str = ""
    rotations: int = 0
    destroyed: bool = False


def evolve(history: VaultHistory, event: RegionKeyRotated | KeysDestroyed, _at: datetime) -> VaultHistory:
    match event:
        case RegionKeyRotated():
            return VaultHistory(event.new, history.rotations + 1)
        case KeysDestroyed():
            return VaultHistory(destroyed=True)


VAULTS = Aggregate(
    "vault", kind="vault", initial=VaultHistory(), evolve=evolve, events=[RegionKeyRotated, KeysDestroyed]
)


def stream(region: str) -> RegionStream[VaultHistory]:
    return RegionStream(VAULTS, region)


def of_player(region: str, player_id: PlayerId) -> RegionStream[VaultHistory]:
    return RegionStream(VAULTS, region, parse_id("player", player_id))


# Decisions


def note_destroyed(history: VaultHistory, *, player: PlayerId, key: str) -> list[KeysDestroyed]:
    """Saying so again records nothing."""
    return [] if history.destroyed else [KeysDestroyed(player, key)]
