"""What rules find becomes notices: once in effect, whoever is killed, and the same that a re-run finds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from app import rerunning
from commands.identity import command_id
from commands.notices import raise_
from commands.plan import Plan
from domain import suppressions
from domain.contacts import Opened, Unanswered
from domain.findings import ALL, Finding
from domain.kernel import AMOUNT_MAX, PlayerId
from domain.notices import Raised
from domain.protection import ActionBlocked, Stop
from policies.findings import Count, Kind, Severity, Step, as_data
from projections.due import Due
from projections.findings import Findings
from projections.postgres import PostgresStore
from projections.runner import Runner
from projections.source import LogSource
from reactions.notices import Found, Notices, context
from tests.commands.house import CODEC, Process
from tests.reactions.region import Region, _unexpected
from tests.replay.logs import replaying

EVER = rerunning.Asked("2026-01-01T00:00:00Z", "2100-01-01T00:00:00Z")


@pytest.fixture
async def watched(region: Region) -> Region:
    """A region without findings."""
    for table in ("finding", "watched"):
        region.ledger.sql(f"DELETE FROM read.{table}".encode())
    return region


async def project(region: Region, entries: int = 2_000) -> None:
    connection: Any = region._projecting
    stores = [PostgresStore(each, connection) for each in (Due(), Findings())]
    runner = Runner(LogSource(connection, CODEC, ["eu", "us"]), stores, _unexpected, entries=entries)
    while await runner.step():
        pass


def reaction(region: Region, process: Process | None = None, decide: Any = None, rows: int = 200) -> Notices:
    run = decide or (process or region.process).decider.run
    return Notices("eu", region.pool, region.log, run, region.edge, clock=lambda: region.now, rows=rows)


def raised(region: Region) -> list[Raised]:
    return [event for event in region.events("notice") if isinstance(event, Raised)]


def pending(region: Region) -> list[tuple[str, str]]:
    return region.ledger.sql("SELECT cause, rule FROM read.finding ORDER BY at, cause, rule")


async def fail_to_log_in(region: Region, player: str, times: int = 10) -> None:
    for _ in range(times):
        await region.process.post(f"/v1/players/{player}/logins/fail", {"reason": "password"})


async def deposits(region: Region, player: str, times: int) -> None:
    for number in range(times):
        deposit = await region.deposit(player, 2_000)
        await region.said("acme", verb="settle", id=f"{deposit} {number}", transaction=deposit)


async def test_a_finding_becomes_a_notice_that_names_its_events(watched: Region) -> None:
    player = await watched.player()
    await fail_to_log_in(watched, player)
    await project(watched)
    await reaction(watched).step()
    [notice] = raised(watched)
    fact = CODEC.decode(watched.ledger.entries()[-1]).body
    failures = [CODEC.decode(entry).body.id for entry in watched.ledger.entries() if b'"login.failed"' in entry.body]
    assert notice.events == tuple(failures)
    assert (notice.player, notice.rule, notice.rule_version) == (player, "failed_log_ins", 1)
    assert (fact.actor, fact.cause) == ("reaction:notices", failures[-1])
    assert fact.command.id == command_id("reaction:notices", f"{failures[-1]}\nfailed_log_ins").hex()


async def test_it_is_raised_once_however_often_the_reaction_repeats(watched: Region) -> None:
    await fail_to_log_in(watched, await watched.player())
    await project(watched)
    for _ in range(3):  # the read model has not heard of it
        await reaction(watched).step()
        await reaction(watched, watched.another_process()).step()
    await asyncio.gather(*(reaction(watched, watched.another_process()).step() for _ in range(3)))
    assert len(raised(watched)) == 1
    await project(watched)
    assert pending(watched) == []
    await reaction(watched).step()
    assert len(raised(watched)) == 1


class Killed(Exception):
    pass


@pytest.mark.parametrize("answered", [False, True], ids=["before the append", "after it"])
async def test_a_reaction_that_is_killed_goes_on_from_the_log(watched: Region, *, answered: bool) -> None:
    for _ in range(3):
        await fail_to_log_in(watched, await watched.player())
    await project(watched)

    async def die(plans: list[Plan]) -> Any:
        if answered:
            await watched.process.decider.run(plans[:1])
        raise Killed

    with pytest.raises(Killed):
        await reaction(watched, decide=die).step()
    await reaction(watched, watched.another_process()).step()
    assert len(raised(watched)) == 3
    assert len({notice.player for notice in raised(watched)}) == 3


async def test_what_is_remembered_survives_being_read_in_any_pieces(watched: Region) -> None:
    player = await watched.player()
    await fail_to_log_in(watched, player, 9)
    await project(watched, entries=1)
    assert pending(watched) == []
    await fail_to_log_in(watched, player, 1)
    await project(watched, entries=2)
    assert [rule for _, rule in pending(watched)] == ["failed_log_ins"]


async def test_pages_miss_nobody(watched: Region) -> None:
    for _ in range(5):
        await fail_to_log_in(watched, await watched.player())
    await project(watched)
    await reaction(watched, rows=2).step()
    assert len(raised(watched)) == 5


async def test_what_another_region_owns_is_left_to_it(watched: Region) -> None:
    await fail_to_log_in(watched, await watched.player())
    await project(watched)
    watched.ledger.sql("UPDATE read.finding SET partition = 200")
    await reaction(watched).step()
    assert raised(watched) == []


async def test_one_that_fails_holds_up_no_other_and_is_tried_again_later(watched: Region) -> None:
    for _ in range(3):
        await fail_to_log_in(watched, await watched.player())
    await project(watched)
    asked: list[int] = []

    async def trouble(plans: list[Plan]) -> list[Any]:
        asked.append(len(plans))
        done: list[Any] = await watched.process.decider.run(plans[1:])
        return [RuntimeError("a fault"), *done]

    troubled = reaction(watched, decide=trouble)
    await troubled.step()
    assert len(raised(watched)) == 2
    await troubled.step()
    assert asked == [3]  # patience
    await watched.wait(seconds=3)
    await project(watched)
    await reaction(watched).step()
    assert len(raised(watched)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        "finding = '{}'",
        "finding = jsonb_set(finding::jsonb, '{steps}', '[\"a_step_of_a_later_release\"]')::json",
        "player = 'nobody'",
    ],
)
async def test_one_that_cannot_be_read_is_told_as_an_error_and_holds_up_no_other(watched: Region, damage: str) -> None:
    for _ in range(3):
        await fail_to_log_in(watched, await watched.player())
    await project(watched)
    second = pending(watched)[1]
    watched.ledger.sql(f"UPDATE read.finding SET {damage} WHERE cause = %s".encode(), second[0])
    troubled = reaction(watched)
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            await troubled.step()
            await watched.wait(hours=2)
            await project(watched)
    errors = [(each["cause"], each["rule"]) for each in said if each["log_level"] == "error"]
    assert errors == [second] * 3
    assert len(raised(watched)) == 2
    assert pending(watched) == [second], "nobody gives it up"


async def test_a_sum_of_more_than_any_one_amount_is_found_and_raised(watched: Region) -> None:
    """JSON carries integers up to 2⁵³ - 1 exactly: what comes to more is told as that much."""
    player = await watched.rich(1_000)
    first, second = [await watched.deposit(player, 1_000) for _ in range(2)]
    most = {"amount": AMOUNT_MAX - 1_000, "currency": "EUR"}
    for deposit in (first, second):
        await watched.said("acme", verb="settle", id=f"{deposit} 1", transaction=deposit, **most)
        await watched.said("acme", verb="refund", id=f"{deposit} 2", reference=deposit, transaction=deposit, **most)
    await watched.withdrawal(player, 1_000)
    await project(watched, entries=3)
    await reaction(watched).step()
    await project(watched)
    [notice] = [each for each in raised(watched) if each.rule == "withdrawal_without_play"]
    assert (notice.facts["deposited"], notice.facts["withdrawn"]) == (AMOUNT_MAX, 1_000)
    assert pending(watched) == []


async def test_a_suppressed_finding_is_counted_and_its_row_goes(watched: Region) -> None:
    player = await watched.player()
    until = (watched.now + timedelta(days=1)).isoformat()
    await watched.process.post("/v1/suppressions", {"rule": "failed_log_ins", "reason": "known", "until": until})
    await fail_to_log_in(watched, player)
    await project(watched)
    await reaction(watched).step()
    await project(watched)
    assert (raised(watched), pending(watched)) == ([], [])
    counted = watched.state(suppressions.of_player(player))  # type: ignore[arg-type]
    assert counted.withheld == {"failed_log_ins": 1}


async def test_a_marker_of_harm_leads_to_a_contact(watched: Region) -> None:
    player = await watched.rich(40_000)
    for _ in range(3):
        withdrawal = await watched.withdrawal(player, 2_000)
        await watched.process.post(f"/v1/transactions/{withdrawal}/cancel")
    await project(watched)
    await reaction(watched).step()
    [notice] = raised(watched)
    [opened] = watched.events("contact")
    assert isinstance(opened, Opened)
    assert (notice.rule, notice.kind) == ("harm_cancelled_withdrawals", Kind.HARM)
    assert (opened.player, opened.reason, opened.due_at) == (player, notice.rule, notice.due_at)
    cancelled = [
        CODEC.decode(entry).body.id for entry in watched.ledger.entries() if b"withdrawal_cancelled" in entry.body
    ]
    assert notice.events == tuple(cancelled)


async def strong(region: Region, player: str, *steps: Step) -> None:
    finding = Finding("some_marker", 1, Kind.HARM, Severity.HIGH, "e-1", ("e-1",), {"amount": 1}, steps)
    found = Found("e-1", "some_marker", PlayerId(player), region.now, "")
    await region.process.decider.decide(raise_(PlayerId(player), finding, region.edge(context(found, region.now))))


async def test_who_cannot_be_reached_is_suspended_when_the_laws_time_is_over(watched: Region) -> None:
    await strong(watched, await watched.player(country="ES", birth_date="1980-05-17"))
    for hours in (71, 2):
        before = [event for event in watched.events("contact") if isinstance(event, Unanswered)]
        await watched.wait(hours=hours)
        await project(watched)
        await watched.timers().step()
    await project(watched)
    assert before == []
    assert watched.events("contact")[-1] == Unanswered()
    stopped = [event.action for event in watched.events("protection") if isinstance(event, ActionBlocked)]
    assert stopped == [Stop.BONUS, Stop.MARKETING, Stop.DEPOSIT, Stop.BET, Stop.BONUS, Stop.MARKETING]
    assert watched.due() == []


async def test_deposits_are_possible_again_when_the_month_is_over(watched: Region) -> None:
    player = await watched.player(country="NL", birth_date="1980-05-17")
    await strong(watched, player, Step.DEPOSIT_THIS_MONTH)
    await watched.wait(days=32)
    await project(watched)
    await watched.timers().step()
    await project(watched)
    assert watched.tags("protection") == ["protection.action_blocked", "protection.action_unblocked"]
    assert watched.tags("notice") == ["notice.raised", "notice.released"]
    assert "notice_release" not in [kind for kind, _ in watched.due()]


# Re-run


async def rerun(region: Region, asked: rerunning.Asked, say: Any = lambda _line: None) -> rerunning.Rerun:
    """As of what the log holds now, shown over HTTP and verified."""

    def look() -> rerunning.Rerun:
        with replaying({"eu": region.ledger.entries()}) as logs:
            return rerunning.rerun(logs, asked, say)

    return await asyncio.to_thread(look)


async def busy(region: Region) -> None:
    """Some findings, one of them withheld."""
    first, second, third = [await region.rich(100_000) for _ in range(3)]
    await fail_to_log_in(region, first, 12)
    await deposits(region, second, 6)
    until = (region.now + timedelta(days=1)).isoformat()
    body = {"rule": "failed_log_ins", "reason": "known", "until": until, "player": third}
    await region.process.post("/v1/suppressions", body)
    await fail_to_log_in(region, third)
    await project(region)
    await reaction(region).step()
    await project(region)


async def test_a_rerun_finds_what_was_raised_live_and_changes_nothing(watched: Region) -> None:
    await busy(watched)
    before = watched.ledger.entries()
    said: list[str] = []
    found = await rerun(watched, EVER, said.append)
    live = {
        (CODEC.decode(entry).body.cause, event.rule, event.events, str(event.facts))
        for entry in before
        if isinstance(event := CODEC.decode(entry).event, Raised)
    }
    assert {(each.cause, each.rule, each.events, str(each.facts)) for each in found.findings if each.notice} == live
    assert [each.rule for each in found.findings if each.withheld] == ["failed_log_ins"]
    assert (found.raised, found.withheld, found.unfound) == (len(live), 1, ())
    assert len(found.findings) == found.raised + found.withheld
    assert watched.ledger.entries() == before
    assert said
    assert rerunning.in_words(found).count("\n") == len(found.findings) + len(found.by_rule)


async def test_a_rerun_with_other_thresholds_finds_what_these_would_have(watched: Region, tmp_path: Path) -> None:
    await busy(watched)
    [rule] = [each for each in ALL if each.name == "failed_log_ins"]
    assert isinstance(rule.test, Count)
    lower = msgspec.structs.replace(rule, test=msgspec.structs.replace(rule.test, at_least=3), quiet_hours=0, version=2)
    file = tmp_path / "rules.json"
    file.write_bytes(msgspec.json.encode(as_data([lower])))
    asked = EVER._replace(rules=file, rule="failed_log_ins")
    found = await rerun(watched, asked)
    assert found.by_rule == {"failed_log_ins/2": 10 + 8}
    assert {each.events[-1] for each in found.findings} == {each.cause for each in found.findings}
    strict = EVER._replace(rule="failed_log_ins", first="2099-01-01T00:00:00Z")
    nothing = await rerun(watched, strict)
    assert (nothing.findings, nothing.unfound) == ((), ())


async def test_a_rerun_tells_of_notices_that_its_rules_do_not_find(watched: Region, tmp_path: Path) -> None:
    await busy(watched)
    [rule] = [each for each in ALL if each.name == "failed_log_ins"]
    higher = msgspec.structs.replace(rule, test=msgspec.structs.replace(rule.test, at_least=12))
    file = tmp_path / "rules.json"
    file.write_bytes(msgspec.json.encode(as_data([higher])))
    found = await rerun(watched, EVER._replace(rules=file))
    assert len(found.findings) == 1
    assert len(found.unfound) == 1


@pytest.mark.parametrize(
    "asked",
    [
        EVER._replace(rule="no_such_rule"),
        EVER._replace(rule="large_win", version=9),
        EVER._replace(first=EVER.last, last=EVER.first),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_log_is_read(asked: rerunning.Asked) -> None:
    with pytest.raises(rerunning.Unusable):
        rerunning.refuse_nonsense(asked)


async def test_no_notice_holds_anything_personal(watched: Region) -> None:
    player = await watched.player(name="Ada Lovelace", email="ada@example.org", phone="+49301234567")
    await fail_to_log_in(watched, player)
    await project(watched)
    await reaction(watched).step()
    await project(watched)
    shown = [entry.body for entry in watched.ledger.entries() if b'"notice.' in entry.body]
    kept = watched.ledger.sql("SELECT picture FROM read.watched UNION ALL SELECT finding::text FROM read.finding")
    text = b"".join(shown).decode() + "".join(row[0] for row in kept)
    assert shown
    assert not any(word in text for word in ("Ada", "ada@", "49301234567"))
