"""
Sets a checkout up on a machine that has only Python 3.11+, git and make: uv into .tools/, then the locked packages into .venv/.

Invariant: nothing outside the checkout is written (but the package cache of uv), and no right beyond the user's is needed.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
UV = HERE / ".tools" / "uv" / "bin" / "uv"
UV_VERSION = "0.13.9"
STAMP = HERE / ".venv" / ".countroom-lock"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 — this script is what finds out
        return stop(f"Python 3.11 or newer is needed; this is {platform.python_version()} ({sys.executable})")
    if not UV.exists() and (status := install_uv()):
        return status
    lock = (HERE / "uv.lock").read_text()
    wanted = "\n".join(
        [lock, (HERE / "pyproject.toml").read_text(), (HERE / "verifier" / "pyproject.toml").read_text()]
    )
    if STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    count, size = downloads(lock)
    say(f"installing {count} packages of uv.lock into .venv (at most {size / 1e6:.0f} MB to download)")
    began = time.monotonic()
    # Compiled now, once: a machine that forbids its Pythons to write bytecode would compile everything at each start.
    sync = [UV, "sync", "--frozen", "--quiet", "--compile-bytecode", "--python", sys.executable]
    if subprocess.run(sync, cwd=HERE, check=False).returncode:
        return stop("the packages could not be installed; is a package index reachable?")
    ours = [package.parent for package in HERE.glob("*/__init__.py")]
    subprocess.run([HERE / ".venv" / "bin" / "python", "-m", "compileall", "-qq", *ours], cwd=HERE, check=False)
    STAMP.write_text(wanted)
    say(f"set up in {time.monotonic() - began:.0f} s")
    return 0


def install_uv() -> int:
    say(f"installing uv {UV_VERSION} into .tools (about 20 MB to download)")
    folder = UV.parent.parent
    made = subprocess.run([sys.executable, "-m", "venv", folder], cwd=HERE, check=False, capture_output=True, text=True)
    if made.returncode:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return stop(
            "Python cannot make a virtual environment here. Install the system package that brings venv and pip: "
            f"python{version}-venv on Debian and Ubuntu, python3-pip on Fedora.\n{made.stdout}{made.stderr}".rstrip()
        )
    pip = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        f"uv=={UV_VERSION}",
    ]
    if subprocess.run(pip, cwd=HERE, check=False).returncode:
        return stop("uv could not be installed; is a package index reachable?")
    return 0


def downloads(lock: str) -> tuple[int, int]:
    """How many packages the lock names for this platform's install, and the sum of their smallest fitting wheels' bytes."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    count = size = 0
    for package in tomllib.loads(lock)["package"]:
        wheels = [w for w in package.get("wheels", ()) if fits(w["url"].rpartition("/")[2], tag)]
        if wheels:
            count += 1
            size += min(wheel.get("size", 0) for wheel in wheels)
    return count, size


def fits(wheel: str, tag: str) -> bool:
    python, abi, system = wheel.removesuffix(".whl").split("-")[-3:]
    right_python = tag in python or python.startswith("py3") or (abi == "abi3" and python <= tag) or "py2.py3" in python
    here = (
        platform.machine() if platform.system() == "Linux" else ("arm64" if platform.machine() == "arm64" else "x86_64")
    )
    kind = "linux" if platform.system() == "Linux" else "macosx"
    return right_python and (system == "any" or (kind in system and here in system and "musl" not in system))


def say(message: str) -> None:
    print(f"setup: {message}", file=sys.stderr, flush=True)


def stop(message: str) -> int:
    say(message)
    return 1


if __name__ == "__main__":
    sys.exit(main())
