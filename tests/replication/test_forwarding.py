"""Commands for another region's players: carried by NATS, begun in time or never, heard by nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from replication.forwarding import PAYLOAD_BYTES_MAX, USER, Desk, TooLarge, Unknown, Unreachable, Way, clock_us
from replication.tasks import together
from tests.devstack.leaf import leaf
from tests.flushing import flushed
from tests.replication.regions import World

BUDGET_S, ANSWER_S, TIME_S = 15.0, 3.0, 5.0


@dataclass
class Owner:
    """A process of EU that takes commands: it says who has sent what, in capitals."""

    begun: list[tuple[str, bytes]] = field(default_factory=list)
    fails: bool = False
    held: asyncio.Event | None = None
    later_us: int = 0
    left_s: float = 0.0

    async def work(self, sender: str, data: bytes, left_s: float) -> bytes:
        self.begun.append((sender, data))
        self.left_s = left_s
        if self.held:
            await self.held.wait()
        if self.fails:
            raise RuntimeError("a defect")
        return sender.encode() + b" " + data.upper()

    def clock(self) -> int:
        return clock_us() + self.later_us


Start = Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
"""Starts a process; returns what ends it."""


@dataclass
class Between:
    """US, which sends commands to EU."""

    world: World
    way: Way
    owner: Owner
    start: Start

    async def answered(self, data: bytes) -> bytes:
        """As soon as the way is open. (What is on its way to a process that ends is lost.)"""
        for _ in range(200):
            with contextlib.suppress(Unreachable, Unknown):
                return await self.way.send(data, within_s=2)
            await asyncio.sleep(0.05)
        raise AssertionError("EU cannot be reached")


@pytest.fixture
async def between(world: World) -> AsyncIterator[Between]:
    owner = Owner()
    way = Way("us", "eu", budget_s=BUDGET_S, answer_s=ANSWER_S, time_s=TIME_S)
    running: list[asyncio.Task[None]] = [asyncio.create_task(together(way.keep(world["us"].config)))]

    async def start() -> Callable[[], Awaitable[None]]:
        desk = Desk(["us", "ap"], owner.work, us=owner.clock)
        task = asyncio.create_task(together(desk.serve(world["eu"].config)))
        running.append(task)

        async def end() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        return end

    try:
        yield Between(world, way, owner, start)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_command_is_answered_by_its_owner_who_knows_from_whom_it_comes(between: Between) -> None:
    await between.start()
    assert await between.answered(b"deposit") == b"us DEPOSIT"
    assert await asyncio.gather(*[between.way.send(b"%d" % n) for n in range(50)]) == [b"us %d" % n for n in range(50)]
    assert 0 < between.owner.left_s <= BUDGET_S


async def test_where_nobody_takes_commands_that_is_known_at_once(between: Between) -> None:
    with pytest.raises(Unreachable):
        await between.way.send(b"before there is a connection")
    end = await between.start()
    await between.answered(b"deposit")
    await end()
    while True:  # until our own server has heard that nobody listens any more: what is sent before is lost on the way
        began = asyncio.get_running_loop().time()
        try:
            await between.way.send(b"deposit", within_s=1)
        except Unknown:
            continue
        except Unreachable as nobody:
            assert "no process" in str(nobody)  # noqa: PT017 — the other outcome is tried again
            break
    assert asyncio.get_running_loop().time() - began < BUDGET_S
    assert len(between.owner.begun) == 1


async def test_what_reaches_its_owner_too_late_is_not_begun(between: Between) -> None:
    """As after a freeze: the owner's clock has gone on, and the message has lain there."""
    await between.start()
    await between.answered(b"first")
    between.owner.later_us = 2 * int(BUDGET_S) * 1_000_000
    with pytest.raises(Unreachable, match="too late"):
        await between.way.send(b"late")
    assert between.owner.begun == [("us", b"first")]
    assert await between.way.send(b"next") == b"us NEXT", "the refusal has said how late it is"


async def test_what_a_new_process_does_not_know_is_said_to_it_once_more(between: Between) -> None:
    end = await between.start()
    await between.answered(b"first")
    await end()
    await between.start()
    assert await between.answered(b"second") == b"us SECOND"
    assert between.owner.begun == [("us", b"first"), ("us", b"second")]


async def test_any_process_of_the_owner_answers_and_one_of_them_only(between: Between) -> None:
    for _ in range(3):
        await between.start()
    await between.answered(b"first")
    done = 0
    for n in range(20):  # a process that is met for the first time may ask for the command again, twice in a row
        with contextlib.suppress(Unreachable):
            done += await between.way.send(b"%d" % n) == b"us %d" % n
    assert len(between.owner.begun) == done + 1 >= 18


async def test_what_became_of_a_command_without_an_answer_is_not_known(between: Between) -> None:
    end = await between.start()
    await between.answered(b"first")
    between.owner.held = asyncio.Event()
    with pytest.raises(Unknown):
        await between.way.send(b"killed in the middle", within_s=1)
    between.owner.held.set()
    await end()
    assert len(between.owner.begun) == 2


async def test_a_defect_of_the_owner_leaves_it_unknown(between: Between) -> None:
    await between.start()
    await between.answered(b"first")
    between.owner.fails = True
    with pytest.raises(Unknown, match="failed"):
        await between.way.send(b"second")


