"""What a leaf link carries from region to region, and what it refuses. All that one could try: `test_attacks`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StreamConfig

from devstack import Stack
from tests.devstack.world import call, connected, linked
from tests.flushing import flushed


class Realm:
    """The realm R_EU: EU's own client, and those of the other regions on their local sides."""

    def __init__(self, eu: Client, us: Client, ca: Client) -> None:
        self.eu, self.us, self.ca = eu, us, ca
        self.heard: list[tuple[str, bytes]] = []

    async def listen(self, *subjects: str) -> None:
        async def note(message: Msg) -> None:
            self.heard.append((message.subject, message.data))

        for subject in subjects:
            await self.eu.subscribe(subject, cb=note)
        await flushed(self.eu)
        await self.crossed()

    async def crossed(self) -> None:
        """Return once what both sides have said so far has crossed the links: what comes later does not overtake it."""
        await linked(self.us, "EU")
        await linked(self.ca, "EU")

    async def log_state(self) -> tuple[int, int]:
        state = (await self.eu.jetstream().stream_info("LOG_EU")).state
        return state.messages, state.last_seq


@pytest.fixture
async def realm(stack: Stack) -> AsyncIterator[Realm]:
    async with AsyncExitStack() as exits:
        eu = await exits.enter_async_context(connected(stack, "eu", "own"))
        us = await exits.enter_async_context(connected(stack, "us", "in-eu"))
        ca = await exits.enter_async_context(connected(stack, "ca.2", "in-eu"))
        await eu.jetstream().add_stream(
            StreamConfig(name="LOG_EU", subjects=["log.EU"], discard=DiscardPolicy.OLD, deny_delete=True)
        )
        await eu.jetstream().publish("log.EU", b"entry 1")
        await linked(us, "EU")
        await linked(ca, "EU")
        yield Realm(eu, us, ca)
        await eu.jetstream().delete_stream("LOG_EU")


async def test_another_region_pulls_the_log_from_its_origin(realm: Realm) -> None:
    await realm.eu.jetstream().publish("log.EU", b"entry 2")
    inbox = realm.us.new_inbox()
    entries = await realm.us.subscribe(inbox)
    created = await call(
        realm.us,
        "$JS.EU.API.CONSUMER.CREATE.LOG_EU.applier",
        {
            "stream_name": "LOG_EU",
            "action": "create",
            "config": {
                "name": "applier",
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": 1,
                "ack_policy": "none",
                "inactive_threshold": 30 * 10**9,
                "mem_storage": True,
            },
        },
    )
    assert "error" not in created
    pull = {"batch": 10, "expires": 5 * 10**9}
    await realm.us.publish("$JS.EU.API.CONSUMER.MSG.NEXT.LOG_EU.applier", json.dumps(pull).encode(), reply=inbox)
    assert [(await entries.next_msg(timeout=30)).data for _ in range(2)] == [b"entry 1", b"entry 2"]


async def test_requests_and_hints_cross_the_link(realm: Realm) -> None:
    async def serve(message: Msg) -> None:
        await message.respond(b"range of " + message.data)

    await realm.eu.subscribe("rpc.EU.range", cb=serve)
    await flushed(realm.eu)
    await realm.crossed()
    assert (await realm.us.request("rpc.EU.range", b"1-9", timeout=30)).data == b"range of 1-9"

    hints = await realm.us.subscribe("hint.EU.log")
    await flushed(realm.us)
    await realm.crossed()
    await realm.eu.publish("hint.EU.log", b"2")
    assert (await hints.next_msg(timeout=30)).data == b"2"


async def test_a_region_acknowledges_in_its_own_name_only(realm: Realm) -> None:
    await realm.listen("ack.>")
    await realm.us.publish("ack.EU.CA_2", b"forged")
    await realm.us.publish("ack.EU.US", b"true")
    await realm.ca.publish("ack.EU.CA_2", b"true")
    await flushed(realm.us)
    await flushed(realm.ca)
    async with asyncio.timeout(60):
        while len(realm.heard) < 2:  # noqa: ASYNC110 — NATS has no event for it
            await asyncio.sleep(0.05)
    await realm.crossed()
    assert sorted(realm.heard) == [("ack.EU.CA_2", b"true"), ("ack.EU.US", b"true")]


async def test_only_the_origin_writes_its_log(realm: Realm) -> None:
    before = await realm.log_state()
    await realm.listen("log.>")
    await realm.us.publish("log.EU", b"forged")
    await flushed(realm.us)
    await realm.crossed()
    assert (realm.heard, await realm.log_state()) == ([], before)


async def test_another_region_cannot_change_the_stream(realm: Realm) -> None:
    async def attempt(verb: str) -> None:
        with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
            await realm.us.request(f"$JS.EU.API.{verb}.LOG_EU", b'{"seq": 1}', timeout=0.5)

    before = await realm.log_state()
    await asyncio.gather(
        *(attempt(verb) for verb in ("STREAM.PURGE", "STREAM.DELETE", "STREAM.UPDATE", "STREAM.MSG.DELETE"))
    )
    assert await realm.log_state() == before
