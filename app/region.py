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
    without: Annotated[
        tuple[str, ...],
        Parameter(
            help="Only do not wait for this region, which is lost: the log is compared with the others, and then written."
        ),
    ] = (),
    region: _Region = None,
    data: _Data = _DATA,
    json: _Json = False,
) -> None:
    """Let the log be written although no other region answers. If its database is a restored backup, this forks the log."""
    import psycopg

    from app import closings

    place = _place(region, data)
    closings.refuse_closed(place.signer)
    if without:
        _excuse(place, without, by)
        names = ", ".join(without)
        words = (
            f"{place.name} does not wait for {names}, by {by}, and may be written once it was compared with the others"
        )
        _say({"waits_without": list(without), "region": place.name, "by": by}, words, as_json=json)
        return
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT ledger.clear_to_write(l.id, %s) FROM ledger.log AS l WHERE l.name = %s AND l.own",
            (f"{by}, without a comparison", place.name),
        )
    _say({"may_write": place.name, "by": by}, f"the log {place.name} may be written, by {by}", as_json=json)


def _excuse(place: _Place, without: tuple[str, ...], by: str) -> None:
    """Raises SettingsError."""
    import psycopg

    if not by:
        raise SettingsError("say by whom: --by")
    with psycopg.connect(place.dsn) as connection:
        for each in without:
            done = connection.execute(
                "SELECT replication.excuse(own.id, peer.name, %s) FROM ledger.log AS own, ledger.log AS peer"
                " WHERE own.name = %s AND own.own AND peer.name = %s AND NOT peer.own",
                (by, place.name, each),
            )
            if not done.rowcount:
                raise SettingsError(f"{each} is no other region of {place.name}")


@region.command
def status(*, region: _Region = None, data: _Data = _DATA, json: _Json = False) -> None:
    """How a region stands: its log, copies and their lags, ownership, keys; 1 if something needs a person, and which page says what to do."""
    from app import showing, standing
    from policies.residency import ResidencyUnreadable

    try:
        found = standing.standing(standing.place(region, data))
    except ResidencyUnreadable as error:
        raise SettingsError(str(error)) from error
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        showing.print_standing(found)
    if found.wanted:
        sys.exit(1)


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
def close(
    name: Annotated[str, Parameter(help="The region whose log cannot be repaired, e.g. eu.")],
    *,
    at_last_agreed: Annotated[
        bool,
        Parameter(help="Where: behind the last entry that the copies agree about. There is no other way.", negative=""),
    ] = False,
    regions: Annotated[str, Parameter(help="The regions that there are, separated by commas.")] = "eu,us",
    without: Annotated[tuple[str, ...], Parameter(help="A region that is lost, and is not waited for.")] = (),
    to: Annotated[
        Path | None,
        Parameter(help="On your own servers, with the region's settings: the folder to make for the next log."),
    ] = None,
    dry_run: Annotated[bool, Parameter(help="Tell what it would come to; change nothing.", negative="")] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative="")] = False,
    data: _Data = _DATA,
    port_base: Annotated[int, Parameter(help="As for up.")] = 8100,
    then_stop: Annotated[
        bool, Parameter(help="Stop everything once the next log has taken over.", negative="")
    ] = False,
    json: _Json = False,
) -> None:
    """Close a log that cannot be repaired, and let its region go on as the next one: eu.2 after eu."""
    from app import closing_here
    from app.expected import expected_errors
    from eventstore.signer import SignerError
    from replication.closing import NotClosed

    if not at_last_agreed:
        raise SettingsError("say --at-last-agreed: what only this region holds is stranded")
    others = regions.split(",")
    try:
        if dry_run:
            found = closing_here.look(name, others, data, port_base, without, to)
            told, words = found.to_json(), found.to_text()
        else:
            told = closing_here.close(
                name, others, data, port_base, without=without, to=to, yes=yes, then_stop=then_stop, quiet=json
            )
            words = closing_here.in_words(told)
    except (NotClosed, SignerError, OSError) as error:
        raise SettingsError(str(error)) from error
    except expected_errors() as error:
        raise SettingsError(str(error)) from error
    _say(told, words, as_json=json)


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
    key: Annotated[
        str, Parameter(help="Of a hand-over whose outcome was not known: the one that was named then.")
    ] = "",
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
        named = key or f"handover {os.urandom(8).hex()}"
        done = handing_over.hand_over(address, bearer, to, partitions=ranges, players=player, key=named)
        handing_over.await_adoption(place.dsn, to)
    except (handing_over.NotReady, handing_over.NotTaken, handing_over.NotKnown) as error:
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
