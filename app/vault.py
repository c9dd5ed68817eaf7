"""`countroom vault …`: what an operator does to a region's keys of personal data, on the machine that holds them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from app.settings import SettingsError

if TYPE_CHECKING:
    from eventstore.copies import Counts
    from policies.residency import Residency

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


@vault.command
def status(
    *,
    region: Annotated[
        str | None, Parameter(help="Which of the regions in the data folder; else the environment's settings.")
    ] = None,
    data: Annotated[Path, Parameter(help="Folder of the regions' data.")] = Path(".data"),
    json: Annotated[bool, Parameter(help="Print one JSON object.", negative="")] = False,
) -> None:
    """How many data keys that other regions made are held here, by region."""
    from app import settings
    from policies import residency as policy
    from policies.residency import EVERYWHERE

    name, dsn, _ = place(region, data)
    if region is None:
        found = settings.from_environment()
        residency = found.who_may_hold()
    else:
        file = data / "residency.json"
        residency = policy.load(file, _regions(data)) if file.exists() else EVERYWHERE
    told = asyncio.run(_counts(dsn, name, residency))
    if json:
        counted = {log: each._asdict() for log, each in told.items()}
        sys.stdout.write(msgspec.json.encode({"region": name, "of": counted}).decode() + "\n")
        return
    for log, each in told.items():
        refused = f", of which {each.refused} were asked for and not given" if each.refused else ""
        sys.stdout.write(
            f"of {log}: {each.held} held, {each.missing} missing, {each.not_allowed} not allowed here{refused}\n"
        )


async def _counts(dsn: str, name: str, residency: Residency) -> dict[str, Counts]:
    from eventstore import postgres
    from eventstore.copies import counts
    from reactions.custody import may_hold

    async with await postgres.connect(dsn, "countroom_reader") as connection:
        return await counts(connection, may_hold(residency, name))


def _regions(data: Path) -> list[str]:
    from devstack import read_state

    state = read_state(data)
    return [each["name"] for each in state["regions"]] if state else []


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
