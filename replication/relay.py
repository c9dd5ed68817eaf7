"""
The relay: publishes a region's own log from PostgreSQL, the truth, to its JetStream stream, the transport; answers for
ranges of it, and of the copies that are held here; and keeps what the other regions acknowledge.

Where to go on. After any failure the relay asks the stream for its newest message and compares that frame with PostgreSQL.
If they agree it goes on after it, but never further back than BEHIND_MAX entries: a stream that is empty (its folder was
lost) or far behind does not need what copies fetch from PostgreSQL as quickly. If they differ, or the stream holds what
PostgreSQL does not (a restored backup that nobody has), publishing halts with an alarm until an operator clears it, and ranges and
acknowledgements go on; then it goes on past the refused message in the same way.

How much at once. Like Nagle's algorithm: what there is goes out at once while fewer than two frames are under way; when
frames queue up, only full ones do. Each message costs all who pass it on, so after a frame with many entries the next one waits a little
and is fuller: at some 800 entries a second or more they come 20 ms apart, below that a command waits for next to nothing.

Invariants:
    - JetStream accepts a frame only directly after its predecessor, so no order of failures makes a gap or a repetition in
      the stream, except where the relay skipped on purpose, at the beginning;
    - the newest whole command is always in the stream, or on its way: a copy sees in the next frame what it has missed;
    - one relay of a log works at a time (a PostgreSQL lock).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from structlog.typing import FilteringBoundLogger

from replication import frame as frames
from replication import holders, ranges, store
from replication.chain import Cursor, verify
from replication.config import Config
from replication.errors import Broken, RelayMismatch
from replication.frame import Told, tell_nobody
from replication.link import Link, ensure_stream, last_message, link
from replication.publisher import Publisher
from replication.store import Announcements, Connection, Log
from replication.tail import Tail
from replication.tasks import again_and_again, together, until_stopped
from replication.watermarks import Watermarks
from verifier.policy import Policy

BEHIND_MAX = 250_000
WINDOW = 16  # full frames under way: 8 MiB
_SMALL_WINDOW = 2
_INTERVAL_MAX_S = 0.02
_INTERVAL_ENTRIES = 16  # of which a frame makes the next one wait that long
_LOOK_INTERVAL_S = 0.5  # a notification could be lost with its connection


async def run_relay(
    config: Config, stop: asyncio.Event, relayed: Told = tell_nobody, policy: Policy | None = None
) -> None:
    """
    Relay the region's own log until `stop`. Survives the loss of its servers, and says so in the log.

    `policy`: who has to have signed the heads with which it vouches for its copies of other logs.
    """
    logger = structlog.get_logger("replication.relay").bind(log=config.region)

    async def session() -> None:
        async with link(config, config.region, f"relay-{config.region}", logger) as own:
            await together(
                own.until_closed(),
                _keep(
                    config,
                    logger.bind(part="frames"),
                    lambda c, log: _Relay(own, config, c, log, logger, relayed).run(),
                ),
                _keep(config, logger.bind(part="ranges"), lambda c, log: ranges.serve(own, c, log, logger)),
                _keep(config, logger.bind(part="copies"), lambda c, _: holders.serve(own, c, config, policy, logger)),
                _keep(config, logger.bind(part="acks"), lambda c, log: Watermarks(own, c, log, logger).run()),
            )

    await until_stopped(stop, session, logger)


async def _keep(
    config: Config, logger: FilteringBoundLogger, work: Callable[[Connection, Log], Awaitable[None]]
) -> None:
    """Do some work on a connection of its own, again and again."""

    async def session() -> None:
        async with await store.connect(config) as connection:
            await work(connection, await store.find_log(connection, config, config.region))

    await again_and_again(session, logger)


class _Relay:
    """One attempt to relay: from comparing stream and log until something fails."""

    def __init__(
        self, own: Link, config: Config, connection: Connection, log: Log, logger: FilteringBoundLogger, relayed: Told
    ) -> None:
        self._relayed = relayed
        self._link = own
        self._config = config
        self._connection = connection
        self._log = log
        self._logger = logger
        self._wake = asyncio.Event()

    async def run(self) -> None:
        await store.be_the_only(self._connection, "relay", self._log)
        async with await store.connect(self._config) as listening:
            announcements = Announcements(listening, self._log, self._wake)
            await together(announcements.run(), self._relay(announcements))

    async def _relay(self, announcements: Announcements) -> None:
        if reason := await store.halted(self._connection, "relay", self._log):
            self._logger.error("halted until an operator clears it (replication.clear_halt)", reason=reason)
            await store.until_cleared(self._connection, "relay", self._log)
        await store.until_may_write(self._connection, self._log)
        try:
            position, sequence = await self._where_to_go_on()
        except _Refuted as refuted:
            await self._halt(refuted)
            return
        await store.report_running(self._connection, "relay", self._log)
        [leaf] = await store.leaves(self._connection, self._log, range(position, position + 1))
        self._logger.info("relaying", after=position, after_sequence=sequence)
        async with Publisher(self._link, self._wake) as publisher:
            await self._publish(Tail(self._connection, self._log, position, leaf), publisher, announcements, sequence)

    async def _publish(self, tail: Tail, publisher: Publisher, announcements: Announcements, sequence: int) -> None:
        """Publish for ever, from after the stream's message `sequence` on."""
        after_sequence: int | None = sequence
        loop = asyncio.get_running_loop()
        next_at = 0.0
        await announcements.look(self._connection)
        while True:
            self._wake.clear()
            publisher.check()
            full = tail.waiting_bytes(announcements.position) >= frames.FRAME_BYTES_MAX
            if publisher.under_way < (WINDOW if full else _SMALL_WINDOW):
                if not full:
                    await asyncio.sleep(next_at - loop.time())
                frame = await tail.next_frame(announcements.position)
                if frame is not None:
                    began = time.perf_counter()
                    await publisher.send(frame, after_sequence=after_sequence)
                    self._relayed(frame, time.perf_counter() - began)
                    after_sequence = None
                    next_at = loop.time() + _INTERVAL_MAX_S * min(1.0, len(frame) / _INTERVAL_ENTRIES)
                    continue
            try:
                async with asyncio.timeout(_LOOK_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                await announcements.look(self._connection)

    async def _where_to_go_on(self) -> tuple[int, int]:
        """After which position, and which message of the stream, to go on. Raises _Refuted."""
        stream = await ensure_stream(self._link, self._config.stream_bytes_max)
        last = await last_message(self._link)
        held = 0
        if last is not None:
            sequence, data = last
            if sequence > await store.passed_over(self._connection, "relay", self._log, stream.created):
                held = await self._compared(Cursor(stream.created, sequence), data)
        end = (await store.head(self._connection, self._log)).position
        earliest = await store.end_of_command(self._connection, self._log, end - BEHIND_MAX)
        # Not after that message: a stream that has lost its newest ones to a damaged disk counts them still.
        return max(held, earliest), stream.state.last_seq

    async def _compared(self, at: Cursor, data: bytes) -> int:
        """The position at which a message of the stream ends, if it agrees with the log. Raises _Refuted."""
        try:
            frame = frames.parse(data)
            verify(frame)
        except Broken as broken:
            why = RelayMismatch(f"the newest message of our stream is no frame of our log: {broken}", broken.position)
            raise _Refuted(why, at, data) from broken
        mine = await store.leaves(self._connection, self._log, range(frame.last, frame.last + 1))
        if mine != [frame.leaves[-1]]:
            here = mine[0].hex() if mine else "none"
            text = f"position {frame.last} has the leaf {frame.leaves[-1].hex()} in our stream, {here} in our log"
            raise _Refuted(RelayMismatch(text, frame.last), at, data)
        return frame.last

    async def _halt(self, refuted: "_Refuted") -> None:
        why = refuted.why
        await store.halt(self._connection, "relay", self._log, why, refuted.at, refuted.data)
        self._logger.error("halted: our stream is not our log", position=why.position, reason=str(why))


class _Refuted(Exception):
    """A message of the stream, and why it cannot stand there."""

    def __init__(self, why: RelayMismatch, at: Cursor, data: bytes) -> None:
        super().__init__(str(why))
        self.why = why
        self.at = at
        self.data = data
