"""
Recording who reads: for each reader an event a second on average and BURST at once, however many requests there are.

What comes while a reader has none left waits, and is recorded together. The same read again (a log, file by file; a card that is
looked at twice) is recorded once for COVERS_SECONDS: the answer may be another by then, who has looked at whom is not.

Invariants:
    - `record` returns only when the read stands in the log, so an answer that follows it has left its trace;
    - in any t seconds a reader has at most BURST + t / GAP_SECONDS events (as far as one process knows);
    - at most READS_MAX reads of a reader wait: whoever comes then is refused, and nothing is recorded of them;
    - a parameter is recorded with its value where its name and its form say that this is nothing personal, else by its name alone.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote_plus, urlencode

import msgspec

from access.policy import Principal
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain import reads
from domain.errors import Invalid, Rejected
from domain.kernel import OperatorId, PlayerId, uuid7_texts
from domain.reads import QUERY_CHARACTERS_MAX, READS_MAX, SUBJECTS_MAX, Read

BURST = 10
GAP_SECONDS = 1.0
COVERS_SECONDS = 60.0
COVERED_MAX = 1_000
"""Reads of one reader that are remembered as recorded; the oldest are forgotten, and recorded again."""

_ID = r"[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_WORD = r"[a-z0-9_-]{1,40}"
_ACTOR = r"[a-z]+:[A-Za-z0-9_-]{1,40}"
_TIME = r"[0-9T:.Z+-]{1,40}"
_POSITIONS = r"[a-z0-9-]{1,40}/[0-9]{1,19}(,[a-z0-9-]{1,40}/[0-9]{1,19})*"
_FORMS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(form)
    for form, names in {
        _ID: "player player_id operator_id transaction_id ticket_id notice_id contact_id approval_id disclosure_id trigger",
        _WORD: "log projection status kind channel priority severity",
        r"[a-z_]{1,40}\.[a-z_.]{0,60}\*?": "action type",
        _ACTOR: "actor operator assignee",
        rf"{_TIME}|{_POSITIONS}": "at",
        _TIME: "from to due_before registered_from registered_to requested_from requested_to",
        _POSITIONS: "after",
        r"[A-Za-z0-9_-]{1,400}": "cursor",
    }.items()
    for name in names.split()
}
"""By the name of a parameter, the form of a value that is recorded; numbers and booleans always are. (A cursor holds places:
times, positions, identifiers.)"""


class TooManyReads(Rejected):
    code = "too_many_reads"
    title = "More reads are asked for than are recorded in a second; ask again a little later"


class Recorded(msgspec.Struct, frozen=True):
    """How many reads were recorded together."""

    reads: int


def read_of(what: str, /, subjects: Iterable[PlayerId | OperatorId] = (), **query: object) -> Read:
    """A read, as it is recorded: parameters that were not given (None) are left out. Raises Invalid if that is too much."""
    text = "&".join(_parameter(name, value) for name, value in query.items() if value is not None)
    if len(text) > QUERY_CHARACTERS_MAX:
        raise Invalid(f"the parameters have more than {QUERY_CHARACTERS_MAX} characters, which is not recorded")
    whose = tuple(sorted(set(subjects)))
    if len(whose) > SUBJECTS_MAX:
        raise Invalid(f"that tells of more than {SUBJECTS_MAX} persons, which is not recorded")
    return Read(what, text, whose)


def _parameter(name: str, value: object) -> str:
    form = _FORMS.get(name)
    is_harmless = isinstance(value, int) or (form is not None and form.fullmatch(str(value)) is not None)
    return urlencode({name: value}) if is_harmless else quote_plus(name)


def record(log: str, principal: Principal, made: Sequence[Read], now: datetime) -> Plan:
    """Record what the principal reads. Each call describes another command."""
    key = uuid7_texts(now, os.urandom(10))[0]
    return Plan(
        Context(principal, now, command_id(principal.actor, f"reads\n{key}"), None),
        require=(),
        writes={"state": reads.stream(log, principal.actor)},
        decision=lambda _at, state: reads.record(state, made=made),
        answer=lambda _facts: Recorded(len(made)),
    )


class _Reader:
    """What is under way for one reader. `known`: reads that wait, or were recorded not long ago, the oldest first; a future's
    result is the time until which the read is covered. `due_at`: when the events so far are paid for, at one each GAP_SECONDS.
    """

    __slots__ = ("due_at", "known", "task", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Read, asyncio.Future[float]]] = deque()
        self.known: dict[Read, asyncio.Future[float]] = {}
        self.due_at = 0.0
        self.task: asyncio.Task[None] | None = None

    def forget(self, now: float) -> None:
        """What is covered no longer, and what is too much to remember."""
        for read, future in list(self.known.items()):
            if not future.done() or (future.result() > now and len(self.known) <= COVERED_MAX):
                return
            del self.known[read]

    def take(self) -> list[tuple[Read, asyncio.Future[float]]]:
        """Those that wait, as many as one event holds."""
        count = reads.fitting([read for read, _ in self.waiting])
        return [self.waiting.popleft() for _ in range(count)]


class Recorder:
    """Records reads of all readers in the log `log`. `monotonic` gives seconds; `sleep` waits that many."""

    def __init__(
        self,
        log: str,
        decide: Callable[[Plan], Awaitable[Receipt]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.log = log
        self._decide = decide
        self._monotonic = monotonic
        self._sleep = sleep
        self._now = now
        self._readers: dict[str, _Reader] = {}

    async def record(self, principal: Principal, read: Read) -> None:
        """Return once the read stands in the log. Raises TooManyReads, and what the decider raises."""
        reader = self._readers.setdefault(principal.actor, _Reader())
        reader.forget(self._monotonic())
        future = reader.known.get(read)
        if future is None:
            if len(reader.waiting) >= READS_MAX:
                raise TooManyReads
            future = reader.known[read] = asyncio.get_running_loop().create_future()
            reader.waiting.append((read, future))
            if reader.task is None:
                reader.task = asyncio.create_task(self._work(principal, reader))
        await asyncio.shield(future)

    async def _work(self, principal: Principal, reader: _Reader) -> None:
        """Record what waits, an event at a time, until nothing does."""
        while reader.waiting:
            while (left := reader.due_at - (BURST - 1) * GAP_SECONDS - self._monotonic()) > 0:
                await self._sleep(left)
            part = reader.take()
            try:
                await self._decide(record(self.log, principal, [read for read, _ in part], self._now()))
            except Exception as error:  # noqa: BLE001 — raised again by whoever waits
                for read, future in part:
                    del reader.known[read]
                    future.set_exception(error)
            else:
                for _, future in part:
                    future.set_result(self._monotonic() + COVERS_SECONDS)
            reader.due_at = max(reader.due_at, self._monotonic()) + GAP_SECONDS
        reader.task = None
