"""
Three linked regions as victims and attacker: US, with all that it really has, against the realm of EU, to which CA.2 belongs too.

The victims listen wherever something could reach them, and a state of EU's JetStream can be compared before and after.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from devstack import Stack
from tests.devstack.leaf import Leaf
from tests.flushing import flushed

CA_INBOX = "_INBOX.victim.ca"
EU_INBOX = "_INBOX.victim.eu"
NONCE = "0123456789abcdef"
SETTLED_S = (
    0.15  # what EU's server does for itself after it has read a message; what comes later would be missed, never alarm
)
_PATIENCE_S = 60.0


class Seen(NamedTuple):
    """A message as somebody heard it. What JetStream delivers keeps the name `subject`, wherever it was sent to."""

    who: str
    on: str
    subject: str
    data: bytes


_EU_HEARS = (
    "log.>",
    "ack.>",
    "cmd.>",
    "reply.>",
    "answer.>",
    "ask.>",
    "hint.>",
    "rpc.>",
    "$KV.>",
    "$O.>",
    EU_INBOX,
)
_CA_HEARS = (CA_INBOX, "hint.EU.>", "ask.EU.CA_2.>", "reply.EU.CA_2.>", "rpc.>", "log.>")


class StreamSeen(NamedTuple):
    config: StreamConfig
    messages: int
    first: int
    last: int
    consumers: list[tuple[str, str | None]]


@asynccontextmanager
async def connected(stack: Stack, region: str, user: str) -> AsyncIterator[Client]:
    async def denied(_: Exception) -> None:
        """A denied publish is reported here and nowhere else."""

    at = stack.endpoints(region)
    client = await nats.connect(at.nats, nkeys_seed=str(at.seeds / f"{user}.seed"), error_cb=denied)
    try:
        yield client
    finally:
        await client.close()


async def call(client: Client, subject: str, request: object) -> dict[str, Any]:
    answer = await client.request(subject, json.dumps(request).encode(), timeout=30)
    decoded: dict[str, Any] = json.loads(answer.data)
    return decoded


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


async def linked(client: Client, origin: str) -> None:
    """Wait until the origin's JetStream answers through the link."""

    async def answers() -> bool:
        try:
            await client.request(f"$JS.{origin}.API.INFO", b"", timeout=0.5)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            return False
        return True

    await until(answers, f"a link to {origin}")


class World:
    """Made by `world`."""

    def __init__(self, stack: Stack, clients: dict[str, Client]) -> None:
        self.stack = stack
        self.seen: list[Seen] = []
        self._clients = clients

    def __getitem__(self, who: str) -> Client:
        """Someone's connection: "eu own", "ca in-eu", …"""
        return self._clients[who]

    async def hear(self, who: str, subject: str) -> None:
        async def note(message: Msg) -> None:
            self.seen.append(Seen(who, subject, message.subject, message.data))

        await self[who].subscribe(subject, cb=note)
        await flushed(self[who])

    async def begin(self) -> None:
        """Let all victims listen, and those answer whose work it is."""

        async def answer(message: Msg) -> None:
            if message.reply:
                await message.respond(b"secret answer to " + message.data)

        for subject in _EU_HEARS:
            await self.hear("eu own", subject)
        await self.hear("eu in-ca.2", ">")
        await self.hear("ca own", ">")
        for subject in _CA_HEARS:
            await self.hear("ca in-eu", subject)
        await self.hear("ca commands-in-eu", "reply.EU.CA_2.>")
        for who, subject, queue in (
            ("eu commands-own", "cmd.EU.CA_2.*", "commands"),
            ("eu own", "rpc.EU.range", "range"),
            ("ca in-eu", "ask.EU.CA_2.keys", ""),
        ):
            await self[who].subscribe(subject, queue, cb=answer)
            await flushed(self[who])
        await self.consumer("ca in-eu", "of-ca")
        await self.consumer("us in-eu", "of-us", deliver_policy="all")

    async def consumer(self, who: str, name: str, **config: object) -> None:
        """A consumer of EU's log, of somebody's making."""
        wanted = {"name": name, "ack_policy": "none", "mem_storage": True, "inactive_threshold": 600 * 10**9, **config}
        request = {"stream_name": "LOG_EU", "action": "create", "config": wanted}
        answer = await call(self[who], f"$JS.EU.API.CONSUMER.CREATE.LOG_EU.{name}", request)
        assert "error" not in answer, answer

    async def state(self) -> list[StreamSeen]:
        """Everything of EU's JetStream that could be changed."""
        js = self["eu own"].jetstream()
        found = []
        for each in sorted(await js.streams_info(), key=lambda each: str(each.config.name)):
            consumers = await js.consumers_info(str(each.config.name))
            known = sorted((one.name, one.config.pause_until) for one in consumers)
            at = each.state
            found.append(StreamSeen(each.config, at.messages, at.first_seq, at.last_seq, known))
        return found

    async def allowed(self, actor: Actor) -> None:
        """The permitted twin of every attack: US acknowledges in its own name, and EU hears it."""
        truth = f"true {id(object())} {len(self.seen)}".encode()

        async def heard() -> bool:
            await actor.publish("ack.EU.US", truth)
            await actor.settled()
            return any(each.data == truth for each in self.seen)

        await until(heard, "what is allowed")
        await asyncio.sleep(0.02)
        self.seen.clear()

    def news(self) -> list[Seen]:
        """What victims have heard that is neither their own servers' affair nor allowed."""
        own = ("$JS.", "$SYS.", "_INBOX.", "_R_.")
        return [
            each
            for each in self.seen
            if not (each.on == ">" and each.subject.startswith(own)) and each.subject != "ack.EU.US"
        ]


