"""
The copy of a log that was closed: nobody writes it any more, so it comes from the regions that hold it, and ends where the next log of
its region says.

As far as witnessed heads go, it is taken as they vouch for it (`holders`). The last of it no head may cover; that is taken whole or not
at all, if it leads to the leaf that the next log names at its opening, from which all before follows.

Invariant: nothing behind that entry is asked for.
"""

import asyncio
import time
from typing import NamedTuple

import structlog
from structlog.typing import FilteringBoundLogger

from replication import store
from replication.applier import Copy
from replication.chain import Head, joined
from replication.config import Config
from replication.errors import Forked, Interrupted, Mismatch
from replication.fetching import Refuted, pieces
from replication.frame import Frame, Told, tell_nobody
from replication.holders import STRETCH, Holder, Others, Vouched, asking
from replication.tasks import MAY_PASS, until_stopped

LOOK_S = 1.0

_END = "SELECT after_position, after_leaf FROM ledger.continuation WHERE after_log = %s"


class _End(NamedTuple):
    """The last entry that counts."""

    position: int
    leaf: bytes


async def run_closed(
    config: Config, name: str, stop: asyncio.Event, others: Others, copied: Told = tell_nobody
) -> None:
    """Complete the copy of the closed log `name` from the `others`, and keep looking, until `stop`."""
    logger = structlog.get_logger("replication.closed").bind(log=name, region=config.region)

    async def session() -> None:
        async with await store.connect(config) as connection:
            log = await store.find_log(connection, config, name)
            await store.be_the_only(connection, "applier", log)
            copy = Copy(connection, log, await store.head(connection, log), copied)
            completing = Completing(config, copy, others, logger)
            while True:
                await completing.step()
                await asyncio.sleep(LOOK_S)

    await until_stopped(stop, session, logger)


class Completing:
    def __init__(self, config: Config, copy: Copy, others: Others, logger: FilteringBoundLogger) -> None:
        self._config = config
        self._copy = copy
        self._others = others
        self._logger = logger
        self._doubted: set[tuple[str, str]] = set()

    async def step(self) -> None:
        """Take what is missing from whoever has it. Who gives something wrong is told of in the log, and the next is asked."""
        end, policy = await self._end(), self._others.policy
        if end is None or policy is None:
            return
        for region in self._others.regions:
            if self._copy.head.position >= end.position:
                return
            try:
                async with asking(self._config, region, self._copy.log, policy, self._logger) as holder:
                    await self._take_from(holder, region, end)
            except Refuted as refuted:
                self._doubt(region, str(refuted))
            except MAY_PASS as error:
                self._logger.info("another region does not help", holder=region, reason=str(error) or repr(error))

    def _doubt(self, region: str, reason: str) -> None:
        if (region, reason) not in self._doubted:  # it is asked again every second
            self._doubted.add((region, reason))
            self._logger.error("another region does not hold this log", holder=region, reason=reason)

    async def _end(self) -> _End | None:
        """None as long as the log that goes on with this one was not seen to be opened."""
        cursor = await self._copy.connection.execute(_END, (self._copy.log.name,))
        row = await cursor.fetchone()
        return None if row is None else _End(row[0], bytes(row[1]))

    async def _take_from(self, holder: Holder, region: str, end: _End) -> None:
        """Raises Refuted, Interrupted."""
        try:
            while vouched := await holder.vouched(self._copy.connection, self._copy.head.position):
                if vouched.size > end.position:
                    break
                await self._take(holder, region, vouched, end)
        except Refuted as refuted:  # what the log that goes on names vouches for the rest by itself
            self._doubt(region, str(refuted))
        if self._copy.head.position < end.position:
            await self._take_the_rest(holder, region, end)

    async def _take(self, holder: Holder, region: str, vouched: Vouched, end: _End) -> None:
        first, began = self._copy.next, time.monotonic()
        try:
            async with pieces(holder.fetch, first, vouched.size) as found:
                async for piece in found:
                    vouched.demand(piece)
                    await self._copy.offer(piece.frame, None, piece.data)
                    if self._copy.full:
                        await self._copy.commit()
        finally:
            await self._copy.commit()
        await self._tell(region, first, end.position, began, self._copy.head.position)
        if self._copy.head.position < vouched.size:
            raise Interrupted(f"it has leaves up to {vouched.size}, and no entries for them")

    async def _take_the_rest(self, holder: Holder, region: str, end: _End) -> None:
        """Looks at all of it before the first is taken: what is once in the copy stays there."""
        first, began = self._copy.next, time.monotonic()
        if end.position - first >= STRETCH:
            raise Interrupted(f"no witnessed head vouches for the {end.position - first + 1} entries from {first} on")
        tip, frames = self._copy.head, list[Frame]()
        async with pieces(holder.fetch, first, end.position) as found:
            async for piece in found:
                try:
                    joined(tip, piece.frame)
                except Mismatch as why:
                    raise Refuted(why, None, piece.data) from why
                tip = Head(piece.frame.last, piece.frame.recorded[-1], piece.frame.leaves[-1])
                frames.append(piece.frame)
        if tip.position < end.position:
            raise Interrupted(f"its copy ends at {tip.position}")
        if tip.leaf != end.leaf:
            text = (
                f"position {end.position} has the leaf {tip.leaf.hex()} there; the log goes on behind {end.leaf.hex()}"
            )
            raise Refuted(Forked(text, end.position), None, tip.leaf)
        for frame in frames:
            await self._copy.offer(frame, None, b"")
            if self._copy.full:
                await self._copy.commit()
        await self._copy.commit()
        await self._tell(region, first, end.position, began, 0)

    async def _tell(self, region: str, first: int, target: int, began: float, vouched: int) -> None:
        far = (first, self._copy.head.position, target, time.monotonic() - began, vouched)
        await store.report_catch_up(self._copy.connection, self._copy.log, region, *far)
        self._logger.info("a closed log is completed", holder=region, position=self._copy.head.position, of=target)
