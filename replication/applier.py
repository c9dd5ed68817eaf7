"""
The applier: keeps a verified copy of one other region's log, so that no region needs to trust another, or the way between.

A frame is checked by the verifier's code (`chain`), then by the ledger's door (append_copy), and committed together with
the cursor; only then is it acknowledged to the origin. What the copy has is compared and skipped; what it misses is fetched by
range from the origin, or, while the origin does not answer, from another region that holds the log, as far as witnessed heads
vouch for it (`holders`). A frame that is wrong in itself proves nothing: it may have been damaged on its way. The origin is
asked again, its database first, then its stream, and only what it stands by is evidence; what is right in itself and fits
neither is evidence at once. Evidence is kept, the log halts at its last good entry until an operator clears it, and other logs,
which have appliers of their own, go on.

Invariants:
    - the copy commits before its acknowledgement, always; acknowledgements are cumulative and repeated every second;
    - no byte enters the copy that does not follow, by hash, from the origin's genesis;
    - a session holds nothing that PostgreSQL does not: it may be killed anywhere.
"""

import asyncio
import time
from dataclasses import dataclass, field

import structlog
from structlog.typing import FilteringBoundLogger

from replication import ranges, store
from replication.chain import Cursor, Head, joined, overlap, start_sequence
from replication.config import Config
from replication.errors import Interrupted, Mismatch
from replication.fetching import Fetch, Range, Refuted, checked, pieces
from replication.frame import NUMBER_MAX, Frame, Told, tell_nobody
from replication.holders import NOBODY, Others, Vouched, asking
from replication.link import Link, link, stream_info
from replication.puller import Message, Puller
from replication.store import Connection, Log
from replication.tasks import MAY_PASS, again_and_again, together, until_stopped
from replication.wire import Ack, encode_ack

JOINED_MAX = 4_000  # entries in one transaction, except for a single frame that has more
ACK_INTERVAL_S = 1.0
TOLD_INTERVAL_S = 0.5


async def run_applier(
    config: Config, origin: str, stop: asyncio.Event, copied: Told = tell_nobody, others: Others = NOBODY
) -> None:
    """Copy the log of the region `origin` until `stop`. Survives the loss of its servers, and says so in the log.

    While the origin does not answer, the `others` are asked.
    """
    logger = structlog.get_logger("replication.applier").bind(log=origin, region=config.region)

    async def session() -> None:
        async with link(config, origin, f"applier-{config.region}", logger) as realm:

            async def copy() -> None:
                async with await store.connect(config) as connection:
                    log = await store.find_log(connection, config, origin)
                    await store.be_the_only(connection, "applier", log)
                    copy = Copy(connection, log, await store.head(connection, log), copied)
                    applier = Applier(realm, config, copy, others, logger)
                    await together(applier.repeat_acknowledgement(), applier.run())

            await together(realm.until_closed(), again_and_again(copy, logger))

    await until_stopped(stop, session, logger)


@dataclass(slots=True)
class _Waiting:
    """Verified frames that follow the head, to be committed together."""

    frames: list[Frame] = field(default_factory=list)
    sources: list[tuple[Cursor | None, bytes]] = field(default_factory=list)
    entries: int = 0


