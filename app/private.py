"""
Whether a file of secrets can be read or written by anybody but its owner.

Invariant: what nobody else reaches is private, however it got so: by its own mode, or by that of a folder above it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_CLASSES = ((stat.S_IRGRP | stat.S_IWGRP, stat.S_IXGRP), (stat.S_IROTH | stat.S_IWOTH, stat.S_IXOTH))
"""For the group and for all others: what opens a file or a folder, and what leads through a folder."""


def exposed(paths: Iterable[Path]) -> list[Path]:
    """Which of the files and folders others can open, and those within the folders. What is not there is not exposed."""
    found = [each for path in paths if path.exists() for each in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [path for path in found if path.is_file() and _is_exposed(path.resolve())]


def secrets_named_in(file: Path) -> list[Path]:
    """The files that a JSON file names as secrets, by keys called `secret…` or `…secret…`; paths are relative to it. Whether it says what it
    should is for whoever reads it.
    """
    try:
        told = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError):
        return []
    return [path for name in _secret_names(told, secret=False) if (path := file.parent / name).is_file()]


def _secret_names(told: object, *, secret: bool) -> Iterator[str]:
    match told:
        case str() if secret and "\x00" not in told:
            yield told
        case dict():
            for key, value in told.items():
                yield from _secret_names(value, secret=secret or "secret" in key)
        case list():
            for value in told:
                yield from _secret_names(value, secret=secret)


def _is_exposed(path: Path) -> bool:
    mode, above = path.stat().st_mode, [folder.stat().st_mode for folder in path.parents]
    return any(mode & opens and all(folder & through for folder in above) for opens, through in _CLASSES)
