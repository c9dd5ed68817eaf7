"""
Answers that go on: exports as NDJSON, and what changes as server-sent events.

Invariants:
    - whoever gets one is asked anew, at most EVERY_SECONDS after the last time, who they are and what they may: a suspension, a sign-out,
      a revoked token or role ends it as it ends everything else;
    - what is live then just ends, since its reader comes again; an export breaks off, so that nobody takes a part for the whole;
    - however a reader goes away, what made the rest is closed at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from domain.errors import Rejected
from queries.dashboard import Dashboard

EVERY_SECONDS = 1.0
STILL_HERE_SECONDS = 15.0
NDJSON, SSE = "application/x-ndjson", "text/event-stream"
STILL_HERE = b": still here\n\n"
_encode = msgspec.json.Encoder().encode

Named = Callable[[Mapping[str, int]], Awaitable[str]]


class BrokenOff(Exception):
    """Whoever was given an export may not have the rest of it any more."""


class Still:
    """`ask`: raises Rejected if whoever was let in is not any more. `monotonic` gives seconds."""

    def __init__(self, ask: Callable[[], Awaitable[object]], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._asked = monotonic()

    async def holds(self) -> bool:
        """Whether they may go on, as of EVERY_SECONDS ago at the latest."""
        now = self._monotonic()
        if now >= self._asked + EVERY_SECONDS:
            self._asked = now
            try:
                await self._ask()
            except Rejected:
                return False
        return True

    async def over(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The parts of an export. Raises BrokenOff."""
        async for part in parts:
            if not await self.holds():
                raise BrokenOff
            yield part


class Streamed(StreamingResponse):
    """NDJSON, of which the first part is at hand."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], still: Still) -> None:
        self._first, self._rest, self._still = first, rest, still
        super().__init__(self._all(), media_type=NDJSON)

    async def _all(self) -> AsyncIterator[bytes]:
        yield self._first
        async for more in self._still.over(self._rest):
            yield more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()


async def dashboards(
    source: AsyncIterator[Dashboard], still: Still, stop: asyncio.Event, last_id: str | None, named: Named
) -> AsyncIterator[bytes]:
    """Each as a server-sent event, unless the reader has it (`last_id`). `named`: positions with their leaves. Ends when the service does, or when they may not go on."""
    stopping = asyncio.create_task(stop.wait())
    loop = asyncio.get_running_loop()
    said = loop.time()
    try:
        yield b"retry: 1000\n\n"
        while True:
            step = asyncio.ensure_future(anext(source))
            while not step.done():
                await asyncio.wait([step, stopping], return_when=asyncio.FIRST_COMPLETED, timeout=EVERY_SECONDS)
                if stopping.done() or not await still.holds():
                    step.cancel()
                    return
                if not step.done() and loop.time() > said + STILL_HERE_SECONDS:
                    yield STILL_HERE
                    said = loop.time()
            shown = step.result()
            id_ = await named(shown.positions)
            if id_ != last_id:
                yield b"id: %b\nevent: dashboard\ndata: %b\n\n" % (id_.encode(), _encode(shown))
                said = loop.time()
            last_id = None
    finally:
        stopping.cancel()
