"""
Entries by request and reply, from the origin's PostgreSQL: for a copy that met a gap in the stream.

Requests are answered one after another, so that copies which catch up take a bounded share of the origin's work.
"""

import asyncio

from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from structlog.typing import FilteringBoundLogger

from replication.errors import FrameError, Interrupted
from replication.frame import encode
from replication.link import Link
from replication.store import Connection, Log
from replication.tail import one_frame
from replication.wire import ERROR_CODE, ERROR_TEXT, RANGE_EMPTY, RANGE_REFUSED, decode_range, encode_range

_QUEUE_MAX = 64  # who finds no room gets no answer, and asks again
_TIMEOUT_S = 5.0


async def serve(link: Link, connection: Connection, log: Log, logger: FilteringBoundLogger) -> None:
    """Answer requests for ranges of the own log, for ever."""
    waiting: asyncio.Queue[Msg] = asyncio.Queue(_QUEUE_MAX)

    async def receive(message: Msg) -> None:
        if not waiting.full():
            waiting.put_nowait(message)

    subscription = await link.client.subscribe(link.realm.range, queue="range", cb=receive)
    try:
        while True:
            request = await waiting.get()
            data, headers = await _answer(connection, log, request.data)
            if ERROR_CODE in headers:
                logger.info("a range was refused", reason=headers[ERROR_TEXT])
            if request.reply:
                await link.publish(request.reply, data, headers=headers or None)
    finally:
        if not link.client.is_closed:
            await subscription.unsubscribe()


async def _answer(connection: Connection, log: Log, request: bytes) -> tuple[bytes, dict[str, str]]:
    try:
        first, last = decode_range(request)
        frame = await one_frame(connection, log, first, last)
    except (FrameError, Interrupted) as error:
        return b"", {ERROR_CODE: RANGE_REFUSED, ERROR_TEXT: str(error)}
    if frame is None:
        return b"", {ERROR_CODE: RANGE_EMPTY, ERROR_TEXT: f"the log ends before {first}"}
    return encode(frame), {}


async def fetch(link: Link, first: int, last: int) -> bytes | None:
    """
    Ask the realm's origin for entries from `first` on: a frame, not checked; None if its log ends before.

    Raises Interrupted if it does not, or will not, answer.
    """
    try:
        answer = await link.client.request(link.realm.range, encode_range(first, last), timeout=_TIMEOUT_S)
    except (NoRespondersError, TimeoutError) as error:
        raise Interrupted(f"the origin does not answer for the range from {first} to {last}") from error
    code = (answer.headers or {}).get(ERROR_CODE)
    if code is None:
        return answer.data
    if code == RANGE_EMPTY:
        return None
    raise Interrupted(f"the origin refuses the range from {first} to {last}: {(answer.headers or {}).get(ERROR_TEXT)}")
