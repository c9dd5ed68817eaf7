"""
What US could try against the realm of EU, as tables: subjects on which it speaks, on which it listens, on which it wants
EU's server to answer, and consumers that would bring something where it must not be. Each check raises AssertionError if it succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Sequence

from nats.js.errors import NotFoundError

from tests.devstack.world import CA_INBOX, EU_INBOX, NONCE, SETTLED_S, Actor, StreamSeen, World, until
from tests.flushing import flushed

_API = (
    "STREAM.CREATE.LOG_EU",
    "STREAM.CREATE.EVIL",
    "STREAM.UPDATE.LOG_EU",
    "STREAM.DELETE.LOG_EU",
    "STREAM.PURGE.LOG_EU",
    "STREAM.MSG.DELETE.LOG_EU",
    "STREAM.MSG.GET.LOG_EU",
    "STREAM.SNAPSHOT.LOG_EU",
    "STREAM.RESTORE.LOG_EU",
    "STREAM.RESTORE.EVIL",
    "STREAM.PEER.REMOVE.LOG_EU",
    "STREAM.LEADER.STEPDOWN.LOG_EU",
    "STREAM.DELETE.KV_OWNERS",
    "STREAM.PURGE.KV_OWNERS",
    "STREAM.MSG.GET.KV_OWNERS",
    "DIRECT.GET.KV_OWNERS",
    "STREAM.PURGE.OBJ_FILES",
    "STREAM.INFO.KV_OWNERS",
    "STREAM.LIST",
    "STREAM.NAMES",
    "CONSUMER.LIST.LOG_EU",
    "CONSUMER.NAMES.LOG_EU",
    "CONSUMER.CREATE.LOG_EU",
    "CONSUMER.CREATE.KV_OWNERS.evil",
    "CONSUMER.DURABLE.CREATE.LOG_EU.evil",
    "CONSUMER.PAUSE.LOG_EU.of-ca",
    "CONSUMER.LEADER.STEPDOWN.LOG_EU.of-ca",
    "CONSUMER.UNPIN.LOG_EU.of-ca",
    "CONSUMER.MSG.NEXT.KV_OWNERS.evil",
    "ACCOUNT.PURGE.R_EU",
    "ACCOUNT.STREAM.MOVE.R_EU.LOG_EU",
    "SERVER.REMOVE",
    "META.LEADER.STEPDOWN",
)

SPOKEN = (
    "log.EU",
    "log.US",
    "log.CA_2",
    "log.EU.x",
    "ack.EU.CA_2",
    "ack.EU.EU",
    "ack.EU.US.x",
    "ack.CA_2.US",
    "cmd.EU.CA_2.run",
    "cmd.EU.CA_2.time",
    "cmd.EU.EU.run",
    "cmd.EU.US.run.x",
    "cmd.CA_2.US.run",
    "cmd.CA_2.EU.run",
    f"reply.EU.CA_2.{NONCE}.1",
    f"reply.EU.US.{NONCE}.1",
    f"answer.EU.CA_2.{NONCE}.1",
    f"answer.CA_2.US.{NONCE}.1",
    "ask.EU.CA_2.keys",
    "ask.EU.US.keys",
    "hint.EU.head",
    "hint.CA_2.head",
    "rpc.CA_2.range",
    "rpc.CA_2.copy.EU.range",
    CA_INBOX,
    EU_INBOX,
    "_R_.aaaaaa.bbbbbb",
    "$KV.OWNERS.eu",
    "$O.FILES.C.x",
    "$JS.ACK.LOG_EU.of-ca.1.1.1.1.0",
    "$JS.FC.LOG_EU.of-ca.x",
    "$JSC.R.x",
    "$JS.M.x",
    "$NRG.AE.x",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.R_EU.CONNZ",
    "$SYS.REQ.ACCOUNT.R_EU.CLAIMS.UPDATE",
    "$SYS._INBOX.x",
    *(f"$JS.EU.API.{each}" for each in _API),
    *(f"$JS.API.{each}" for each in _API[:6]),
    *(f"$JS.CA_2.API.{each}" for each in ("INFO", "STREAM.DELETE.LOG_CA_2", "STREAM.INFO.LOG_CA_2")),
)
"""Where US may not speak in the realm of EU."""

LISTENED = (
    ">",
    "*.>",
    "cmd.>",
    "cmd.EU.>",
    "cmd.EU.CA_2.>",
    "cmd.EU.CA_2.run",
    "cmd.*.CA_2.run",
    "cmd.EU.US.*",
    "reply.>",
    "reply.EU.>",
    "reply.EU.CA_2.>",
    "reply.*.CA_2.>",
    "ask.>",
    "ask.EU.>",
    "ask.EU.CA_2.>",
    "answer.>",
    "answer.EU.CA_2.>",
    "ack.>",
    "ack.EU.CA_2",
    "rpc.>",
    "rpc.EU.range",
    "log.>",
    "log.EU",
    "_INBOX.>",
    CA_INBOX,
    EU_INBOX,
    "_R_.>",
    "deliver.>",
    "$JS.>",
    "$JS.EU.API.>",
    "$JS.API.>",
    "$JS.ACK.>",
    "$JS.EVENT.>",
    "$KV.>",
    "$O.>",
    "$JSC.R.>",
    "$JS.M.>",
    "$NRG.>",
    "$SYS.>",
)
"""Where US must not hear what EU and CA.2 say to each other, nor what EU says to itself."""

STOLEN = (("cmd.EU.CA_2.*", "commands"), ("rpc.EU.range", "range"), ("cmd.EU.>", "commands"), ("rpc.EU.>", "range"))
"""Queue groups of EU's processes, of which one member gets each message."""

