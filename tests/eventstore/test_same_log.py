"""The log in memory and the one in PostgreSQL answer alike: random batches, and the whole of both logs after each."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from eventstore import postgres
from eventstore.log import Command, Malformed, Outcome, Place, Refused
from eventstore.memory import MemoryLog
from eventstore.postgres import PostgresLog, PostgresStreams
from tests.ledger import EU, Ledger, OneConnection, Subject, body, memory_subject, stream, whole

KINDS = ("player", "limits", "wallet")
PEOPLE = (1, 2, 1, 2, 1, 2, 200)  # the last is not owned here
OFTEN = 12


class SameLog(RuleBasedStateMachine):
    """Two logs get the same batches. Versions are mostly the next ones, as a caller would have them."""

    fresh: Callable[[], tuple[Subject, Subject]]
    run: Callable[[Any], Any]

    sent = Bundle("sent")

    @initialize()
    def begin(self) -> None:
        self.one, self.other = type(self).fresh()
        self.ids = 0

    def new_id(self) -> bytes:
        self.ids += 1
        return hashlib.sha256(str(self.ids).encode()).digest()[:16]

    def version(self, name: str) -> int:
        return len(self.run(self.one.streams.load({stream(name): 0}))[stream(name)])

    def command(self, draw: Callable[[Any], Any], known: Sequence[bytes]) -> Command:
        person = draw(st.sampled_from(PEOPLE))
        error = st.sampled_from([0] * OFTEN + [-1, 1])
        id_ = draw(st.sampled_from([*known, *[self.new_id()] * 3]))
        kinds = draw(st.lists(st.sampled_from(KINDS), max_size=4))
        claims = draw(st.sampled_from([None] * OFTEN + [self.new_id(), *known[:1]]))
        epoch = draw(st.sampled_from([1] * OFTEN + [2]))
        last: dict[str, int] = {}
        bodies = []
        for i, kind in enumerate(kinds, 1):
            name = f"{kind} {person}"
            last[name] = 1 + (last[name] if name in last else max(0, self.version(name) + draw(error)))
            claiming = {"claims": claims.hex()} if claims and i == len(kinds) > 1 else {}
            bodies.append(body(name, last[name], id_, i, len(kinds), epoch=epoch, **claiming))
        reads = [f"{kind} {person}" for kind in draw(st.lists(st.sampled_from(KINDS), max_size=2))]
        conditions = tuple((stream(name), max(0, self.version(name) + draw(error))) for name in reads)
        return Command(id_, bodies, conditions, frozenset(map(stream, last)))

    @rule(target=sent, data=st.data(), known=st.lists(sent, max_size=2), size=st.integers(1, 5))
    def append(self, data: st.DataObject, known: list[bytes], size: int) -> Any:
        batch = [self.command(data.draw, known) for _ in range(size)]
        assert self.told(self.one, batch) == self.told(self.other, batch)
        return multiple(*(each.id for each in batch))

    @rule(known=consumes(sent))
    def find(self, known: bytes) -> None:
        found: dict[bytes, Place] = self.run(self.one.streams.find([known]))
        assert found == self.run(self.other.streams.find([known]))
        for place in found.values():
            (one,), (other,) = (self.run(log.streams.commands([place])) for log in (self.one, self.other))
            assert [(entry.position, entry.body) for entry in one] == [(entry.position, entry.body) for entry in other]

    def told(self, subject: Subject, batch: Sequence[Command]) -> object:
        """What a caller hears, without times and hashes, which the clocks decide."""
        try:
            outcomes: list[Outcome] = self.run(subject.append(*batch))
        except Malformed:
            return Malformed
        return [o if isinstance(o, Refused) else (o.position, len(o.leaves)) for o in outcomes]

    @invariant()
    def the_logs_are_whole_and_hold_the_same(self) -> None:
        one, other = (list(whole(log.entries(), EU)) for log in (self.one, self.other))
        assert [entry.body for entry in one[1:]] == [entry.body for entry in other[1:]]


def compare(fresh: Callable[[], tuple[Subject, Subject]], run: Callable[[Any], Any], **options: Any) -> None:
    machine = type("Compared", (SameLog,), {"fresh": staticmethod(fresh), "run": staticmethod(run)})
    options = {"stateful_step_count": 12, "deadline": None, "database": None, "print_blob": True} | options
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck), **options))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_memory_and_postgres_give_the_same_answers(ledger: Ledger, runner: asyncio.Runner) -> None:
    connection = runner.run(postgres.connect(ledger.dsn, "countroom_writer"))
    log = runner.run(PostgresLog.open(connection, "eu"))
    real = Subject(log, PostgresStreams(OneConnection(connection)), ledger.entries)  # type: ignore[arg-type]

    def fresh() -> tuple[Subject, Subject]:
        ledger.empty()
        return runner.run(memory_subject()), real

    compare(fresh, runner.run, max_examples=15)
    runner.run(connection.close())


class OwnsEverything(MemoryLog):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **(options | {"partitions": range(256)}))


class IgnoresReads(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        return await super().append([msgspec.structs.replace(each, reads=()) for each in commands])


class FindsNothing(MemoryLog):
    async def find(self, commands: Sequence[bytes]) -> dict[bytes, Place]:
        return {}


@pytest.mark.parametrize("planted", [OwnsEverything, IgnoresReads, FindsNothing])
def test_a_log_that_answers_otherwise_is_noticed(runner: asyncio.Runner, planted: type[MemoryLog]) -> None:
    def fresh() -> tuple[Subject, Subject]:
        return runner.run(memory_subject()), runner.run(memory_subject(planted))

    with pytest.raises(AssertionError):
        compare(
            fresh, runner.run, max_examples=500, phases=[Phase.generate], report_multiple_bugs=False, derandomize=True
        )