async def test_what_is_too_large_is_not_sent(between: Between) -> None:
    await between.start()
    assert len(await between.answered(b"x" * (PAYLOAD_BYTES_MAX - 3))) == PAYLOAD_BYTES_MAX
    with pytest.raises(TooLarge):
        await between.way.send(b"x" * (PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(Unknown, match="failed"):
        await between.way.send(b"x" * PAYLOAD_BYTES_MAX)  # the answer is larger than that


# Who is neither of the two


@contextlib.asynccontextmanager
async def client(url: str, seed: str, denied: list[str]) -> AsyncIterator[Client]:
    async def error(said: Exception) -> None:
        denied.append(str(said))

    made = await nats.connect(url, nkeys_seed=seed, error_cb=error)
    try:
        yield made
    finally:
        await made.close()


async def begin_by(outsider: Client) -> dict[str, str]:
    """Time enough, by the clock of EU's process, which tells it to AP as to anybody."""
    told: list[str] = []

    async def hear(message: Msg) -> None:
        told.extend((message.headers or {}).get("Clock", "").split())  # none, while nobody has been found to listen

    subscription = await outsider.subscribe("reply.EU.AP.time", cb=hear)
    async with asyncio.timeout(60):
        while not told:
            await outsider.publish("cmd.EU.AP.time", b"", reply="reply.EU.AP.time")
            await asyncio.sleep(0.05)
    await subscription.unsubscribe()
    name, _, us = told[0].partition("=")
    return {"Begin-By": f"{name}={int(us) + 10**9}"}


@pytest.mark.parametrize("user", ["", USER])
async def test_a_third_region_cannot_say_it_is_another_nor_hear_what_that_says(between: Between, user: str) -> None:
    """AP with its own keys, in EU's realm on AP's own server."""
    world, heard = between.world, list[Msg]()
    await between.start()
    ap = world["ap"].config

    async def hear(message: Msg) -> None:
        heard.append(message)

    async with client(ap.nats, str(ap.seed("eu", user)), []) as outsider:
        for subject in ("cmd.EU.US.*", "cmd.EU.>", "reply.EU.US.>", "reply.>", ">"):
            await outsider.subscribe(subject, cb=hear)
        await flushed(outsider)
        assert await between.answered(b"a secret") == b"us A SECRET"
        in_time = await begin_by(outsider)
        await outsider.publish("cmd.EU.US.run", b"forged", reply="reply.EU.AP.1.1", headers=in_time)
        await flushed(outsider)
        await asyncio.sleep(0.3)
        assert await between.way.send(b"second") == b"us SECOND"
    assert [data for _, data in between.owner.begun] == [b"a secret", b"second"]
    assert [each.subject for each in heard if b"SECRET" in each.data.upper()] == []


async def test_the_key_of_a_third_regions_link_opens_no_other_regions_subjects(between: Between) -> None:
    """AP with the key of its link, as a leaf that keeps no rule. What else that could try: tests/devstack/test_attacks.py."""
    await between.start()
    await between.answered(b"first")
    ap = between.world["ap"].config
    async with client(ap.nats, str(ap.seed("eu", USER)), []) as honest:
        in_time = await begin_by(honest)
    headers = f"NATS/1.0\r\nBegin-By: {in_time['Begin-By']}\r\n\r\n".encode()
    async with leaf(between.world.stack, of="ap") as outsider:
        for subject in ("cmd.EU.US.*", "reply.EU.US.>", "cmd.EU.>"):
            await outsider.subscribe(subject)
        await outsider.settled()
        assert await between.way.send(b"a secret") == b"us A SECRET"
        await outsider.settled()
        assert outsider.heard == []
        await outsider.publish("cmd.EU.US.run", b"forged", "reply.EU.AP.1.1", headers=headers)
        await outsider.settled()
        assert any("Permissions Violation" in each for each in outsider.told)
    async with leaf(between.world.stack, of="ap") as outsider:
        await outsider.publish("reply.EU.US.1.1", b"forged")
        await outsider.settled()
        assert any("Permissions Violation" in each for each in outsider.told)
    assert [data for _, data in between.owner.begun] == [b"first", b"a secret"]


async def test_the_key_of_a_link_is_no_clients(between: Between) -> None:
    seed = str(between.world["ap"].config.seeds / "link-eu.seed")
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await nats.connect(between.world["eu"].config.nats, nkeys_seed=seed, allow_reconnect=False)


async def test_the_keys_of_who_takes_commands_are_good_for_nothing_else(between: Between) -> None:
    denied: list[str] = []
    eu = between.world["eu"].config
    async with client(eu.nats, str(eu.seed("eu", USER)), denied) as desk:
        for subject in ("log.EU", "ack.EU.US", "$JS.EU.API.STREAM.DELETE.LOG_EU", "cmd.EU.US.run", "hint.EU.head"):
            await desk.publish(subject, b"x")
        await flushed(desk)
        await asyncio.sleep(0.1)
    assert len(denied) == 5
    us = between.world["us"].config
    denied.clear()
    async with client(us.nats, str(us.seed("eu", USER)), denied) as way:
        for subject in ("log.EU", "ack.EU.US", "rpc.EU.range", "cmd.EU.AP.run"):
            await way.publish(subject, b"x")
        await flushed(way)
        await asyncio.sleep(0.1)
    assert len(denied) == 4
