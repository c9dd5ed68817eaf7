"""
Adopts what other regions have released to this one, as soon as its copies of their logs show it.

Invariant: what is adopted is asked of the log itself, which refuses anything but what its copies hold; adopting twice is harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from commands import handovers
from commands.plan import Context, Plan, Receipt
from commands.services import SYSTEM
from eventstore.log import Streams

LOOK_S = 1.0
PAUSE_S = 0.02
"""Between two looks, however much is appended."""

_log = structlog.get_logger(__name__)


class Wakes(Protocol):
    """eventstore.postgres.Waker."""

    async def wait(self, timeout: float, /) -> None:  # noqa: ASYNC109 — a time-out is an ordinary answer here
        """Return when something was appended, or after `timeout` seconds."""


class Adopting:
    """`log`: the one written here."""

    def __init__(self, log: str, streams: Streams, decide: Callable[[Plan], Awaitable[Receipt]], waker: Wakes) -> None:
        self._log = log
        self._streams = streams
        self._decide = decide
        self._waker = waker

    async def step(self) -> None:
        """Wait until something is appended, and adopt what was released."""
        await self._waker.wait(LOOK_S)
        for found in await self._streams.released(self._log):
            context = Context(SYSTEM, datetime.now(UTC), b"", None)
            receipt = await self._decide(handovers.adopt(self._log, found, context))
            _log.info("adopted partitions", of=found.of, cut=found.cut.position, position=receipt.position)
