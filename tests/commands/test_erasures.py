"""Erasing a player: only after the account was closed, when every retention period is over, and by two people."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from access.policy import service
from commands import erasures
from commands.approvals import ApprovalDecided, AwaitingApproval
from commands.edge import Edge, Nothing
from commands.erasures import PlayerErased
from commands.plan import Context
from commands.sealing import KeyNotHeld
from domain.approvals import Approved, SamePerson
from domain.erasures import ErasureNotDue, MoneyLeft, NotClosed, RetentionNotOver
from domain.errors import Forbidden, NotFound, UnderReview
from domain.players import Closed, Erased, ErasureDue, PlayerClosed
from domain.protection import PlayerExcluded, PlayerTimedOut
from policies.retention import Period
from tests.commands.house import House
from tests.ledger import OWNED

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


@pytest.mark.parametrize(
    ("what", "body", "refusal"),
    [
        ("exclude", {"term": "permanent", "source": "player"}, PlayerExcluded),
        ("exclude", {"term": "6_months", "source": "player"}, PlayerExcluded),
        ("panic", None, PlayerTimedOut),
    ],
)
async def test_who_is_shut_out_is_not_erased_before_that_is_over(
    house: House, what: str, body: object, refusal: type[PlayerExcluded | PlayerTimedOut]
) -> None:
    """Nobody could recognise them when they come back."""
    player = await closed(house, country="GB", birth_date="1990-01-01")
    later(house, 11 * YEARS)
    waits = await ask(house, player)
    assert isinstance(waits, AwaitingApproval)
    await house.process.post(f"/v1/players/{player}/{what}", body)
    with pytest.raises(refusal) as refused:
        await approve(house, waits)
    until = refused.value.facts["until"]
    with pytest.raises(refusal):
        await ask(house, player)
    if what == "panic":
        assert isinstance(until, datetime)
        later(house, until - house.now)
        assert isinstance(await ask(house, player), AwaitingApproval)


async def test_a_move_does_not_shorten_what_is_kept(house: House) -> None:
    player = await house.player(country="ES", birth_date="1990-01-01")
    moved = {"jurisdiction": "GB", "address_country": "GB"}
    await house.process.post(f"/v1/players/{player}/profile", moved)
    await house.process.post(f"/v1/players/{player}/close", {"reason": "asked"})
    later(house, 6 * YEARS)
    with pytest.raises(RetentionNotOver) as refused:
        await ask(house, player)
    assert (refused.value.facts["jurisdiction"], refused.value.facts["years"]) == ("ES", 10)
    event = await erased(house, player)
    assert {period.jurisdiction for period in event.kept} == {"ES", "GB"}


async def test_that_somebody_is_to_be_erased_by_now_is_said_once_and_not_before(house: House) -> None:
    player = await closed(house, country="GB", birth_date="1990-01-01")
    elsewhere = await house.player(country="AT", email="other@example.com")
    await house.process.post(f"/v1/players/{elsewhere}/close", {"reason": "asked"})
    due = [event.erase_by for event in house.log.events("player") if isinstance(event, Closed)]
    assert due[1] is None, "no row says so there"
    assert due[0] is not None
    with pytest.raises(ErasureNotDue) as refused:
        await fall_due(house, player)
    assert refused.value.facts == {"due_at": due[0]}
    later(house, due[0] - house.now)
    for each in (player, player, elsewhere):
        await fall_due(house, each)
    assert [type(event) for event in house.log.events("player")].count(ErasureDue) == 1


async def fall_due(house: House, player: str) -> None:
    context = Context(service("reaction:timers", "reaction"), house.now, os.urandom(16), fingerprint=None)
    edge = Edge(context, house.vault, list(OWNED), "eu")  # type: ignore[arg-type]
    await house.process.decider.decide(erasures.fall_due(player, Nothing(), edge))


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
