"""
The region's key in its file, and what lies beside it while it is being changed: FILE, FILE.next, FILE.old.

A rotation makes FILE.next, wraps every key anew, puts FILE.next in the place of FILE, and destroys what was there as FILE.old.
Whoever serves meanwhile sees both, because the files are looked at before each use.

Invariants:
    - FILE is there at every moment, and whole; whatever has gone wrong, it is never what is destroyed;
    - one process at a time changes it;
    - what was destroyed was overwritten before its name went away, and is held by no process that looks again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from eventstore.vault import RegionKey

_State = tuple[tuple[int, int], ...]


class KeyInUse(Exception):
    """The files are not to be touched now, and why."""


class Keyring:
    """The keys in the files. Raises what RegionKey.from_file raises, also later, when a file has changed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.next = file.with_name(file.name + ".next")
        self.old = file.with_name(file.name + ".old")
        self._held: Sequence[RegionKey] = ()
        self._state: _State = ()
        self.held()

    def held(self) -> Sequence[RegionKey]:
        """The region's key, then the next one if there is one."""
        state = self._look()
        if state != self._state:
            upcoming = []
            with suppress(FileNotFoundError):  # read first: it may take the other one's place just now
                upcoming.append(RegionKey.from_file(self.next))
            found = {key.id: key for key in (RegionKey.from_file(self.file), *upcoming)}
            self._held, self._state = tuple(found.values()), state
        return self._held

    def _look(self) -> _State:
        found = []
        for file in (self.file, self.next):
            try:
                status = file.stat()
            except FileNotFoundError:
                if file == self.file:
                    raise
            else:
                found.append((status.st_ino, status.st_mtime_ns))
        return tuple(found)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else on this machine changes the key meanwhile. Raises KeyInUse where somebody does."""
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise KeyInUse(f"another process is changing a key in {self.file.parent}") from None
            yield
        finally:
            os.close(folder)

    def prepare(self) -> RegionKey:
        """The next key, made unless it is there already."""
        if not self.next.exists():
            draft = self.next.with_name(self.next.name + ".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as writing:
                writing.write(secrets.token_hex(32))
                writing.flush()
                os.fsync(writing.fileno())
            draft.replace(self.next)
            self._sync()
        return RegionKey.from_file(self.next)

    def swap(self) -> None:
        """Put the next key in the place of the region's key, which is `old` from now on. Harmless when repeated."""
        if self.next.exists():
            if not self.old.exists():
                os.link(self.file, self.old)
                self._sync()
            self.next.replace(self.file)
            self._sync()

    def destroy(self) -> None:
        """Overwrite the old key and remove it. Harmless when repeated. Raises KeyInUse rather than destroy the region's key.

        A file system that writes elsewhere, an SSD and every backup may still have it: docs/how-to/rotate-keys.md.
        """
        if self.old.exists():
            if self.old.samefile(self.file):
                raise KeyInUse(
                    f"{self.old} is {self.file} itself, under another name: remove that name if it is all you want"
                )
            with self.old.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                for fill in (os.urandom(size), bytes(size)):
                    file.seek(0)
                    file.write(fill)
                    file.flush()
                    os.fsync(file.fileno())
            self.old.unlink()
            self._sync()

    def _sync(self) -> None:
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