ANSWERED_ON = (
    "log.EU",
    "ack.EU.CA_2",
    "cmd.EU.CA_2.run",
    f"answer.EU.CA_2.{NONCE}.1",
    f"reply.EU.CA_2.{NONCE}.1",
    "hint.EU.head",
    "ask.EU.CA_2.keys",
    CA_INBOX,
    EU_INBOX,
    "$KV.OWNERS.eu",
    "$O.FILES.C.x",
    "$JS.API.STREAM.DELETE.LOG_EU",
    "$JS.API.STREAM.PURGE.LOG_EU",
    "$JS.ACK.LOG_EU.of-ca.1.1.1.1.0",
    "$JS.API.CONSUMER.DELETE.LOG_EU.of-ca",
)
"""Subjects that US may name, in requests that it may make, as its own to be answered on."""

DELIVERED_TO = (
    "log.EU",
    "ack.EU.CA_2",
    "cmd.EU.CA_2.run",
    f"answer.EU.CA_2.{NONCE}.1",
    f"reply.EU.CA_2.{NONCE}.1",
    CA_INBOX,
    "$KV.OWNERS.eu",
    "$JS.API.STREAM.DELETE.LOG_EU",
    "$JS.API.STREAM.PURGE.LOG_EU",
    "$JS.EU.API.STREAM.PURGE.LOG_EU",
    "$JS.API.CONSUMER.DELETE.LOG_EU.of-ca",
    "$SYS.REQ.SERVER.PING",
)
"""Subjects to which a consumer of US's making would let EU's server send."""


async def speaking(world: World, actor: Actor, subject: str) -> None:
    before = await world.state()
    await world.allowed(actor)
    inbox = f"_INBOX.evil.{secrets.token_hex(4)}"
    await actor.listen(inbox)
    for data in (b"forged", b"", json.dumps({"seq": 1, "name": "EVIL", "position": 3, "leaf": "00" * 32}).encode()):
        await actor.publish(subject, data, inbox)
    await actor.settled()
    await asyncio.sleep(SETTLED_S)
    await actor.settled()
    assert world.news() == []
    assert await world.state() == before
    # its own server may answer in EU's stead: that there is no JetStream, or what it is itself
    assert [
        each for each in actor.heard if each.data and not (b'"error"' in each.data or b"nats-us" in each.data)
    ] == []


async def said_among_others(world: World) -> None:
    """EU and CA.2 say everything that they have to say to each other; each message is a secret."""
    ca, eu, way = world["ca in-eu"], world["eu own"], world["ca commands-in-eu"]
    due = {
        b"secret answer to secret command",
        b"secret answer to secret question",
        b"secret answer to secret range",
        b"secret ack",
        b"secret of one process to another",
    }

    async def heard_all() -> bool:
        await way.publish("cmd.EU.CA_2.run", b"secret command", f"reply.EU.CA_2.{NONCE}.1")
        await eu.publish("ask.EU.CA_2.keys", b"secret question", f"answer.EU.CA_2.{NONCE}.1")
        await ca.publish("rpc.EU.range", b"secret range", CA_INBOX)
        await ca.publish("ack.EU.CA_2", b"secret ack")
        await eu.publish(EU_INBOX, b"secret of one process to another")
        await eu.publish("$KV.OWNERS.ca", b"secret owner")
        for client in (eu, ca, way):
            await flushed(client)
        await asyncio.sleep(0.03)
        return due <= {each.data for each in world.seen}

    await until(heard_all, "EU and CA.2 to hear each other")
    await eu.jetstream().publish("log.EU", b"secret entry")


