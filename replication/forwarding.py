"""
Commands for players whom another region owns: bytes to that region's processes, and what became of them back.

How long a command may wait is said by the owner's own clock, which has nothing to do with the time of day: each of the owner's
processes tells, with every answer, its name and for how long it has run by a clock that never goes back. Who sends a command
says, for each process that it knows, the latest moment at which that one may begin it. A process that was frozen, or whose
messages were held up, finds that moment past and begins nothing.

Invariants:
    - a command is begun before its moment, by a process that the sender knew, or never: nothing waits in a stream;
    - who sends it is told by the subject, on which the owner's server lets nobody else publish;
    - Unreachable means that nothing was begun, and nothing will be; whatever else goes wrong is Unknown;
    - a region that has not been heard for a while is asked the time before it is sent a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import nats.errors
import structlog
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from replication.config import Config
from replication.errors import Interrupted, ReplicationError
from replication.link import Link, link
from replication.tasks import again_and_again
from replication.wire import NO_RESPONDERS, SERVER_STATUS, Realm, decode_number, region_of

USER = "commands"
"""Which of our users in a realm sends and answers here (Config.seed)."""
PAYLOAD_BYTES_MAX = 1_000_000  # of the servers' 1 MiB; the rest is for headers and subjects
BUDGET_S = 5.0
ANSWER_S = 6.0
_TIME_S = 1.5
_LATELY_S = 2.0
_FORGET_S = 600.0
_KNOWN_MAX = 32
_UNDER_WAY_MAX = 512
_LAST_S = 1.0

_CLOCK, _BEGIN_BY, _REFUSED = "Clock", "Begin-By", "Refused"
_LATE, _STRANGE, _FULL, _FAILED = "late", "clock", "full", "failed"
_SAID = {
    _LATE: "it took the command up too late, and began nothing",
    _FULL: "it has more commands under way than it takes",
    _STRANGE: "its processes are being started anew",
}

Work = Callable[[str, bytes, float], Awaitable[bytes]]
"""(who sends it, a command, for how many seconds more it may be begun, also elsewhere) → its answer."""


class Unreachable(Interrupted):
    """Nothing was begun, and nothing will be."""


class Unknown(Interrupted):
    """The command may have been done, and may be under way."""


class TooLarge(ReplicationError):
    """More than one message holds. Nothing was sent."""


def clock_us() -> int:
    """µs, from any beginning; goes on while a process is frozen, and where there is such a clock, while its machine is."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class _Clock:
    """What a process of the owner's has said, and when it was heard here (s, our clock): its clock is at least this far."""

    def __init__(self, us: int, heard: float) -> None:
        self.us = us
        self.heard = heard

    def at(self, moment: float) -> int:
        """The earliest that it may show at a moment of ours."""
        return self.us + int((moment - self.heard) * 1_000_000)


