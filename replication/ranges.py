"""
Entries by request and reply, from the origin's PostgreSQL: for a copy that met a gap in the stream.

Requests are answered one after another, so that copies which catch up take a bounded share of the origin's work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from structlog.typing import FilteringBoundLogger

from replication import store
from replication.errors import FrameError, Interrupted
from replication.fetching import Range
from replication.frame import encode
from replication.link import Link
from replication.store import Connection, Log
from replication.tail import one_frame
from replication.wire import (
    ERROR_CODE,
    ERROR_TEXT,
    LOG_END,
    RANGE_EMPTY,
    RANGE_REFUSED,
    decode_number,
    decode_range,
    encode_range,
)

_QUEUE_MAX = 64  # who finds no room gets no answer, and asks again
_TIMEOUT_S = 5.0

Reply = tuple[bytes, Mapping[str, str]]


async def serve(link: Link, connection: Connection, log: Log, logger: FilteringBoundLogger) -> None:
    """Answer requests for ranges of the own log, for ever."""

    async def range_of_ours(request: Msg) -> Reply:
        return await answer(connection, log, request.data)

    await answer_each(link, link.realm.range, range_of_ours, logger)


async def answer_each(
    link: Link, subject: str, answer: Callable[[Msg], Awaitable[Reply]], logger: FilteringBoundLogger
) -> None:
    """Answer requests one after another, for ever. One that raises FrameError or Interrupted is refused."""
    waiting: asyncio.Queue[Msg] = asyncio.Queue(_QUEUE_MAX)

    async def receive(message: Msg) -> None:
        if not waiting.full():
            waiting.put_nowait(message)

    subscription = await link.client.subscribe(subject, queue="range", cb=receive)
    try:
        while True:
            request = await waiting.get()
            try:
                data, headers = await answer(request)
            except (FrameError, Interrupted) as error:
                logger.info("a range was refused", reason=str(error))
                data, headers = b"", {ERROR_CODE: RANGE_REFUSED, ERROR_TEXT: str(error)}
            if request.reply:
                await link.publish(request.reply, data, headers=dict(headers))
    finally:
        if not link.client.is_closed:
            await subscription.unsubscribe()


async def answer(connection: Connection, log: Log, request: bytes) -> Reply:
    """A range of a log that is held here. Raises FrameError, Interrupted."""
    first, last = decode_range(request)
    frame = await one_frame(connection, log, first, last)
    if frame is None:
        return b"", {ERROR_CODE: RANGE_EMPTY, ERROR_TEXT: f"the log ends before {first}"}
    return encode(frame), {LOG_END: str((await store.head(connection, log)).position)}


async def fetch(link: Link, first: int, last: int) -> Range | None:
    """
    Ask the realm's origin for entries from `first` on; None if its log ends before.

    Raises Interrupted if it does not, or will not, answer.
    """
    found = await ask(link, link.realm.range, encode_range(first, last))
    return None if found is None else Range(found.data, end(found))


async def ask(link: Link, subject: str, request: bytes) -> Msg | None:
    """An answer; None if what is asked for is not there. Raises Interrupted if there is none, or it is a refusal."""
    try:
        answered = await link.client.request(subject, request, timeout=_TIMEOUT_S)
    except (NoRespondersError, TimeoutError) as error:
        raise Interrupted(f"nobody answers {subject}") from error
    headers = answered.headers or {}
    code = headers.get(ERROR_CODE)
    if code is None or code == RANGE_EMPTY:
        return answered if code is None else None
    raise Interrupted(f"{subject} is refused: {headers.get(ERROR_TEXT)}")


def end(answered: Msg) -> int:
    """What an answer says of the log's end; 0 if nothing."""
    return decode_number((answered.headers or {}).get(LOG_END, "")) or 0
