"""A service's start, and with it every event on a region's own streams: in no partition, in the region's log alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from access import files
from access.policy import Principal
from commands import services
from commands.decider import Decider
from commands.plan import Context, Plan
from commands.players import PlayerBlocked
from domain import players
from domain.kernel import PlayerId
from domain.players import Blocked
from domain.services import Started, stream
from eventstore.log import Malformed
from eventstore.postgres import PostgresLog, PostgresStreams, connect, pool
from eventstore.record import decode_body
from eventstore.writer import Writer
from policies import sla
from policies.rules import RULES
from tests.commands.house import CODEC, NOON, House, MemoryVault
from tests.ledger import Ledger


def started() -> Plan:
    return services.start("eu", "api", "0.1.0", "0.1.0+000000000000", NOON)


async def test_a_start_stands_in_the_log_without_partition_and_epoch(house: House) -> None:
    receipt = await house.process.decider.decide(started())
    (entry,) = house.log.entries
    body = decode_body(entry.body)
    assert (body.stream, body.version, body.actor) == ("region-eu-services", 1, "system")
    assert b'"partition"' not in entry.body
    assert b'"epoch"' not in entry.body
    assert b'"fingerprint"' not in entry.body
    assert receipt.answer == services.Started(body.id)
    assert house.log.events() == [Started("api", "0.1.0", "0.1.0+000000000000", services.policies_in_force())]


async def test_processes_that_start_together_are_all_recorded_and_one_that_asks_again_once(house: House) -> None:
    plans = [started() for _ in range(5)]
    deciders = [house.another_process().decider for _ in plans]
    await asyncio.gather(*(decider.decide(plan) for decider, plan in zip(deciders, plans, strict=True)))
    again = await house.another_process().decider.decide(plans[0])
    assert again.repeated
    assert [decode_body(entry.body).version for entry in house.log.entries] == [1, 2, 3, 4, 5]


def test_the_hashes_of_the_policies_follow_from_what_they_say() -> None:
    found = services.policies_in_force()
    sla_ = msgspec.json.encode(sla.rules(), order="sorted")
    assert found["access"] == files.read().digest
    assert found["sla"] == hashlib.sha256(sla_).hexdigest()
    assert found["rules"] == RULES.digest
    assert set(found) >= {"access", "currencies", "gates", "rules"}


def both(player: str, context: Context) -> Plan:
    """A command that writes to a player's stream and to one of the region's own."""
    return Plan(
        context,
        require=(),
        writes={"player": players.stream(PlayerId(player)), "services": stream("eu")},
        decision=lambda _at, **_: [Blocked(reason="x"), Started("api", "", "", {})],
        answer=lambda _facts: PlayerBlocked(player, "blocked"),
    )


async def test_a_command_writes_to_a_partition_or_to_the_region_never_to_both(house: House) -> None:
    """The region's own entry would count for ever, the player's only up to a takeover: they could not stand together."""
    player = await house.player()
    with pytest.raises(Malformed):
        await house.process.decider.decide(
            both(player, house.plan("/v1/players", {"country": "DE", "currency": "EUR"}).context)
        )
    assert len(house.log.entries) == 1


async def test_a_region_stream_of_another_region_is_refused(house: House) -> None:
    with pytest.raises(Malformed):
        await house.process.decider.decide(services.start("us", "api", "", "", NOON))


@pytest.fixture
async def on_postgres(ledger: Ledger) -> AsyncIterator[Decider]:
    async def opened() -> PostgresLog:
        return await PostgresLog.open(await connect(ledger.dsn, "countroom_writer"), "eu")

    async with pool(ledger.dsn, "countroom_writer", size=2) as writers:
        writer = Writer(opened)
        task = asyncio.create_task(writer.run())
        yield Decider("eu", writer, PostgresStreams(writers), MemoryVault(), CODEC)  # type: ignore[arg-type]
        writer.close()
        await task


async def test_postgresql_takes_it_as_memory_does(on_postgres: Decider, ledger: Ledger) -> None:
    first, second = await on_postgres.run([started(), started()])
    assert not isinstance(first, Exception)
    assert not isinstance(second, Exception)
    repeat = started()
    await on_postgres.decide(repeat)
    assert (await on_postgres.decide(repeat)).repeated
    rows = ledger.sql(
        "SELECT stream, version, type, partition FROM ledger.entry WHERE log = 1 AND position > 1 ORDER BY position"
    )
    assert rows == [("region-eu-services", version, "service.started", None) for version in (1, 2, 3)]
    bodies = [msgspec.json.decode(entry.body) for entry in ledger.entries()[1:]]
    assert not any({"partition", "epoch"} & body.keys() for body in bodies)


async def test_postgresql_refuses_what_memory_refuses(on_postgres: Decider, ledger: Ledger) -> None:
    before = len(ledger.entries())
    nobody = Principal("operator:test", frozenset())
    context = Context(nobody, NOON, b"0123456789abcdef", None)
    with pytest.raises(Malformed):
        await on_postgres.decide(both("player_01ka7g0000e00800000000001a", context))
    with pytest.raises(Malformed):
        await on_postgres.decide(services.start("us", "api", "", "", NOON))
    assert len(ledger.entries()) == before


async def test_a_process_refuses_to_start_with_policies_that_nobody_adopted_if_it_was_told_so(house: House) -> None:
    decide, hash_ = house.process.decider.decide, files.read().digest
    with pytest.raises(services.PoliciesNotAdopted) as refused:
        await decide(services.start("eu", "api", "0.1.0", "x", house.now, adopted_only=True))
    assert refused.value.facts == {"hash": hash_, "adopted": ""}
    assert house.log.events("region-eu-services") == []
    await house.process.post("/v1/policies", {"hash": hash_}, actor="operator:ada", roles=["administrator"])
    adopting = {"actor": "operator:bo", "roles": ["administrator"]}
    await house.process.post(f"/v1/policies/{hash_}/adopt", None, **adopting)
    await decide(services.start("eu", "api", "0.1.0", "x", house.now, adopted_only=True))
    [started_] = house.log.events("region-eu-services")
    assert started_.policies["access"] == hash_  # type: ignore[attr-defined]
