"""
Who owns what, over two or three regions that append, copy, release, adopt and crash in any order, and whose logs are closed and continued.

The regions' logs are MemoryLog, whose ownership is domain.ownership; tests/eventstore/test_ownership.py plays the same histories on
PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from domain.kernel import EPOCH
from domain.logs import (
    LOGS,
    Adopted,
    Continued,
    Cut,
    LogEvent,
    NotOwned,
    Opened,
    Released,
    adopt,
    comes_before,
    epochs,
    is_next,
    next_name,
    release,
    spans,
)
from domain.logs import Log as LogState
from domain.ownership import Contradiction, Owner, Ownership
from eventstore.log import Appended, Command, Reason, Refused
from eventstore.memory import MemoryLog
from eventstore.record import Entry, decode_body
from tests.ledger import Clock, body, new_id, stream

PARTITIONS = (0, 1, 2)
PEOPLE = [stream(f"wallet {partition}") for partition in PARTITIONS]
OF_OWNERSHIP: dict[str, type[LogEvent]] = {kind.tag: kind for kind in (Opened, Released, Adopted)}


def run(awaitable: Any) -> Any:
    """MemoryLog never waits."""
    try:
        awaitable.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class Region:
    """A log, its copies of the others, and a writer that may be behind: `decided` was decided, and is not appended yet."""

    kept: type[MemoryLog] = MemoryLog

    def __init__(self, name: str, partitions: range, continues: Continued | None = None) -> None:
        self.name = name
        self.log = self.kept(f"countroom.test/{name}", clock=Clock(), partitions=partitions)
        self.closed = False
        shares = ((partitions.start, partitions.stop - 1),) if partitions else ()
        self.say(Opened(self.log.origin, 1, shares, continues))
        self.decided: list[Command] = []
        self.copied: dict[str, int] = {}

    def say(self, event: LogEvent) -> Appended | Refused:
        name, id_ = f"region-{self.name}-log", new_id()
        version = len(run(self.log.load({name: 0}))[name]) + 1
        (outcome,) = run(self.log.append([Command(id_, [body(name, version, id_, data=event, type=event.tag)])]))
        return outcome

    @property
    def state(self) -> LogState:
        state = LOGS.initial
        for entry in self.log.entries:
            read = decode_body(entry.body)
            if kind := OF_OWNERSHIP.get(read.type):
                state = LOGS.evolve(state, msgspec.json.decode(read.data, type=kind), EPOCH)
        return state

    def decide(self, person: str) -> None:
        """Decide on a command by what is known of the owners now."""
        partition = PARTITIONS[PEOPLE.index(person)]
        owner = run(self.log.owners()).get(partition)
        if owner == Owner(self.name, owner.epoch if owner else 0):
            id_ = new_id()
            version = len(run(self.log.load({person: 0}))[person]) + 1
            self.decided.append(Command(id_, [body(f"wallet {partition}", version, id_, epoch=owner.epoch)]))

    def append(self) -> list[bytes]:
        """Send some of what was decided, and return what was acknowledged."""
        batch, self.decided = self.decided[:2], self.decided[2:]
        acknowledged = []
        for command in batch:
            (outcome,) = run(self.log.append([command]))
            if isinstance(outcome, Appended):
                acknowledged.append(command.id)
            else:
                assert outcome.reason in {Reason.NOT_OWNED, Reason.CONFLICT}
        return acknowledged

    def copy(self, origin: Region, count: int = 99) -> None:
        done = self.copied.get(origin.name, 0)
        self.log.copy(origin.log.entries[done : done + count])
        self.copied[origin.name] = min(done + count, len(origin.log.entries))

    def release(self, partitions: set[int], to: Region) -> None:
        mine = partitions & epochs(self.state.owned).keys()
        for event in release(self.state, partitions=mine, to=to.name):
            assert isinstance(self.say(event), Appended)

    def close(self, others: Sequence[Region]) -> tuple[Region, list[bytes]]:
        """End where the longest copy ends, and go on as the next log; what only the own database held is stranded: the ids of that."""
        cut = max(other.copied.get(self.name, 0) for other in others)
        end = self.log.entries[cut - 1]
        stranded = [bytes.fromhex(decode_body(entry.body).command.id) for entry in self.log.entries[cut:]]
        del self.log.entries[cut:]
        self.closed = True
        continues = Continued(self.name, end.position, end.leaf.hex())
        return type(self)(next_name(self.name), range(0), continues), stranded

    def adopt(self) -> None:
        for found in run(self.log.released(self.name)):
            for event in adopt(self.state, released=found.partitions, of=found.of, cut=found.cut):
                assert isinstance(self.say(event), Appended)


class Regions(RuleBasedStateMachine):
    """The laws of ownership. `count`: of the regions."""

    count = 3
    made: type[Region] = Region

    @initialize()
    def begin(self) -> None:
        names = ("eu", "us", "ap")[: self.count]
        shares = [range(2), range(2, 3), range(0)]
        self.regions = [self.made(name, share) for name, share in zip(names, shares, strict=False)]
        self.acknowledged: list[bytes] = []

    def region(self, draw: Callable[[Any], Any]) -> Region:
        found: Region = draw(st.sampled_from([each for each in self.regions if not each.closed]))
        return found

    @rule(data=st.data(), person=st.sampled_from(PEOPLE))
    def decide(self, data: st.DataObject, person: str) -> None:
        self.region(data.draw).decide(person)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        """What was decided reaches the log, perhaps much later."""
        region = self.region(data.draw)
        self.acknowledged += region.append()

    @rule(data=st.data(), count=st.integers(1, 6))
    def copy(self, data: st.DataObject, count: int) -> None:
        region, origin = self.region(data.draw), data.draw(st.sampled_from(self.regions))
        if region is not origin:
            region.copy(origin, count)

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """A log that cannot be repaired. Some other region has a part of it; what this one had copied is lost with it."""
        region = self.region(data.draw)
        others = [each for each in self.regions if not each.closed and each is not region]
        if len(self.regions) < self.count + 2 and any(other.copied.get(region.name) for other in others):
            after, stranded = region.close(others)
            self.regions.append(after)
            self.acknowledged = [id_ for id_ in self.acknowledged if id_ not in stranded]
            if data.draw(st.booleans()):
                for origin in self.regions[:-1]:
                    after.copy(origin)
                after.adopt()

    @rule(data=st.data(), partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1))
    def release(self, data: st.DataObject, partitions: set[int]) -> None:
        region, to = self.region(data.draw), self.region(data.draw)
        if region is not to:
            region.release(partitions, to)

    @rule(data=st.data())
    def adopt(self, data: st.DataObject) -> None:
        self.region(data.draw).adopt()

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """What was not appended is forgotten; what the log holds is all that is left."""
        self.region(data.draw).decided.clear()

    @invariant()
    def a_partition_has_one_owner_at_an_epoch(self) -> None:
        if not hasattr(self, "regions"):
            return
        owning: dict[tuple[int, int], str] = {}
        writing: dict[int, str] = {}
        for region in self.regions:
            if region.closed:
                continue
            for partition, epoch in run(region.log.epochs(region.name)).items():
                assert partition not in writing, "two regions may write it"
                writing[partition] = region.name
                assert owning.setdefault((partition, epoch), region.name) == region.name

    def teardown(self) -> None:
        if hasattr(self, "regions"):
            check(self.regions, self.acknowledged)


def check(regions: Sequence[Region], acknowledged: Sequence[bytes]) -> None:
    """Whatever was acknowledged counts, once, wherever all is known; and each decided with all that was before it."""
    logs = {region.name: region.log.entries for region in regions}
    known = [whole(logs, order) for order in permutations(logs)]
    owners = [{p: ownership.owner(p) for p in PARTITIONS} for ownership in known]
    assert all(each == owners[0] for each in owners), "it matters in which order logs are folded"
    counted = []
    for name, entries in logs.items():
        for entry in entries:
            read = decode_body(entry.body)
            if read.partition is None or read.epoch is None:
                continue
            if known[0].counts(name, read.partition, read.epoch, entry.position):
                counted.append((read.epoch, read.stream, read.version, bytes.fromhex(read.command.id)))
    assert sorted(id_ for *_, id_ in counted) == sorted(acknowledged)
    for person in PEOPLE:
        versions = [version for _, named, version, _ in sorted(counted) if named == person]
        assert versions == list(range(1, len(versions) + 1)), "an owner did not know all that was before it"


def whole(logs: dict[str, list[Entry]], order: Sequence[str]) -> Ownership:
    ownership = Ownership()
    for name in order:
        for entry in logs[name]:
            read = decode_body(entry.body)
            if kind := OF_OWNERSHIP.get(read.type):
                event = msgspec.json.decode(read.data, type=kind)
                ownership.fold(name, entry.position, entry.leaf.hex(), event)
    return ownership


def play(machine: type[Regions], **options: Any) -> None:
    chosen = {"max_examples": 50, "stateful_step_count": 40, "deadline": None, "database": None, "print_blob": True}
    run_state_machine_as_test(machine, settings=settings(**(chosen | options)))


@pytest.mark.parametrize("count", [2, 3])
def test_ownership_keeps_its_laws_however_regions_interleave(count: int) -> None:
    play(type("Some", (Regions,), {"count": count}))


class SkipsTheEpoch(MemoryLog):
    """A planted bug: whoever once owned a partition may write it."""

    def _owns(self, partition: int, epoch: int | None = None) -> bool:
        return any((term := self.ownership.term(partition, e)) and term.log == self.name for e in range(1, 9))


class ForgetsTheThird(Ownership):
    """A planted bug: adopts without what a third log had, of which the copy is behind."""

    def _is_whole(self, partition: int, epoch: int) -> bool:
        return True


class AdoptsTooEarly(MemoryLog):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ownership.__class__ = ForgetsTheThird


class AdoptsBlindly(MemoryLog):
    """A planted bug: goes on with a closed log without having all of it."""

    def _holds_what_it_continues(self) -> bool:
        return True


def decided_before_the_cut_and_sent_after_it(made: type[Region]) -> None:
    eu, us = made("eu", range(3)), made("us", range(0))
    eu.decide(PEOPLE[0])
    eu.release({0}, us)
    check([eu, us], eu.append())


def a_third_region_is_behind(made: type[Region]) -> None:
    eu, us, ap = made("eu", range(3)), made("us", range(0)), made("ap", range(0))
    eu.decide(PEOPLE[0])
    acknowledged = eu.append()
    eu.release({0}, us)
    us.copy(eu)
    us.adopt()
    us.release({0}, ap)
    ap.copy(us)
    ap.adopt()
    ap.decide(PEOPLE[0])
    acknowledged += ap.append()
    check([eu, us, ap], acknowledged)


def a_closed_log_is_not_there_yet(made: type[Region]) -> None:
    eu, us = made("eu", range(3)), made("us", range(0))
    eu.decide(PEOPLE[0])
    acknowledged = eu.append()
    us.copy(eu)
    after, _ = eu.close([us])
    after.copy(eu, 1)
    after.adopt()
    after.decide(PEOPLE[0])
    check([eu, us, after], acknowledged + after.append())


@pytest.mark.parametrize(
    ("planted", "history"),
    [
        (SkipsTheEpoch, decided_before_the_cut_and_sent_after_it),
        (AdoptsTooEarly, a_third_region_is_behind),
        (AdoptsBlindly, a_closed_log_is_not_there_yet),
    ],
)
def test_a_log_that_breaks_a_law_is_caught(planted: type[MemoryLog], history: Callable[[type[Region]], None]) -> None:
    history(Region)
    with pytest.raises(AssertionError):
        history(type("Planted", (Region,), {"kept": planted}))


# Single histories


CUT = Cut(5, "ab" * 32)
OPENED = Opened("countroom.test/eu", 1, ((0, 127),))
RELEASED, ADOPTED = Released(((3, 4, 1),), "us"), Adopted(((3, 4, 2),), "eu", CUT)


def folded(*events: tuple[str, int, LogEvent]) -> Ownership:
    ownership = Ownership()
    for log, position, event in events:
        ownership.fold(log, position, CUT.leaf, event)
    return ownership


def test_a_partition_that_was_released_is_on_its_way() -> None:
    ownership = folded(("eu", 1, OPENED), ("eu", 5, RELEASED))
    assert ownership.owner(3) == Owner("us", 2, adopted=False)
    assert ownership.owner(5) == Owner("eu", 1)
    assert 3 not in ownership.owned("eu")
    assert ownership.counts("eu", 3, 1, 5)
    assert not ownership.counts("eu", 3, 1, 6)
    [release] = ownership.released("us")
    assert release == ("eu", CUT, ((3, 4, 1),))


def test_an_adoption_may_come_before_its_release() -> None:
    late = folded(("eu", 1, OPENED), ("us", 9, ADOPTED), ("eu", 5, RELEASED))
    early = folded(("us", 9, ADOPTED), ("eu", 1, OPENED), ("eu", 5, RELEASED))
    for ownership in (late, early):
        assert ownership.owner(3) == Owner("us", 2)
        assert not ownership.counts("us", 3, 2, 9)
        assert ownership.counts("us", 3, 2, 10)
        assert ownership.released("us") == []


@pytest.mark.parametrize(
    "events",
    [
        [("eu", 1, OPENED), ("us", 1, OPENED)],
        [("eu", 1, OPENED), ("us", 5, RELEASED)],
        [("eu", 1, OPENED), ("eu", 5, RELEASED), ("eu", 6, RELEASED)],
        [("eu", 1, OPENED), ("eu", 5, RELEASED), ("ap", 2, ADOPTED)],
        [("eu", 1, OPENED), ("us", 9, ADOPTED), ("eu", 6, RELEASED)],
        [("eu", 1, OPENED), ("us", 9, ADOPTED), ("ap", 2, ADOPTED)],
        [("eu", 1, OPENED), ("us", 9, ADOPTED), ("eu", 5, Released(((3, 4, 1),), "ap"))],
    ],
    ids=[
        "opened twice",
        "another's",
        "released twice",
        "not the one to whom",
        "another cut",
        "adopted twice",
        "to another",
    ],
)
def test_what_contradicts_is_not_folded(events: list[tuple[str, int, LogEvent]]) -> None:
    with pytest.raises(Contradiction):
        folded(*events)


# Closed, and continued


def continued(region: str = "eu.2", log: str = "eu", position: int = 5) -> Opened:
    return Opened(f"countroom.test/{region}", 1, (), Continued(log, position, CUT.leaf))


GOES_ON = Adopted(((0, 127, 2),), "eu", CUT)


def test_what_a_closed_log_owned_waits_for_the_one_that_goes_on() -> None:
    ownership = folded(("eu", 1, OPENED), ("eu", 4, Released(((9, 9, 1),), "us")), ("eu.2", 1, continued()))
    assert ownership.continued("eu.2") == ("eu", CUT)
    assert ownership.inherited("eu.2") == [("eu", CUT, ((0, 8, 1), (10, 127, 1)))]
    assert ownership.may_adopt("eu.2", Adopted(((0, 8, 2), (10, 127, 2)), "eu", CUT))
    assert not ownership.may_adopt("eu.2", GOES_ON)
    assert ownership.inherited("us") == []


def test_a_closed_log_counts_up_to_its_last_agreed_entry_and_owns_nothing() -> None:
    eu: list[tuple[str, int, LogEvent]] = [("eu", 1, OPENED)]
    eu_2: list[tuple[str, int, LogEvent]] = [("eu.2", 1, continued()), ("eu.2", 2, GOES_ON)]
    for ownership in (folded(*eu, *eu_2), folded(*eu_2, *eu)):
        assert ownership.owner(3) == Owner("eu.2", 2)
        assert ownership.owned("eu") == {}
        assert [ownership.counts("eu", 3, 1, position) for position in (5, 6)] == [True, False]
        assert ownership.inherited("eu.2") == []


def test_what_was_released_to_a_region_goes_to_the_log_that_continues_its() -> None:
    ours = Released(((200, 200, 1),), "eu")
    us: list[tuple[str, int, LogEvent]] = [("us", 1, Opened("countroom.test/us", 1, ((128, 255),))), ("us", 5, ours)]
    ownership = folded(("eu", 1, OPENED), *us, ("eu.2", 1, continued()))
    assert ("us", CUT, ours.partitions) in ownership.inherited("eu.2")
    adopted = Adopted(((200, 200, 2),), "us", CUT)
    assert ownership.may_adopt("eu.2", adopted)
    late = folded(("eu", 1, OPENED), ("eu.2", 1, continued()), ("eu.2", 2, adopted), *us)
    assert late.owner(200) == Owner("eu.2", 2)


@pytest.mark.parametrize(
    "events",
    [
        [("eu.3", 1, continued("eu.3"))],
        [("us.2", 1, continued("us.2"))],
        [("eu.2", 1, continued(position=0))],
        [("eu.2", 1, continued()), ("eu.2", 1, continued())],
        [("eu", 5, RELEASED), ("eu.2", 1, continued()), ("eu.2", 2, GOES_ON)],
        [("eu.2", 1, continued()), ("eu.2", 2, GOES_ON), ("eu", 9, RELEASED)],
        [("eu.2", 1, continued()), ("eu.2", 2, GOES_ON), ("us", 9, ADOPTED)],
        [("us", 1, continued("us"))],
    ],
    ids=[
        "not the next",
        "another region's",
        "of nothing",
        "twice",
        "released before",
        "released afterwards",
        "adopted by another",
        "no number",
    ],
)
def test_only_the_next_log_of_a_region_goes_on_with_what_it_owned(events: list[tuple[str, int, LogEvent]]) -> None:
    with pytest.raises(Contradiction):
        folded(("eu", 1, OPENED), *events)


def test_logs_of_a_region_are_numbered() -> None:
    assert [next_name(each) for each in ("eu", "eu.2", "eu.9")] == ["eu.2", "eu.3", "eu.10"]
    assert is_next("eu.2", "eu")
    assert not is_next("eu", "eu.2")
    assert not is_next("eu.10", "eu.1")
    assert comes_before("eu", "eu.3")
    assert not comes_before("eu.10", "eu.9")
    assert not comes_before("us", "eu.2")


@pytest.mark.parametrize("each", [{}, {3: 1}, {3: 1, 4: 1, 5: 2, 7: 2}, dict.fromkeys(range(256), 9)])
def test_ranges_say_what_they_were_made_of(each: dict[int, int]) -> None:
    assert epochs(spans(each)) == each
    assert len(spans(each)) <= 3


def test_only_an_owner_releases_and_an_adoption_is_made_once() -> None:
    state = LOGS.evolve(LOGS.initial, OPENED, EPOCH)
    with pytest.raises(NotOwned):
        release(state, partitions=[127, 128], to="us")
    [event] = release(state, partitions=[4, 3], to="us")
    assert event == RELEASED
    assert adopt(state, released=((200, 200, 1),), of="us", cut=CUT) == [Adopted(((200, 200, 2),), "us", CUT)]
    owning = LOGS.evolve(state, Adopted(((200, 200, 2),), "us", CUT), EPOCH)
    assert adopt(owning, released=((200, 200, 1),), of="us", cut=CUT) == []
