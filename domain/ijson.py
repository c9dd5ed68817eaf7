"""
Text that may stand in the log: RFC 7493 (I-JSON), section 2.1, forbids surrogates and noncharacters, and PostgreSQL keeps no NUL.
A log that held one of them could never be verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

_NONCHARACTER = re.compile(
    "[\x00\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


class NotText(ValueError):
    """Says what a text holds that cannot be kept."""


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
