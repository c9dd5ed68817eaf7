"""
Who our providers are: a JSON file that the settings name.

    [{"name": "acme", "url": "https://psp.example/payouts", "secret": "/etc/countroom/acme.secret", "speaks": ["payments"]}]

`secret` is a file with at least 16 bytes in hex, the same on both sides. `url` may be missing: then the provider only calls us.
`speaks`: of what it may tell us, `payments` (if it says nothing, of those) or `kyc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from providers.signing import SECRET_BYTES_MIN

_Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]


class ProvidersUnreadable(Exception):
    """The file of providers, or one of their secrets, does not say what it should."""


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    secret: str
    url: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
    speaks: frozenset[Literal["payments", "kyc"]] = frozenset({"payments"})


class Known(msgspec.Struct, frozen=True):
    """A provider. `url`: where payouts are posted. `speaks`: of what it may tell us."""

    name: str
    secret: bytes
    url: str | None
    speaks: frozenset[str] = frozenset({"payments"})

    def __repr__(self) -> str:
        return f"Known({self.name})"


def load(file: Path | None) -> Mapping[str, Known]:
    """By name; nobody without a file. A secret's path is relative to the file. Raises ProvidersUnreadable."""
    if file is None:
        return {}
    try:
        lines = msgspec.json.decode(file.read_bytes(), type=list[_Line])
    except (OSError, msgspec.DecodeError) as error:
        raise ProvidersUnreadable(f"{file}: {error}") from error
    known = {line.name: Known(line.name, _secret(file.parent / line.secret), line.url, line.speaks) for line in lines}
    if len(known) != len(lines):
        raise ProvidersUnreadable(f"{file}: two providers have the same name")
    return known


def _secret(file: Path) -> bytes:
    try:
        secret = bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise ProvidersUnreadable(f"{file}: {error}") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise ProvidersUnreadable(f"{file}: a secret has at least {SECRET_BYTES_MIN} bytes, in hex")
    return secret
