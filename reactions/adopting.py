"""
Adopts what other regions have released to this one, as soon as its copies of their logs show it.

Invariant: what is adopted is asked of the log itself, which refuses anything but what its copies hold; adopting twice is harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from commands import handovers
from commands.plan import Context, Plan, Receipt
from commands.services import SYSTEM
from eventstore.log import Streams

PAUSE_S = 0.25
"""Between two looks: the longest that a hand-over waits for this side."""

_log = structlog.get_logger(__name__)


class Adopting:
    """`log`: the one written here."""

    def __init__(self, log: str, streams: Streams, decide: Callable[[Plan], Awaitable[Receipt]]) -> None:
        self._log = log
        self._streams = streams
        self._decide = decide

    async def step(self) -> None:
        """Adopt what was released."""
        for found in await self._streams.released(self._log):
            context = Context(SYSTEM, datetime.now(UTC), b"", None)
            receipt = await self._decide(handovers.adopt(self._log, found, context))
            _log.info("adopted partitions", of=found.of, cut=found.cut.position, position=receipt.position)
