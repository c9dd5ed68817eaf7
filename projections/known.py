"""
What is known of a player beside the state that decides: shown on the card, folded from events alone.

Invariants:
    - a personal field stands as its event sealed it, together with that event's id, without which it does not open;
    - of a player who was erased none is left, nor what else they could be known by, such as what they call their telephone.
"""

from __future__ import annotations

import msgspec

from domain.kernel import Event, PlayerId, Sealed, personal_fields
from domain.players import Closed, DuplicatesFound, Erased, ProfileRecorded

_PERSONAL = personal_fields(ProfileRecorded)
_CLEAR = ("language", "acquisition_source", "device", "address_country")


class Told(msgspec.Struct, frozen=True):
    """A sealed field, and the id of the event that holds it."""

    event: str
    sealed: Sealed


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """`personal`: what was recorded after the registration, and holds instead of what that said."""

    language: str = ""
    acquisition_source: str = ""
    device: str = ""
    address_country: str = ""
    close_reason: str | None = None
    duplicates: tuple[PlayerId, ...] = ()
    personal: dict[str, Told] = {}


NOTHING = Known()


def evolve(known: Known, event: Event, event_id: str) -> Known:
    match event:
        case ProfileRecorded():
            clear = {name: value for name in _CLEAR if (value := getattr(event, name))}
            told = {
                name: Told(event_id, value) for name in _PERSONAL if isinstance(value := getattr(event, name), Sealed)
            }
            return msgspec.structs.replace(known, **clear, personal={**known.personal, **told})
        case DuplicatesFound():
            return msgspec.structs.replace(known, duplicates=tuple(sorted({*known.duplicates, *event.players})))
        case Closed(reason):
            return msgspec.structs.replace(known, close_reason=reason)
        case Erased():
            return msgspec.structs.replace(forgotten(known), personal={})
        case _:
            return known


def forgotten(known: Known) -> Known:
    """What is shown of it once the player was erased; `personal` does not open any more."""
    return msgspec.structs.replace(known, **dict.fromkeys(_CLEAR, ""))
