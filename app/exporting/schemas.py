"""
What each event says: a JSON Schema of its data, with a description, from the struct that writes and reads it.

Invariant: a personal field is described as it is stored, sealed.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from domain.catalog import AGGREGATES
from domain.kernel import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SEALED = (
    "Personal, and sealed: AES-256-GCM under the player's own data key, which is not in the log. `sealed` is the unpadded "
    "base64url of nonce (12 bytes), ciphertext and tag (16); `key` is the id of the data key."
)
_REFERENCE = {"$ref": "#/$defs/Sealed"}
_UNKNOWN = "An event of a later release, which the program that made this export does not know."


def schema_of(tag: str) -> dict[str, Any]:
    """A JSON Schema with the tag as its title."""
    event = next((each.events[tag] for each in AGGREGATES if tag in each.events), None)
    if event is None:
        return {"$schema": DIALECT, "title": tag, "description": _UNKNOWN, "type": "object"}
    whole = _as_stored(msgspec.json.schema(event))
    definitions: dict[str, Any] = whole["$defs"]
    own = definitions.pop(whole["$ref"].rpartition("/")[2])
    own |= {"title": tag, "description": describe(event)}
    return {"$schema": DIALECT, **own, **({"$defs": definitions} if definitions else {})}


def _as_stored(part: Any) -> Any:
    """The schema without what no stored event has beside `Sealed`: text in the clear, or null."""
    if isinstance(part, list):
        return [_as_stored(each) for each in part]
    if not isinstance(part, dict):
        return part
    stored = {name: _as_stored(each) for name, each in part.items()}
    options = stored.get("anyOf", ())
    if _REFERENCE in options:
        return {**_REFERENCE, "description": _SEALED}
    return next((each for each in options if each.get("description") == _SEALED), stored)


def describe(event: type[Event]) -> str:
    """What an event means: its own docstring. Empty where there is none."""
    return cleandoc(event.__dict__.get("__doc__") or "")
