"""Limits as they are set, raised and met through commands: by one process, by two on one PostgreSQL, and by clocks that are stepped."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from access.policy import Principal
from commands.edge import InterventionMissing
from commands.limits import Outcome
from domain import limits
from domain.errors import Forbidden, LimitExceeded, LimitRequired, PlayerBlocked, UnderReview
from domain.kernel import Intervention, Money, Sealed
from domain.limits import (
    DepositRefused,
    HeadroomConsumed,
    NoRaise,
    NotByHouse,
    RaiseNotThePlayers,
    RaiseRequested,
    RaiseTooEarly,
    RaiseUnseen,
    Source,
)
from domain.windows import day_of
from eventstore.log import Command
from eventstore.log import Outcome as Appended
from eventstore.postgres import PostgresLog, PostgresStreams
from eventstore.writer import Unavailable
from policies.limits import local_day
from tests.commands.house import CODEC, NOON, Bound, House, MemoryVault, Process, deposit_of, euros
from tests.ledger import Ledger

DAILY: dict[str, object] = {"kind": "deposit", "period": "day"}


async def set_(house: House, player: str, verb: str = "", **body: object) -> Any:
    return (await house.process.post(f"/v1/players/{player}/limits{verb}", {**DAILY, **body})).answer


def at(house: House, moment: datetime) -> None:
    """All clocks are right."""
    house.now = moment
    house.log.clock.now = int(moment.timestamp() * 1_000_000)


async def test_a_raise_is_asked_for_confirmed_and_holds(house: House) -> None:
    player = await house.player()
    assert (await set_(house, player, limit=euros(100))).outcome is Outcome.IN_FORCE
    asked = await set_(house, player, limit=euros(300))
    assert (asked.outcome, asked.needs) == (Outcome.WAITING, ())
    assert (await set_(house, player, limit=euros(300))).outcome is Outcome.UNCHANGED
    with pytest.raises(RaiseTooEarly):
        await set_(house, player, "/confirm")
    at(house, asked.effective_at + timedelta(seconds=1))
    assert (await set_(house, player, "/confirm")).outcome is Outcome.IN_FORCE
    await house.deposit(player, 300)
    assert (await set_(house, player, limit=euros(200))).outcome is Outcome.IN_FORCE
    with pytest.raises(LimitExceeded):
        await house.deposit(player, 1)


async def test_a_raise_that_was_withdrawn_is_asked_for_anew(house: House) -> None:
    player = await house.player()
    await set_(house, player, limit=euros(100))
    await set_(house, player)  # no limit at all
    assert (await set_(house, player, "/withdraw")).outcome is Outcome.IN_FORCE
    assert (await set_(house, player, "/withdraw")).outcome is Outcome.UNCHANGED
    with pytest.raises(NoRaise):
        await set_(house, player, "/confirm")


async def test_what_the_house_must_see_first_is_attested_by_those_who_may(house: House) -> None:
    player = await house.player(country="NL", birth_date="1980-01-01")
    monthly = {"kind": "deposit", "period": "month"}
    asked = await set_(house, player, **monthly, limit=euros(500_00))
    at(house, asked.effective_at + timedelta(seconds=1))
    with pytest.raises(RaiseUnseen):
        await set_(house, player, "/confirm", **monthly)
    path = f"/v1/players/{player}/limits/attest"
    with pytest.raises(Forbidden):
        await house.process.post(path, {**monthly, "need": "contact"}, roles=["operator"])
    await house.process.post(path, {**monthly, "need": "contact"})
    assert (await set_(house, player, "/confirm", **monthly)).outcome is Outcome.IN_FORCE


async def test_who_asks_for_a_raise_stands_in_the_log_and_why_the_house_does_is_sealed(house: House) -> None:
    player = await house.player()
    await set_(house, player, limit=euros(100))
    with pytest.raises(InterventionMissing):
        await set_(house, player, limit=euros(300), source="operator")
    why = {"kind": "complaint", "reason": "she has shown her payslip"}
    assert (await set_(house, player, limit=euros(300), source="operator", intervention=why)).outcome is Outcome.WAITING
    with pytest.raises(NotByHouse):
        await set_(house, player, limit=euros(50), source="operator", intervention=why)
    [asked] = [event for event in house.log.events("limits") if isinstance(event, RaiseRequested)]
    assert asked.source is Source.OPERATOR
    assert asked.intervention is not None
    assert isinstance(asked.intervention.reason, Sealed)
    [opened] = [event for event in house.opened("limits") if isinstance(event, RaiseRequested)]
    assert opened.intervention == Intervention("complaint", "she has shown her payslip")
    ontario = await house.player(country="CA", jurisdiction="CA-ON", currency="CAD", birth_date="1980-01-01")
    dollars = {"limit": {"amount": 100, "currency": "CAD"}}
    await set_(house, ontario, **dollars)
    with pytest.raises(RaiseNotThePlayers):
        await set_(house, ontario, source="operator", intervention=why)
    assert (await set_(house, ontario)).outcome is Outcome.WAITING


async def test_the_house_limits_a_player_beside_the_players_own_limit(house: House) -> None:
    player = await house.player()
    await set_(house, player, limit=euros(100))
    await set_(house, player, "/operator", limit=euros(50), reason="harm")
    with pytest.raises(LimitExceeded) as refused:
        await house.deposit(player, 51)
    assert (refused.value.facts["source"], refused.value.facts["rule"]) == ("operator", "operator.deposit.day")
    await set_(house, player, "/operator", reason="reviewed")
    await house.deposit(player, 100)


async def test_who_met_a_hold_for_laundering_is_told_the_same_neutral_word_again(house: House) -> None:
    player = await house.player()
    await set_(house, player, "/operator", limit=euros(0), reason="aml")
    for process in (house.process, house.another_process()):
        with pytest.raises(UnderReview) as refused:
            await process.post(f"/v1/players/{player}/deposits", deposit_of(1), key="k")
        assert refused.value.facts == {}
    [refusal] = [event for event in house.log.events("limits") if isinstance(event, DepositRefused)]
    assert refusal == DepositRefused(money=Money(1, "EUR"), code="under_review")
    await house.process.post(f"/v1/players/{player}/block", {"reason": "aml"})
    with pytest.raises(UnderReview):
        await house.process.post(f"/v1/players/{player}/withdrawals", {"amount": euros(1), "provider": "acme"})
    await house.process.post(f"/v1/players/{player}/block", {"reason": "fraud"})
    with pytest.raises((PlayerBlocked, UnderReview)):
        await house.process.post(f"/v1/players/{player}/withdrawals", {"amount": euros(1), "provider": "acme"})


async def test_a_deposit_waits_for_the_limit_that_the_law_wants_and_the_refusal_stands_in_the_log(house: House) -> None:
    player = await house.player(country="SE", currency="SEK", birth_date="1980-01-01")
    crowns = {"amount": 1, "currency": "SEK"}
    path = f"/v1/players/{player}/deposits"
    await house.process.post(f"/v1/players/{player}/activate", {})
    for period in ("day", "week", "month"):
        with pytest.raises(LimitRequired):
            await house.process.post(path, {"amount": crowns, "provider": "acme"})
        await set_(house, player, period=period, limit={"amount": 5, "currency": "SEK"})
    await house.process.post(path, {"amount": crowns, "provider": "acme"})
    tags = [event.tag for event in house.log.events("limits")]
    assert tags == ["limits.deposit_refused", "limits.limit_set"] * 3 + ["limits.headroom_consumed"]


async def test_what_is_paid_out_and_comes_back_moves_net_deposits(house: House) -> None:
    player = await house.player()
    known = {"level": "identity", "method": "document", "age_verified": True}
    await house.process.post(f"/v1/players/{player}/kyc/approve", known, actor="payments:acme")
    await set_(house, player, kind="net_deposit", period="month", limit=euros(1_000))
    deposit = await house.deposit(player, 1_000)
    await house.process.post(f"/v1/transactions/{deposit}/settle")
    with pytest.raises(LimitExceeded) as refused:
        await house.deposit(player, 1)
    assert refused.value.facts["kind"] == "net_deposit"
    asked = await house.process.post(f"/v1/players/{player}/withdrawals", {"amount": euros(400), "provider": "acme"})
    payment = asked.answer.transaction  # type: ignore[attr-defined]
    told: dict[str, Any] = {"actor": "payments:acme"}
    await house.process.post(f"/v1/transactions/{payment}/send", {"reference": "p"}, **told)
    await house.process.post(f"/v1/transactions/{payment}/settle", {}, **told)
    await house.deposit(player, 300)
    await house.process.post(f"/v1/transactions/{payment}/return", {"reason": "closed"}, **told)
    with pytest.raises(LimitExceeded) as refused:
        await house.deposit(player, 1)
    assert (refused.value.facts["used"], refused.value.facts["remaining"]) == (Money(1_300, "EUR"), Money(0, "EUR"))


async def test_a_refusal_that_is_recorded_is_the_answer_for_ever(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})
    told = []
    for process in (house.process, house.another_process()):
        with pytest.raises(LimitExceeded) as refused:
            await process.post(f"/v1/players/{player}/deposits", deposit_of(101), key="k")
        told.append(refused.value.facts)
        house.now += timedelta(days=1)
    assert told[0] == told[1]
    assert [event.tag for event in house.log.events("limits")] == ["limits.limit_set", "limits.deposit_refused"]


# Moves


async def moves(house: House, player: str, jurisdiction: str) -> None:
    where = {"address_country": jurisdiction[:2], "jurisdiction": jurisdiction}
    await house.process.post(f"/v1/players/{player}/profile", where)


async def raise_(house: House, player: str, amount: int, *needs: str) -> None:
    asked = await set_(house, player, limit=euros(amount))
    assert asked.needs == needs
    for need in needs:
        await set_(house, player, "/attest", need=need)
    at(house, asked.effective_at + timedelta(seconds=1))
    await set_(house, player, "/confirm")


async def refused(house: House, player: str, amount: int) -> object:
    with pytest.raises(LimitExceeded) as found:
        await house.deposit(player, amount)
    return found.value.facts["rule"]


async def test_the_presets_of_the_law_are_those_of_where_the_player_lives_now(house: House) -> None:
    """Her own limit was raised where the law presets none: in Spain that lifts nothing, and back home it holds again."""
    player = await house.player(birth_date="1980-01-01")
    await set_(house, player, limit=euros(100_00))
    await raise_(house, player, 5_000_00)
    await moves(house, player, "ES")
    known = {"level": "identity", "method": "document", "age_verified": True}
    await house.process.post(f"/v1/players/{player}/kyc/approve", known, actor="payments:acme")
    assert await refused(house, player, 600_01) == "deposit_limit.default_day"
    await house.deposit(player, 600_00)
    await raise_(house, player, 700_00, "test", "no_risk_behaviour")
    at(house, house.now + timedelta(days=1))
    assert await refused(house, player, 700_01) == "player.deposit.day"
    await house.deposit(player, 700_00)
    at(house, house.now + timedelta(days=9))
    assert await refused(house, player, 700_01) == "player.deposit.day"
    await moves(house, player, "NL")
    assert await refused(house, player, 350_01) == "deposit_limit.contact_threshold_month"
    await moves(house, player, "AT")
    assert await refused(house, player, 700_01) == "player.deposit.day"
    await house.deposit(player, 700_00)


async def test_a_raise_that_was_asked_for_elsewhere_meets_the_law_of_here(house: House) -> None:
    player = await house.player(birth_date="1980-01-01")
    await set_(house, player, limit=euros(100_00))
    asked = await set_(house, player, limit=euros(5_000_00))
    await moves(house, player, "ES")
    at(house, asked.effective_at + timedelta(seconds=1))
    with pytest.raises(RaiseUnseen) as unseen:
        await set_(house, player, "/confirm")
    assert unseen.value.facts == {"needs": ["test", "no_risk_behaviour"]}
    await moves(house, player, "NL")
    with pytest.raises(RaiseTooEarly):
        await set_(house, player, "/confirm")


# Clocks that are stepped


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=1)])
async def test_a_process_whose_clock_is_ahead_of_the_logs_confirms_no_raise_early(
    house: House, ahead: timedelta
) -> None:
    """It holds the time to have come; the log says otherwise, and whoever asked hears that, also when they ask again."""
    player = await house.player()
    await set_(house, player, limit=euros(100))
    asked = await set_(house, player, limit=euros(300))
    at(house, asked.effective_at - timedelta(minutes=30))
    house.now += ahead
    for process in (house.process, house.another_process()):
        with pytest.raises(RaiseTooEarly) as early:
            await process.post(f"/v1/players/{player}/limits/confirm", DAILY, key="k")
        assert early.value.facts == {"effective_at": asked.effective_at}
        with pytest.raises(LimitExceeded):
            await process.post(f"/v1/players/{player}/deposits", deposit_of(101))
    at(house, asked.effective_at + timedelta(seconds=1))
    assert (await set_(house, player, "/confirm")).outcome is Outcome.IN_FORCE
    await house.deposit(player, 300)


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(days=1)])
async def test_a_raise_that_a_lagging_process_was_asked_for_waits_from_when_the_log_has_it(
    house: House, behind: timedelta
) -> None:
    at(house, NOON + timedelta(days=3))
    player = await house.player()
    await set_(house, player, limit=euros(100))
    noted = house.now
    house.now -= behind
    asked = await set_(house, player, limit=euros(300))
    at(house, noted + timedelta(hours=23))
    assert asked.effective_at <= noted + timedelta(hours=24, minutes=1)
    with pytest.raises(RaiseTooEarly):
        await set_(house, player, "/confirm")
    at(house, noted + timedelta(hours=24, minutes=1))
    assert (await set_(house, player, "/confirm")).outcome is Outcome.IN_FORCE


@pytest.mark.parametrize("of_log", [timedelta(hours=1), timedelta(days=1), timedelta(hours=-1), timedelta(days=-1)])
@pytest.mark.parametrize(
    "of_us", [timedelta(0), timedelta(hours=1), timedelta(days=1), timedelta(hours=-1), timedelta(days=-1)]
)
async def test_no_step_of_a_clock_gives_a_day_or_24_hours_twice(
    bound: Bound, of_log: timedelta, of_us: timedelta
) -> None:
    """The log's clock and the process's, stepped there and back across midnight, by themselves and both."""
    house = bound
    player = await house.player(country="PT", birth_date="1980-01-01")
    await set_(house, player, limit=euros(100))
    await set_(house, player, period="24_hours", limit=euros(150))
    moments = (datetime(2026, 11, 23, 23, 40, tzinfo=UTC), datetime(2026, 11, 24, 0, 20, tzinfo=UTC))
    for moment, sign in itertools.product(moments, (0, 1, 0, -1, 0)):
        house.elapsed = (moment - NOON).total_seconds()
        house.now = moment + of_us * sign
        house.log.clock.now = int((moment + of_log * sign).timestamp()) * 1_000_000
        for _ in range(3):
            try:
                await house.deposit(player, 60)
            except LimitExceeded:
                continue
    counted = [
        (read.at, read.event)
        for read in map(CODEC.decode, house.log.entries)
        if isinstance(read.event, HeadroomConsumed)
    ]
    assert counted
    by_day: dict[object, int] = {}
    for at, event in counted:
        day = day_of(event.day, event.utc_offset, at)
        assert day >= local_day("PT", at)
        by_day[day] = by_day.get(day, 0) + event.money.amount
    assert max(by_day.values()) <= 100
    for at, _ in counted:
        assert sum(e.money.amount for was, e in counted if at - timedelta(hours=24) < was <= at) <= 150


async def test_a_clock_that_is_a_year_ahead_neither_opens_a_window_nor_closes_one_for_a_year(bound: Bound) -> None:
    player = await bound.player(country="PT", birth_date="1980-01-01")
    await set_(bound, player, limit=euros(100))
    await set_(bound, player, period="30_days", limit=euros(150))
    right = bound.now
    bound.now = right + timedelta(days=365)
    await bound.deposit(player, 100)
    with pytest.raises(LimitExceeded):
        await bound.deposit(player, 100)
    later = right + timedelta(days=1)
    bound.elapsed += timedelta(days=1).total_seconds()
    at(bound, later)
    await bound.deposit(player, 50)


# Two processes and one PostgreSQL


class Both(PostgresStreams):
    """The log and what is read of it, in one, as the write side's tests want it."""

    def __init__(self, log: PostgresLog, streams: PostgresStreams) -> None:
        super().__init__(streams._pool)
        self._log = log
        self.name, self.origin = log.name, log.origin

    async def append(self, commands: list[Command]) -> list[Appended]:
        return await self._log.append(commands)


