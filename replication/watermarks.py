"""
How far every other region has copied our log: what a promise of geo durability waits for.

Invariants:
    - a watermark is what the peer's newest acknowledgement says, and only if its leaf is ours at that position;
    - one that differs stops nobody (a peer could lie): it raises an alarm and is kept with the watermark;
    - one that is none, or cannot be kept, is dropped: no peer's acknowledgement keeps another's from being heard;
    - whoever waits is told of every higher one that we get round to; the table is written ten times a second at most, and
      its commits are not flushed, since every acknowledgement is repeated.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import msgspec
import psycopg
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from replication import store
from replication.link import Link
from replication.store import Connection, Log
from replication.wire import Ack, decode_ack, region_of

KEEP_INTERVAL_S = 0.1


@dataclass(slots=True)
class _Peer:
    newest: Ack
    told: int = -1
    kept: Ack | None = None
    kept_at: float = 0.0
    alarmed: Ack | None = None


class Watermarks:
    def __init__(self, link: Link, connection: Connection, log: Log, logger: FilteringBoundLogger) -> None:
        self._link = link
        self._connection = connection
        self._log = log
        self._logger = logger
        self._peers: dict[str, _Peer] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Receive acknowledgements for ever."""
        await self._connection.execute("SET synchronous_commit = off")
        subscription = await self._link.client.subscribe(self._link.realm.acks, cb=self._receive)
        try:
            while True:
                self._wake.clear()
                waiting = False
                for name, peer in list(self._peers.items()):
                    waiting |= await self._note(name, peer)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KEEP_INTERVAL_S if waiting else None):
                        await self._wake.wait()
        finally:
            if not self._link.client.is_closed:
                await subscription.unsubscribe()

    async def _receive(self, message: Msg) -> None:
        name = region_of(message.subject.rpartition(".")[2])
        try:
            ack = decode_ack(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._logger.warning("an acknowledgement that is none", peer=name, reason=str(error))
            return
        peer = self._peers.setdefault(name, _Peer(ack))
        if ack.position < peer.newest.position:
            self._logger.warning("a copy fell back", peer=name, position=ack.position, before=peer.newest.position)
            peer.told = min(peer.told, ack.position - 1)  # and is told of it
        peer.newest = ack
        self._wake.set()

    async def _note(self, name: str, peer: _Peer) -> bool:
        """Tell and keep what is due. Whether there is something left to be kept later."""
        ack = peer.newest
        tell = ack.position > peer.told
        unkept = ack is not peer.kept
        keep = unkept and time.monotonic() - peer.kept_at >= KEEP_INTERVAL_S
        if not (tell or keep):
            return unkept
        agrees = await self._agrees(name, ack, keep=keep, tell=tell)
        if agrees:
            peer.told = ack.position
        else:
            if agrees is False and ack != peer.alarmed:
                self._logger.error("a copy differs from our log", peer=name, position=ack.position, leaf=ack.leaf)
            peer.alarmed, peer.told, keep = ack, max(peer.told, ack.position), True
        if keep:
            peer.kept, peer.kept_at = ack, time.monotonic()
        return not keep

    async def _agrees(self, name: str, ack: Ack, *, keep: bool, tell: bool) -> bool | None:
        """Whether the leaf is ours; None if PostgreSQL cannot take what came, which is no reason not to hear the others."""
        try:
            leaf = bytes.fromhex(ack.leaf)
        except ValueError:
            leaf = b""
        try:
            return await store.acknowledge(self._connection, self._log, name, ack.position, leaf, keep=keep, tell=tell)
        except psycopg.DataError:
            self._logger.exception("an acknowledgement cannot be kept", peer=name)
            return None
