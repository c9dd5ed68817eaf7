"""
The library that is preloaded into a region's processes (shim.c), and what is asked of it: for each region and role, a file of its own.

Without a C compiler there is none, and the faults that need it are left out.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from chaos.schedule import LeftOut, NotCarriedOut
from devstack import launch

_SOURCE = Path(__file__).with_name("shim.c")
_FIELDS = ("clock_ns", "eio", "stalled", "full", "eio_given", "waiting", "full_given", "clock_asked")
_SIZE = 8 * len(_FIELDS)
_STATIC = ("nats",)  # statically linked: nothing can be preloaded

Field = Literal["clock_ns", "eio", "stalled", "full", "eio_given", "waiting", "full_given", "clock_asked"]


class NoShim(LeftOut):
    """There is no C compiler here, so nothing can be preloaded."""


class Shim:
    """What is asked of the processes of all regions. Whoever asks for something takes it back."""

    def __init__(self, library: Path | None, folder: Path) -> None:
        self._library = library
        self._folder = folder
        self._maps: dict[tuple[str, str], mmap.mmap] = {}

    @property
    def is_there(self) -> bool:
        return self._library is not None

    def environment(self, region: str, role: str) -> Mapping[str, str]:
        """What a process needs so that the library is in it: for devstack's `added`."""
        if self._library is None or role in _STATIC:
            return {}
        return {"LD_PRELOAD": str(self._library), "CHAOS_SHIM": str(self._control(region, role))}

    def set(self, region: str, roles: Sequence[str], field: Field, value: int) -> None:
        """Raises NoShim."""
        if self._library is None:
            raise NoShim("there is no C compiler (cc) to build what is preloaded")
        for role in roles:
            self._put(region, role, field, value)

    @contextmanager
    def asked(self, region: str, roles: Sequence[str], field: Field, value: int = 1) -> Iterator[None]:
        """Raises NoShim."""
        self.set(region, roles, field, value)
        try:
            yield
        finally:
            self.set(region, roles, field, 0)

    def get(self, region: str, role: str, field: Field) -> int:
        there = self._maps[region, role]
        found: int = struct.unpack_from("=q", there, 8 * _FIELDS.index(field))[0]
        return found

    def reset(self) -> None:
        """Take back whatever is asked for."""
        for region, role in self._maps:
            for field in _FIELDS[:4]:
                self._put(region, role, field, 0)

    def close(self) -> None:
        for there in self._maps.values():
            there.close()
        self._maps.clear()

    def _put(self, region: str, role: str, field: str, value: int) -> None:
        struct.pack_into("=q", self._maps[region, role], 8 * _FIELDS.index(field), value)

    def _control(self, region: str, role: str) -> Path:
        path = self._folder / f"{region}.{role}"
        if (region, role) not in self._maps:
            path.write_bytes(bytes(_SIZE))
            if role == "postgres" and launch.server_identity() == "setuid":
                os.chown(path, launch.NOBODY, launch.NOBODY)
            with path.open("r+b") as file:
                self._maps[region, role] = mmap.mmap(file.fileno(), _SIZE)
        return path


@contextmanager
def built() -> Iterator[Shim]:
    """The shim, in a folder that every user of the machine may read: PostgreSQL may run as another one."""
    compiler = shutil.which("cc")
    with tempfile.TemporaryDirectory(prefix="countroom-shim-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        library = folder / "shim.so" if compiler else None
        if compiler and library:
            command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
            subprocess.run(command, check=True)
            library.chmod(0o755)
        shim = Shim(library, folder)
        try:
            yield shim
        finally:
            shim.close()


def wait(holds: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Raises NotCarriedOut."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise NotCarriedOut(f"{what} was not seen within {timeout_s:g} s")
        time.sleep(0.01)
