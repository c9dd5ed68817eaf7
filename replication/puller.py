"""
Pulls an origin's stream through the leaf link: a standing pull on an ephemeral consumer that keeps no acknowledgements.

The server sends a heartbeat every second while a pull waits, which says how many messages it has sent. Silence, a missed message or
any complaint ends the puller; the next one begins at the cursor, which PostgreSQL keeps. What is asked for but not yet taken is bounded,
so a slow copy holds back the stream and not memory.
"""

import asyncio
import secrets
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from replication.errors import Interrupted
from replication.link import Link

HEARTBEAT_S = 1.0
SILENCE_MAX_S = 2.5 * HEARTBEAT_S
MESSAGES_PER_PULL = 256
BYTES_PER_PULL = 8 * 1024 * 1024
_EXPIRES_S = 30
_INACTIVE_S = 30
_NS = 10**9
_REPLY_TOKENS = 9  # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
_PENDING = "Nats-Pending-Messages"
_SENT = "Nats-Last-Consumer"


class Message(NamedTuple):
    sequence: int
    data: bytes


class Puller:
    """Use it as a context manager. `take` gives everything that has arrived."""

    def __init__(self, link: Link, name: str, start: int) -> None:
        self._link = link
        self._start = start
        self._consumer = f"{name}-{secrets.token_hex(16)}"  # nobody else can name it, and delete it
        self._api = f"{link.realm.stream}.{self._consumer}"
        self._inbox = link.client.new_inbox()
        self._subscription: Subscription | None = None
        self._arrived: list[Message] = []
        self._wake = asyncio.Event()
        self._asked = 0  # messages that pulls under way may still bring
        self._delivered = 0
        self._failure: str | None = None

    async def __aenter__(self) -> Self:
        """Raises link.Refused or a NatsError when the origin's JetStream cannot be reached."""
        config = {
            "name": self._consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._start,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": _INACTIVE_S * _NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        request = {"stream_name": self._link.realm.stream, "action": "create", "config": config}
        await self._link.ask(f"CONSUMER.CREATE.{self._api}", request, dict)
        self._subscription = await self._link.client.subscribe(
            self._inbox, cb=self._receive, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        await self._pull()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription and self._link.client.is_connected:
            await self._subscription.unsubscribe()
            await self._link.publish(f"{self._link.realm.api}.CONSUMER.DELETE.{self._api}", b"")

    async def take(self) -> list[Message]:
        """
        Wait for messages, in order and without a gap since the last call.

        Raises Interrupted when there may be some that do not come.
        """
        while not self._arrived:
            self._wake.clear()
            if self._failure is not None:
                raise Interrupted(self._failure)
            if self._asked <= MESSAGES_PER_PULL // 2:
                await self._pull()
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    await self._wake.wait()
            except TimeoutError:
                raise Interrupted(f"nothing was heard of the stream for {SILENCE_MAX_S} s") from None
        arrived, self._arrived = self._arrived, []
        if self._asked <= MESSAGES_PER_PULL // 2 and self._failure is None:
            await self._pull()
        return arrived

    async def _pull(self) -> None:
        request = {
            "batch": MESSAGES_PER_PULL,
            "max_bytes": BYTES_PER_PULL,
            "expires": _EXPIRES_S * _NS,
            "idle_heartbeat": int(HEARTBEAT_S * _NS),
        }
        self._asked += MESSAGES_PER_PULL
        await self._link.publish(
            f"{self._link.realm.api}.CONSUMER.MSG.NEXT.{self._api}", msgspec.json.encode(request), reply=self._inbox
        )

    async def _receive(self, message: Msg) -> None:
        self._wake.set()
        status = (message.headers or {}).get("Status")
        if status is None:
            self._arrive(message)
        elif status == "100":  # a heartbeat: the pull still stands
            if int((message.headers or {}).get(_SENT, 0)) > self._delivered:
                self._fail(f"message {self._delivered + 1} of the consumer was lost")
        else:
            pending = (message.headers or {}).get(_PENDING)
            if pending is None:
                description = (message.headers or {}).get("Description")
                self._fail(f"the origin's JetStream ends the pull: {status} {description or ''}")
            else:
                self._asked -= int(pending)

    def _arrive(self, message: Msg) -> None:
        tokens = message.reply.split(".")
        if len(tokens) < _REPLY_TOKENS:
            return self._fail("a message that JetStream did not send")
        at = 5 if len(tokens) == _REPLY_TOKENS else 7  # the longer form names domain and account first
        sequence, delivered = int(tokens[at]), int(tokens[at + 1])
        if self._failure is None:
            if delivered != self._delivered + 1:
                return self._fail(f"message {self._delivered + 1} of the consumer was lost: {delivered} came")
            self._asked -= 1
            self._delivered = delivered
            self._arrived.append(Message(sequence, message.data))
        return None

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