class Actor:
    """US at work: by its own service user through its own server (which keeps the rules), or as a leaf that keeps none."""

    def __init__(self, means: Client | Leaf) -> None:
        self.means = means
        self.heard: list[Seen] = []
        self._subscriptions: list[Subscription] = []

    @property
    def thrown_out(self) -> bool:
        """Whether EU's server has hung up on it, as it does on a leaf that speaks where it may not."""
        return isinstance(self.means, Leaf) and self.means.over.is_set()

    async def publish(self, subject: str, data: bytes = b"", reply: str = "") -> None:
        await self.means.publish(subject, data, reply)

    async def listen(self, subject: str, queue: str = "") -> None:
        if isinstance(self.means, Leaf):
            await self.means.subscribe(subject, queue)
        else:

            async def note(message: Msg) -> None:
                self.heard.append(Seen("us", subject, message.subject, message.data))

            self._subscriptions.append(await self.means.subscribe(subject, queue, cb=note))

    async def end(self) -> None:
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def settled(self) -> None:
        if isinstance(self.means, Leaf):
            await self.means.settled()
            self.heard = [Seen("us", "", each.subject, each.data) for each in self.means.heard]
        else:
            await flushed(self.means)


@asynccontextmanager
async def world(stack: Stack) -> AsyncIterator[World]:
    who = {
        "eu": ("own", "commands-own", "in-ca.2"),
        "us": ("in-eu", "commands-in-eu"),
        "ca.2": ("own", "in-eu", "commands-in-eu"),
    }
    async with AsyncExitStack() as exits:
        clients = {
            f"{region.partition('.')[0]} {user}": await exits.enter_async_context(connected(stack, region, user))
            for region, users in who.items()
            for user in users
        }
        made = World(stack, clients)
        js = clients["eu own"].jetstream()
        for config in (
            StreamConfig(name="LOG_EU", subjects=["log.EU"], deny_delete=True, allow_direct=True),
            StreamConfig(name="KV_OWNERS", subjects=["$KV.OWNERS.>"], max_msgs_per_subject=1),
            StreamConfig(name="OBJ_FILES", subjects=["$O.FILES.>"]),
        ):
            await js.add_stream(config)
        for number in (b"1", b"2", b"3"):
            await js.publish("log.EU", b"entry " + number, headers={"Nats-Msg-Id": number.decode()})
        await js.publish("$KV.OWNERS.eu", b"eu")
        await linked(clients["us in-eu"], "EU")
        await linked(clients["ca in-eu"], "EU")
        await made.begin()
        yield made
        for name in await _names(clients["eu own"]):
            await js.delete_stream(name)


async def _names(client: Client) -> list[str]:
    try:
        return [str(each.config.name) for each in await client.jetstream().streams_info()]
    except NotFoundError:
        return []
