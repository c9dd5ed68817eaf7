"""The group commit in front of a log: what it may put together, and what its callers hear when things go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest

from eventstore import postgres
from eventstore.log import Appended, Command, Log, Malformed, Outcome, Place, Reason, Refused, TooLarge
from eventstore.memory import MemoryLog
from eventstore.postgres import PostgresLog
from eventstore.record import decode_body
from eventstore.writer import BATCH_COMMANDS_MAX, Unavailable, Uncertain, Writer
from tests.ledger import EU, Clock, Ledger, body, command, new_id, stream, whole

SEED = random.randrange(2**32)


class SlowLog(MemoryLog):
    """Takes its time to commit, remembers its batches, and loses connections as it is told to."""

    def __init__(self) -> None:
        super().__init__(EU, clock=Clock())
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.faults: list[str] = []

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        await self.gate.wait()
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before the commit":
            raise psycopg.OperationalError("gone, and not persisted")
        outcomes = await super().append(commands)
        self.batches.append(len(commands))
        if fault == "after the commit":
            raise psycopg.OperationalError("gone, but persisted")
        return outcomes


@asynccontextmanager
async def writing(connect: Callable[[], Awaitable[Log]], **options: float) -> AsyncIterator[Writer]:
    writer = Writer(connect, **options)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        writer.close()
        await asyncio.wait_for(running, 60)


@asynccontextmanager
async def on(log: Log, **options: float) -> AsyncIterator[Writer]:
    async def connect() -> Log:
        return log

    async with writing(connect, **options) as writer:
        yield writer


async def all_queued() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# Groups


async def test_what_comes_while_a_batch_commits_goes_together_into_the_next_ones() -> None:
    """A batch takes half of those who wait, so that the others' callers are at work while it commits."""
    log = SlowLog()
    async with on(log) as writer:
        log.gate.clear()
        calls = [asyncio.create_task(writer.append([command(("wallet 1", 1))]))]
        await all_queued()
        calls += [asyncio.create_task(writer.append([command((f"wallet {n}", 1))])) for n in range(2, 100)]
        await all_queued()
        log.gate.set()
        await asyncio.gather(*calls)
    assert log.batches == [1, 50, 48]


async def test_a_single_command_does_not_wait_for_company() -> None:
    log = SlowLog()
    async with on(log) as writer:
        (outcome,) = await asyncio.wait_for(writer.append([command(("wallet 1", 1))]), 60)
    assert isinstance(outcome, Appended)
    assert log.batches == [1]


async def test_a_batch_has_at_most_so_many_commands() -> None:
    log = SlowLog()
    many = [
        command((f"wallet {n % 256}{'abcdefgh'[n // 256 % 8]}", 1 + n // 2048)) for n in range(BATCH_COMMANDS_MAX + 7)
    ]
    async with on(log) as writer:
        outcomes = await writer.append(many)
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    assert log.batches == [BATCH_COMMANDS_MAX, 7]


async def test_commands_on_one_stream_are_appended_in_order_each_in_a_batch_of_its_own() -> None:
    log = SlowLog()
    async with on(log) as writer:
        calls = [
            asyncio.create_task(writer.append([command((name, version))]))
            for version in range(1, 6)
            for name in ("wallet 1", "wallet 2", "wallet 3")
        ]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*calls)]
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    assert sum(log.batches) == 15
    assert max(log.batches) == 3


async def test_a_command_that_waits_holds_back_what_depends_on_it() -> None:
    """The second waits for the first; the third would fit into the first batch but for the second."""
    log = SlowLog()
    async with on(log) as writer:
        first = command(("wallet 1", 1))
        second = command(("wallet 1", 2), ("limits 1", 1))
        third = command(("limits 1", 2))
        reader = command(("player 1", 1), reads=[("limits 1", 2)])
        outcomes = await writer.append([first, second, third, reader])
    assert [outcome.position for outcome in outcomes if isinstance(outcome, Appended)] == [1, 2, 4, 5]
    assert log.batches == [1, 1, 1, 1]


