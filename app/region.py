"""`countroom region …`: what an operator does to one region by hand, on the machine that holds its keys."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import cyclopts
import msgspec
from cyclopts import Parameter

from app.settings import SettingsError

region = cyclopts.App(name="region", help="One region by hand: its signing key, and whether its log may be written.")

_Region = Annotated[
    str | None, Parameter(help="Which of the regions in the data folder; else the environment's settings.")
]
_Data = Annotated[Path, Parameter(help="Folder of the regions' data.")]
_Json = Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")]
_DATA = Path(".data")


class _Place(NamedTuple):
    """A region's database, as somebody who may do all, and the folder of its signer."""

    name: str
    origin: str
    dsn: str
    signer: Path


@region.command
def keys(*, json: _Json = False) -> None:
    """Make the keys of the log and of the witness where there are none; print the lines that policy files want."""
    from app import heads, settings

    found = settings.from_environment()
    log, witness = heads.region_keys(found)
    _say({"log": log, "witness": witness}, f"log {log}\nwitness {found.region} {witness}", as_json=json)


@region.command(name="rotate-key")
def rotate_key(
    *,
    region: _Region = None,
    data: _Data = _DATA,
    overlap_days: Annotated[int, Parameter(help="How long heads that only the old key signed are accepted.")] = 30,
    json: _Json = False,
) -> None:
    """Announce a new key for the log's heads, by an event that both keys have signed; from now on both sign."""
    from app import rotating

    place = _place(region, data)
    try:
        done = asyncio.run(
            rotating.rotate(place.dsn, place.name, place.signer, place.origin, timedelta(days=overlap_days))
        )
    except rotating.RotationRefused as error:
        raise SettingsError(str(error)) from error
    told = {"old": done.old, "new": done.new, "until": done.until, "position": done.position}
    _say(
        told,
        f"position {done.position} of log {place.name} announces the new key; both sign from now on\n"
        f"add to every policy file:   log {done.new}\n"
        f"then, from {done.until:%Y-%m-%d} on:     countroom region retire-key",
        as_json=json,
    )


@region.command(name="retire-key")
def retire_key(*, region: _Region = None, data: _Data = _DATA, json: _Json = False) -> None:
    """Let the older of two keys sign no more."""
    from app import rotating

    place = _place(region, data)
    try:
        retired = rotating.retire(place.signer, place.origin)
    except rotating.RotationRefused as error:
        raise SettingsError(str(error)) from error
    _say({"retired": retired}, f"{retired} signs no more", as_json=json)


@region.command(name="allow-writes")
def allow_writes(
    *,
    by: Annotated[str, Parameter(help="Who takes it upon themselves; it is kept.")],
    region: _Region = None,
    data: _Data = _DATA,
    json: _Json = False,
) -> None:
    """Let the log be written although no other region answers. If its database is a restored backup, this forks the log."""
    import psycopg

    place = _place(region, data)
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT ledger.clear_to_write(l.id, %s) FROM ledger.log AS l WHERE l.name = %s AND l.own",
            (f"{by}, without a comparison", place.name),
        )
    _say({"may_write": place.name, "by": by}, f"the log {place.name} may be written, by {by}", as_json=json)


@region.command
def join(
    name: Annotated[str, Parameter(help="The new region, e.g. ap.")],
    *,
    regions: Annotated[str, Parameter(help="The regions that there are, separated by commas.")] = "eu,us",
    data: _Data = _DATA,
    port_base: Annotated[int, Parameter(help="As for up.")] = 8100,
    then_stop: Annotated[bool, Parameter(help="Stop everything once it has caught up.", negative="")] = False,
    json: _Json = False,
) -> None:
    """Run the regions of a data folder on this machine with a new, empty one beside them, until it has caught up and Ctrl-C."""
    from app import joining
    from app.expected import expected_errors

    try:
        done = joining.join(name, regions.split(","), data, port_base, then_stop=then_stop, quiet=json)
    except joining.NotJoined as error:
        raise SettingsError(str(error)) from error
    except expected_errors() as error:
        raise SettingsError(str(error)) from error
    _say(done, f"{name} has caught up, and owns what is handed over to it", as_json=json)


@region.command
def handover(
    *,
    to: Annotated[str, Parameter(help="The log of the region that takes over, e.g. us.")],
    partitions: Annotated[str, Parameter(help="Such as 0-63,70.")] = "",
    player: Annotated[tuple[str, ...], Parameter(help="The partition of this player; may be repeated.")] = (),
    all: Annotated[bool, Parameter(help="All that this region owns.", negative="")] = False,  # noqa: A002 — its name
    url: Annotated[
        str | None, Parameter(help="The API of this region; else that of the region that runs here.")
    ] = None,
    token: Annotated[str | None, Parameter(help="Bearer token; else the environment's COUNTROOM_TOKEN.")] = None,
    region: _Region = None,
    data: _Data = _DATA,
    json: _Json = False,
) -> None:
    """Hand partitions over to another live region: wait for its copy, release, and wait until it has adopted them."""
    import os

    from app import handing_over, settings
    from app.status import dev_token

    if all is bool(partitions or player):
        raise SettingsError("name --partitions or --player, or give --all")
    place = _place(region, data)
    bearer = token or settings.client_token() or dev_token(data, "administrator")
    address = url or _url(place.name, data)
    if bearer is None or address is None:
        raise SettingsError("a bearer token and the region's --url are needed")
    try:
        ranges = handing_over.ranges(partitions) if partitions else []
        handing_over.drain(place.dsn, place.name, to)
        key = f"handover {os.urandom(8).hex()}"
        done = handing_over.hand_over(address, bearer, to, partitions=ranges, players=player, key=key)
        handing_over.await_adoption(place.dsn, to)
    except (handing_over.NotReady, handing_over.NotTaken) as error:
        raise SettingsError(str(error)) from error
    count = sum(last - first + 1 for first, last, _ in done["partitions"])
    _say(done, f"{count} partitions of {place.name} belong to {to} now", as_json=json)


def _url(name: str, data: Path) -> str | None:
    from devstack import read_state

    state = read_state(data)
    for running in state["regions"] if state else ():
        if running["name"] == name:
            return str(running["api"])
    return None


def _place(name: str | None, data: Path) -> _Place:
    """Raises SettingsError."""
    if name is None:
        from app import settings

        found = settings.from_environment()
        return _Place(found.region, found.origin, found.postgres, found.needed("checkpointer", "COUNTROOM_SIGNER")[0])
    from app.local import DEPLOYMENT
    from devstack import read_state

    state = read_state(data)
    for running in state["regions"] if state else ():
        if running["name"] == name:
            return _Place(name, f"countroom.{DEPLOYMENT}/{name}", running["postgres"], data / name / "signer")
    raise SettingsError(f"no region {name} runs in {data}; start it with `countroom up`")


def _say(told: dict[str, object], text: str, *, as_json: bool) -> None:
    sys.stdout.write((msgspec.json.encode(told).decode() if as_json else text) + "\n")
