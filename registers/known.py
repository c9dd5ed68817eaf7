"""
Which registers this house may ask: a JSON file that the settings name.

    [{"register": "CRUKS", "url": "https://register.example/ask", "secret": "/etc/countroom/cruks.secret"}]

`register` is the name in rules.csv (`self_exclusion.register`). `jurisdictions`: further ones that it is asked for, which is for
those whose register no row names. `secret` is a file with at least 16 bytes in hex, the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from providers.signing import SECRET_BYTES_MIN


class RegistersUnreadable(Exception):
    """The file of registers, or one of their secrets, does not say what it should."""


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    register: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    url: Annotated[str, msgspec.Meta(pattern="^https?://")]
    secret: str
    jurisdictions: frozenset[str] = frozenset()


class Known(msgspec.Struct, frozen=True):
    """A register. `url`: where it is asked."""

    register: str
    secret: bytes
    url: str
    jurisdictions: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Known({self.register})"


def load(file: Path | None) -> Mapping[str, Known] | None:
    """By name; None without a file. A secret's path is relative to the file. Raises RegistersUnreadable."""
    if file is None:
        return None
    try:
        lines = msgspec.json.decode(file.read_bytes(), type=list[_Line])
    except (OSError, msgspec.DecodeError) as error:
        raise RegistersUnreadable(f"{file}: {error}") from error
    known = {
        line.register: Known(line.register, _secret(file.parent / line.secret), line.url, line.jurisdictions)
        for line in lines
    }
    if len(known) != len(lines):
        raise RegistersUnreadable(f"{file}: two registers have the same name")
    return known


def _secret(file: Path) -> bytes:
    try:
        secret = bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise RegistersUnreadable(f"{file}: {error}") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise RegistersUnreadable(f"{file}: a secret has at least {SECRET_BYTES_MIN} bytes, in hex")
    return secret
