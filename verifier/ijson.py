"""
Reads I-JSON (RFC 7493), and refuses what two readers could understand differently: duplicate keys, numbers that are
not exact everywhere, half characters.

Invariant: the answer depends on the bytes alone, never on Python's recursion limit or the caller's stack.
"""

import json
import re
from typing import Any, Never

from verifier.faults import Broken, Reason, quoted

INTEGER_MAX = 2**53 - 1  # RFC 7493, section 2.2
DEPTH_MAX = 100  # RFC 8259, section 9, lets a reader set a limit; one below every reader's own makes it definite

# Surrogates and noncharacters, which RFC 7493, section 2.1, forbids in keys and values.
FORBIDDEN = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)

# A string (to the end of the text if it is not closed, so that the search stays linear) or a bracket.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)


def read(text: bytes) -> dict[str, Any]:
    """The object that `text` writes. Raises Broken, with the first of the BODY_ reasons that applies."""
    try:
        characters = text.decode()
    except UnicodeDecodeError as error:
        raise Broken(Reason.BODY_NOT_UTF8, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    if _depth(characters) > DEPTH_MAX:
        raise Broken(Reason.BODY_TOO_DEEP, f"the body is nested deeper than {DEPTH_MAX} levels")
    try:
        value = _DECODER.decode(characters)
    except json.JSONDecodeError as error:
        raise Broken(Reason.BODY_NOT_JSON, f"the body is not JSON: {error.msg} at character {error.pos}") from None
    _refuse_forbidden_characters(value)
    if not isinstance(value, dict):
        raise Broken(Reason.BODY_NOT_OBJECT, "the body is JSON, but not an object")
    return value


def _depth(characters: str) -> int:
    """How deep the brackets outside strings nest; exact for JSON, some number for anything else."""
    depth = deepest = 0
    for piece in _STRING_OR_BRACKET.findall(characters):
        if piece in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif piece in "]}":
            depth -= 1
    return deepest


def _refuse_forbidden_characters(value: object) -> None:
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            if found := FORBIDDEN.search(item):
                raise Broken(
                    Reason.BODY_NOT_UNICODE,
                    f"a string of the body holds the surrogate or noncharacter U+{ord(found.group()):04X}",
                )
        elif isinstance(item, dict):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, member in pairs:
        if key in value:
            raise Broken(Reason.BODY_DUPLICATE_KEY, f"the key {quoted(key)} stands twice in one object of the body")
        value[key] = member
    return value


def _integer(digits: str) -> int:
    # The length first: Python refuses to convert thousands of digits.
    if len(digits) > len(str(-INTEGER_MAX)) or not -INTEGER_MAX <= (number := int(digits)) <= INTEGER_MAX:
        raise Broken(
            Reason.BODY_INTEGER_OUT_OF_RANGE, f"the body holds the integer {quoted(digits)}, beyond 2^53 - 1 either way"
        )
    return number


def _refuse_float(digits: str) -> Never:
    raise Broken(Reason.BODY_FLOAT, f"the body holds {quoted(digits)}, which is not written as an integer")


def _refuse_constant(name: str) -> Never:
    # Python reads NaN and Infinity, which JSON does not have.
    raise Broken(Reason.BODY_NOT_JSON, f"the body is not JSON: it holds {name}")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_refuse_float, parse_constant=_refuse_constant
)
