"""`countroom vault …`: what an operator does to a region's keys of personal data, on the machine that holds them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from app.settings import SettingsError

vault = cyclopts.App(name="vault", help="A region's keys of personal data.")


@vault.command
def rotate(
    *,
    region: Annotated[
        str | None, Parameter(help="Which of the regions in the data folder; else the environment's settings.")
    ] = None,
    data: Annotated[Path, Parameter(help="Folder of the regions' data.")] = Path(".data"),
    json: Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")] = False,
) -> None:
    """Wrap all data keys by a new region key and destroy the old one, while everything goes on serving; safe to repeat.

    Needs the database as an administrator. Backups of the vault made before open nothing afterwards.
    """
    from app import rewrapping
    from eventstore.rewrapping import Left, WrongKey

    def progress(left: Left) -> None:
        sys.stderr.write(f"\rstill under the old key: {left.keys} data keys, {left.words} index words   ")

    name, dsn, file = place(region, data)
    try:
        done = asyncio.run(rewrapping.rotate(dsn, name, file, progress))
    except (rewrapping.RewrappingRefused, WrongKey, ValueError, OSError) as error:
        raise SettingsError(str(error)) from error
    text = (
        f"\nposition {done.position} of log {name} says so: {done.keys} data keys are wrapped by {done.new}\n"
        f"the region key {done.old} was destroyed; back up {file} and the database now, apart from each other"
    )
    sys.stdout.write((msgspec.json.encode(done._asdict()).decode() if json else text) + "\n")


def place(name: str | None, data: Path) -> tuple[str, str, Path]:
    """The region, its database and the file of its key. Raises SettingsError."""
    if name is None:
        from app import settings

        found = settings.from_environment()
        return found.region, found.postgres, found.region_key
    from devstack import read_state

    state = read_state(data)
    for running in state["regions"] if state else ():
        if running["name"] == name:
            return name, running["postgres"], data / name / "region.key"
    raise SettingsError(f"no region {name} runs in {data}; start it with `countroom up`")
