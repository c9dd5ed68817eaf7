"""
What a region does before its first write since PostgreSQL started: compare its own log with what it has signed and with
every copy, and fetch back what it has lost, so that a restored backup never forks the log.

Invariants:
    - what is fetched back follows, by hash, from what is there, and leads to what was signed;
    - a log that differs from what was signed, or from a copy, is not written to: that is evidence;
    - nothing is decided by silence: the log stays as it is, read-only, until another region answers, and every one of them unless
      the log has, by the own signer and the own stream, not gone back.

What lies beyond the newest signed head (a second's worth) is believed to the region that kept it, as far as others do not
contradict.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

import msgspec

from eventstore.heads import LogTree
from replication import store
from replication.asking import Peer
from replication.chain import Head, joined
from replication.errors import Forked, Interrupted, Mismatch
from replication.fetching import Refuted, checked
from replication.frame import Frame
from replication.link import Link, last_message, stream_info
from replication.store import Connection, Log
from replication.wire import ERROR_CODE, ERROR_TEXT, Ack, decode_ack, encode_position, encode_range

_RANGE_TIMEOUT_S = 10.0


class Signed(NamedTuple):
    """Size and root of the newest head that was signed. Size 0: nothing was."""

    size: int
    root: bytes


class Newest(NamedTuple):
    """The entry with which the newest frame of our own stream ends."""

    position: int
    leaf: bytes


class Compared(NamedTuple):
    """Who answered, how many entries were fetched back, and whom nobody waited for."""

    regions: list[str]
    fetched: int
    silent: list[str]


class _Copy(NamedTuple):
    """How far a peer's copy goes, as it says."""

    peer: Peer
    position: int
    leaf: str


class Comparison:
    """Of one log, over as many sessions as it takes: what was missing once is remembered until the log may be written."""

    def __init__(self) -> None:
        self._lacked = False

    async def compare(
        self,
        connection: Connection,
        log: Log,
        signed: Signed,
        stream: Newest | None,
        peers: Sequence[Peer],
        without: Collection[str] = (),
    ) -> Compared:
        """
        Compare the log with what was signed, with our own stream and with the copies, and fetch back what any of these has beyond it.

        `without`: regions that an operator does not wait for. Raises Refuted when the log differs, or signed entries are nowhere to
        be found; Interrupted, with whom or what it waits for.
        """
        found = await asyncio.gather(*(head_of(peer) for peer in peers))
        answered = [(peer, ack) for peer, ack in zip(peers, found, strict=True) if ack is not None]
        copies = [_Copy(peer, ack.position, ack.leaf) for peer, ack in answered]
        silent = [peer.region for peer, ack in zip(peers, found, strict=True) if ack is None]
        if peers and not copies:
            raise Interrupted("no other region answers, so nobody knows whether entries are missing here")
        before = await store.head(connection, log)
        doubt = await self._doubt(connection, log, signed, stream, copies)
        if doubt and (awaited := [each for each in silent if each not in without]):
            does = "does" if len(awaited) == 1 else "do"
            raise Interrupted(
                f"{' and '.join(awaited)} {does} not answer, and may hold entries that nobody else has, for {doubt}"
            )
        await _fetch_back(connection, log, signed, stream, copies)
        await agree(connection, log, signed)
        for copy in copies:
            await _demand(connection, log, copy.position, bytes.fromhex(copy.leaf), f"the copy of {copy.peer.region}")
        self._lacked = False
        fetched = (await store.head(connection, log)).position - before.position
        return Compared([copy.peer.region for copy in copies], fetched, silent)

    async def _doubt(
        self, connection: Connection, log: Log, signed: Signed, stream: Newest | None, copies: Sequence[_Copy]
    ) -> str | None:
        """Why entries may be missing here that only who does not answer has; None if it is shown that the log has not gone back.

        What another region has copied came from our stream, or was in it a moment later: a log that has all of its stream, and all
        that was signed, is the one that was there before PostgreSQL stopped.
        """
        here = (await store.head(connection, log)).position
        longest = max((copy.position for copy in copies), default=0)
        if self._lacked or here < max(signed.size, longest, stream.position if stream else 0):
            self._lacked = True
            return "the log here has gone back"
        if stream is None:
            return "our own stream is empty or damaged, and does not show how far the log went" if signed.size else None
        held = await store.leaves(connection, log, range(stream.position, stream.position + 1))
        return None if held == [stream.leaf] else f"our own stream has another entry at position {stream.position}"


