"""What a comparison rests on: a call counts after its commit, and the log that is made by COPY is a log."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import psycopg
import pytest

from bench.append import GROUPS, OURS, _compared
from bench.peers import Load, Round, cuts, history
from bench.peers.pipelined import Failed, Pipelined
from eventstore.log import Command
from eventstore.postgres import PostgresLog, connect
from eventstore.record import decode_body
from tests.ledger import Ledger
from tests.stack import Servers

_STATEMENTS = {
    b"keep": b"INSERT INTO kept VALUES ($1) RETURNING n",
    b"none": b"SELECT 1 WHERE false",
    b"wait": b"SELECT pg_sleep(60)",
}


@pytest.fixture
async def line(servers: Servers) -> AsyncIterator[tuple[Pipelined, psycopg.Connection]]:
    """A pipelined connection to a table of numbers, unique by the commit, and an ordinary one that looks on."""
    dsn = servers.fresh_database("pipelined")
    with psycopg.connect(dsn, autocommit=True) as witness:
        witness.execute("CREATE TABLE kept (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        pipelined = Pipelined(dsn)
        pipelined.start(_STATEMENTS)
        yield pipelined, witness
        pipelined.close()


async def test_a_pipelined_call_returns_after_its_commit(line: tuple[Pipelined, psycopg.Connection]) -> None:
    pipelined, witness = line

    async def keep(n: int) -> bool:
        assert await pipelined.call(b"keep", [b"%d" % n]) == [b"%d" % n]
        return bool(witness.execute("SELECT FROM kept WHERE n = %s", (n,)).rowcount)

    assert all(await asyncio.gather(*(keep(n) for n in range(200))))


async def test_a_pipelined_call_whose_commit_fails_fails_alone(line: tuple[Pipelined, psycopg.Connection]) -> None:
    pipelined, witness = line
    calls = [pipelined.call(b"keep", [n]) for n in (b"1", b"2", b"1", b"3")]
    first, second, again, third = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, second, third) == ([b"1"], [b"2"], [b"3"])
    assert isinstance(again, Failed)
    assert await pipelined.call(b"none", []) == []
    assert witness.execute("SELECT count(*) FROM kept").fetchone() == (3,)


async def test_who_waits_on_a_connection_that_is_lost_is_told(line: tuple[Pipelined, psycopg.Connection]) -> None:
    pipelined, witness = line
    waiting = asyncio.ensure_future(pipelined.call(b"wait", []))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # now it is sent
    (pid,) = witness.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    witness.execute("SELECT pg_terminate_backend(%s)", pid)
    with pytest.raises(Failed):
        await asyncio.wait_for(waiting, 10)


async def test_a_log_that_was_filled_goes_on(ledger: Ledger) -> None:
    """What COPY left is followed by the ordinary append, so versions, ids and chain are as it expects them."""
    load = Load(players=3, events=2)
    with psycopg.connect(ledger.dsn) as administrator:
        row = administrator.execute("SELECT log, position, recorded, leaf FROM ledger.entry").fetchone()
    end = history.End(*row)
    suffixes = history.players(load, range(128), end.recorded)
    history.fill(ledger.dsn, f"ledger.entry_{end.log}", end, suffixes, load)
    made = history.cut(suffixes[0], 3, end.recorded)
    command = Command(made.command, [made.raw], (), frozenset({made.body.stream}))
    async with await connect(ledger.dsn, "countroom_writer") as connection:
        log = await PostgresLog.open(connection, "eu")
        (appended,) = await log.append([command])
        rows = await (
            await connection.execute("SELECT position, recorded, leaf, body FROM ledger.entry ORDER BY position")
        ).fetchall()
    assert appended.position == 1 + 3 * 3 + 1
    leaf = end.leaf
    for position, recorded, stored, body in rows[1:]:
        leaf = hashlib.sha256(b"\0" + leaf + position.to_bytes(8, "big") + recorded.to_bytes(8, "big") + body).digest()
        assert leaf == stored
    assert [decode_body(body).version for *_, body in rows] == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]


def test_a_limit_is_cut_but_not_raised() -> None:
    asked = cuts.request()
    event = cuts.decide(cuts.State(cuts.FIRST_LIMIT, 1), asked)
    assert cuts.limit_in(cuts.data(event)) == event.limit.amount
    with pytest.raises(ValueError, match="not raised"):
        cuts.decide(cuts.State(event.limit.amount, 2), asked)


def test_the_best_arrangement_of_a_peer_is_what_ours_is_compared_with() -> None:
    speeds = {OURS: [900, 1000, 1100], "message_db, 1 connection, 1 category": [100, 300, 200]}
    speeds["message_db, 8 connections, 8 categories"] = [500, 500, 9000]
    rounds = {name: [Round(each, 1.0, [0.001]) for each in done] for name, done in speeds.items()}
    found = _compared(rounds, {"umadb": "not here"})
    assert found["peers"]["message_db"] == 500
    assert found["ratios"] == dict.fromkeys(GROUPS) | {"message_db": 2.0}
    assert found["spread"]["message_db, 8 connections, 8 categories"] == [500, 9000]
