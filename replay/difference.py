"""
What two states have not in common, field by field.

Invariant: two states differ in no field if and only if they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

_NAMES = ("id", "account", "player", "day", "currency")


class Change(NamedTuple):
    """`field` is a dotted path. Of what only one of the states has, the other side is None."""

    field: str
    before: Any
    after: Any


def changes(before: Any, after: Any) -> list[Change]:
    """Of two values of the same kind (structs, or what JSON has), in the order of their fields."""
    return list(_compared("", msgspec.to_builtins(before), msgspec.to_builtins(after)))


def _compared(path: str, before: Any, after: Any) -> Iterator[Change]:
    one, other = _parts(before), _parts(after)
    if one is None or other is None:
        if before != after:
            yield Change(path, before, after)
        return
    for name in dict.fromkeys((*one, *other)):
        yield from _compared(f"{path}.{name}" if path else name, one.get(name), other.get(name))


def _parts(value: Any) -> Mapping[str, Any] | None:
    """What a value consists of, by names; an item of a list is named by what it is of, not by where it stands."""
    if isinstance(value, Mapping):
        return {str(name): part for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {_name(part, place): part for place, part in enumerate(value)}
    return None


def _name(part: Any, place: int) -> str:
    if isinstance(part, Mapping):
        names = [str(part[key]) for key in _NAMES if isinstance(part.get(key), str)]
        if names:
            return " ".join(names[:2])
    return str(place)
