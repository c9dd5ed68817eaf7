"""
Two releases of the product at once, and the way from one to the other under load.

A region may run an older release: its processes run the code of an earlier commit, on a database that this commit has migrated. It is
upgraded while the load runs: the database first, then one process after another, as an operator does it.

    migrate   the database gets a migration that no release has, and the load waits for it; then the region is opened again
    upgrade   the region that runs an older release gets this one

Invariants:
    - an older release is a commit's own files, in a folder of their own; nothing of this checkout is changed or used;
    - a migration of ours changes nothing that anybody sees, and is one that the database has not had.
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

from psycopg import errors

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
_CONTEXT = "chaos"
_WAITED_FOR_S = 60  # so long it may take until somebody writes: other things befall the region as well
_UNDER_LOAD = """\
-- What releases bring, where the load writes: a function of each append anew, an index, a column. Until it is committed, appends, the
-- projector and readers of balances wait for its locks, as they do where there is more to index.
SET LOCAL ROLE countroom_ledger;
DO $$ BEGIN EXECUTE pg_get_functiondef('ledger.append'::regproc); END $$;
CREATE INDEX chaos_{number} ON ledger.entry (recorded);
RESET ROLE;
SET LOCAL ROLE countroom_projector;
ALTER TABLE read.balance ADD COLUMN chaos_{number} bigint NOT NULL DEFAULT 0;
CREATE INDEX chaos_{number} ON read.balance (chaos_{number});
RESET ROLE;
SELECT pg_sleep({hold_s});
DO $$ BEGIN
    FOR _ IN 1 .. {patience_s} * 10 LOOP
        IF EXISTS (SELECT FROM pg_locks AS l
                    WHERE NOT l.granted AND l.mode = 'RowExclusiveLock' AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid))) THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.1);
    END LOOP;
    RAISE EXCEPTION 'nobody who writes had to wait for the migration';
END $$;
"""


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
    applied = _migrated(site, step.region, step.hold_s)
    site.log(f"the database of {step.region} got {', '.join(applied)}")
    asyncio.run(open_region(site.local.settings[step.region]))  # as at a start, which does not know what was applied


def _migrated(site: Site, region: str, hold_s: float) -> list[str]:
    return migrate_under_load(site.local.settings[region].postgres, site.folder / "migrations" / region, hold_s=hold_s)


def migrate_under_load(dsn: str, folder: Path, *, hold_s: float, patience_s: int = _WAITED_FOR_S) -> list[str]:
    """
    Migrate the database as the next release would, with one more migration in `folder`, which keeps its locks for `hold_s` longer,
    and up to `patience_s` more until somebody who writes waits for them.

    Returns what was applied. Raises NotCarriedOut: nothing was, or nobody who writes had to wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.iterdir())) + 1
    (folder / f"{number:04}_under_load.sql").write_text(
        _UNDER_LOAD.format(number=number, hold_s=hold_s, patience_s=patience_s)
    )
    try:
        applied = schema.migrate(dsn, [*MIGRATIONS, (_CONTEXT, folder)])
    except errors.RaiseException as nobody:
        raise NotCarriedOut(nobody.diag.message_primary) from nobody
    if not applied:
        raise NotCarriedOut("the database has had this migration")
    return applied


def _upgrade(site: Site, step: Step) -> None:
    """Let both releases serve for a while, then upgrade all regions that run the older one."""
    time.sleep(step.hold_s)
    for region in site.checkouts:
        applied = _upgraded(site, region, step.hold_s)
        site.log(f"{region} runs this release now; its database got {', '.join(applied)}")
    if not site.checkouts:
        raise NotCarriedOut("every region runs this release")
    site.checkouts.clear()


def _upgraded(site: Site, region: str, hold_s: float) -> list[str]:
    """Migrate the database while the older processes run; then let each end in its own way, and start as this release.

    Returns what was applied.
    """
    applied = _migrated(site, region, hold_s)  # there is one of ours, since releases often have none
    for roles in PROCESSES:
        role = "+".join(roles)
        keeper = site.local.stack.supervisor[region, role]
        keeper.program = replace(keeper.program, cwd=_HERE)
        site.restart(region, role)
    return applied
