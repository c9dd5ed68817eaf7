"""Small files that hold secrets or state: written whole or not at all, readable by their owner only."""

import os
import secrets
from pathlib import Path


def private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace path by text, mode 0600. A reader sees the old file or the new one, never a part."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def secret(path: Path) -> str:
    """The password in this file, made up at the first call. URL-safe, so that it can stand in a DSN as it is."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def wheel_folder(package: str) -> Path | None:
    """Where a package is installed, without importing it (some of the server wheels do work at import)."""
    from importlib.util import find_spec

    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])
