"""
What a region does before its first write since PostgreSQL started: compare its own log with what it has signed and with
every copy, and fetch back what it has lost, so that a restored backup never forks the log.

Invariants:
    - what is fetched back follows, by hash, from what is there, and leads to what was signed;
    - a log that differs from what was signed, or from a copy, is not written to: that is evidence;
    - nothing is decided by silence: without an answer from any other region the log stays as it is, read-only.

What lies beyond the newest signed head (a second's worth) is believed to the region that kept it, as far as others do not
contradict.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec

from eventstore.heads import LogTree
from replication import store
from replication.asking import Peer
from replication.chain import Head, joined
from replication.errors import Forked, Interrupted, Mismatch
from replication.fetching import Refuted, checked
from replication.frame import Frame
from replication.store import Connection, Log
from replication.wire import ERROR_CODE, ERROR_TEXT, Ack, decode_ack, encode_position, encode_range

_RANGE_TIMEOUT_S = 10.0


class Signed(NamedTuple):
    """Size and root of the newest head that was signed. Size 0: nothing was."""

    size: int
    root: bytes


class Compared(NamedTuple):
    """Who answered, and how many entries were fetched back."""

    regions: list[str]
    fetched: int


async def compare(connection: Connection, log: Log, signed: Signed, peers: Sequence[Peer]) -> Compared:
    """
    Compare the log with what was signed and with the copies that answer, and fetch back what any of them has beyond it.

    Raises Refuted when it differs, or signed entries are nowhere to be found; Interrupted when there are other regions and
    none of them answers.
    """
    found = await asyncio.gather(*(_head_of(peer) for peer in peers))
    answered = [(peer, ack) for peer, ack in zip(peers, found, strict=True) if ack is not None]
    if peers and not answered:
        raise Interrupted("no other region answers, so nobody knows whether entries are missing here: read-only")
    before = (await store.head(connection, log)).position
    for peer, ack in answered:
        common = await _head_of(peer, before) if ack.position > before else ack
        if common is not None:
            await _demand(connection, log, common.position, bytes.fromhex(common.leaf), f"the copy of {peer.region}")
    for peer, ack in sorted(answered, key=lambda each: -each[1].position):
        await _fetch(connection, log, signed, peer, ack.position)
    await agree(connection, log, signed)
    for peer, ack in answered:
        await _demand(connection, log, ack.position, bytes.fromhex(ack.leaf), f"the copy of {peer.region}")
    fetched = (await store.head(connection, log)).position - before
    return Compared([peer.region for peer, _ in answered], fetched)


async def agree(connection: Connection, log: Log, signed: Signed) -> None:
    """Raises Refuted unless the log here begins with what was signed."""
    if not signed.size:
        return
    try:
        root = await LogTree(connection, log.id).root(signed.size)
    except LookupError:
        here = (await store.head(connection, log)).position
        text = f"a head of size {signed.size} was signed, and the log ends at {here}; nobody who answers has the rest"
    else:
        if root == signed.root:
            return
        text = f"a head of size {signed.size} was signed whose root is {signed.root.hex()}, and the log here has {root.hex()}"
    raise Refuted(Forked(text, signed.size), None, signed.root)


async def _head_of(peer: Peer, position: int | None = None) -> Ack | None:
    """How far the peer's copy goes, or which leaf it has at a position; None if it does not say."""
    try:
        ack = decode_ack((await peer.ask("head", b"" if position is None else encode_position(position))).data)
        bytes.fromhex(ack.leaf)
    except (Interrupted, msgspec.DecodeError, ValueError):
        return None
    return ack


async def _demand(connection: Connection, log: Log, position: int, leaf: bytes, whose: str) -> None:
    """Raises Refuted unless this leaf stands at this position."""
    held = await store.leaves(connection, log, range(position, position + 1))
    if held != [leaf]:
        here = held[0].hex() if held else "no entry"
        text = f"position {position} has the leaf {leaf.hex()} in {whose}, but {here} in our log"
        raise Refuted(Forked(text, position), None, msgspec.json.encode(Ack(position, leaf.hex())))


async def _fetch(connection: Connection, log: Log, signed: Signed, peer: Peer, last: int) -> None:
    """
    Entries up to `last` that are missing here, as the peer has copied them. Raises Refuted, Interrupted.

    If signed ones are among them, all of these are looked at before the first is taken: what is once in the log stays there.
    """
    head = await store.head(connection, log)
    promised: dict[int, bytes] = {}
    if head.position < signed.size <= last:
        tree = await LogTree(connection, log.id).prefix(head.position)
        async for frame in _missing(head, peer, signed.size):
            tree.extend(frame.leaves)
            promised[frame.last] = frame.leaves[-1]
        if tree.root() != signed.root:
            text = f"the copy of {peer.region} does not lead to the head of size {signed.size} that we have signed"
            raise Refuted(Forked(text, signed.size), None, signed.root)
    for end in (signed.size, last):
        async for frame in _missing(await store.head(connection, log), peer, end):
            if frame.last <= signed.size and promised.get(frame.last) != frame.leaves[-1]:
                raise Interrupted(f"{peer.region} answers the same question differently")
            await store.restore(connection, log, frame)


async def _missing(head: Head, peer: Peer, last: int) -> AsyncIterator[Frame]:
    """Frames that follow `head` one after another, up to position `last`; a signed head ends a command. Raises as `_fetch`."""
    while head.position < last:
        due = head.position + 1
        answer = await peer.ask("range", encode_range(due, last), timeout_s=_RANGE_TIMEOUT_S)
        if ERROR_CODE in answer.headers:
            raise Interrupted(f"{peer.region} gives no entries from {due} on: {answer.headers.get(ERROR_TEXT)}")
        frame = checked(answer.data, None)
        if frame.first != due or frame.last > last:
            text = f"asked for {due} to {last}, {peer.region} gave {frame.first} to {frame.last}"
            raise Refuted(Mismatch(text, due), None, answer.data)
        try:
            joined(head, frame)
        except Mismatch as why:
            text = f"the copy of {peer.region} goes on otherwise: {why}"
            raise Refuted(Forked(text, why.position), None, answer.data) from why
        head = Head(frame.last, frame.recorded[-1], frame.leaves[-1])
        yield frame
