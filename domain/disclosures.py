"""
Disclosures: data keys of players handed to somebody outside, such as a regulator, so that they can open what is sealed in the
log. All on one stream of the region, `region-<region>-disclosures`.

Invariants:
    - no key is handed out but to the recipient of a disclosure that stands in the log;
    - the event names keys and never holds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from domain.errors import NotFound
from domain.kernel import Aggregate, Event, PlayerId, RegionStream
from domain.players import Player, Status

PLAYERS_MAX = 500

# Events: the tags and fields are the storage format.


class NamedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data key `key` of a player, by its id."""

    player: PlayerId
    key: str


class KeysDisclosed(Event, frozen=True, tag="keys.disclosed"):
    """Data keys of players were handed out, encrypted. `recipient`: an X25519 recipient of age (C2SP age, "The X25519 recipient type"). `reason`: a word."""

    recipient: str
    reason: str
    keys: tuple[NamedKey, ...]


# State


class Disclosures(msgspec.Struct, frozen=True):
    """How many there were."""

    count: int = 0


def evolve(disclosures: Disclosures, _event: KeysDisclosed, _at: datetime) -> Disclosures:
    return Disclosures(disclosures.count + 1)


DISCLOSURES = Aggregate("keys", kind="disclosures", initial=Disclosures(), evolve=evolve, events=[KeysDisclosed])


def stream(region: str) -> RegionStream[Disclosures]:
    return RegionStream(DISCLOSURES, region)


# Decisions


def disclose(players: Mapping[PlayerId, Player], *, recipient: str, reason: str) -> list[KeysDisclosed]:
    """Name the players' keys for the recipient. Raises NotFound (player)."""
    for player_id, player in players.items():
        if player.status is Status.UNKNOWN:
            raise NotFound("no such player", player=player_id)
    keys = tuple(NamedKey(player_id, player.key) for player_id, player in players.items())
    return [KeysDisclosed(recipient, reason, keys)]