async def test_the_same_command_twice_at_once_has_one_effect() -> None:
    log = SlowLog()
    twice = command(("wallet 1", 1))
    async with on(log) as writer:
        outcomes = await asyncio.gather(*(writer.append([twice]) for _ in range(3)))
    assert [type(outcome) for (outcome,) in outcomes] == [Appended, Refused, Refused]
    assert outcomes[2] == [Refused(Reason.DUPLICATE, Place("eu", 1))]


# What goes wrong


async def test_a_malformed_command_fails_alone() -> None:
    log = SlowLog()
    id_ = new_id()
    bad = Command(id_, [body("wallet 2", 1, id_, partition=77)], (), frozenset([stream("wallet 2")]))
    async with on(log) as writer:
        log.gate.clear()
        calls = [asyncio.create_task(writer.append([each])) for each in (command(("wallet 1", 1)), bad)]
        calls.append(asyncio.create_task(writer.append([command(("wallet 3", 1))])))
        await all_queued()
        log.gate.set()
        good, failed, other = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(failed, list)
    assert isinstance(failed[0], Malformed)
    assert all(isinstance(each, list) and isinstance(each[0], Appended) for each in (good, other))


async def test_what_is_too_large_is_refused_at_once_and_disturbs_nobody() -> None:
    log = SlowLog()
    async with on(log) as writer:
        good, large = await writer.append([command(("wallet 1", 1)), command(("wallet 2", 1), data="x" * 70_000)])
        assert isinstance(good, Appended)
        assert isinstance(large, TooLarge)
        assert len(log.entries) == 1
        assert await writer.append([]) == []


@pytest.mark.parametrize("fault", ["before the commit", "after the commit"])
async def test_a_batch_whose_answer_was_lost_is_sent_again_and_counts_once(fault: str) -> None:
    log = SlowLog()
    log.faults = [fault, fault]
    commands = [command(("wallet 1", 1), ("limits 1", 1)), command(("wallet 2", 1))]
    async with on(log) as writer:
        outcomes = await writer.append(commands)
    places = [o.position if isinstance(o, Appended) else o.first and o.first.position for o in outcomes]
    assert places == [1, 3]
    assert len(list(whole(log.entries, EU))) == 3


async def test_callers_hear_when_the_log_stays_away() -> None:
    log = SlowLog()
    log.faults = ["before the commit"] * 1000
    async with on(log, give_up_seconds=0.1) as writer:
        with pytest.raises(Unavailable):
            await writer.append([command(("wallet 1", 1))])
        log.faults = []
        assert await writer.append([command(("wallet 1", 1))])


async def test_only_what_was_never_sent_is_said_not_to_be_appended() -> None:
    async def nowhere() -> Log:
        raise psycopg.OperationalError("connection refused")

    async with writing(nowhere, give_up_seconds=0.1) as writer:
        with pytest.raises(Unavailable) as never_sent:
            await writer.append([command(("wallet 1", 1))])
    assert not isinstance(never_sent.value, Uncertain)
    log = SlowLog()
    log.faults = ["before the commit"] * 1000
    async with on(log, give_up_seconds=0.1) as writer:
        with pytest.raises(Uncertain):
            await writer.append([command(("wallet 1", 1))])


async def test_a_log_that_may_not_be_written_holds_no_connections_and_nothing_is_uncertain(ledger: Ledger) -> None:
    connections = []

    async def connect() -> Log:
        connections.append(await postgres.connect(ledger.dsn, "countroom_writer"))
        return await PostgresLog.open(connections[-1], "eu")

    ledger.sql("SELECT ledger.guard(id) FROM ledger.log WHERE own")
    try:
        async with writing(connect, give_up_seconds=3) as writer:
            with pytest.raises(Unavailable) as refused:
                await writer.append([command(("wallet 1", 1))])
            assert not isinstance(refused.value, Uncertain)
            assert len(connections) > 2
            assert all(each.closed for each in connections)
    finally:
        ledger.sql("DELETE FROM ledger.clearance")


