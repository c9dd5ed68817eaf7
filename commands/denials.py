"""
Recording who was refused what: at most one event in GAP_SECONDS for each of them, however often they try.

The first refusal is recorded at once; those that follow are counted, and recorded together. Nobody waits for it: a refusal is
answered whether or not the log can be written, and what could not be recorded is tried again.

Invariants:
    - two events of one actor are at least GAP_SECONDS apart (as far as one process knows);
    - every refusal is counted once: by its kind, or, beyond DENIALS_MAX kinds, as one more.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import structlog

from access.policy import Principal
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain import denials
from domain.denials import DENIALS_MAX, Denial
from domain.errors import Rejected
from domain.kernel import uuid7_texts
from eventstore.writer import Unavailable

GAP_SECONDS = 10.0
_log = structlog.get_logger(__name__)


class Recorded(msgspec.Struct, frozen=True):
    """How many kinds of refusals were recorded together."""

    kinds: int


class Kind(NamedTuple):
    what: str
    action: str
    policy: str


def kind_of(what: str, refused: Rejected) -> Kind:
    """What is recorded of a refusal: the route, and what the answer said."""
    return Kind(what, str(refused.facts.get("action", "")), str(refused.facts.get("policy", "")))


def record(log: str, principal: Principal, counted: Counter[Kind], more: int, now: datetime) -> Plan:
    """Record what the principal was refused. Each call describes another command."""
    key = uuid7_texts(now, os.urandom(10))[0]
    denied = [Denial(*kind, times) for kind, times in counted.items()]
    return Plan(
        Context(principal, now, command_id(principal.actor, f"denied\n{key}"), None),
        require=(),
        writes={"state": denials.stream(log, principal.actor)},
        decision=lambda _at, state: denials.record(state, denied=denied, more=more),
        answer=lambda _facts: Recorded(len(denied)),
    )


class _Refused:
    """What was counted for one actor and is not recorded yet. `owed`: what the log has not confirmed; it is sent again as it is."""

    __slots__ = ("counted", "free_at", "more", "owed", "principal", "task", "waits")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.counted: Counter[Kind] = Counter()
        self.more = 0
        self.owed: Plan | None = None
        self.free_at = 0.0
        self.waits = False
        self.task: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return not self.counted and not self.more and self.owed is None

    def add(self, kind: Kind) -> None:
        if kind in self.counted or len(self.counted) < DENIALS_MAX:
            self.counted[kind] += 1
        else:
            self.more += 1


class Denials:
    """Records refusals in the log `log`. `monotonic` gives seconds; `sleep` waits that many."""

    def __init__(
        self,
        log: str,
        decide: Callable[[Plan], Awaitable[Receipt]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._decide = decide
        self._monotonic = monotonic
        self._sleep = sleep
        self._now = now
        self._actors: dict[str, _Refused] = {}
        self._closing = False

    def note(self, principal: Principal, kind: Kind) -> None:
        """Count a refusal; it is recorded soon."""
        refused = self._actors.setdefault(principal.actor, _Refused(principal))
        refused.add(kind)
        if refused.task is None:
            refused.task = asyncio.create_task(self._work(refused))

    async def close(self) -> None:
        """Record what is not recorded yet, if the log takes it now, and stop."""
        self._closing = True
        for refused in self._actors.values():
            if refused.task is not None:
                if refused.waits:
                    refused.task.cancel()
                await asyncio.gather(refused.task, return_exceptions=True)
            if not refused.is_done:
                await self._record(refused)

    async def _work(self, refused: _Refused) -> None:
        while not refused.is_done and not self._closing:
            refused.waits = True
            while (left := refused.free_at - self._monotonic()) > 0:
                await self._sleep(left)
            refused.waits = False
            await self._record(refused)
            refused.free_at = self._monotonic() + GAP_SECONDS
        refused.task = None

    async def _record(self, refused: _Refused) -> None:
        if refused.owed is None:
            refused.owed = record(self._log, refused.principal, refused.counted, refused.more, self._now())
            refused.counted, refused.more = Counter(), 0
        try:
            await self._decide(refused.owed)
        except (Rejected, Unavailable) as error:
            _log.warning("a refusal is not recorded yet", reason=str(error))
        else:
            refused.owed = None
