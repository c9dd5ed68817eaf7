"""
What people wrote, in read models: sealed as the event holds it. Queries open it for whoever may read it (queries/words.py).

Invariant: no text of people stands in a read model in the clear.
"""

from __future__ import annotations

from functools import cache
from operator import attrgetter

import msgspec

from domain.kernel import Event, Sealed, personal_fields
from eventstore.record import Recorded

_fields = cache(personal_fields)
_encode = msgspec.json.Encoder(order="deterministic").encode


class Words(msgspec.Struct, frozen=True):
    """The sealed fields of `event` (its id), by their dotted path in the body. A column holds it as JSON."""

    event: str
    sealed: dict[str, Sealed]


def words(recorded: Recorded) -> str | None:
    """The column of an event, None if nobody said anything."""
    event: Event = recorded.event
    found = {f"data.{path}": value for path in _fields(type(event)) if (value := attrgetter(path)(event)) is not None}
    return _encode(Words(recorded.body.id, found)).decode() if found else None