async def test_a_connection_to_a_database_without_the_log_is_not_kept(ledger: Ledger) -> None:
    connection = await postgres.connect(ledger.dsn, "countroom_writer")
    with pytest.raises(KeyError):
        await PostgresLog.open(connection, "ap")
    assert connection.closed


async def test_a_cancelled_caller_disturbs_nobody() -> None:
    log = SlowLog()
    async with on(log) as writer:
        log.gate.clear()
        calls = [asyncio.create_task(writer.append([command((f"wallet {n}", 1))])) for n in range(10)]
        await all_queued()
        for call in calls[::2]:
            call.cancel()
        await all_queued()
        log.gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False] * 5
        assert await writer.append([command(("wallet 11", 1))])


async def test_a_closed_writer_finishes_what_is_queued_and_takes_no_more() -> None:
    log = SlowLog()
    async with on(log) as writer:
        log.gate.clear()
        call = asyncio.create_task(writer.append([command(("wallet 1", 1)), command(("wallet 1", 2))]))
        await all_queued()
        writer.close()
        with pytest.raises(Unavailable):
            await writer.append([command(("wallet 2", 1))])
        log.gate.set()
        assert len(await call) == 2


@pytest.mark.parametrize("end", ["cancelled", "broken"])
async def test_nobody_waits_for_a_writer_that_has_ended(end: str) -> None:
    log = SlowLog()
    log.gate.clear()

    async def connect() -> Log:
        if end == "broken":
            raise KeyError("no log of this name is written here")
        return log

    writer = Writer(connect)
    running = asyncio.create_task(writer.run())
    calls = [asyncio.create_task(writer.append([command(("wallet 1", version))])) for version in (1, 2)]
    await all_queued()
    running.cancel()
    for call in calls:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(call, 60)
    with contextlib.suppress(asyncio.CancelledError, KeyError):
        await running
    with pytest.raises(Unavailable):
        await writer.append([command(("wallet 1", 1))])


# PostgreSQL, whose connection is cut


async def test_every_acknowledged_command_is_there_once_however_often_the_connection_is_cut(ledger: Ledger) -> None:
    """A seed reproduces when the connections are cut, as far as two processes can be reproduced."""
    randomly = random.Random(SEED)
    stop = asyncio.Event()
    acknowledged: list[bytes] = []
    connected = cuts = 0

    async def connect() -> Log:
        nonlocal connected
        connected += 1
        return await PostgresLog.open(await postgres.connect(ledger.dsn, "countroom_writer"), "eu")

    async def person(number: int, writer: Writer) -> None:
        for version in range(1, 10_000):
            if stop.is_set():
                return
            each = command((f"wallet {number}", version))
            (outcome,) = await writer.append([each])
            assert isinstance(outcome, Appended) or outcome.reason is Reason.DUPLICATE, outcome
            acknowledged.append(each.id)

    async def saboteur() -> None:
        nonlocal cuts
        async with await psycopg.AsyncConnection.connect(ledger.dsn, autocommit=True) as connection:
            while cuts < 12:
                await asyncio.sleep(randomly.uniform(0, 0.08))
                cursor = await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query LIKE %s AND pid <> pg_backend_pid()",
                    ("SELECT * FROM ledger.append%",),
                )
                cuts += len(await cursor.fetchall())
        stop.set()

    async with writing(connect) as writer:
        await asyncio.gather(saboteur(), *(person(number, writer) for number in range(40)))
    assert connected > 5, f"seed {SEED}"
    assert acknowledged, f"seed {SEED}"
    entries = list(whole(ledger.entries(), EU))
    stored = Counter(decode_body(entry.body).command.id for entry in entries)
    assert set(stored.values()) == {1}, f"seed {SEED}"
    assert {id_.hex() for id_ in acknowledged} == stored.keys() - {decode_body(entries[0].body).command.id}, (
        f"seed {SEED}"
    )
