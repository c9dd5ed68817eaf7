"""
`countroom region close` for the regions of a data folder on this machine: the servers are started, the log is closed, and the region runs
on under its new name.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from app import closing, closings, local, showing
from app.closing import Found
from app.local import CONTINUES, Local
from app.settings import Settings, SettingsError, from_environment
from domain.logs import next_name
from replication.closing import NotClosed, Silent
from replication.errors import Interrupted

LOOK_S = 0.5
_ATTEMPTS = 40
_FAR = """
    SELECT coalesce((SELECT max(e.position) FROM ledger.entry AS e WHERE e.log = l.id), 0),
           (SELECT count(*) FROM ledger.ownership AS w WHERE w.log = o.id AND w.after_log = l.name)
      FROM ledger.log AS l, ledger.log AS o WHERE l.name = %s AND o.own"""
_LEFT = """
    SELECT count(*) FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log WHERE l.name = %s AND w.cut IS NULL"""
_CLEAR = "SELECT replication.clear_halt(%s, %s) WHERE EXISTS (SELECT FROM ledger.log WHERE name = %s AND NOT own)"


def look(
    name: str, regions: Sequence[str], data: Path, port_base: int, without: Collection[str], to: Path | None
) -> Found:
    """What closing comes to; nothing is changed. `to`: by the environment's settings. Raises NotClosed, and what `local.running` raises."""
    if to is not None:
        return _found(_as_told(name), without)
    if name in local.closed_logs(data):
        raise NotClosed(f"the log {name} was closed already")
    with _without_its_processes(name, regions, data, port_base, without) as here:
        return _found(here.settings[name], without)


def close(
    name: str,
    regions: Sequence[str],
    data: Path,
    port_base: int,
    *,
    without: Collection[str],
    to: Path | None,
    yes: bool,
    then_stop: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Close the log, and let its region go on; with `to`, only make that folder. Asks before, unless `yes`.

    A second run goes on where the first has stopped. Unless `then_stop`, everything runs on until Ctrl-C. Raises as `look`.
    """
    if to is not None:
        return {"folder": str(to), **_closed(_as_told(name), to, without, yes=yes)}
    following, told = next_name(name), dict[str, Any]()
    if name not in local.closed_logs(data):
        with _without_its_processes(name, regions, data, port_base, without) as here:
            settings = here.settings[name]
            told = _closed(settings, data.resolve() / following / CONTINUES, without, yes=yes)
            policy = closing.carry_keys(settings, _next(settings, following))
            (file,) = settings.needed("checkpointer", "COUNTROOM_POLICY")
            local.write_private(file, policy)
            local.close_log(data.resolve(), name)
    on = [following if each == name else each for each in regions if each not in without or each == name]
    with local.running(data, on, port_base, wait=False) as here:
        for settings in here.settings.values():
            with psycopg.connect(settings.postgres, autocommit=True) as connection:
                connection.execute(_CLEAR, (name, f"countroom region close {name}", name))
        with psycopg.connect(here.settings[following].postgres, autocommit=True) as connection:
            done = _adopted(connection, name, data.resolve() / following / CONTINUES)
        here.stack.wait_ready()
        if not quiet:
            showing.addresses(here)
        if not then_stop:
            here.stack.run_until_stopped()
    return {"log": name, "continues_as": following, **told, **done}


def in_words(done: dict[str, Any]) -> str:
    if "folder" in done:
        return (
            f"{done['log']} is closed behind position {done['position']:,}; {done['folder']} is what {done['continues_as']} begins with: "
            "docs/how-to/close-a-log.md says how"
        )
    return f"{done['log']} goes on as {done['continues_as']}, which owns {done['partitions']} partitions"


def _closed(settings: Settings, folder: Path, without: Collection[str], *, yes: bool) -> dict[str, Any]:
    """Raises NotClosed, SignerError, OSError."""
    if (made := closings.read(folder)) is not None:
        told = {"log": settings.region, "continues_as": next_name(settings.region)}
        return {**told, **msgspec.to_builtins(made.continues)}
    found = _found(settings, without)
    sys.stderr.write(found.to_text() + "\n")
    if not yes and not _agreed(settings.region):
        raise NotClosed("nothing was changed; --yes says that it is meant")
    closing.close(settings, found, folder)
    return found.to_json()


def _agreed(name: str) -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"This cannot be taken back. Type the name of the log to close it ({name}): ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == name


def _as_told(name: str) -> Settings:
    """Raises SettingsError."""
    found = from_environment()
    if found.region != name:
        raise SettingsError(f"the environment's settings are those of {found.region}, not of {name}")
    return found


@contextmanager
def _without_its_processes(
    name: str, regions: Sequence[str], data: Path, port_base: int, without: Collection[str]
) -> Iterator[Local]:
    if name not in regions:
        raise NotClosed(f"{name} is none of the regions {', '.join(regions)}: name them all by --regions")
    if not (data / name / "postgres").exists():
        raise NotClosed(f"there is no region {name} in {data}")
    held = [each.parent.name for each in sorted(data.glob("*/postgres"))]
    if forgotten := sorted(set(held) - {*regions, *without, *local.closed_logs(data)}):
        raise NotClosed(
            f"{', '.join(forgotten)} may hold entries that nobody else has: name all by --regions, or as lost by --without"
        )
    with local.running(data, regions, port_base, idle=[name]) as here:
        yield here


def _found(settings: Settings, without: Collection[str]) -> Found:
    """The other regions have just started: their links need a moment. Raises NotClosed, SignerError."""
    for attempt in range(_ATTEMPTS):
        try:
            return asyncio.run(closing.find(settings, without))
        except (Silent, Interrupted) as error:
            if attempt == _ATTEMPTS - 1:
                raise NotClosed(str(error)) from error
            time.sleep(LOOK_S)
    raise AssertionError("unreachable")


def _next(settings: Settings, following: str) -> Settings:
    folder = settings.region_key.parent.parent / following
    return settings._replace(
        region=following,
        regions=tuple(following if each == settings.region else each for each in settings.regions),
        region_key=folder / "region.key",
        signer=folder / "signer",
        witness=folder / "witness",
        custody=folder / "custody",
    )


def _adopted(connection: psycopg.Connection[Any], name: str, folder: Path) -> dict[str, Any]:
    """Wait until the copy of the closed log is whole and what it owned is adopted; say on standard error how far it is."""
    told = closings.read(folder)
    if told is None:
        raise NotClosed(f"{folder} is not whole")
    began, shown, end = time.monotonic(), "", told.continues.position
    while True:
        position, adopted = connection.execute(_FAR, (name,)).fetchone() or (0, 0)
        (left,) = connection.execute(_LEFT, (name,)).fetchone() or (0,)
        line = f"{name}: {position:,} of {end:,} entries; {adopted} partitions adopted"
        if line != shown:
            sys.stderr.write(line + "\n")
            shown = line
        if position >= end and not left:
            return {"partitions": adopted, "entries": position, "seconds": round(time.monotonic() - began, 2)}
        time.sleep(LOOK_S)
