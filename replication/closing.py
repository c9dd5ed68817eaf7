"""
Where a region's log ends when it cannot be repaired, so that the region goes on with the next one: at the last entry of what the
copies agree about.

What another region has copied may have been promised as safe from the loss of this one, and paid out; so it counts, and what only
the own database holds does not: it is *stranded*. A copy is believed unless the own signer, or another copy, contradicts it.

Invariants:
    - nothing is decided by silence: each region answers, or an operator has named it as one that is not waited for;
    - a log that compares (`comparing`) is not closed; neither is one that is what was signed, whatever a copy says;
    - nothing is written here, and nothing signed.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from eventstore.heads import LogTree
from replication import store
from replication.asking import Peer
from replication.chain import Head
from replication.comparing import Newest, Signed, head_of, missing
from replication.errors import Interrupted
from replication.store import Connection, Log


class NotClosed(Exception):
    """The log is not to be closed, or not yet; the text says why, and what is to be done instead."""


class Silent(NotClosed):
    """Some region has not answered, or has not copied what it can: perhaps it does in a moment."""


class Entries(NamedTuple):
    """From one position to another; `leaf` (hex) is that of the last one, which follows from all before."""

    first: int
    last: int
    leaf: str


class Examined(NamedTuple):
    """What was found of a log that cannot be repaired.

    It is closed at `position` with `leaf` (hex), up to which the copies `regions` agree. The own database agrees with them as far as
    `common`; what it has beyond, if anything, is `stranded`. `signed`: the size of the newest head that was signed; `why`: what is
    wrong with the log.
    """

    position: int
    leaf: str
    regions: Sequence[str]
    common: int
    stranded: Entries | None
    signed: int
    why: str


class _Copy(NamedTuple):
    peer: Peer
    position: int
    leaf: str


async def examine(
    connection: Connection,
    log: Log,
    signed: Signed,
    stream: Newest | None,
    peers: Sequence[Peer],
    without: Collection[str] = (),
) -> Examined:
    """Where the log is to be closed. `stream`: what the newest frame of our own stream says. Raises NotClosed."""
    if await store.may_write(connection, log):
        raise NotClosed(
            f"the log {log.name} may be written: stop the region's processes, and start its PostgreSQL anew"
        )
    copies = await _copies(peers, without)
    longest = copies[0]
    await _agree(longest, copies[1:])
    await _wait_for(connection, log, stream, longest)
    head = await store.head(connection, log)
    common = await store.end_of_command(connection, log, await _common(connection, log, head.position, longest))
    why = await _why(connection, log, signed, longest, head.position, common)
    stranded = None
    if head.position > common:
        stranded = Entries(common + 1, head.position, head.leaf.hex())
    regions = [copy.peer.region for copy in copies]
    return Examined(longest.position, longest.leaf, regions, common, stranded, signed.size, why)


async def _copies(peers: Sequence[Peer], without: Collection[str]) -> list[_Copy]:
    """Those that answer, the longest first. Raises NotClosed."""
    found = await asyncio.gather(*(head_of(peer) for peer in peers))
    copies = [_Copy(peer, ack.position, ack.leaf) for peer, ack in zip(peers, found, strict=True) if ack is not None]
    silent = [peer.region for peer, ack in zip(peers, found, strict=True) if ack is None and peer.region not in without]
    if not any(copy.position for copy in copies):
        raise Silent("no copy of the log answers, so nobody knows what of it counts: bring another region back first")
    if silent:
        raise Silent(
            f"{', '.join(silent)} does not answer, and may hold entries that nobody else has; if it is lost for good: "
            + " ".join(f"--without {each}" for each in silent)
        )
    return sorted((copy for copy in copies if copy.position), key=lambda copy: -copy.position)


async def _agree(longest: _Copy, others: Sequence[_Copy]) -> None:
    """Raises NotClosed where two copies contradict each other."""
    for other in others:
        there = await _leaf(longest.peer, other.position)
        if there != other.leaf:
            raise NotClosed(
                f"the copies of {longest.peer.region} and {other.peer.region} differ at position {other.position} or before: "
                "one of them is wrong, and is to be made anew first (docs/how-to/corrupted-copy.md)"
            )


async def _wait_for(connection: Connection, log: Log, stream: Newest | None, longest: _Copy) -> None:
    """Raises Silent while our own stream has what no copy has come to yet, and the log here has not."""
    if stream is None or stream.position <= longest.position:
        return
    if await store.leaves(connection, log, range(stream.position, stream.position + 1)) != [stream.leaf]:
        raise Silent(
            f"our own stream has entries up to {stream.position}, and the longest copy ends at {longest.position}: let the other regions "
            "copy them first"
        )


async def _common(connection: Connection, log: Log, here: int, longest: _Copy) -> int:
    """Up to which position the own database and the copy agree; leaves follow from one another, so what agrees there does before."""
    low, high = 0, min(here, longest.position)
    while low < high:
        middle = (low + high + 1) // 2
        [held] = await store.leaves(connection, log, range(middle, middle + 1))
        if held.hex() == await _leaf(longest.peer, middle):
            low = middle
        else:
            high = middle - 1
    return low


async def _leaf(peer: Peer, position: int) -> str:
    """Raises NotClosed."""
    ack = await head_of(peer, position)
    if ack is None or ack.position != position:
        raise Silent(f"{peer.region} does not say what its copy holds at position {position}; try again")
    return ack.leaf


async def _why(connection: Connection, log: Log, signed: Signed, longest: _Copy, here: int, common: int) -> str:
    """What is wrong with the log. Raises NotClosed where nothing is, or the copies are what is wrong."""
    forked = common < min(here, longest.position)
    ours = await _is_signed_here(connection, log, signed, here)
    if ours and (not forked or signed.size > common):
        if forked:
            raise NotClosed(
                f"the log here is what was signed (a head of size {signed.size}), and the copy of {longest.peer.region} is not from "
                f"position {common + 1} on: that copy is to be made anew (docs/how-to/corrupted-copy.md)"
            )
        raise NotClosed("nothing is wrong with the log: start the region, which compares it and may then write")
    theirs = await _is_signed_there(connection, log, signed, longest, common)
    if not forked and theirs:
        raise NotClosed(
            f"the log can be repaired: start the region, which fetches {longest.position - here} entries back from {longest.peer.region}"
        )
    if forked and theirs is not False:
        return f"from position {common + 1} on the database has other entries than the copies"
    if theirs is None:
        return f"a head of size {signed.size} was signed, and what it was about is nowhere beyond position {longest.position}"
    raise NotClosed(
        f"neither the log here nor the copies are what was signed at size {signed.size}: save all of them, and find out which was changed"
    )


async def _is_signed_here(connection: Connection, log: Log, signed: Signed, here: int) -> bool:
    if signed.size > here:
        return False
    return not signed.size or await LogTree(connection, log.id).root(signed.size) == signed.root


async def _is_signed_there(
    connection: Connection, log: Log, signed: Signed, longest: _Copy, common: int
) -> bool | None:
    """Whether the copy is what was signed; None if it does not go so far."""
    if signed.size > longest.position:
        return None
    if signed.size <= common:
        return not signed.size or await LogTree(connection, log.id).root(signed.size) == signed.root
    tree = await LogTree(connection, log.id).prefix(common)
    try:
        async for frame in missing(await _at(connection, log, common), longest.peer, signed.size):
            tree.extend(frame.leaves)
    except Interrupted as error:
        raise Silent(f"{error}; try again") from error
    return tree.root() == signed.root


async def _at(connection: Connection, log: Log, position: int) -> Head:
    if not position:
        return Head(0, 0, log.genesis)
    [(recorded, leaf, _)] = await store.rows(connection, log, position - 1, 1)
    return Head(position, recorded, leaf)