class Shared(House):
    """Two processes, each with its own connection to the log."""

    def __init__(self, logs: list[Both]) -> None:
        self.vault = MemoryVault()
        self.now = datetime.now(UTC)
        self.known: dict[str, Principal] = {}
        self._keys = itertools.count(1)
        self._processes: list[Process] = []
        for log in logs:
            self.log = log  # type: ignore[assignment]
            self._processes.append(Process(self))
            self._processes[-1]._connect = _connected(log)  # type: ignore[method-assign]
        self.process = self._processes[0]


def _connected(log: Both) -> Any:
    async def connect() -> Any:
        return log

    return connect


@pytest.fixture
async def two(ledger: Ledger) -> AsyncIterator[Shared]:
    async with AsyncExitStack() as stack:
        logs = [
            Both(await stack.enter_async_context(ledger.log()), await stack.enter_async_context(ledger.streams()))
            for _ in range(2)
        ]
        shared = Shared(logs)
        yield shared
        await shared.close()


async def test_deposits_that_race_with_cuts_in_two_processes_never_exceed_the_limit(
    two: Shared, ledger: Ledger
) -> None:
    """Whatever was accepted fitted into the limit that held where it stands in the log."""
    player = await two.player()
    path = f"/v1/players/{player}/limits"
    await two.process.post(path, {**DAILY, "limit": euros(1_000)})

    async def act(place: int) -> None:
        process = two._processes[place % 2]
        while True:
            try:
                if place % 5 == 4:
                    await process.post(path, {**DAILY, "limit": euros(1_000 - 35 * place)})
                else:
                    await process.post(f"/v1/players/{player}/deposits", deposit_of(60))
            except LimitExceeded:
                return
            except Unavailable:  # the race was lost too often
                continue
            return

    await asyncio.gather(*(act(place) for place in range(25)))
    limit, used, accepted, refused = 0, 0, 0, 0
    for entry in ledger.entries():
        match CODEC.decode(entry).event:
            case limits.LimitSet(money=Money(amount)):
                limit = amount
            case HeadroomConsumed(money=Money(amount)):
                used, accepted = used + amount, accepted + 1
                assert used <= limit
            case DepositRefused(exceeded=limits.Exceeded() as exceeded):
                refused += 1
                assert (exceeded.limit, exceeded.used) == (limit, used), "a refusal tells how it stood in the log"
                assert exceeded.used + 60 > exceeded.limit
    assert (accepted + refused, accepted > 0, refused > 0) == (20, True, True)
