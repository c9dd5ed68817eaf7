"""
A player, from logs alone: every entry that concerns them, and the account that follows as of any moment.

What concerns a player stands on streams of the player's partition of which an entry names the player (the player's own, and
those of payments and tickets), and on region streams, where somebody looked at them or was given their keys.

Invariants:
    - entries may come log after log, in any order of the logs;
    - an entry that does not count is kept, shown as stranded, and never folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from domain.catalog import aggregate_of
from domain.kernel import Event, PlayerId, TransactionId, parse_id, partition_of
from domain.limits import HeadroomConsumed
from domain.safeguards import SAFEGUARDS
from domain.wallets import Credited, Reserved, Transfer
from eventstore.record import Body, Codec, Entry, Recorded, UnknownEvent, decode_body
from queries import history
from queries.history import Account
from replay.moment import END, Moment
from replay.ownership import Ownership


class Concerned(NamedTuple):
    """An entry that concerns the player. `counts`: whether it is part of any state."""

    entry: Entry
    body: Body
    counts: bool

    def covered_by(self, moment: Moment) -> bool:
        return moment.covers(self.entry.log, self.entry.position, self.entry.recorded)


def judged(entry: Entry, ownership: Ownership) -> Concerned:
    """Any entry. Raises Unreadable for a body that is none."""
    body = _body(entry)
    return Concerned(entry, body, ownership.counts(entry.log, entry.position, body))


class Incomplete(Exception):
    """Events of a stream are missing, as in an export of chosen types or from a position on: no state follows."""


class Unreadable(Exception):
    """An entry that counts is of a kind that this release does not know: no state follows."""


class Story:
    """Takes in entries, all of those that a log has, and remembers those that concern one player."""

    def __init__(self, player: PlayerId, ownership: Ownership) -> None:
        """Raises InvalidId."""
        self.player = player
        self._suffix = parse_id("player", player)
        self._name = self._suffix.encode()
        self._partition = partition_of(self._suffix)
        self._ownership = ownership
        self._found: list[Concerned] = []
        self._streams: set[str] = set()

    def take(self, entry: Entry) -> Concerned | None:
        """What concerns the player as far as that is known already. Raises Unreadable for a body that is none."""
        body = _body(entry)
        if body.partition not in (None, self._partition):
            return None
        names_player = self._name in entry.body
        if body.partition is None:
            if not names_player:
                return None
        elif names_player:
            self._streams.add(body.stream)
        counts = self._ownership.counts(entry.log, entry.position, body)
        found = Concerned(entry, body, counts)
        self._found.append(found)
        return found if self._concerns(found) else None

    def _concerns(self, found: Concerned) -> bool:
        return found.body.partition is None or found.body.stream in self._streams

    def concerned(self, after: Moment | None = None, upto: Moment = END) -> list[Concerned]:
        """What concerns the player in order of time, up to a moment, and not by an earlier one."""
        return sorted(
            (
                found
                for found in self._found
                if self._concerns(found)
                and found.covered_by(upto)
                and not (after is not None and found.covered_by(after))
            ),
            key=lambda found: (found.entry.recorded, found.entry.log, found.entry.position),
        )

    def account(self, codec: Codec, moment: Moment = END) -> Account:
        """The account as of a moment, without a list of events. Raises Unreadable, Incomplete."""
        events = list(self._events(codec, self.concerned(upto=moment)))
        folded = history.account(events)
        if folded.versions and folded.registered_at is None:
            raise Incomplete(f"the registration of {self.player} is missing, though not what followed it")
        for recorded in events:
            if (payment := _payment_of(recorded.event)) is not None and payment not in folded.transactions:
                raise Incomplete(f"{payment} is missing, of which {recorded.log}/{recorded.position} tells")
        return msgspec.structs.replace(folded, events=())

    def _events(self, codec: Codec, concerned: Iterable[Concerned]) -> Iterator[Recorded]:
        """Those of the player's own streams, and of the payments and tickets that are theirs: stream by stream, by version."""
        streams: dict[str, list[Concerned]] = {}
        for found in concerned:
            if found.counts and (found.body.partition is not None or self._is_safeguard(found.body)):
                streams.setdefault(found.body.stream, []).append(found)
        for name, stream in streams.items():
            stream.sort(key=lambda found: found.body.version)  # it may go on in another log
            if name.endswith(self._suffix) or self._begins_with_player(stream[0]):
                yield from self._decoded(codec, name, stream)

    def _is_safeguard(self, body: Body) -> bool:
        """Of the player, recorded by a region that did not own them."""
        return aggregate_of(body.stream) is SAFEGUARDS and body.stream.endswith(self._suffix)

    def _begins_with_player(self, first: Concerned) -> bool:
        return first.body.version == 1 and _player_of(first.body) == self.player

    @staticmethod
    def _decoded(codec: Codec, name: str, stream: Iterable[Concerned]) -> Iterator[Recorded]:
        for due, (entry, body, _) in enumerate(stream, 1):
            if body.version != due:
                raise Incomplete(
                    f"version {due} of {name} is missing: version {body.version} stands at {entry.log}/{entry.position}"
                )
            try:
                yield codec.decode(entry)
            except (UnknownEvent, msgspec.MsgspecError) as error:
                raise Unreadable(str(error)) from None


def _body(entry: Entry) -> Body:
    try:
        return decode_body(entry.body)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"{entry.log}/{entry.position}: {error}") from None


def _payment_of(event: Event) -> TransactionId | None:
    """The transaction that must be there because an event on another stream is part of it."""
    match event:
        case HeadroomConsumed(transaction=transaction):
            return transaction
        case Credited(transfer=Transfer(code="deposit" | "deposit_history", transaction=transaction)):
            return transaction
        case Reserved(transfer=Transfer(code="withdrawal", transaction=transaction)):
            return transaction
    return None


class _Owner(msgspec.Struct):
    player: str = ""


def _player_of(body: Body) -> str:
    try:
        return msgspec.json.decode(body.data, type=_Owner).player
    except msgspec.MsgspecError:
        return ""
