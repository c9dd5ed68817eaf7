"""Who reads is recorded before the answer begins, and at most once a second: in virtual time, with the real decider."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from access.policy import Principal
from commands import reads
from commands.plan import Plan, Receipt
from commands.reads import COVERS_SECONDS, GAP_SECONDS, Recorder, TooManyReads, read_of
from domain.errors import Invalid
from domain.kernel import EPOCH
from domain.reads import READS_MAX, Read, ReadsRecorded, stream
from eventstore.record import Recorded
from eventstore.writer import Unavailable
from tests.commands.house import CODEC, NOON, House

ACTORS = ("auditor:ann", "auditor:bo")
BULK = read_of("log.read", log="eu")
_SOON = 0.001


class Asked(NamedTuple):
    """A read that was asked for, and when it was let through; None if it was refused or still waits."""

    actor: str
    read: Read
    bulk: bool
    done: float | None


class World:
    """A recorder in virtual time: seconds since NOON."""

    def __init__(self, made: type[Recorder] = Recorder) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.broken = False
        self.asked: list[Asked] = []
        self.waiting: dict[int, asyncio.Task[None]] = {}
        self.sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.house: House = self.run(self._house())
        self.recorder = made(
            "eu",
            self._decide,
            monotonic=lambda: self.now,
            sleep=self._sleep,
            now=lambda: NOON + timedelta(seconds=self.now),
        )

    async def _house(self) -> House:
        house = House()
        house.log.clock.now = self._us()
        return house

    def _us(self) -> int:
        return (NOON - EPOCH) // timedelta(microseconds=1) + round(self.now * 1e6)

    async def _decide(self, plan: Plan) -> Receipt:
        if self.broken:
            raise Unavailable("the log is read-only")
        self.house.log.clock.now = self._us()
        return await self.house.process.decider.decide(plan)

    async def _sleep(self, seconds: float) -> None:
        woken = self.loop.create_future()
        heapq.heappush(self.sleepers, (self.now + max(seconds, _SOON), len(self.sleepers) + id(woken), woken))
        await woken

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    def ask(self, actor: str, read: Read, *, bulk: bool = False) -> None:
        place = len(self.asked)
        self.asked.append(Asked(actor, read, bulk, None))

        async def work() -> None:
            await self.recorder.record(Principal(actor, frozenset()), read, bulk=bulk)
            self.asked[place] = self.asked[place]._replace(done=self.now)

        self.waiting[place] = self.loop.create_task(work())
        self.run(self._settle())
        self._collect()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.sleepers and self.sleepers[0][0] <= end:
            self.now, _, woken = heapq.heappop(self.sleepers)
            woken.set_result(None)
            self.run(self._settle())
        self.now = end
        self._collect()

    def _collect(self) -> None:
        for place, task in list(self.waiting.items()):
            if task.done():
                del self.waiting[place]
                if error := task.exception():
                    assert isinstance(error, (Unavailable, TooManyReads)), error

    def events(self, actor: str) -> list[Recorded]:
        name = stream("eu", actor).name
        read = [CODEC.decode(entry) for entry in self.house.log.entries]
        return [each for each in read if each.body.stream == name]

    def check(self) -> None:
        """Every read that was let through is in the log; the events of a reader are a second apart."""
        for actor in ACTORS:
            events = self.events(actor)
            times = [(event.recorded - _us(0)) / 1e6 for event in events]
            assert all(later - before >= GAP_SECONDS - 0.001 for before, later in pairwise(times))
            assert {event.body.actor for event in events} <= {actor}
            recorded: Counter[Read] = Counter()
            when: dict[Read, list[float]] = {}
            for at, event in zip(times, events, strict=True):
                assert isinstance(event.event, ReadsRecorded)
                assert 0 < len(event.event.reads) <= READS_MAX
                recorded.update(event.event.reads)
                for each in event.event.reads:
                    when.setdefault(each, []).append(at)
            mine = [asked for asked in self.asked if asked.actor == actor and asked.done is not None]
            single = Counter(asked.read for asked in mine if not asked.bulk)
            assert single <= recorded, "an answered read is not in the log"
            for asked in mine:
                assert asked.done is not None
                since = asked.done - (COVERS_SECONDS if asked.bulk else GAP_SECONDS) - 0.001
                assert any(since <= at <= asked.done + 0.001 for at in when.get(asked.read, ())), asked

    def close(self) -> None:
        self.broken = False
        self.advance(1_000)
        assert not self.waiting
        self.run(self.house.close())
        self.loop.close()


def _us(seconds: float) -> int:
    return (NOON - EPOCH) // timedelta(microseconds=1) + round(seconds * 1e6)


class Machine(RuleBasedStateMachine):
    made: type[Recorder] = Recorder

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.made)

    @rule(actor=st.sampled_from(ACTORS), number=st.integers(0, 5), count=st.sampled_from([1, 1, 2, 5, 120]))
    def read(self, actor: str, number: int, count: int) -> None:
        for _ in range(count):
            self.world.ask(actor, read_of("audit.events", cursor=number))

    @rule(actor=st.sampled_from(ACTORS), count=st.integers(1, 30))
    def read_tiles(self, actor: str, count: int) -> None:
        for _ in range(count):
            self.world.ask(actor, BULK, bulk=True)

    @rule(seconds=st.sampled_from([0.01, 0.4, 0.99, 1.0, 1.5, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(broken=st.booleans())
    def the_log_may_be_written(self, broken: bool) -> None:
        self.world.broken = broken

    @invariant()
    def what_was_read_is_recorded(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.close()
        self.world.check()


SOME = settings(max_examples=12, stateful_step_count=12, deadline=None)


def test_every_answered_read_is_in_the_log_and_events_are_a_second_apart() -> None:
    run_state_machine_as_test(Machine, settings=SOME)


class Forgetful(Recorder):
    """Lets everybody through, whether the read was recorded or not."""

    async def record(self, principal: Principal, read: Read, *, bulk: bool = False) -> None:
        with suppress(Unavailable):
            await super().record(principal, read, bulk=bulk)


class Hasty(Recorder):
    """Records each read in an event of its own."""

    async def record(self, principal: Principal, read: Read, *, bulk: bool = False) -> None:
        await self._decide(reads.record("eu", principal, [read], self._now()))


@pytest.mark.parametrize("planted", [Forgetful, Hasty])
def test_the_check_notices_a_recorder_that_does_not(planted: type[Recorder]) -> None:
    world = World(planted)
    for number in range(3):
        world.ask(ACTORS[0], read_of("audit.events", cursor=number))
    world.broken = planted is Forgetful
    world.advance(5)
    with pytest.raises(AssertionError):
        world.check()
    world.run(world.house.close())
    world.loop.close()


@pytest.fixture
def world() -> Any:
    made = World()
    yield made
    made.close()


def test_the_first_is_recorded_at_once_and_those_that_follow_together(world: World) -> None:
    for number in range(4):
        world.ask(ACTORS[0], read_of("audit.events", cursor=number))
    assert [asked.done for asked in world.asked] == [0, None, None, None]
    world.advance(1)
    assert [asked.done for asked in world.asked] == [0, 1, 1, 1]
    assert [len(event.event.reads) for event in world.events(ACTORS[0])] == [1, 3]


def test_a_whole_log_of_tiles_is_one_event_a_minute(world: World) -> None:
    for _ in range(1_000):
        world.ask(ACTORS[0], BULK, bulk=True)
        world.advance(0.1)
    assert all(asked.done is not None for asked in world.asked)
    assert len(world.events(ACTORS[0])) == 2


def test_who_asks_too_often_is_refused_and_the_others_are_not(world: World) -> None:
    for number in range(102):
        world.ask(ACTORS[0], read_of("audit.events", cursor=number))
    assert len(world.waiting) == 100
    world.ask(ACTORS[1], BULK)
    assert world.asked[-1].done == 0
    world.advance(1)
    assert [len(event.event.reads) for event in world.events(ACTORS[0])] == [1, 100]


def test_a_read_that_cannot_be_recorded_is_not_given(world: World) -> None:
    world.broken = True
    world.ask(ACTORS[0], BULK, bulk=True)
    assert (world.asked[0].done, world.waiting) == (None, {})
    world.broken = False
    world.advance(2)
    world.ask(ACTORS[0], BULK, bulk=True)
    assert world.asked[1].done == world.now


def test_a_read_is_written_so_that_it_always_fits() -> None:
    assert read_of("x", player="a b", type=None, proofs=True) == Read("x", "player=a+b&proofs=True")
    assert read_of("x", operator='ü"\n').query == "operator=%C3%BC%22%0A"
    with pytest.raises(Invalid):
        read_of("x", operator="a" * 500)
    largest = ReadsRecorded(tuple(Read("w" * 30, "q" * 500) for _ in range(READS_MAX)))
    assert len(msgspec.json.encode(largest)) < 58 * 1024