async def listening(world: World, actor: Actor, subject: str, queue: str = "") -> None:
    world.seen.clear()
    await actor.listen("hint.EU.>")
    await actor.listen(subject, queue)
    await actor.settled()
    await asyncio.sleep(SETTLED_S)  # an honest server's interest has crossed the link
    await said_among_others(world)

    async def heard() -> bool:
        """The permitted twin: what EU says to all."""
        await world["eu own"].publish("hint.EU.head", b"for all")
        await flushed(world["eu own"])
        await actor.settled()
        return actor.thrown_out or any(each.data == b"for all" for each in actor.heard)

    await until(heard, "EU's hints, which US may hear")
    assert [each for each in actor.heard if b"secret" in each.data] == []


def _requests() -> Sequence[tuple[str, bytes]]:
    pull = json.dumps({"batch": 2, "expires": 10**9, "idle_heartbeat": 10**8}).encode()
    return (
        ("$JS.EU.API.INFO", b""),
        ("$JS.EU.API.STREAM.INFO.LOG_EU", b""),
        ("$JS.EU.API.STREAM.INFO.LOG_EU", b'{"deleted_details": 1, '),
        ("$JS.EU.API.DIRECT.GET.LOG_EU.log.EU", b""),
        ("$JS.EU.API.CONSUMER.INFO.LOG_EU.of-us", b""),
        ("$JS.EU.API.CONSUMER.INFO.LOG_EU.of-nobody", b""),
        ("$JS.EU.API.CONSUMER.MSG.NEXT.LOG_EU.of-us", pull),
        ("$JS.EU.API.CONSUMER.MSG.NEXT.LOG_EU.of-us", b'{"batch": "x"}'),
        ("rpc.EU.range", b"a range for US"),
    )


async def being_answered(world: World, actor: Actor, subject: str) -> None:
    before = await world.state()
    await world.allowed(actor)
    for request, data in _requests():
        await actor.publish(request, data, subject)

    async def was_asked() -> bool:
        await actor.settled()
        return any(each.data == b"a range for US" for each in world.seen)

    await until(was_asked, "EU to have been asked")
    await asyncio.sleep(SETTLED_S)
    assert [each for each in world.news() if each.data != b"a range for US"] == []
    assert await world.state() == before


async def delivering(world: World, actor: Actor, subject: str) -> None:
    """A push consumer, whose deliveries EU's server would make in its own name."""
    before = await world.state()
    await world.allowed(actor)
    names = [f"push-{secrets.token_hex(4)}" for _ in range(2)]
    for name, only_headers in zip(names, (False, True), strict=True):
        config = {"name": name, "deliver_policy": "all", "ack_policy": "none", "mem_storage": True}
        config |= {"deliver_subject": subject, "headers_only": only_headers}
        request = json.dumps({"stream_name": "LOG_EU", "action": "create", "config": config}).encode()
        await actor.publish(f"$JS.EU.API.CONSUMER.CREATE.LOG_EU.{name}", request, "_INBOX.evil")
    await actor.settled()
    js = world["eu own"].jetstream()
    await js.publish("log.EU", b"entry more")
    await asyncio.sleep(SETTLED_S)
    assert [each for each in world.news() if each.subject != "log.EU" or each.data != b"entry more"] == []
    for name in names:
        with contextlib.suppress(NotFoundError):  # JetStream refuses one that would feed the log with itself
            await js.delete_consumer("LOG_EU", name)
    assert await world.state() == _grown(before)


def _grown(state: list[StreamSeen]) -> list[StreamSeen]:
    """With one more entry in the log."""
    return [
        each._replace(messages=each.messages + 1, last=each.last + 1) if each.config.name == "LOG_EU" else each
        for each in state
    ]
