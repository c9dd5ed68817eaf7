"""Commands that refer to earlier ones, and claim the identifiers of others: on a log in memory and in PostgreSQL alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest

from access.policy import Principal
from commands.decider import Decider
from commands.identity import command_id
from commands.plan import Context, Fact, Plan, Receipt
from domain import bets, players
from domain.bets import Claimed
from domain.errors import KeyReused
from domain.kernel import Event, PlayerId, suffix, uuid7
from domain.players import Tagged
from eventstore.writer import Writer
from tests.commands.house import CODEC, NOON, MemoryVault
from tests.ledger import Subject

PLAYER = PlayerId("player_" + suffix(uuid7(NOON, bytes(10), 42)))
OTHER = PlayerId("player_" + suffix(uuid7(NOON, b"2" * 10, 42)))


class Said(msgspec.Struct, frozen=True):
    """What a command's answer says: the labels of its events."""

    labels: list[str]


def id_of(name: str) -> bytes:
    return command_id("test", name)


def labels(facts: Sequence[Fact]) -> list[str]:
    return [fact.event.label for fact in facts if isinstance(fact.event, Tagged)]


def plan(
    name: str, events: Sequence[Event] | Callable[..., Sequence[Event]] = (), player: PlayerId = PLAYER, **more: Any
) -> Plan:
    """A command that tags a player. `events(**referred)` may look at what it refers to."""
    decide = events if callable(events) else lambda **_: events

    def decision(_at: datetime, **states: Any) -> Sequence[Event]:
        return decide(**{role: each for role, each in states.items() if role not in ("player", "bet_claims")})

    return Plan(
        context=Context(Principal("operator:maria", frozenset()), NOON, id_of(name), "f"),
        require=(),
        writes={"player": players.stream(player), "bet_claims": bets.stream(player)},
        decision=decision,
        answer=lambda facts: Said(labels(facts)),
        **more,
    )


def claiming(name: str, claimed: str, **more: Any) -> Plan:
    """A command that counts another's identifier as taken."""
    return plan(name, [Tagged(name), Claimed()], claims=lambda _: {2: id_of(claimed)}, **more)


async def decider_on(subject: Subject) -> AsyncIterator[Decider]:
    async def connect() -> Any:
        return subject.log

    writer = Writer(connect)
    task = asyncio.create_task(writer.run())
    yield Decider("eu", writer, subject.streams, MemoryVault(), CODEC)  # type: ignore[arg-type]
    writer.close()
    await task


@pytest.fixture
async def decider(subject: Subject) -> AsyncIterator[Decider]:
    async for each in decider_on(subject):
        yield each


@pytest.fixture
async def another(subject: Subject) -> AsyncIterator[Decider]:
    async for each in decider_on(subject):
        yield each


async def test_a_decision_sees_the_facts_of_a_command_and_when_they_were_recorded(
    subject: Subject, decider: Decider
) -> None:
    await decider.decide(plan("first", [Tagged("a"), Tagged("b")]))
    seen: list[Fact] = []

    def decide(earlier: Sequence[Fact], missing: Sequence[Fact]) -> Sequence[Event]:
        seen.extend(earlier)
        assert list(missing) == []
        return [Tagged("c")]

    await decider.decide(plan("second", decide, refers={"earlier": id_of("first"), "missing": id_of("never")}))
    assert labels(seen) == ["a", "b"]
    recorded = [CODEC.decode(entry).at for entry in subject.entries()[1:3]]
    assert [fact.at for fact in seen] == recorded
    assert {fact.stream for fact in seen} == {players.stream(PLAYER).name}


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 17])
async def test_of_a_series_the_last_one_is_seen_however_long_it_is(decider: Decider, length: int) -> None:
    for n in range(1, length + 1):
        await decider.decide(claiming(f"{length}/{n}", f"{length} part {n}"))
    seen: list[list[str]] = []

    def decide(parts: Sequence[Fact]) -> Sequence[Event]:
        seen.append(labels(parts))
        return ()

    await decider.decide(plan("looks", decide, series={"parts": lambda n: id_of(f"{length} part {n}")}))
    assert seen == [[f"{length}/{length}"] if length else []]


