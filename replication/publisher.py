"""
Publishes frames in order, several under way, each acknowledged by JetStream.

The first refusal or time-out ends it: what then stands in the stream is asked of the stream, never concluded from here.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from replication.errors import Interrupted
from replication.frame import Frame, encode
from replication.link import ApiError, Link

ACK_TIMEOUT_S = 2.0


class _PubAck(msgspec.Struct, frozen=True):
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_PubAck).decode


class Publisher:
    """Use it as a context manager. `wake` is set whenever an acknowledgement, or a refusal, came in."""

    def __init__(self, link: Link, wake: asyncio.Event) -> None:
        self._link = link
        self._wake = wake
        self._sent = 0
        self._since: dict[str, float] = {}  # what is under way, the oldest first, and since when
        self._failure: str | None = None
        self._reconnects = link.reconnects
        self._inbox = ""
        self._subscription: Subscription | None = None

    @property
    def under_way(self) -> int:
        return len(self._since)

    async def __aenter__(self) -> Self:
        self._inbox = self._link.client.new_inbox()
        self._subscription = await self._link.client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription and not self._link.client.is_closed:
            await self._subscription.unsubscribe()

    async def send(self, frame: Frame, *, after_sequence: int | None) -> None:
        """
        Send a frame that JetStream accepts only directly after the one that ends at frame.first - 1. The first frame goes
        after the stream's message `after_sequence` instead, since an empty stream refuses the other header, and a newest
        message that is no frame of ours has to be passed over.
        """
        headers = {"Nats-Msg-Id": str(frame.last)}
        if after_sequence is None:
            headers["Nats-Expected-Last-Msg-Id"] = str(frame.first - 1)
        else:
            headers["Nats-Expected-Last-Sequence"] = str(after_sequence)
        self._sent += 1
        self._since[str(self._sent)] = time.monotonic()
        await self._link.publish(
            self._link.realm.frames, encode(frame), reply=f"{self._inbox}.{self._sent}", headers=headers
        )

    def check(self) -> None:
        """Raises Interrupted if anything was refused or has not been acknowledged in time, or the server was away meanwhile."""
        if self._failure is None and self._link.reconnects != self._reconnects:
            self._failure = "NATS was away, and may have lost the stream"
        if self._failure is None and self._since:
            waited_s = time.monotonic() - next(iter(self._since.values()))
            if waited_s > ACK_TIMEOUT_S:
                self._failure = f"JetStream has not acknowledged a frame for {waited_s:.1f} s"
        if self._failure is not None:
            raise Interrupted(self._failure)

    async def _acknowledged(self, message: Msg) -> None:
        if not message.data:
            self._failure = self._failure or "JetStream is not there"
        else:
            error = _decode(message.data).error
            if error is not None:
                self._failure = self._failure or f"JetStream refuses a frame: {error.description} ({error.err_code})"
        self._since.pop(message.subject.rpartition(".")[2], None)
        self._wake.set()
