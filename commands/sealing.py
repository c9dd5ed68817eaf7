"""
Sealing: what of an event is personal is stored only under its player's own data key.

Invariants:
    - an event with a personal field in the clear is never encoded; without the key there is no event;
    - only a remark is left out instead: what happened to money is recorded, also when nobody can be told what was said of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import msgspec

from domain.errors import Conflict
from domain.kernel import Event, Sealed, personal_fields
from eventstore.vault import DataKey


class KeyNotHeld(Conflict):
    code = "key_not_held"
    title = "The player's data key is not held here, or was destroyed: nothing personal can be recorded or read"


@cache
def personal(kind: type[Event]) -> Sequence[tuple[str, tuple[str, ...], bool]]:
    """Of the personal fields of a kind of event: the dotted path in the body, the names on it, and whether it may be left out."""
    remarks = personal_fields(kind, "dispensable")
    return [(f"data.{path}", tuple(path.split(".")), path in remarks) for path in personal_fields(kind)]


def seal(event: Event, key: DataKey | None, event_id: str) -> Event:
    """The event with its personal fields sealed. Raises KeyNotHeld rather than let one be stored in the clear."""
    for path, names, is_remark in personal(type(event)):
        without = _left_out if is_remark else _refused
        event = _replaced(event, names, without if key is None else partial(_sealed, key, event_id, path))
    return event


def sealed_under(event: Event) -> str | None:
    """The id of the data key under which something of the event is sealed; None where nothing is."""
    for _, names, _ in personal(type(event)):
        value: Any = event
        for name in names:
            value = getattr(value, name, None)
        if isinstance(value, Sealed):
            return value.key
    return None


def _sealed(key: DataKey, event_id: str, path: str, text: str) -> Sealed:
    return key.seal(text, event_id=event_id, path=path, nonce=os.urandom(12))


def _left_out(_text: str) -> None:
    return None


def _refused(_text: str) -> None:
    raise KeyNotHeld


def opened(event: Event, key: DataKey, event_id: str) -> Event:
    """The event as it was before it was sealed. Raises CannotOpen if a field was not sealed there with this key."""
    for path, names, _ in personal(type(event)):
        event = _replaced(event, names, partial(key.open, event_id=event_id, path=path), of=Sealed)
    return event


def _replaced(part: Any, names: Sequence[str], change: Callable[[Any], object], of: type = str) -> Any:
    """The struct with the field that the names lead to changed, if that holds a value of the type."""
    name, *further = names
    value = getattr(part, name)
    if further and value is not None:
        changed = _replaced(value, further, change, of)
    elif isinstance(value, of):
        changed = change(value)
    else:
        return part
    return part if changed is value else msgspec.structs.replace(part, **{name: changed})
