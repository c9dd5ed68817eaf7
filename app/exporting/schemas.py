"""
What each event says: a JSON Schema of its data, with a description, from the struct that writes and reads it.

Invariant: a personal field is described as it is stored, sealed.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from domain.catalog import AGGREGATES
from domain.kernel import Event, personal_fields

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SEALED = (
    "Personal, and sealed: AES-256-GCM under the player's own data key, which is not in the log. `sealed` is the unpadded "
    "base64url of nonce (12 bytes), ciphertext and tag (16); `key` is the id of the data key."
)
_UNKNOWN = "An event of a later release, which the program that made this export does not know."


def schema_of(tag: str) -> dict[str, Any]:
    """A JSON Schema with the tag as its title."""
    event = next((each.events[tag] for each in AGGREGATES if tag in each.events), None)
    if event is None:
        return {"$schema": DIALECT, "title": tag, "description": _UNKNOWN, "type": "object"}
    whole = msgspec.json.schema(event)
    definitions: dict[str, Any] = whole["$defs"]
    own = definitions.pop(whole["$ref"].rpartition("/")[2])
    for name in personal_fields(event):
        own["properties"][name] = {"$ref": "#/$defs/Sealed", "description": _SEALED}
    own |= {"title": tag, "description": describe(event)}
    return {"$schema": DIALECT, **own, **({"$defs": definitions} if definitions else {})}


def describe(event: type[Event]) -> str:
    """What an event means: its own docstring. Empty where there is none."""
    return cleandoc(event.__dict__.get("__doc__") or "")
