"""Erasing a player: only after the account was closed, when every retention period is over, and by two people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from commands.approvals import ApprovalDecided, AwaitingApproval
from commands.erasures import PlayerErased
from commands.sealing import KeyNotHeld
from domain.approvals import Approved, SamePerson
from domain.erasures import MoneyLeft, NotClosed, RetentionNotOver
from domain.errors import Forbidden, NotFound, UnderReview
from domain.players import Erased, PlayerClosed
from policies.retention import Period
from tests.commands.house import House

YEARS = timedelta(days=365.25)


async def closed(house: House, **more: object) -> str:
    player = await house.player(name="Anna", email="anna@example.com", **more)
    await house.process.post(f"/v1/players/{player}/close", {"reason": "asked"})
    return player


def later(house: House, span: timedelta) -> None:
    house.now += span
    house.log.clock.now += int(span.total_seconds()) * 1_000_000


async def ask(house: House, player: str, **more: object) -> AwaitingApproval | PlayerErased:
    answer = (await house.process.post(f"/v1/players/{player}/erase", {"basis": "asked"}, **more)).answer
    assert isinstance(answer, (AwaitingApproval, PlayerErased))
    return answer


async def approve(house: House, waits: AwaitingApproval, actor: str = "operator:ben") -> ApprovalDecided:
    body = {"hash": waits.hash}
    answer = (await house.process.post(f"/v1/approvals/{waits.approval}/approve", body, actor=actor)).answer
    assert isinstance(answer, ApprovalDecided)
    return answer


async def erased(house: House, player: str) -> Erased:
    later(house, 11 * YEARS)
    waits = await ask(house, player)
    assert isinstance(waits, AwaitingApproval)
    await approve(house, waits)
    [event] = [event for event in house.log.events("player") if isinstance(event, Erased)]
    return event


async def test_two_people_erase_whom_no_retention_keeps_any_more(house: House) -> None:
    player = await closed(house, country="DE", birth_date="1990-01-01")
    event = await erased(house, player)
    [key] = house.vault.kept
    assert (event.key, event.basis, event.closed_at.year) == (key, "asked", 2026)
    assert event.kept == (Period("DE", "retention.kyc_years_after_end", 5, True, datetime(2032, 1, 1, tzinfo=UTC)),)
    types = [type(each) for each in house.log.events()]
    assert types[-2:] == [Approved, Erased]


async def test_a_retention_that_is_not_over_says_from_when_on_and_by_which_row(house: House) -> None:
    player = await closed(house, country="NL", birth_date="1990-01-01")
    later(house, 4 * YEARS)
    with pytest.raises(RetentionNotOver) as refused:
        await ask(house, player)
    facts = msgspec.to_builtins(refused.value.facts)
    assert facts["allowed_from"].startswith("2031-11-22T12:")
    assert (facts["jurisdiction"], facts["rule"], facts["verified"]) == ("NL", "retention.kyc_years_after_end", False)
    later(house, 1.01 * YEARS)
    assert isinstance(await ask(house, player), AwaitingApproval)


async def test_only_a_closed_account_is_erased(house: House) -> None:
    player = await house.player()
    later(house, 30 * YEARS)
    with pytest.raises(NotClosed):
        await ask(house, player)
    with pytest.raises(NotFound):
        await ask(house, "player_01m81j18g0e1pa2yb5e8r30c1a")


async def test_nobody_is_erased_alone(house: House) -> None:
    player = await closed(house)
    later(house, 11 * YEARS)
    waits = await ask(house, player)
    assert isinstance(waits, AwaitingApproval)
    with pytest.raises(SamePerson):
        await approve(house, waits, actor="operator:maria")
    with pytest.raises(Forbidden):
        await ask(house, player, roles=["supervisor"], actor="operator:sam")


async def test_who_is_under_review_or_has_money_is_not_erased(house: House) -> None:
    suspect = await house.player()
    await house.process.post(f"/v1/players/{suspect}/block", {"reason": "aml"})
    await house.process.post(f"/v1/players/{suspect}/close", {"reason": "aml"})
    owner = await house.player(email="rich@example.com")
    given = {
        "direction": "credit",
        "reason_code": "goodwill",
        "amount": {"amount": 100, "currency": "EUR"},
        "intervention": {"kind": "complaint", "reason": "sorry"},
    }
    await house.process.post(f"/v1/players/{owner}/adjustments", given)
    await house.process.post(f"/v1/players/{owner}/close", {"reason": "asked"})
    later(house, 11 * YEARS)
    with pytest.raises(UnderReview):
        await ask(house, suspect)
    with pytest.raises(MoneyLeft) as refused:
        await ask(house, owner)
    assert refused.value.facts == {"currencies": ["EUR"]}


async def test_asking_again_records_nothing(house: House) -> None:
    player = await closed(house)
    await erased(house, player)
    house.vault.kept.clear()  # as every region does
    entries = len(house.log.entries)
    assert await ask(house, player) == PlayerErased(player)
    assert len(house.log.entries) == entries


async def test_nothing_personal_is_recorded_of_who_was_erased(house: House) -> None:
    player = await closed(house)
    await erased(house, player)
    house.vault.kept.clear()
    with pytest.raises(KeyNotHeld):
        await house.process.post(f"/v1/players/{player}/notes", {"text": "Anna"})
    with pytest.raises(PlayerClosed):
        await house.process.post(f"/v1/players/{player}/profile", {"name": "Anna"})


async def test_another_process_folds_the_same(house: House) -> None:
    player = await closed(house)
    await erased(house, player)
    again = await house.another_process().post(f"/v1/players/{player}/erase", {"basis": "asked"})
    assert again.answer == PlayerErased(player)
