"""
Which entries of a log are chosen: those of players, those of certain types, or both at once.

What belongs to a player is every stream that ends in the suffix of the player's id, every one with a suffix of its own (a
transaction, a ticket, a notice …) whose first event names the player, and each event on a region's own streams that does. Streams of players are chosen whole, so that gapless
versions show it; of a region's own streams single events are.

Invariant: taking an entry in twice changes nothing, so that an export can go on a little before where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import msgspec

from app.exporting.stopped import ExportStopped
from domain.catalog import NAMING, OF_PLAYERS
from domain.errors import InvalidId
from domain.kernel import parse_id

HEADER_BYTES = 48  # before the body of an entry
_PERSONS = frozenset(aggregate.name for aggregate in OF_PLAYERS)
_CHILDREN = tuple(f"{aggregate.name}-" for aggregate in NAMING)
_SUFFIX_CHARACTERS = 26
_PLAYER = re.compile(rb"player_([0-7][0-9a-hjkmnp-tv-z]{25})")
_TYPE = re.compile(r"[a-z][a-z0-9_.]*\*?")
_COUNTRY = re.compile(r"[A-Z]{2}")


class Event(msgspec.Struct, gc=False):
    """What of a body decides whether it is chosen."""

    stream: str
    version: int
    type: str
    data: msgspec.Raw


class _OfPlayer(msgspec.Struct):
    player: str = ""


class _Registered(msgspec.Struct):
    country: str = ""


read_event = msgspec.json.Decoder(Event).decode
_read_player = msgspec.json.Decoder(_OfPlayer).decode
_read_registration = msgspec.json.Decoder(_Registered).decode


class Choice:
    """
    `players` by their suffixes; None: whoever. `types` are exact, or end in `*`; none: any.

    `transactions` are the suffixes of the players' transactions, tickets and the like that came by.
    """

    def __init__(
        self, players: Collection[str] | None, types: Sequence[str], transactions: Collection[str] = ()
    ) -> None:
        self._players = None if players is None else frozenset(players)
        self._types = types
        self.transactions = set(transactions)

    def wants(self, event: Event) -> bool:
        """Every entry from the first on is to be asked about, in order."""
        concerns = self._players is None or self._concerns(event, self._players)
        return concerns and (not self._types or any(fnmatchcase(event.type, pattern) for pattern in self._types))

    def is_whole(self, stream: str) -> bool:
        """Whether all events of a stream are chosen if one is."""
        return not self._types and not stream.startswith("region-")

    def _concerns(self, event: Event, players: frozenset[str]) -> bool:
        suffix = event.stream[-_SUFFIX_CHARACTERS:]
        if suffix in players or suffix in self.transactions:
            return True
        if event.stream.startswith("region-"):
            return any(found.decode() in players for found in _PLAYER.findall(event.data))
        if not event.stream.startswith(_CHILDREN):
            return False
        player = _read_player(event.data).player.removeprefix("player_") if b'"player"' in bytes(event.data) else None
        if player in players:
            self.transactions.add(suffix)
        return player in players


def person(stream: str) -> str | None:
    """The suffix of the player whom a stream belongs to, if its name tells."""
    aggregate, _, suffix = stream.partition("-")
    return suffix if aggregate in _PERSONS else None


def registered_in(event: Event, country: str) -> str | None:
    """The suffix of the player who is registered here in that country."""
    if event.type != "player.registered" or _read_registration(event.data).country != country:
        return None
    return person(event.stream)


def check(player: str | None, jurisdiction: str | None, types: Sequence[str]) -> None:
    """Raises ExportStopped for what cannot be chosen."""
    try:
        if player is not None:
            parse_id("player", player)
    except InvalidId:
        raise ExportStopped(f"{player!r} is no player's id, player_…") from None
    if jurisdiction is not None and not _COUNTRY.fullmatch(jurisdiction):
        raise ExportStopped(f"{jurisdiction!r} is no country of ISO 3166-1, such as GB")
    for each in types:
        if not _TYPE.fullmatch(each):
            raise ExportStopped(
                f"{each!r} is no event's tag, such as wallet.credited, nor the beginning of one, wallet.*"
            )
