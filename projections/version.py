"""
Which code made a read model: the program's version, and a hash over what decides how events become state.

Two programs with equal `CODE` make equal read models of equal logs.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Final

PACKAGES: Final = ("domain", "policies", "projections")
_DIGITS = 12


def code(root: Path, program: str) -> str:
    """`<program>+<12 hex of SHA-256>` over each `*.py` and `*.csv` of the packages below `root`, as `<path> NUL <bytes> NUL`, by path."""
    digest = hashlib.sha256()
    files = {
        file.relative_to(root).as_posix(): file
        for package in PACKAGES
        for pattern in ("*.py", "*.csv")
        for file in (root / package).rglob(pattern)
    }
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + files[path].read_bytes() + b"\0")
    return f"{program}+{digest.hexdigest()[:_DIGITS]}"


CODE: Final = code(Path(__file__).parents[1], metadata.version("countroom"))
"""Of this process."""
