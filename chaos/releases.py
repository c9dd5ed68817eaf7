"""
Two releases of the product at once, and the way from one to the other under load.

A region may run an older release: its processes run the code of an earlier commit, on a database that this commit has migrated. It is
upgraded while the load runs: the database first, then one process after another, as an operator does it.

    migrate   all migrations are run again, and the region is opened again, which changes nothing
    upgrade   the region that runs an older release gets this one

Invariant: an older release is a commit's own files, in a folder of their own; nothing of this checkout is changed or used.
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.bootstrap import MIGRATIONS, open_region
from app.local import PROCESSES
from chaos.schedule import UPGRADE, LeftOut, NotCarriedOut
from eventstore import schema

if TYPE_CHECKING:
    from chaos.schedule import Step
    from chaos.site import Site

PRODUCT = (
    *(
        "access",
        "app",
        "commands",
        "console",
        "domain",
        "eventstore",
        "policies",
        "projections",
        "providers",
        "queries",
    ),
    *("reactions", "registers", "replay", "replication", "verifier"),
)
"""The folders of a checkout that a region runs from."""
_HERE = Path(__file__).parent.parent
_BACK_MAX = 20  # commits that are looked at for one that differs


class NoOlderRelease(LeftOut):
    """There is no earlier commit whose product is another; the message says why."""


class Release(NamedTuple):
    """A commit, checked out in a folder."""

    commit: str
    folder: Path


def older(folder: Path, revision: str | None = None, *, repository: Path = _HERE) -> Release:
    """
    Check out `revision`, or the newest commit whose product differs from these files, into a new folder.

    Raises NoOlderRelease: where this is no clone, or one without its history.
    """
    commit = _resolved(repository, revision) if revision else _newest_other(repository)
    there = folder / commit
    there.mkdir(parents=True)
    archive = _git(repository, "archive", "--format=tar", commit, "--", *_folders(repository, commit))
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(there, filter="data")
    return Release(commit, there)


def differs(repository: Path, commit: str) -> bool:
    """Whether the product of a commit is another than that of these files."""
    changed = subprocess.run(
        ["git", "diff", "--quiet", commit, "--", *PRODUCT], cwd=repository, capture_output=True, check=False
    )
    return changed.returncode == 1


def _newest_other(repository: Path) -> str:
    commits = _git(repository, "rev-list", f"--max-count={_BACK_MAX}", "HEAD").decode().split()
    for commit in commits:
        if differs(repository, commit):
            return commit
    raise NoOlderRelease(f"none of the {len(commits)} newest commits that are here has another product")


def _resolved(repository: Path, revision: str) -> str:
    return _git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()


def _folders(repository: Path, commit: str) -> list[str]:
    """The product's folders, of those that the commit had."""
    had = set(_git(repository, "ls-tree", "--name-only", "-d", commit).decode().split())
    return [folder for folder in PRODUCT if folder in had]


def _git(repository: Path, *words: str) -> bytes:
    """Raises NoOlderRelease."""
    try:
        return subprocess.run(["git", *words], cwd=repository, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise NoOlderRelease("git is not installed") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise NoOlderRelease(f"git {words[0]} failed: {said or f'code {error.returncode}'}") from error


def faults() -> dict[str, Callable[[Site, Step], None]]:
    """What a run may do to a region's release, by name."""
    return {"migrate": _migrate, UPGRADE: _upgrade}


def _migrate(site: Site, step: Step) -> None:
    asyncio.run(open_region(site.local.settings[step.region]))


def _upgrade(site: Site, step: Step) -> None:
    """Let both releases serve for a while, then upgrade all regions that run the older one."""
    time.sleep(step.hold_s)
    for region in site.checkouts:
        applied = _upgraded(site, region)
        site.log(f"{region} runs this release now; its database got {', '.join(applied) or 'nothing new'}")
    if not site.checkouts:
        raise NotCarriedOut("every region runs this release")
    site.checkouts.clear()


def _upgraded(site: Site, region: str) -> list[str]:
    """Migrate the database while the older processes run; then let each end in its own way, and start as this release.

    Returns what was applied.
    """
    applied = schema.migrate(site.local.settings[region].postgres, MIGRATIONS)
    for roles in PROCESSES:
        role = "+".join(roles)
        keeper = site.local.stack.supervisor[region, role]
        keeper.program = replace(keeper.program, cwd=_HERE)
        site.restart(region, role)
    return applied