async def newest_in(own: Link, connection: Connection, log: Log) -> Newest | None:
    """With what our own stream ends; None if it is empty, or its newest message is damaged or was passed over by an operator.

    Raises Interrupted, or a NatsError, while JetStream does not say.
    """
    last = await last_message(own)
    if last is None:
        return None
    sequence, data = last
    if sequence <= await store.passed_over(connection, "relay", log, (await stream_info(own)).created):
        return None
    try:
        frame = checked(data, None)
    except Refuted:  # the relay halts at it, with evidence
        return None
    return Newest(frame.last, frame.leaves[-1])


async def _fetch_back(
    connection: Connection, log: Log, signed: Signed, stream: Newest | None, copies: Sequence[_Copy]
) -> None:
    """Raises Refuted, Interrupted."""
    before = (await store.head(connection, log)).position
    longest = max((copy.position for copy in copies), default=0)
    if stream and stream.position > max(before, longest):
        raise Interrupted(
            f"our own stream has entries up to {stream.position}, and no copy that answers has come beyond {longest} yet"
        )
    if signed.size > max(before, longest):
        text = f"a head of size {signed.size} was signed, the log ends at {before}, and the longest copy that answers at {longest}"
        raise Refuted(Forked(text, signed.size), None, signed.root)
    for peer, position, leaf in copies:
        whose = f"the copy of {peer.region}"
        common = await _leaf(peer, before) if position > before else leaf
        await _demand(connection, log, min(before, position), bytes.fromhex(common), whose)
        if stream and before < stream.position <= position:
            there = await _leaf(peer, stream.position)
            if there != stream.leaf.hex():
                text = f"position {stream.position} has the leaf {there} in {whose}, but {stream.leaf.hex()} in our own stream"
                raise Refuted(Forked(text, stream.position), None, stream.leaf)
    for peer, position, _ in sorted(copies, key=lambda copy: -copy.position):
        await _fetch(connection, log, signed, peer, position)


async def _leaf(peer: Peer, position: int) -> str:
    """Raises Interrupted."""
    ack = await head_of(peer, position)
    if ack is None or ack.position != position:
        raise Interrupted(f"{peer.region} does not say what its copy holds at position {position}")
    return ack.leaf


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


async def head_of(peer: Peer, position: int | None = None) -> Ack | None:
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
    Nothing is taken from a copy that ends before: nothing vouches for it.
    """
    head = await store.head(connection, log)
    if last < signed.size:
        return
    promised: dict[int, bytes] = {}
    if head.position < signed.size:
        tree = await LogTree(connection, log.id).prefix(head.position)
        async for frame in missing(head, peer, signed.size):
            tree.extend(frame.leaves)
            promised[frame.last] = frame.leaves[-1]
        if tree.root() != signed.root:
            text = f"the copy of {peer.region} does not lead to the head of size {signed.size} that we have signed"
            raise Refuted(Forked(text, signed.size), None, signed.root)
    for end in (signed.size, last):
        async for frame in missing(await store.head(connection, log), peer, end):
            if frame.last <= signed.size and promised.get(frame.last) != frame.leaves[-1]:
                raise Interrupted(f"{peer.region} answers the same question differently")
            await store.restore(connection, log, frame)


async def missing(head: Head, peer: Peer, last: int) -> AsyncIterator[Frame]:
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
