"""Running until told otherwise: sessions that are begun again, and tasks that live and die together."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import nats.errors
import psycopg
from structlog.typing import FilteringBoundLogger

from replication.errors import Interrupted

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0
_CANCEL_AGAIN_S = 1.0
_STABLE_S = 10.0  # a session that lived this long starts the back-off from its beginning
MAY_PASS = (Interrupted, psycopg.Error, nats.errors.Error, OSError)  # OSError includes TimeoutError


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run all of them until the first ends, then cancel the others. Raises what that one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancelled(*tasks)
    for task in done:
        task.result()


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel what still runs of them, and wait until all have ended.

    A cancellation may be lost on its way: Python 3.11's `wait_for`, on which NATS connects and asks, drops one that meets the
    end of what it waits for. So whoever has not heard is told again.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


async def again_and_again(session: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    """Begin a session again whenever it ends or fails in a way that may pass. A defect of the program surfaces."""
    backoff_s = 0.0
    while True:
        began = time.monotonic()
        try:
            await session()
        except MAY_PASS as error:
            if time.monotonic() - began > _STABLE_S:
                backoff_s = 0.0
            backoff_s = min(max(2 * backoff_s, _BACKOFF_FIRST_S), _BACKOFF_MAX_S)
            reason = str(error).strip().partition("\n")[0] or repr(error)
            log.warning("interrupted", reason=reason, again_in_s=backoff_s)
            await asyncio.sleep(backoff_s)
        else:
            backoff_s = 0.0


async def until_stopped(stop: asyncio.Event, session: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    """Begin a session again and again until `stop`."""

    async def stopped() -> None:
        await stop.wait()

    await together(stopped(), again_and_again(session, log))
