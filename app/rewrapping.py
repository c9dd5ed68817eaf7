"""
Changing the key that wraps a region's data keys, on the machine that keeps it, while everything goes on serving.

Invariants:
    - one rotation runs at a time on a machine; of two machines, the second meets a vault that its file does not open;
    - the old key is destroyed only after nothing is left that it opens, and after the log says so;
    - whatever step it stops at, asking again goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from commands.identity import command_id
from domain import vaults
from domain.catalog import AGGREGATES
from domain.kernel import uuid7_texts
from domain.vaults import RegionKeyRotated
from eventstore import postgres
from eventstore.keyring import KeyInUse, Keyring
from eventstore.log import Appended, Command
from eventstore.postgres import PostgresLog, PostgresStreams
from eventstore.record import Body, Codec, CommandPart, Entry, encode_body
from eventstore.rewrapping import DESTROYED, ROLE, Left, Rewrapping
from eventstore.vault import RegionKey

_COUNT = "SELECT count(*) FROM vault.data_key"


class RewrappingRefused(Exception):
    """The key is not to be changed now, and why."""


class Rewrapped(NamedTuple):
    """`keys`: data keys that are under `new` now. `position`: the entry that says so."""

    old: str
    new: str
    keys: int
    position: int


def nobody(_left: Left) -> None:
    """Whoever needs no progress."""


async def rotate(dsn: str, region: str, file: Path, progress: Callable[[Left], None] = nobody) -> Rewrapped:
    """Make a new region key, wrap everything by it, record that, and destroy the old one. `dsn`: of an administrator.

    Raises RewrappingRefused, WrongKey, what Keyring raises and what the database raises.
    """
    keyring = Keyring(file)
    try:
        with keyring.alone():
            return await _finish(dsn, region, keyring) or await _rotate(dsn, region, keyring, progress)
    except KeyInUse as error:
        raise RewrappingRefused(str(error)) from None


async def _rotate(dsn: str, region: str, keyring: Keyring, progress: Callable[[Left], None]) -> Rewrapped:
    old, new = RegionKey.from_file(keyring.file), keyring.prepare()
    async with await postgres.connect(dsn, ROLE) as connection:
        work = Rewrapping(connection, old, new)
        await work.begin()
        while await work.step():
            progress(await work.left())
        if (left := await work.left()) != Left(0, 0):
            raise RewrappingRefused(f"{left.keys} keys and {left.words} words are still under the old key: try again")
        (keys,) = await (await connection.execute(_COUNT)).fetchone() or (0,)
        position = await _record(dsn, region, RegionKeyRotated(old.id, new.id, keys))
        keyring.swap()
        keyring.destroy()
        await work.destroyed()
    return Rewrapped(old.id, new.id, keys, position)


async def _finish(dsn: str, region: str, keyring: Keyring) -> Rewrapped | None:
    """Destroy the old key, and say in the vault that it is, where only one of these was left to do; None if nothing was."""
    if keyring.next.exists():
        return None
    new, all_ = RegionKey.from_file(keyring.file), await _said(dsn, region)
    there = [(entry.position, said) for entry, said in all_ if said.new == new.id]
    was_left = keyring.old.exists()
    if was_left and not there:
        raise RewrappingRefused(f"{keyring.old} is there, but the log does not say that {new.id} came in its place")
    keyring.destroy()
    gone = [said.old for _, said in all_ if said.old != new.id]  # of whatever was replaced there is no file any more
    async with await postgres.connect(dsn, ROLE) as connection:
        marked = {id_ for (id_,) in await (await connection.execute(DESTROYED, (gone,))).fetchall()}
    if not there or not (was_left or there[-1][1].old in marked):
        return None
    position, said = there[-1]
    return Rewrapped(said.old, said.new, said.keys, position)


async def _said(dsn: str, region: str) -> list[tuple[Entry, RegionKeyRotated]]:
    """The rotations that stand in the log."""
    stream, codec = vaults.stream(region).name, Codec(AGGREGATES)
    async with postgres.pool(dsn, "countroom_reader", size=1) as pool:
        entries = (await PostgresStreams(pool).load({stream: 0})).get(stream, ())
    read = [(entry, codec.decode(entry).event) for entry in entries]
    return [(entry, event) for entry, event in read if isinstance(event, RegionKeyRotated)]


async def _record(dsn: str, region: str, event: RegionKeyRotated) -> int:
    """Where the event stands; it is recorded once for a new key."""
    stream, now = vaults.stream(region).name, datetime.now(UTC)
    there = await _said(dsn, region)
    if known := [entry.position for entry, said in there if said.new == event.new]:
        return known[0]
    async with await postgres.connect(dsn, "countroom_writer") as connection:
        id_ = command_id("system", f"{RegionKeyRotated.tag}\n{event.new}")
        body = Body(
            stream=stream,
            version=len(there) + 1,
            type=RegionKeyRotated.tag,
            id=uuid7_texts(now, os.urandom(10))[0],
            actor="system",
            command=CommandPart(id=id_.hex(), i=1, n=1),
            data=msgspec.Raw(msgspec.json.encode(event)),
        )
        log = await PostgresLog.open(connection, region)
        (outcome,) = await log.append([Command(id_, [encode_body(body)], (), frozenset({stream}))])
    if not isinstance(outcome, Appended):
        raise RewrappingRefused("the log has moved meanwhile: try again")
    return outcome.position
