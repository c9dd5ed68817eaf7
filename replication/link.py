"""
Our connection to our own NATS server, in one realm, and the few requests to JetStream that a log needs.

nats-py's own JetStream client is not used: its fetch() is three times slower than a standing pull, and futures of its
publish_async never time out.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client
from structlog.typing import FilteringBoundLogger

from replication.config import Config
from replication.errors import Interrupted
from replication.wire import Realm

REQUEST_TIMEOUT_S = 2.0
_PENDING_BYTES_MAX = 16 * 1024 * 1024
_NOT_FOUND = 404

# The least that a server takes. Each frame names its predecessor, so nothing comes twice; and what an operator has cleared may
# have to be sent again, when JetStream must not call it a duplicate.
_DUPLICATE_WINDOW_NS = 100 * 10**6

T = TypeVar("T")


class Link:
    """A connection that comes back by itself, for as long as the server accepts our key."""

    def __init__(self, realm: Realm, log: FilteringBoundLogger) -> None:
        self.realm = realm
        self.client = Client()
        self._log = log
        self._closed = asyncio.Event()
        self._last_error = ""

    async def open(self, config: Config, name: str, user: str = "") -> None:
        await self.client.connect(
            config.nats,
            name=name,
            nkeys_seed=str(config.seed(self.realm.origin, user)),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; nats-py says int
            connect_timeout=2,
            ping_interval=2,
            max_outstanding_pings=2,
            pending_size=_PENDING_BYTES_MAX,
            error_cb=self._on_error,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )
        _end_if_cancelled()

    async def close(self) -> None:
        try:
            await self.client.close()
        except asyncio.CancelledError:  # nats-py's own: its try to come back waited for the same socket to close
            _end_if_cancelled()

    @property
    def reconnects(self) -> int:
        """How often it has come back."""
        return self.client.stats["reconnects"]

    async def until_closed(self) -> None:
        """Raises Interrupted when the connection is closed for good: a new one is needed."""
        await self._closed.wait()
        raise Interrupted("the connection to NATS was closed")

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        await self.client.publish(subject, data, reply=reply, headers=headers)

    async def ask(self, verb: str, request: object, answer: type[T]) -> T:
        """A request to the realm's JetStream. Raises Refused if it says no, nats.errors.Error if it says nothing."""
        message = await self.client.request(
            f"{self.realm.api}.{verb}", msgspec.json.encode(request), timeout=REQUEST_TIMEOUT_S
        )
        try:
            refusal = msgspec.json.decode(message.data, type=_Answer).error
            if refusal is not None:
                raise Refused(verb, refusal)
            return msgspec.json.decode(message.data, type=answer)
        except msgspec.DecodeError as error:
            raise Interrupted(f"JetStream answered {verb} with something else: {error}") from error

    async def _on_error(self, error: Exception) -> None:
        _end_if_cancelled()
        text = str(error) or repr(error)
        if text != self._last_error:  # a server that is down is tried four times a second
            self._log.warning("nats", reason=text)
        self._last_error = text

    async def _on_reconnected(self) -> None:
        try:
            _end_if_cancelled()
        except asyncio.CancelledError:
            await self.close()
            raise
        self._last_error = ""
        self._log.info("connected to NATS again")

    async def _on_closed(self) -> None:
        self._closed.set()


def _end_if_cancelled() -> None:
    """What nats-py's tries to connect overhear: Python 3.11's `wait_for` drops a cancellation that meets a refused connection."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextlib.asynccontextmanager
async def link(config: Config, realm: str, name: str, log: FilteringBoundLogger, user: str = "") -> AsyncIterator[Link]:
    """`user`: which of our users in the realm, by Config.seed."""
    made = Link(Realm(realm), log)
    try:
        await made.open(config, name, user)
        yield made
    finally:
        await made.close()


class ApiError(msgspec.Struct, frozen=True):
    code: int
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: ApiError | None = None


class Refused(Interrupted):
    """JetStream said no."""

    def __init__(self, verb: str, error: ApiError) -> None:
        super().__init__(f"JetStream refuses {verb}: {error.description} ({error.err_code})")
        self.not_found = error.code == _NOT_FOUND


class Counts(msgspec.Struct, frozen=True):
    messages: int
    last_seq: int


class StreamInfo(msgspec.Struct, frozen=True):
    created: str
    state: Counts


class _Stored(msgspec.Struct, frozen=True):
    seq: int
    data: bytes = b""  # JSON carries it in base64


class _StoredAnswer(msgspec.Struct, frozen=True):
    message: _Stored


async def stream_info(link: Link) -> StreamInfo:
    """Raises Refused, not_found if there is no such stream."""
    return await link.ask(f"STREAM.INFO.{link.realm.stream}", {}, StreamInfo)


async def ensure_stream(link: Link, bytes_max: int) -> StreamInfo:
    """The realm's stream, made if it is not there."""
    try:
        return await stream_info(link)
    except Refused as refused:
        if not refused.not_found:
            raise
    wanted: dict[str, Any] = {
        "name": link.realm.stream,
        "subjects": [link.realm.frames],
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
        "max_bytes": bytes_max,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_age": 0,
        "discard": "old",
        "duplicate_window": _DUPLICATE_WINDOW_NS,
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
    }
    return await link.ask(f"STREAM.CREATE.{link.realm.stream}", wanted, StreamInfo)


async def last_message(link: Link) -> tuple[int, bytes] | None:
    """Sequence and data of the stream's newest message."""
    request = {"last_by_subj": link.realm.frames}
    try:
        found = (await link.ask(f"STREAM.MSG.GET.{link.realm.stream}", request, _StoredAnswer)).message
    except Refused as refused:
        if refused.not_found:
            return None
        raise
    return found.seq, found.data
