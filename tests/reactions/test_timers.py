"""What is due is done: once in effect, whoever is killed, and however late."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from commands.identity import command_id
from domain.kyc import DeadlineMissed
from domain.transactions import Status
from reactions import pending
from reactions.runner import Patience
from reactions.timers import FIRES
from tests.commands.house import CODEC
from tests.reactions.region import Bank, Region

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def fired(region: Region, **later: float) -> None:
    """Everything that is due then."""
    await region.wait(**later)
    await region.project()
    await region.timers().step()
    await region.project()


async def test_a_deposit_that_nobody_tells_of_expires_and_gives_its_headroom_back(region: Region) -> None:
    player = await region.player()
    deposit = await region.deposit(player, 5000)
    await fired(region, hours=23)
    assert region.transaction(deposit).status is Status.REQUESTED
    await fired(region, hours=2)
    assert region.transaction(deposit).status is Status.EXPIRED
    assert region.tags("limits")[-1] == "limits.headroom_released"
    assert region.due() == []


async def test_it_is_fired_as_the_command_that_its_cause_and_time_name(region: Region) -> None:
    await region.deposit(await region.player(), 5000)
    await region.project()
    [(due_at, cause)] = region.ledger.sql("SELECT due_at, cause FROM read.due")
    await fired(region, hours=25)
    fact = CODEC.decode(region.ledger.entries()[-1]).body
    written = due_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    assert fact.command.id == command_id("reaction:timers", f"{cause}\n{written}").hex()
    assert (fact.actor, fact.cause, fact.command.fingerprint) == ("reaction:timers", cause, None)


async def test_what_was_settled_in_time_is_due_no_more(region: Region) -> None:
    await region.rich()
    await region.project()
    assert region.due() == []


async def test_a_withdrawal_that_nobody_has_approved_gives_the_money_back(region: Region) -> None:
    player = await region.rich(200_000)
    withdrawal = await region.withdrawal(player, 100_000)
    assert region.transaction(withdrawal).status is Status.UNDER_REVIEW
    await fired(region, days=8)
    assert region.transaction(withdrawal).status is Status.EXPIRED
    assert (region.accounts(player).cash, region.accounts(player).reserved) == (200_000, 0)
    region.books_balance()


async def test_a_withdrawal_that_was_sent_never_expires(region: Region) -> None:
    player = await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await region.project()
    await region.payouts(Bank()).step()
    await region.wait(days=8)
    await region.timers().step()  # the read model has not heard of it: the decision has the last word
    assert region.transaction(withdrawal).status is Status.SENT
    await region.project()
    assert [kind for kind, _ in region.due()] == ["payout"]


async def test_a_missed_kyc_deadline_is_recorded_and_one_that_was_kept_is_not(region: Region) -> None:
    late, known = await region.player(), await region.player()
    due_at = (region.now + timedelta(days=3)).isoformat()
    for player in (late, known):
        await region.process.post(f"/v1/players/{player}/kyc/request", {"level": "identity", "due_at": due_at})
    why = {"kind": "correction", "reason": "seen in person"}
    approved = {"level": "identity", "method": "passport", "age_verified": True, "intervention": why}
    await region.process.post(f"/v1/players/{known}/kyc/approve", approved)
    await fired(region, days=4)
    assert [event for event in region.events("kyc") if isinstance(event, DeadlineMissed)] == [DeadlineMissed()]
    assert region.kyc(late).missed
    assert region.due() == []


async def test_being_known_at_a_lower_level_does_not_end_the_deadline(region: Region) -> None:
    player = await region.player()
    due_at = (region.now + timedelta(days=3)).isoformat()
    await region.process.post(f"/v1/players/{player}/kyc/request", {"level": "enhanced", "due_at": due_at})
    why = {"kind": "correction", "reason": "seen in person"}
    approved = {"level": "identity", "method": "passport", "age_verified": True, "intervention": why}
    await region.process.post(f"/v1/players/{player}/kyc/approve", approved)
    await fired(region, days=4)
    assert region.kyc(player).missed


async def test_a_document_expires_after_its_last_day(region: Region) -> None:
    player = await region.player()
    last = region.now.date() + timedelta(days=10)
    why = {"kind": "correction", "reason": "seen in person"}
    approved = {
        "level": "identity", "method": "passport", "age_verified": True,
        "document_expires": last.isoformat(), "intervention": why,
    }  # fmt: skip
    await region.process.post(f"/v1/players/{player}/kyc/approve", approved)
    await fired(region, days=9)
    assert region.kyc(player).status == "approved"
    await fired(region, days=2)
    assert region.kyc(player).status == "expired"


async def test_a_ticket_that_nobody_answers_has_its_promises_missed_once_each(region: Region) -> None:
    player = await region.player()
    opened = {"channel": "email", "by": "player", "subject": "money", "text": "where is it?", "priority": "urgent"}
    await region.process.post(f"/v1/players/{player}/tickets", opened)
    for _ in range(3):
        await fired(region, days=5)
    assert region.tags("ticket") == ["ticket.opened", "ticket.first_response_missed", "ticket.resolution_missed"]
    assert region.due() == []


async def test_whom_the_law_wants_to_be_gone_is_named_when_the_day_has_come(region: Region) -> None:
    player = await region.player(country="GB", birth_date="1990-01-01")
    await region.process.post(f"/v1/players/{player}/close", {"reason": "asked"})
    await fired(region, days=4 * 366)
    assert "erasure_due" in {kind for kind, _ in region.due()}
    assert "player.erasure_due" not in region.tags("player")
    for _ in range(2):
        await fired(region, days=366)
    assert region.tags("player")[-1] == "player.erasure_due"
    assert region.tags("player").count("player.erasure_due") == 1
    assert "erasure_due" not in {kind for kind, _ in region.due()}


async def test_a_process_that_is_killed_after_firing_fires_once_in_effect(region: Region) -> None:
    for _ in range(3):
        await region.deposit(await region.player(), 5000)
    await region.project()
    await region.wait(hours=25)
    await region.timers().step()
    before = len(region.ledger.entries())
    await region.timers(region.another_process()).step()  # another process, and the rows are there still
    assert len(region.ledger.entries()) == before
    assert region.tags("transaction").count("transaction.deposit_expired") == 3


async def test_two_processes_that_fire_at_once_have_one_effect(region: Region) -> None:
    for _ in range(5):
        await region.deposit(await region.player(), 5000)
    await region.project()
    await region.wait(hours=25)
    await asyncio.gather(*(region.timers(region.another_process()).step() for _ in range(4)))
    assert region.tags("transaction").count("transaction.deposit_expired") == 5


async def test_what_another_region_owns_is_left_to_it(region: Region) -> None:
    await region.deposit(await region.player(), 5000)
    await region.project()
    region.ledger.sql("UPDATE read.due SET partition = 200")
    await region.wait(hours=25)
    await region.timers().step()
    assert "transaction.deposit_expired" not in region.tags()


async def test_what_is_refused_is_tried_later_and_later_and_holds_up_nothing(region: Region) -> None:
    player = await region.player()
    deposits = [await region.deposit(player, 100) for _ in range(3)]
    await region.project()
    await region.wait(hours=25)
    asked: list[str] = []

    def counting(suffix: str, edge: object) -> object:
        asked.append(suffix)
        return FIRES["withdrawal_expiry"](suffix if suffix in deposits[0] else suffix[:-1] + "z", edge)  # type: ignore[arg-type]

    timers = region.timers(fires={"deposit_expiry": counting})  # type: ignore[dict-item]
    for _ in range(5):
        await timers.step()
    assert len(asked) == 3
    assert region.transaction(deposits[0]).status is Status.EXPIRED
    await region.wait(seconds=3)
    await timers.step()
    assert len(asked) == 6


def test_patience_doubles_up_to_an_hour_and_forgets_what_is_over() -> None:
    patience, now, pauses = Patience(), NOON, []
    for _ in range(14):
        assert patience.is_over("thing", now)
        patience.tried("thing", now)
        later = now
        while not patience.is_over("thing", later):
            later += timedelta(seconds=1)
        pauses.append((later - now).total_seconds())
        now = later
    assert pauses[:4] == [2, 4, 8, 16]
    assert pauses[-1] == 3600
    patience.tried("thing", now)
    patience.forget_all_but([])
    assert patience.is_over("thing", now)


@pytest.mark.parametrize("rows", [1, 2, 100])
async def test_pages_miss_nothing_and_repeat_nothing(region: Region, rows: int) -> None:
    for _ in range(5):
        await region.deposit(await region.player(), 100)
    await region.project()
    later = region.now + timedelta(days=2)
    found = [
        each async for page in pending.pages(region.pool, FIRES, range(128), later, rows) for each in page
    ]  # fmt: skip
    assert [(each.kind, each.stream) for each in sorted(found)] == sorted(region.due(), key=lambda row: row[1])
    assert len(set(found)) == 5