class Way:
    """The way to one other region. Made by `keep`, which holds it open."""

    def __init__(
        self,
        sender: str,
        owner: str,
        *,
        budget_s: float = BUDGET_S,
        answer_s: float = ANSWER_S,
        time_s: float = _TIME_S,
    ) -> None:
        self.owner = owner
        self._sender = sender
        self._budget_s = budget_s
        self._answer_s = answer_s
        self._time_s = time_s
        self._realm = Realm(owner)
        self._link: Link | None = None
        self._nonce = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._clocks: dict[str, _Clock] = {}

    async def send(self, data: bytes, within_s: float | None = None) -> bytes:
        """What became of a command. `within_s`: how long it may take to begin. Raises Unreachable, Unknown, TooLarge."""
        if len(data) > PAYLOAD_BYTES_MAX:
            raise TooLarge(f"{len(data)} bytes; {PAYLOAD_BYTES_MAX} are the most that are sent to another region")
        until = time.monotonic() + min(self._budget_s, self._budget_s if within_s is None else within_s)
        await self._hear(until)
        for _ in range(2):
            begin_by = ",".join(f"{name}={clock.at(until)}" for name, clock in self._clocks.items())
            answer = await self._asked("run", data, {_BEGIN_BY: begin_by}, until + self._answer_s)
            refused = (answer.headers or {}).get(_REFUSED)
            if refused is None:
                return answer.data
            if refused == _FAILED:
                raise Unknown(f"{self.owner} failed while it ran the command")
            if refused != _STRANGE:
                break
        raise Unreachable(f"{self.owner}: {_SAID.get(refused or '', refused)}")

    async def _hear(self, until: float) -> None:
        """That the owner is there, and how late it is. Raises Unreachable."""
        now = time.monotonic()
        heard = max((clock.heard for clock in self._clocks.values()), default=0.0)
        if not self._clocks or now > heard + _LATELY_S:
            try:
                await self._asked("time", b"", None, min(until, now + self._time_s))
            except Unknown as silent:
                raise Unreachable(f"{self.owner} does not answer") from silent

    async def _asked(self, verb: str, data: bytes, headers: dict[str, str] | None, until: float) -> Msg:
        """Raises Unreachable, Unknown."""
        number = str(next(self._numbers))
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            reply = f"{self._realm.replies(self._sender, self._nonce)}.{number}"
            await self._publish(self._realm.commands(self._sender, verb), data, reply, headers)
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                answer: Msg = await waiting
        except TimeoutError as silent:
            raise Unknown(f"{self.owner} has not answered") from silent
        finally:
            del self._waiting[number]
        said: Mapping[str, str] = answer.headers or {}
        if said.get(SERVER_STATUS) == NO_RESPONDERS and not answer.data:
            raise Unreachable(f"no process of {self.owner} is there to take commands")
        self._note(said.get(_CLOCK, ""))
        return answer

    async def _publish(self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
        """Raises Unreachable where it was not sent. (What is lost with the connection is sent again by NATS, perhaps too late.)"""
        there = self._link
        if there is None or not there.client.is_connected:
            raise Unreachable("our own NATS server is not there")
        try:
            await there.publish(subject, data, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise Unreachable(f"our own NATS server does not take it: {error}") from error

    def _note(self, told: str) -> None:
        name, _, said = told.partition("=")
        us = decode_number(said)
        if us is None:
            return
        now = time.monotonic()
        self._clocks.pop(name, None)
        self._clocks[name] = _Clock(us, now)
        known = list(self._clocks.items())[-_KNOWN_MAX:]
        self._clocks = {each: clock for each, clock in known if now <= clock.heard + _FORGET_S}

    async def _receive(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def keep(self, config: Config) -> None:
        """Hold the way open, for ever."""
        logger = structlog.get_logger("replication.forwarding").bind(to=self.owner)

        async def session() -> None:
            async with link(config, self.owner, f"commands-{self._sender}", logger, USER) as there:
                await there.client.subscribe(f"{self._realm.replies(self._sender, self._nonce)}.*", cb=self._receive)
                await there.client.flush()
                self._link = there
                try:
                    await there.until_closed()
                finally:
                    self._link = None

        await again_and_again(session, logger)


class Desk:
    """Takes commands that other regions send; one of the processes of a region that do. `us`: its clock."""

    def __init__(self, senders: Sequence[str], work: Work, *, us: Callable[[], int] = clock_us) -> None:
        self._senders = senders
        self._work = work
        self._us = us
        self._name = secrets.token_hex(8)
        self._tasks: set[asyncio.Task[None]] = set()
        self._logger: FilteringBoundLogger = structlog.get_logger("replication.forwarding")

    async def serve(self, config: Config) -> None:
        """Take them for ever. When that is cancelled, those under way are still answered, for a moment."""

        async def session() -> None:
            opened = link(config, config.region, f"commands-{config.region}", self._logger, USER)
            async with opened as own, self._open(own):
                await own.until_closed()

        await again_and_again(session, self._logger)

    @contextlib.asynccontextmanager
    async def _open(self, own: Link) -> AsyncIterator[None]:
        async def receive(message: Msg) -> None:
            await self._receive(own, message)

        subscriptions = [
            await own.client.subscribe(own.realm.commands(sender, "*"), queue=USER, cb=receive)
            for sender in self._senders
        ]
        try:
            yield
        finally:
            if not own.client.is_closed:
                for subscription in subscriptions:
                    await subscription.unsubscribe()
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=_LAST_S)

    async def _receive(self, own: Link, message: Msg) -> None:
        _, _, sender, verb = message.subject.split(".")
        if not message.reply:
            return
        if verb == "time":
            await self._reply(own, message)
        elif verb == "run" and len(self._tasks) >= _UNDER_WAY_MAX:
            await self._reply(own, message, refused=_FULL)
        elif verb == "run":
            task = asyncio.create_task(self._run(own, message, region_of(sender)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, own: Link, message: Msg, sender: str) -> None:
        begin_by = _moments((message.headers or {}).get(_BEGIN_BY, "")).get(self._name)
        if begin_by is None:
            return await self._reply(own, message, refused=_STRANGE)
        left_us = begin_by - self._us()
        if left_us < 0:
            self._logger.warning("a command came too late", sender=sender, late_ms=-left_us // 1000)
            return await self._reply(own, message, refused=_LATE)
        try:
            answer = await self._work(sender, message.data, left_us / 1_000_000)
        except Exception:
            self._logger.exception("a command of another region failed", sender=sender)
            return await self._reply(own, message, refused=_FAILED)
        if len(answer) > PAYLOAD_BYTES_MAX:
            self._logger.error("an answer is too large to be sent", sender=sender, bytes=len(answer))
            return await self._reply(own, message, refused=_FAILED)
        return await self._reply(own, message, answer)

    async def _reply(self, own: Link, message: Msg, data: bytes = b"", *, refused: str = "") -> None:
        headers = {_CLOCK: f"{self._name}={self._us()}"}
        if refused:
            headers[_REFUSED] = refused
        try:
            await own.publish(message.reply, data, headers=headers)
        except (nats.errors.Error, OSError) as error:  # who waits for it learns of it as of any lost answer
            self._logger.warning("an answer could not be sent", reason=str(error))


def _moments(said: str) -> dict[str, int]:
    """What Begin-By says, by process; what is no moment is none."""
    pairs = (each.partition("=") for each in said.split(","))
    return {name: us for name, _, text in pairs if (us := decode_number(text)) is not None}
