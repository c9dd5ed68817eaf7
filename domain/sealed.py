"""
What is recorded inside a compartment (domain/compartments.py). Each thing is an entry on a stream of its own, `sealed-<suffix>`,
that has nothing to do with the player whom it concerns: neither suffix, nor partition, nor a version that others see.

The log shows that something was recorded in this compartment, and when. What, of whom, and by whom is sealed as one text under
the compartment's key, which is no player's: a player's erasure leaves it as it is.

Invariants:
    - nothing of what is inside stands outside: also the kind of it, and who wrote it, is sealed;
    - an entry is as long as all others, or longer by whole steps of LENGTH bytes;
    - reading is recorded just as writing is, and cannot be told from it.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec

from domain.kernel import STREAMS_CACHED, Aggregate, Event, Personal, PlayerId, Stream, parse_id

LENGTH = 4096
"""Bytes: what is sealed is filled up with blanks to a multiple of it."""

# Events: the tags and fields are the storage format.


class Recorded(Event, frozen=True, tag="sealed.recorded"):
    """Something inside a compartment: `payload` is the JSON text of a Secret, sealed under the compartment's key."""

    compartment: str
    payload: Personal


class CaseNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="case_note.written"):
    """A note on a player. `actor`: who wrote it; `person`: who is behind them."""

    actor: str
    person: str
    player: PlayerId
    text: str


class CaseRead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="case_note.read"):
    """Somebody was let see what there is on a player. `what`: notes or reads."""

    actor: str
    person: str
    player: PlayerId
    what: str


Secret = CaseNote | CaseRead
"""What an entry holds, by its `type`. The tags and fields are the storage format, too."""


# State


class Inside(msgspec.Struct, frozen=True):
    """That there is something inside a compartment."""

    compartment: str = ""


def evolve(_inside: Inside, event: Recorded, _at: datetime) -> Inside:
    return Inside(event.compartment)


SEALED = Aggregate("sealed", initial=Inside(), evolve=evolve, events=[Recorded])
_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Secret] = msgspec.json.Decoder(Secret)


@lru_cache(STREAMS_CACHED)
def stream(entry: str) -> Stream[Inside]:
    return Stream(SEALED, parse_id("sealed", entry))


def closed(secret: Secret) -> str:
    """The text that is sealed, of whole LENGTHs."""
    text = _encode(secret)
    return (text + b" " * (-len(text) % LENGTH)).decode()


def opened(text: str) -> Secret:
    """What the text says. Raises msgspec.DecodeError."""
    return _decoder.decode(text)