class Copy:
    """The copy in PostgreSQL. `head` is its newest committed entry; frames may wait to be committed after it."""

    def __init__(self, connection: Connection, log: Log, head: Head, copied: Told) -> None:
        self._copied = copied
        self.connection = connection
        self.log = log
        self.head = head
        self._waiting = _Waiting()

    @property
    def next(self) -> int:
        """The position that is missing next, after what waits."""
        return self._tip.position + 1

    @property
    def full(self) -> bool:
        return self._waiting.entries >= JOINED_MAX

    @property
    def _tip(self) -> Head:
        if not self._waiting.frames:
            return self.head
        last = self._waiting.frames[-1]
        return Head(last.last, last.recorded[-1], last.leaves[-1])

    async def offer(self, frame: Frame, at: Cursor | None, data: bytes) -> None:
        """
        Take what a verified frame adds; it waits for `commit`. It must not begin after `next`.

        Raises Refuted if it forks off from what is held.
        """
        if frame.first < self.next:
            await self.commit()
        held = await store.leaves(self.connection, self.log, overlap(self._tip, frame))
        try:
            news = joined(self._tip, frame, held)
        except Mismatch as why:
            raise Refuted(why, at, data) from why
        if news is not None:
            self._waiting.frames.append(news)
            self._waiting.sources.append((at, data))
            self._waiting.entries += len(news)
        elif at is not None:
            await store.move_cursor(self.connection, self.log, at)

    async def commit(self) -> bool:
        """
        Commit what waits; whether there was anything.

        Raises Refuted if the ledger refuses a frame: what came before it is committed, what came after it is dropped.
        """
        waiting, self._waiting = self._waiting, _Waiting()
        if not waiting.frames:
            return False
        try:
            await self._apply(_join(waiting.frames), waiting.sources[-1][0])
        except Mismatch as refusal:
            for frame, (at, data) in zip(waiting.frames, waiting.sources, strict=True):
                try:
                    await self._apply(frame, at)
                except Mismatch as why:
                    raise Refuted(why, at, data) from why
            raise Interrupted("the ledger took one by one what it had refused together") from refusal
        return True

    async def _apply(self, frame: Frame, at: Cursor | None) -> None:
        began = time.perf_counter()
        await store.apply(self.connection, self.log, frame, at)
        self.head = Head(frame.last, frame.recorded[-1], frame.leaves[-1])
        self._copied(frame, time.perf_counter() - began)


def _join(frames: list[Frame]) -> Frame:
    if len(frames) == 1:
        return frames[0]
    first = frames[0]
    return Frame(
        first.first,
        first.prev_leaf,
        [recorded for frame in frames for recorded in frame.recorded],
        [leaf for frame in frames for leaf in frame.leaves],
        [body for frame in frames for body in frame.bodies],
    )


