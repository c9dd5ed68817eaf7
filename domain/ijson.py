"""
Text that may stand in the log: RFC 7493 (I-JSON), section 2.1, forbids surrogates and noncharacters, and PostgreSQL keeps no NUL.
A log that held one of them could never be verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from domain.kernel import AMOUNT_MAX

_NONCHARACTER = re.compile(
    "[\x00\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


_LONG = re.compile(rb"[0-9]{16}")


class NotText(ValueError):
    """Says what a text holds that cannot be kept."""


class NotExact(ValueError):
    """Says which integer JSON does not carry exactly (RFC 7493, 2.2): beyond ± (2⁵³ - 1)."""


def require_exact(raw: bytes | msgspec.Raw) -> None:
    """Look at every integer of a JSON text. Raises NotExact."""
    if _LONG.search(raw):
        for number in _integers(msgspec.json.decode(raw)):
            if not -AMOUNT_MAX <= number <= AMOUNT_MAX:
                raise NotExact(f"the integer {number}, which cannot be kept")


def exact(value: Any) -> Any:
    """The same, with no integer beyond what JSON carries exactly: a sum may be more than any one amount."""
    if isinstance(value, dict):
        return {name: exact(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(exact(each) for each in value)
    return max(-AMOUNT_MAX, min(AMOUNT_MAX, value)) if type(value) is int else value


def _integers(value: Any) -> Iterator[int]:
    match value:
        case bool():
            return
        case int():
            yield value
        case list():
            for item in value:
                yield from _integers(item)
        case dict():
            for item in value.values():
                yield from _integers(item)


def require_text(raw: bytes) -> None:
    """Look at every string and name of a JSON text. Raises NotText; msgspec.DecodeError for what is no JSON."""
    if raw.isascii() and b"\\u" not in raw:
        return
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise NotText("bytes that are not UTF-8") from None
    meant = "".join(_strings(msgspec.json.decode(text)))  # escapes included
    if found := _NONCHARACTER.search(meant):
        raise NotText(f"the character U+{ord(found[0]):04X}, which cannot be kept")


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for name, item in value.items():
                yield name
                yield from _strings(item)
