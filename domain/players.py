"""
Players: who has an account, and whether they may use it.

Invariants:
    - what identifies a person (name, e-mail, phone, …) is sealed under the player's own data key;
    - a blocked player can neither deposit nor be registered anew; money that is on its way still arrives.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import AlreadyRegistered, NotFound
from domain.kernel import STREAMS_CACHED, Aggregate, Event, Personal, PlayerId, Stream, parse_id

# Events: the tags and fields are the storage format.


class DataKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    r"""Names the player's data key and commits to it: SHA-256("countroom/data-key/v1\n" ‖ id ‖ "\n" ‖ key), in hex."""

    id: str
    commitment: str


class Registered(Event, frozen=True, kw_only=True, tag="player.registered"):
    """A player opened an account of `brand`, in the currency in which all of its money is, and lives in `country`
    (ISO 3166-1 alpha-2). `key` is the data key under which the personal fields are sealed.
    """

    brand: str
    country: str
    currency: str
    key: DataKey
    name: Personal | None = None
    email: Personal | None = None
    phone: Personal | None = None
    birth_date: Personal | None = None
    external_id: Personal | None = None


class Blocked(Event, frozen=True, tag="player.blocked"):
    """The player may not deposit any more. `reason`: text, in the clear."""

    reason: str


PlayerEvent = Registered | Blocked


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    ACTIVE = "active"
    BLOCKED = "blocked"


class Player(msgspec.Struct, frozen=True):
    """`key`: the id of the player's data key."""

    status: Status = Status.UNKNOWN
    country: str = ""
    currency: str = ""
    key: str = ""


def evolve(player: Player, event: PlayerEvent, _at: datetime) -> Player:
    match event:
        case Registered():
            return Player(Status.ACTIVE, event.country, event.currency, event.key.id)
        case Blocked():
            return Player(Status.BLOCKED, player.country, player.currency, player.key)


PLAYERS = Aggregate("player", initial=Player(), evolve=evolve, events=[Registered, Blocked])


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Player]:
    return Stream(PLAYERS, parse_id("player", player_id))


# Decisions


def register(player: Player, *, registered: Registered) -> list[PlayerEvent]:
    """Open an account. Country, currency and age are checked where the request enters."""
    if player.status is not Status.UNKNOWN:
        raise AlreadyRegistered
    return [registered]


def block(player: Player, *, reason: str) -> list[PlayerEvent]:
    """Stop deposits at once. Asking again records nothing."""
    if player.status is Status.UNKNOWN:
        raise NotFound("no such player")
    if player.status is Status.BLOCKED:
        return []
    return [Blocked(reason=reason)]
