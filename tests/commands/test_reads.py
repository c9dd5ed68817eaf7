"""Who reads is recorded before the answer begins, at most once a second after a burst: in virtual time, with the real decider."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from access.policy import Principal
from commands import reads
from commands.plan import Plan, Receipt
from commands.reads import BURST, COVERED_MAX, COVERS_SECONDS, GAP_SECONDS, Recorder, TooManyReads, read_of
from domain.errors import Invalid
from domain.kernel import EPOCH, OperatorId, PlayerId
from domain.reads import READS_BYTES_MAX, READS_MAX, SUBJECTS_MAX, Read, ReadsRecorded, fitting, stream
from eventstore.record import Recorded
from eventstore.writer import Unavailable
from tests.commands.house import CODEC, NOON, House

ACTORS = ("auditor:ann", "auditor:bo")
ANNA = PlayerId("player_01ka7g0000e00800000000001a")
BEN = PlayerId("player_01ka7g0000e00800000000001b")
TILES = read_of("log.read", log="eu")
_SOON = 0.001


def page(number: int) -> Read:
    return read_of("audit.events", cursor=number)


class Asked(NamedTuple):
    """A read that was asked for, and when it was let through; None if it was refused or still waits."""

    actor: str
    read: Read
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

    def ask(self, actor: str, read: Read) -> None:
        place = len(self.asked)
        self.asked.append(Asked(actor, read, None))

        async def work() -> None:
            await self.recorder.record(Principal(actor, frozenset()), read)
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
        """Every read that was let through is in the log, not long before; a reader has an event a second, and a burst."""
        for actor in ACTORS:
            events = self.events(actor)
            times = [(event.recorded - _us(0)) / 1e6 for event in events]
            for (first, begin), (last, end) in combinations(enumerate(times), 2):
                assert last - first + 1 <= BURST + (end - begin) / GAP_SECONDS + 0.001
            assert {event.body.actor for event in events} <= {actor}
            when: dict[Read, list[float]] = {}
            for at, event in zip(times, events, strict=True):
                assert isinstance(event.event, ReadsRecorded)
                assert 0 < len(event.event.reads) <= READS_MAX
                assert len(event.event.reads) == len(set(event.event.reads))
                for each in event.event.reads:
                    when.setdefault(each, []).append(at)
            for asked in self.asked:
                if asked.actor == actor and asked.done is not None:
                    since = asked.done - COVERS_SECONDS - 0.001
                    recorded = when.get(asked.read, ())
                    assert any(since <= at <= asked.done + 0.001 for at in recorded), ("not in the log", asked)

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

    @rule(actor=st.sampled_from(ACTORS), number=st.integers(0, 5), count=st.sampled_from([1, 1, 2, 5, 20, 120]))
    def read(self, actor: str, number: int, count: int) -> None:
        for more in range(count):
            self.world.ask(actor, page(number + more))

    @rule(actor=st.sampled_from(ACTORS), count=st.integers(1, 30))
    def read_tiles(self, actor: str, count: int) -> None:
        for _ in range(count):
            self.world.ask(actor, TILES)

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


SOME = settings(max_examples=12, stateful_step_count=12)


def test_every_answered_read_is_in_the_log_and_events_come_a_second_after_a_burst() -> None:
    run_state_machine_as_test(Machine, settings=SOME)


class Forgetful(Recorder):
    """Lets everybody through, whether the read was recorded or not."""

    async def record(self, principal: Principal, read: Read) -> None:
        with suppress(Unavailable):
            await super().record(principal, read)


class Hasty(Recorder):
    """Records each read in an event of its own."""

    async def record(self, principal: Principal, read: Read) -> None:
        await self._decide(reads.record("eu", principal, [read], self._now()))


class Careless(Recorder):
    """Forgets whom the answer told of."""

    async def record(self, principal: Principal, read: Read) -> None:
        await super().record(principal, msgspec.structs.replace(read, subjects=()))


@pytest.mark.parametrize("planted", [Forgetful, Hasty, Careless])
def test_the_check_notices_a_recorder_that_does_not(planted: type[Recorder]) -> None:
    world = World(planted)
    for number in range(BURST + 2):
        world.ask(ACTORS[0], page(number))
    world.broken = planted is Forgetful
    world.ask(ACTORS[1], read_of("GET /v1/players/{player_id}", [ANNA]))
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


def test_a_burst_is_recorded_at_once_and_what_follows_together(world: World) -> None:
    for number in range(BURST + 3):
        world.ask(ACTORS[0], page(number))
    assert [asked.done for asked in world.asked] == [0] * BURST + [None] * 3
    world.advance(1)
    assert [asked.done for asked in world.asked] == [0] * BURST + [1] * 3
    assert [len(event.event.reads) for event in world.events(ACTORS[0])] == [1] * BURST + [3]
    for number in range(100, 103):
        world.ask(ACTORS[0], page(number))
    world.advance(0.9)
    assert [asked.done for asked in world.asked[-3:]] == [None] * 3
    world.advance(20)
    for number in range(200, 200 + BURST):
        world.ask(ACTORS[0], page(number))
    assert all(asked.done == world.now for asked in world.asked[-BURST:]), "who has waited has a burst again"


def test_a_whole_log_of_tiles_is_one_event_a_minute(world: World) -> None:
    for _ in range(1_000):
        world.ask(ACTORS[0], TILES)
        world.advance(0.1)
    assert all(asked.done is not None for asked in world.asked)
    assert len(world.events(ACTORS[0])) == 2


def test_the_same_persons_read_again_are_covered_and_others_are_not(world: World) -> None:
    for subjects in ([ANNA], [ANNA], [BEN, ANNA], [ANNA, BEN, ANNA]):
        world.ask(ACTORS[0], read_of("GET /v1/transactions", subjects))
    world.ask(ACTORS[1], read_of("GET /v1/transactions", [ANNA]))
    assert [each.subjects for event in world.events(ACTORS[0]) for each in event.event.reads] == [
        (ANNA,),
        (ANNA, BEN),
    ]
    assert len(world.events(ACTORS[1])) == 1, "another reader's record covers nobody else"
    world.advance(COVERS_SECONDS + 1)
    world.ask(ACTORS[0], read_of("GET /v1/transactions", [ANNA]))
    assert len(world.events(ACTORS[0])) == 3


def test_what_is_remembered_is_bounded(world: World) -> None:
    for number in range(BURST * 2):
        for more in range(READS_MAX - 1):
            world.ask(ACTORS[0], page(number * READS_MAX + more))
        world.advance(1.01)
    assert len(world.recorder._readers[ACTORS[0]].known) <= COVERED_MAX + 1
    world.advance(COVERS_SECONDS + 1)
    world.ask(ACTORS[0], TILES)
    assert len(world.recorder._readers[ACTORS[0]].known) == 1


def test_who_asks_too_often_is_refused_and_the_others_are_not(world: World) -> None:
    for number in range(BURST + 102):
        world.ask(ACTORS[0], page(number))
    assert len(world.waiting) == 100
    world.ask(ACTORS[1], TILES)
    assert world.asked[-1].done == 0
    world.advance(1)
    assert [len(event.event.reads) for event in world.events(ACTORS[0])] == [1] * BURST + [100]


def test_a_read_that_cannot_be_recorded_is_not_given(world: World) -> None:
    world.broken = True
    world.ask(ACTORS[0], TILES)
    assert (world.asked[0].done, world.waiting) == (None, {})
    world.broken = False
    world.ask(ACTORS[0], TILES)
    assert world.asked[1].done == world.now


def test_what_is_too_much_for_one_event_is_recorded_in_two(world: World) -> None:
    for number in range(BURST):
        world.ask(ACTORS[0], page(number))
    many = [PlayerId(f"player_{number:026}") for number in range(SUBJECTS_MAX)]
    for number in range(20):
        world.ask(ACTORS[0], read_of("GET /v1/transactions", many, cursor=number))
    world.advance(10)
    later = world.events(ACTORS[0])[BURST:]
    assert sum(len(event.event.reads) for event in later) == 20
    assert len(later) > 1
    assert all(len(bytes(event.body.data)) <= READS_BYTES_MAX + 100 for event in later)


def test_a_read_is_written_so_that_it_always_fits() -> None:
    assert read_of("x", player=ANNA, type=None, proofs=True) == Read("x", f"player={ANNA}&proofs=True")
    assert read_of("x", [BEN, ANNA, BEN]).subjects == (ANNA, BEN)
    with pytest.raises(Invalid):
        read_of("x", cursor=10**500)
    with pytest.raises(Invalid):
        read_of("x", [PlayerId(f"player_{number:026}") for number in range(SUBJECTS_MAX + 1)])
    largest = Read("w" * 100, "q" * 500, tuple(OperatorId(f"operator_{n:026}") for n in range(SUBJECTS_MAX)))
    for made in ([largest] * READS_MAX, [Read("w" * 30, "q" * 500)] * (READS_MAX + 1), [largest]):
        count = fitting(made)
        assert 0 < count <= READS_MAX
        assert len(msgspec.json.encode(ReadsRecorded(tuple(made[:count])))) <= READS_BYTES_MAX + 100 < 58 * 1024
    assert fitting([]) == 0


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"email": "anna@example.com"}, "email"),
        ({"name": "Anna Egger", "limit": 5}, "name&limit=5"),
        ({"external_id": "4711", "status": "active"}, "external_id&status=active"),
        ({"brand": "main", "surprise": "x"}, "brand&surprise"),
        ({"operator": "operator:ann", "type": "wallet.*"}, "operator=operator%3Aann&type=wallet.%2A"),
        ({"operator": "Anna Egger"}, "operator"),
        ({"operator": "anna@example.com", "type": "a@b.c"}, "operator&type"),
        ({"player": "Anna", "trigger": "Egger"}, "player&trigger"),
        ({"at": "eu/12", "from": "2026-11-22T12:00:00Z"}, "at=eu%2F12&from=2026-11-22T12%3A00%3A00Z"),
        ({"at": "Anna", "from": "Anna", "after": "eu/12,us/3"}, "at&from&after=eu%2F12%2Cus%2F3"),
        ({"limit": "Anna", "cursor": "anna@example.com"}, "limit&cursor"),
    ],
)
def test_what_may_be_personal_is_recorded_by_its_name_alone(given: dict[str, object], written: str) -> None:
    assert read_of("x", **given).query == written