def told(facts: Sequence[Fact]) -> Said:
    return Said(["instead", *labels(facts)])


async def test_a_command_whose_identifier_was_claimed_is_answered_from_what_has_claimed_it(
    subject: Subject, decider: Decider, another: Decider
) -> None:
    await decider.decide(claiming("claims", "late"))
    entries = len(subject.entries())
    for each in (decider, another):
        late = await each.decide(plan("late", [Tagged("late")], claimed=told))
        assert (late.answer, late.repeated) == (Said(["instead", "claims"]), True)
    assert len(subject.entries()) == entries
    with pytest.raises(KeyReused):  # a command that knows nothing of that
        await decider.decide(plan("late", [Tagged("late")]))


async def test_what_an_event_claims_stands_in_its_envelope(subject: Subject, decider: Decider) -> None:
    await decider.decide(claiming("claims", "late"))
    first, second = (CODEC.decode(entry).body for entry in subject.entries()[1:])
    assert (first.claims, second.claims) == (None, id_of("late").hex())
    assert await subject.streams.find([id_of("late")])


async def test_who_would_claim_what_is_taken_decides_anew_and_sees_it(decider: Decider, another: Decider) -> None:
    """It comes between the look-up and the append: on other streams, so only the claim tells."""
    meanwhile = plan("late", [Tagged("late")], OTHER)
    seen: list[bool] = []

    def decide(late: Sequence[Fact]) -> Sequence[Event]:
        seen.append(bool(late))
        return [Tagged("saw it")] if late else [Tagged("did not"), Claimed()]

    def claims(events: Sequence[Event]) -> Mapping[int, bytes]:
        return {2: id_of("late")} if len(events) > 1 else {}

    mine = plan("claims", decide, refers={"late": id_of("late")}, claims=claims)
    looked = another._referring.look_up

    async def look_up(plans: Mapping[int, Plan]) -> Any:
        found = await looked(plans)
        if not seen:
            await decider.decide(meanwhile)
        return found

    another._referring.look_up = look_up  # type: ignore[method-assign]
    assert (await another.decide(mine)).answer == Said(["saw it"])
    assert seen == [False, True]


async def test_of_two_that_claim_the_same_one_wins(decider: Decider, another: Decider) -> None:
    def decide(late: Sequence[Fact]) -> Sequence[Event]:
        return [] if late else [Tagged("mine"), Claimed()]

    def mine(name: str, player: PlayerId) -> Plan:
        return plan(
            name, decide, player, refers={"late": id_of("late")},
            claims=lambda events: {2: id_of("late")} if events else {},
        )  # fmt: skip

    plans = [mine(f"claims {n}", PLAYER if n % 2 else OTHER) for n in range(10)]
    receipts = await asyncio.gather(
        *(each.decide(one) for n, one in enumerate(plans) for each in [(decider, another)[n % 2]])
    )
    assert sorted(receipt.answer.labels for receipt in receipts) == [[]] * 9 + [["mine"]]  # type: ignore[attr-defined]


async def test_a_rehearsal_sees_the_same_and_records_nothing(subject: Subject, decider: Decider) -> None:
    await decider.decide(claiming("claims", "late"))
    entries = len(subject.entries())
    late, new = await decider.rehearse([plan("late", [], claimed=told), claiming("other", "later")])
    assert isinstance(late, Receipt)
    assert late.answer == Said(["instead", "claims"])
    assert isinstance(new, Receipt)
    assert len(subject.entries()) == entries


async def test_a_plan_that_records_nothing_tells_what_the_log_has_confirmed(decider: Decider, another: Decider) -> None:
    def asks(name: str) -> Plan:
        return plan(name, (), tells=lambda player, **_: Said(list(player.tags)))

    assert (await another.decide(asks("1"))).answer == Said([])
    await decider.decide(plan("tags", [Tagged("a")]))
    receipt = await another.decide(asks("2"))
    assert (receipt.answer, receipt.position, receipt.repeated) == (Said(["a"]), None, False)