class Applier:
    """One session: from the cursor until something fails or is refused."""

    def __init__(self, realm: Link, config: Config, copy: Copy, others: Others, logger: FilteringBoundLogger) -> None:
        self._link = realm
        self._config = config
        self._copy = copy
        self._others = others
        self._logger = logger

    async def run(self) -> None:
        connection, log = self._copy.connection, self._copy.log
        if reason := await store.halted(connection, "applier", log):
            self._logger.error("halted until an operator clears it (replication.clear_halt)", reason=reason)
            await store.until_cleared(connection, "applier", log)
        await store.report_running(connection, "applier", log)
        try:
            await self._follow()
        except Refuted as refuted:
            await self._halt(refuted)
        except MAY_PASS:
            await self._ask_others()
            raise

    async def _halt(self, refuted: Refuted) -> None:
        why = refuted.why
        await store.halt(self._copy.connection, "applier", self._copy.log, why, refuted.at, refuted.data)
        self._logger.error("halted: this is not the log we copied", position=why.position, reason=str(why))

    async def repeat_acknowledgement(self) -> None:
        """Core NATS may lose one; and a copy that is halted still holds what it holds."""
        while True:
            await self._acknowledge()
            await asyncio.sleep(ACK_INTERVAL_S)

    async def _follow(self) -> None:
        stream = await stream_info(self._link)
        cursor = await store.cursor(self._copy.connection, self._copy.log)
        start = start_sequence(cursor, stream.created, stream.state.last_seq)
        self._logger.info("copying", after=self._copy.head.position, from_sequence=start)
        if start > stream.state.last_seq:
            await self._fetch_until(NUMBER_MAX)  # no frame of the stream would tell us what we miss
        async with Puller(self._link, f"applier-{self._config.region.replace('.', '_')}", start) as puller:
            while True:
                await self._take(await puller.take(), stream.created)

    async def _take(self, messages: list[Message], created: str) -> None:
        """Copy what came. On a refusal, what came before it is committed first."""
        try:
            for message in messages:
                at = Cursor(created, message.sequence)
                frame = await self._whole(message, at)
                if frame is None:
                    continue
                if frame.first > self._copy.next:
                    await self._fetch_until(frame.first - 1)
                if frame.first > self._copy.next:
                    raise Interrupted(f"the origin's log ends before position {frame.first}, which its stream has")
                await self._copy.offer(frame, at, message.data)
                if self._copy.full:
                    await self._commit()
        finally:
            await self._commit()

    async def _whole(self, message: Message, at: Cursor) -> Frame | None:
        """The frame in a message; None if it was damaged, and the origin's database had what should have stood there.

        Raises Refuted if the origin stands by what is no part of a log.
        """
        try:
            return checked(message.data, at)
        except Refuted as refuted:
            damaged = refuted
        reason = str(damaged)
        self._logger.warning("a frame is damaged, and is asked for again", sequence=at.sequence, reason=reason)
        before = self._copy.next
        await self._fetch_until(NUMBER_MAX)
        if self._copy.next > max(before, damaged.why.position or 0):
            await store.move_cursor(self._copy.connection, self._copy.log, at)
            return None
        again = await self._read_again(at.sequence)
        if again == message.data:
            raise damaged
        if again is None:
            return None
        try:
            return checked(again, at)
        except Refuted as refuted:
            raise Interrupted(f"message {at.sequence} of the stream came damaged twice, and differently") from refuted

    async def _read_again(self, sequence: int) -> bytes | None:
        """A message of the stream; None if it is not there any more."""
        async with Puller(self._link, f"again-{self._config.region.replace('.', '_')}", sequence) as puller:
            first = (await puller.take())[0]
        return first.data if first.sequence == sequence else None

    async def _fetch_until(self, last: int) -> None:
        """Fetch what is missing up to `last`, or as far as the origin's log goes."""

        async def fetch(first: int, last: int) -> Range | None:
            return await ranges.fetch(self._link, first, last)

        await self._fetch(fetch, last, self._copy.log.name)

    async def _fetch(self, fetch: Fetch, last: int, source: str, vouched: Vouched | None = None) -> None:
        """Fetch from `source` what is missing up to `last`; if leaves are vouched for, no others are taken.

        On a refusal, what came before it is committed first.
        """
        first, began = self._copy.next, time.monotonic()
        told_at, target = began, 0
        wanted = NUMBER_MAX if vouched else last  # beyond what is vouched for by this head, there are others
        self._logger.info("fetching", source=source, first=first, last=last if last < NUMBER_MAX else None)
        try:
            async with pieces(fetch, first, last) as found:
                async for piece in found:
                    if vouched is not None:
                        vouched.demand(piece)
                    target = max(min(piece.end or last, wanted), piece.frame.last)
                    await self._copy.offer(piece.frame, None, piece.data)
                    if self._copy.full:
                        await self._commit()
                    if time.monotonic() - told_at >= TOLD_INTERVAL_S:
                        told_at = time.monotonic()
                        await self._tell(source, first, target, began, vouched)
        finally:
            await self._commit()
        if target:
            await self._tell(source, first, target, began, vouched)

    async def _tell(self, source: str, first: int, target: int, began: float, vouched: Vouched | None) -> None:
        """Say how far it has come, for people to see."""
        position = self._copy.head.position
        how_far = (first, position, target, time.monotonic() - began, min(vouched.size, position) if vouched else 0)
        await store.report_catch_up(self._copy.connection, self._copy.log, source, *how_far)

    async def _ask_others(self) -> None:
        """Take what other regions hold of the log, and heads vouch for. What they get wrong halts nothing: they are not the origin."""
        log, policy = self._copy.log, self._others.policy
        if policy is None:
            return
        for region in self._others.regions:
            try:
                async with asking(self._config, region, log, policy, self._logger) as holder:
                    while vouched := await holder.vouched(self._copy.connection, self._copy.head.position):
                        await self._fetch(holder.fetch, vouched.size, region, vouched)
                        if self._copy.head.position < vouched.size:
                            raise Interrupted(f"it has leaves up to {vouched.size}, and no entries for them")
            except Refuted as refuted:
                self._doubt(region, refuted)
            except MAY_PASS as error:
                self._logger.info("another region does not help", holder=region, reason=str(error) or repr(error))

    def _doubt(self, region: str, refuted: Refuted) -> None:
        self._logger.error("another region does not hold this log", holder=region, reason=str(refuted))

    async def _commit(self) -> None:
        if await self._copy.commit():
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        head = self._copy.head
        ack = encode_ack(Ack(head.position, head.leaf.hex()))
        await self._link.publish(self._link.realm.ack(self._config.region), ack)
