"""
Sealing: what of an event is personal is stored only under its player's own data key.

Invariant: an event with a personal field in the clear is never encoded; without the key there is no event.
"""

from __future__ import annotations

import os
from functools import cache

import msgspec

from domain.errors import Conflict
from domain.kernel import Event, personal_fields
from eventstore.vault import DataKey

personal = cache(personal_fields)
"""The names of the personal fields of a kind of event."""


class KeyNotHeld(Conflict):
    code = "key_not_held"
    title = "The player's data key is not held here, or was destroyed: nothing personal can be recorded"


def seal(event: Event, key: DataKey | None, event_id: str) -> Event:
    """The event with its personal fields sealed. Raises KeyNotHeld rather than let one be stored in the clear."""
    clear = {name: value for name in personal(type(event)) if isinstance(value := getattr(event, name), str)}
    if not clear:
        return event
    if key is None:
        raise KeyNotHeld
    sealed = {
        name: key.seal(text, event_id=event_id, path=f"data.{name}", nonce=os.urandom(12))
        for name, text in clear.items()
    }
    return msgspec.structs.replace(event, **sealed)
