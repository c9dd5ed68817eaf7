"""
A log that was closed, and the next one of its region: eu and eu.2, in a database that writes eu.2 and in one, us's, that copies both.

The histories that both a log in memory and PostgreSQL must agree about run on both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import psycopg
import pytest

from domain.logs import Adopted, Continued, Cut, LogEvent, Opened, Released
from domain.ownership import Owner
from eventstore import postgres
from eventstore.log import Appended, Command, Malformed
from eventstore.memory import MemoryLog
from eventstore.postgres import PostgresLog, PostgresStreams
from eventstore.record import Entry, decode_body
from tests.ledger import EU, US, Clock, Ledger, OneConnection, Subject, body, chained, new_id, opening, stream

EU_2 = "countroom.test/eu.2"
LATER = 9_000_000
"""µs since 1970 at which the second log of the region begins."""


def wallet(partition: int, version: int, *, epoch: int = 1) -> bytes:
    return body(f"wallet {partition}", version, new_id(), epoch=epoch)


def said(region: str, version: int, event: LogEvent) -> bytes:
    return body(f"region-{region}-log", version, new_id(), data=event, type=event.tag)


def closed(*more: bytes) -> list[Entry]:
    """eu: open with 0 to 127, and an entry of partition 5 at position 2."""
    return chained(EU, [*opening(EU, (0, 127)).bodies, wallet(5, 1), *more])


def opened(cut: Entry, log: str = "eu", origin: str = EU_2) -> Opened:
    return Opened(origin, 1, (), Continued(log, cut.position, cut.leaf.hex()))


def goes_on(cut: Entry, spans: Sequence[tuple[int, int, int]] = ((0, 127, 2),)) -> Adopted:
    return Adopted(tuple(spans), cut.log, Cut(cut.position, cut.leaf.hex()))


def second(cut: Entry, *more: bytes, adopted: Adopted | None = None) -> list[Entry]:
    """eu.2, which goes on with eu behind `cut`."""
    bodies = [said("eu.2", 1, opened(cut)), said("eu.2", 2, adopted or goes_on(cut)), *more]
    return chained(EU_2, bodies, recorded=LATER)


@pytest.fixture(params=["memory", "postgres"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """The log eu.2, not opened, with an empty copy of eu (number 2)."""
    if request.param == "memory":
        log = MemoryLog(EU_2, clock=Clock(), partitions=range(0))
        yield Subject(log, log, lambda: list(log.entries), log.copy)
        return
    ledger = Ledger(request.getfixturevalue("migrated"))
    ledger.sql("SELECT ledger.register_log('eu.2', %s, true), ledger.register_log('eu', %s, false)", EU_2, EU)
    try:
        async with await postgres.connect(ledger.dsn, "countroom_writer") as connection:
            streams = PostgresStreams(OneConnection(connection))  # type: ignore[arg-type]
            log_ = await PostgresLog.open(connection, "eu.2")
            yield Subject(log_, streams, lambda: ledger.entries("eu.2"), ledger.append_copy)
    finally:
        ledger.close()


def one(raw: bytes) -> Command:
    read = decode_body(raw)
    return Command(bytes.fromhex(read.command.id), [raw], (), frozenset([read.stream]))


async def append(subject: Subject, *bodies: bytes) -> None:
    for raw in bodies:
        assert isinstance(outcome := await subject.one(one(raw)), Appended), outcome


async def test_what_the_closed_log_owned_goes_on_in_the_next_one(subject: Subject) -> None:
    eu = closed()
    await append(subject, said("eu.2", 1, opened(eu[-1])))
    assert await subject.streams.released("eu.2") == []
    subject.copy(eu[:1])
    assert await subject.streams.released("eu.2") == [], "not all that counts is here"
    subject.copy(eu[1:])
    assert await subject.streams.released("eu.2") == [("eu", Cut(2, eu[-1].leaf.hex()), ((0, 127, 1),))]
    await append(subject, said("eu.2", 2, goes_on(eu[-1])), wallet(5, 2, epoch=2))
    assert (await subject.streams.owners())[5] == Owner("eu.2", 2)
    assert (await subject.streams.epochs("eu.2"))[127] == 2
    assert await subject.streams.released("eu.2") == []
    loaded = (await subject.streams.load({stream("wallet 5"): 0}))[stream("wallet 5")]
    assert [(entry.log, entry.position) for entry in loaded] == [("eu", 2), ("eu.2", 3)]


def _released(partition: int) -> bytes:
    return said("eu", 2, Released(((partition, partition, 1),), "us"))


@pytest.mark.parametrize(
    "wrong", ["too early", "another leaf", "another cut", "of an epoch", "released before", "unsaid", "twice"]
)
async def test_only_that_is_adopted_and_only_once_all_of_it_is_here(subject: Subject, wrong: str) -> None:
    eu = closed(*([_released(7)] if wrong == "released before" else []))
    cut = eu[-1]
    await append(subject, *([said("eu.2", 1, opened(cut))] if wrong != "unsaid" else opening(EU_2).bodies))
    subject.copy(eu[:1] if wrong == "too early" else eu)
    version = 2
    adopted = goes_on(cut)
    match wrong:
        case "another leaf":
            adopted = goes_on(cut._replace(leaf=bytes(32)))
        case "another cut":
            adopted = goes_on(eu[0])
        case "of an epoch":
            adopted = goes_on(cut, [(0, 127, 3)])
        case "twice":
            await append(subject, said("eu.2", 2, adopted))
            version = 3
    with pytest.raises(Malformed):
        await subject.append(one(said("eu.2", version, adopted)))


async def test_what_the_closed_log_had_released_stays_where_it_went(subject: Subject) -> None:
    eu = closed(_released(7))
    await append(subject, said("eu.2", 1, opened(eu[-1])))
    subject.copy(eu)
    [found] = await subject.streams.released("eu.2")
    assert found.partitions == ((0, 6, 1), (8, 127, 1))
    await append(subject, said("eu.2", 2, goes_on(eu[-1], [(0, 6, 2), (8, 127, 2)])))
    assert (await subject.streams.owners())[7] == Owner("us", 2, adopted=False)


# A database that copies both: us's


@pytest.fixture
def copier(migrated: str) -> Ledger:
    """us is written here; eu is number 2, eu.2 number 3."""
    ledger = Ledger(migrated)
    for name, origin, own in (("us", US, True), ("eu", EU, False), ("eu.2", EU_2, False)):
        ledger.sql("SELECT ledger.register_log(%s, %s, %s)", name, origin, own)
    assert ledger.append(opening(US, (128, 255))) == [0]
    return ledger


def counted(ledger: Ledger, log: int) -> list[bool]:
    return [
        bool(each)
        for (each,) in ledger.sql("SELECT stream IS NOT NULL FROM ledger.entry WHERE log = %s ORDER BY position", log)
    ]


EU_FIRST = ((2, 0, 2), (3, 0, 3))
EU_2_FIRST = ((3, 0, 3), (2, 0, 2))
ONE_BY_ONE = ((3, 0, 1), (2, 0, 1), (3, 1, 2), (2, 1, 2), (3, 2, 3))
"""Which entries of which log come one after another."""


@pytest.mark.parametrize("order", [EU_FIRST, EU_2_FIRST, ONE_BY_ONE], ids=["eu first", "eu.2 first", "one by one"])
def test_a_copy_knows_the_same_owners_however_the_logs_come(
    copier: Ledger, order: Sequence[tuple[int, int, int]]
) -> None:
    eu = closed()
    logs = {2: eu, 3: second(eu[1], wallet(5, 2, epoch=2))}
    for log, start, stop in order:
        copier.append_copy(logs[log][start:stop], log=log)
    terms = copier.sql(
        "SELECT l.name, w.epoch, w.cut, w.released_to FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log"
        " WHERE w.partition = 5 ORDER BY w.epoch"
    )
    assert terms == [("eu", 1, 2, "eu.2"), ("eu.2", 2, None, None)]
    assert counted(copier, 2) == [True, True]
    assert counted(copier, 3) == [True, True, True]


def test_what_comes_behind_the_cut_is_stranded_and_never_counts(copier: Ledger) -> None:
    eu = closed(wallet(5, 2), wallet(6, 1))
    copier.append_copy(eu[:2], log=2)
    copier.append_copy(second(eu[1], wallet(5, 2, epoch=2)), log=3)
    copier.append_copy(eu[2:], log=2)
    assert counted(copier, 2) == [True, True, False, False]
    assert [entry.position for entry in copier.entries("eu")] == [1, 2, 3, 4], "they are kept"


def refused(ledger: Ledger, entries: Sequence[Entry], log: int) -> str | None:
    with pytest.raises(psycopg.DatabaseError) as error:
        ledger.append_copy(entries, log=log)
    return error.value.sqlstate


def test_a_copy_that_has_counted_more_refuses_the_log_that_goes_on(copier: Ledger) -> None:
    eu = closed(wallet(5, 2))
    copier.append_copy(eu, log=2)
    assert refused(copier, second(eu[1]), 3) == "CR012"


def test_a_copy_that_holds_another_entry_there_refuses_it_whichever_comes_first(copier: Ledger) -> None:
    eu, other = closed(), closed()
    assert eu[1].leaf != other[1].leaf
    copier.append_copy(second(other[1]), log=3)
    assert refused(copier, eu, 2) == "CR012"
    copier.append_copy(other, log=2)


def test_a_fork_is_refused_by_who_has_the_other_side(copier: Ledger) -> None:
    eu, other = closed(), closed()
    copier.append_copy(eu, log=2)
    assert refused(copier, second(other[1]), 3) == "CR012"


@pytest.mark.parametrize(
    ("wrong", "state"),
    [
        (Opened(EU_2, 1, ((0, 127),), Continued("eu", 2, "ab" * 32)), "CR005"),
        (Opened(EU_2, 1, (), Continued("us", 1, "ab" * 32)), "CR005"),
        (Opened(EU_2, 1, (), Continued("eu.2", 2, "ab" * 32)), "CR005"),
        (Opened(EU_2, 1, (), Continued("eu", 0, "ab" * 32)), "CR005"),
        (Opened(EU_2, 1, (), Continued("eu", 2, "ab")), "CR005"),
    ],
    ids=["with partitions", "another region", "itself", "of nothing", "no leaf"],
)
def test_an_opening_goes_on_with_the_log_before_of_its_region_alone(copier: Ledger, wrong: Opened, state: str) -> None:
    assert refused(copier, chained(EU_2, [said("eu.2", 1, wrong)]), 3) == state


def test_nobody_else_adopts_what_was_not_released(copier: Ledger) -> None:
    """us itself, which may write here, with the very cut: it continues nothing."""
    eu = closed()
    copier.append_copy(eu, log=2)
    with pytest.raises(psycopg.DatabaseError) as error:
        copier.append(one(said("us", 2, goes_on(eu[1]))))
    assert error.value.sqlstate == "CR012"


def test_a_log_that_is_written_here_is_not_closed_by_another(copier: Ledger) -> None:
    """us.2 appears while us is written: one of the two must not be."""
    copier.sql("SELECT ledger.register_log('us.2', 'countroom.test/us.2', false)")
    [us] = copier.entries("us")
    opening_ = Opened("countroom.test/us.2", 1, (), Continued("us", 1, us.leaf.hex()))
    assert refused(copier, chained("countroom.test/us.2", [said("us.2", 1, opening_)]), 4) == "CR012"


def test_what_was_handed_over_goes_on_through_a_closed_log(copier: Ledger) -> None:
    """eu.2 releases to us what it took over; us sees all three terms, and adopts."""
    eu = closed()
    release = Released(((5, 5, 2),), "us")
    eu_2 = second(eu[1], said("eu.2", 3, release))
    copier.append_copy(eu, log=2)
    copier.append_copy(eu_2, log=3)
    adopted = Adopted(((5, 5, 3),), "eu.2", Cut(3, eu_2[2].leaf.hex()))
    assert copier.append(one(said("us", 2, adopted))) == [0]
    assert copier.append(one(wallet(5, 2, epoch=3))) == [0]


def test_a_planted_bug_that_lets_anybody_adopt_is_noticed(copier: Ledger) -> None:
    eu = closed()
    copier.append_copy(eu, log=2)
    [(source,)] = copier.sql("SELECT pg_get_functiondef('ledger.note_adoption'::regproc)")
    planted = source.replace("goes_on := (closed.after_log", "goes_on := true OR (closed.after_log")
    assert planted != source
    copier.admin.execute(planted.encode())
    assert copier.append(one(said("us", 2, goes_on(eu[1])))) == [0], "the bug is not there"


def test_the_next_log_is_not_cleared_before_all_of_the_closed_one_is_here(migrated: str) -> None:
    """Its erasures above all: the keys have come with the vault."""
    ledger, eu = Ledger(migrated), closed()
    for name, origin, own in (("eu.2", EU_2, True), ("eu", EU, False)):
        ledger.sql("SELECT ledger.register_log(%s, %s, %s)", name, origin, own)
    assert ledger.append(one(said("eu.2", 1, opened(eu[-1])))) == [0]
    ledger.sql("SELECT ledger.guard(1::smallint)")
    ledger.append_copy(eu[:1])
    with pytest.raises(psycopg.DatabaseError, match="does not go up to position 2 yet"):
        ledger.sql("SELECT ledger.clear_to_write(1::smallint, 'compared')", role="heads")
    ledger.append_copy(eu[1:])
    ledger.sql("SELECT ledger.clear_to_write(1::smallint, 'compared')", role="heads")
    assert ledger.sql("SELECT ledger.may_write(1::smallint)") == [(True,)]
    ledger.close()
