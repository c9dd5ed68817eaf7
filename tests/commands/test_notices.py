"""A finding becomes a notice, with all that has to happen by itself, in one append; and people work on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from access.policy import service
from commands import contacts as contacting
from commands import notices as raising
from commands.contacts import OtherPlayer
from commands.edge import Edge, Nothing
from commands.identity import command_id
from commands.notices import NoticeRaised, PersonDecides
from commands.plan import Context, Receipt
from domain import contacts, notices, protection, suppressions, transactions
from domain.contacts import NotYetUnanswered
from domain.errors import Forbidden, Invalid, NotFound
from domain.findings import Finding
from domain.kernel import PlayerId, Sealed
from domain.notices import NotYetReleased
from domain.protection import ActionBlocked, ActionUnblocked, Stop
from domain.protection.events import REASONS_MAX
from domain.suppressions import NotSuppressible, Scope, Withheld
from policies.findings import Kind, Severity, Step
from tests.commands.house import OWNED, House, made

BORN = "1980-05-17"
CAUSE = "019aab5c-3000-7000-8000-000000000001"
ANOMALY = Finding("large_win", 1, Kind.OPERATIONS, Severity.HIGH, CAUSE, (CAUSE,), {"amount": 1_000_000})
MARKER = Finding("harm_losses", 1, Kind.HARM, Severity.HIGH, CAUSE, (CAUSE,), {"amount": 200_000})
BLOCK = Finding(
    "net_deposit_month", 1, Kind.HARM, Severity.HIGH, CAUSE, (CAUSE,), {"amount": 70_000}, (Step.DEPOSIT_THIS_MONTH,)
)


def reacting(house: House, key: str = CAUSE, cause: str | None = CAUSE) -> Edge:
    house.now += timedelta(milliseconds=1)
    context = Context(
        service("reaction:notices", "reaction"), house.now, command_id("reaction:notices", key), None, cause=cause
    )
    return Edge(context, house.vault, list(OWNED), "eu")  # type: ignore[arg-type]


async def raised(house: House, player: str, finding: Finding) -> Receipt:
    plan = raising.raise_(PlayerId(player), finding, reacting(house, f"{finding.cause}\n{finding.rule}"))
    return await house.process.decider.decide(plan)


async def notice_of(house: House, player: str, finding: Finding) -> str:
    answer = (await raised(house, player, finding)).answer
    assert isinstance(answer, NoticeRaised)
    assert answer.notice is not None
    return answer.notice


def tags(house: House, since: int = 0) -> list[str]:
    return [event.tag for event in house.log.events()[since:]]


def stopped(house: House) -> list[Stop]:
    return [event.action for event in house.log.events("protection") if isinstance(event, ActionBlocked)]


async def test_an_anomaly_is_raised_once_however_often_it_is_asked_for(house: House) -> None:
    player = await house.player()
    first = await raised(house, player, ANOMALY)
    again = await raised(house, player, ANOMALY)
    house.another_process()
    other = await house._processes[-1].decider.decide(
        raising.raise_(PlayerId(player), ANOMALY, reacting(house, f"{CAUSE}\nlarge_win"))
    )
    assert (again.answer, again.repeated) == (other.answer, True) == (first.answer, True)
    [event] = house.log.events("notice")
    assert isinstance(event, notices.Raised)
    assert (event.rule, event.rule_version, event.events) == ("large_win", 1, (CAUSE,))
    assert house.log.events("contact") == house.log.events("protection") == []


async def test_a_marker_of_harm_opens_a_contact_with_the_same_append(house: House) -> None:
    player = await house.player()
    before = len(house.log.entries)
    await raised(house, player, MARKER)
    assert tags(house, before) == ["notice.raised", "contact.opened"]
    notice, contact = house.log.events()[before:]
    assert isinstance(notice, notices.Raised)
    assert isinstance(contact, contacts.Opened)
    assert (contact.reason, notice.contact is not None, notice.due_at) == ("harm_losses", True, contact.due_at)
    assert (contact.trigger or "").startswith("notice_")


async def test_where_the_law_says_so_a_strong_marker_stops_bonuses_and_marketing(house: House) -> None:
    british = await house.player(country="GB", currency="GBP", birth_date=BORN)
    await raised(house, british, MARKER)
    assert stopped(house) == [Stop.BONUS, Stop.MARKETING]
    weaker = msgspec.structs.replace(MARKER, severity=Severity.MEDIUM, cause="other")
    await raised(house, await house.player(country="GB", currency="GBP", birth_date=BORN), weaker)
    assert len(stopped(house)) == 2


async def test_what_is_stopped_already_stays_so_for_its_own_reason(house: House) -> None:
    player = await house.player(country="NL", birth_date=BORN)
    why = {"kind": "correction", "reason": "asked for"}
    await house.process.post(
        f"/v1/players/{player}/blocks", {"action": "deposit", "reason": "affordability", "intervention": why}
    )
    notice = await notice_of(house, player, BLOCK)
    house.now += timedelta(days=40)
    await house.process.decider.decide(raising.release(notice, Nothing(), reacting(house, "later")))
    state = protection.PROTECTION.initial
    for event in house.log.events("protection"):
        state = protection.evolve(state, event, house.now)  # type: ignore[arg-type]
    assert state.stopped[Stop.DEPOSIT] == ("affordability",)


async def test_deposits_that_were_stopped_for_a_month_are_possible_after_it(house: House) -> None:
    player = await house.player(country="NL", birth_date=BORN)
    notice = await notice_of(house, player, BLOCK)
    assert stopped(house) == [Stop.DEPOSIT]
    with pytest.raises(NotYetReleased):
        await house.process.decider.decide(raising.release(notice, Nothing(), reacting(house, "early")))
    house.now += timedelta(days=9)
    await house.process.decider.decide(raising.release(notice, Nothing(), reacting(house, "late")))
    assert [type(event) for event in house.log.events("protection")] == [ActionBlocked, ActionUnblocked]


def still_stopped(house: House) -> tuple[str, ...]:
    """For what reasons deposits are."""
    state = protection.PROTECTION.initial
    for event in house.log.events("protection"):
        state = protection.evolve(state, event, house.now)  # type: ignore[arg-type]
    return state.stopped.get(Stop.DEPOSIT, ())


async def test_the_end_of_a_notice_ends_nothing_that_another_one_has_stopped(house: House) -> None:
    """The next month's comes before the timer of this month's has fired."""
    player = await house.player(country="NL", birth_date=BORN)
    november = await notice_of(house, player, BLOCK)
    house.now += timedelta(days=40)
    later = await notice_of(house, player, msgspec.structs.replace(BLOCK, cause="e-2"))
    assert still_stopped(house) == (november, later)
    for key in ("timer", "timer, late", "timer, once more"):
        await house.process.decider.decide(raising.release(november, Nothing(), reacting(house, key)))
        assert still_stopped(house) == (later,)
    with pytest.raises(NotYetReleased):
        await house.process.decider.decide(raising.release(later, Nothing(), reacting(house, "early")))
    house.now += timedelta(days=40)
    await house.process.decider.decide(raising.release(later, Nothing(), reacting(house, "later")))
    assert still_stopped(house) == ()


async def test_the_end_of_a_notice_ends_nothing_that_people_have_stopped_by_the_same_word(house: House) -> None:
    player = await house.player(country="NL", birth_date=BORN)
    notice = await notice_of(house, player, BLOCK)
    why = {"kind": "correction", "reason": "asked for"}
    stop = {"action": "deposit", "reason": "harm_marker", "intervention": why}
    await house.process.post(f"/v1/players/{player}/blocks", stop)
    house.now += timedelta(days=40)
    await house.process.decider.decide(raising.release(notice, Nothing(), reacting(house, "timer")))
    assert still_stopped(house) == ("harm_marker",)


async def test_there_is_always_room_for_what_a_notice_stops(house: House) -> None:
    player = await house.player(country="NL", birth_date=BORN)
    why = {"kind": "correction", "reason": "asked for"}
    for number in range(REASONS_MAX):
        stop = {"action": "deposit", "reason": f"reason-{number}", "intervention": why}
        await house.process.post(f"/v1/players/{player}/blocks", stop)
    notice = await notice_of(house, player, BLOCK)
    assert still_stopped(house)[-1] == notice


async def test_a_player_who_cannot_be_reached_is_suspended_where_the_law_says_so(house: House) -> None:
    player = await house.player(country="ES", birth_date=BORN)
    await raised(house, player, MARKER)
    [contact] = {entry for entry in streams(house) if entry.startswith("contact-")}
    id_ = contact.replace("-", "_")
    with pytest.raises(NotYetUnanswered):
        await house.process.decider.decide(contacting.lapse(id_, Nothing(), reacting(house, "early")))
    house.now += timedelta(hours=73)
    await house.process.decider.decide(contacting.lapse(id_, Nothing(), reacting(house, "late")))
    assert stopped(house) == [Stop.BONUS, Stop.MARKETING, Stop.DEPOSIT, Stop.BET, Stop.BONUS, Stop.MARKETING]
    assert house.log.events("contact")[-1] == contacts.Unanswered()


def streams(house: House) -> set[str]:
    from tests.commands.house import CODEC

    return {CODEC.decode(entry).body.stream for entry in house.log.entries}


# Suppression


async def suppress(house: House, **body: object) -> Receipt:
    until = (house.now + timedelta(days=1)).isoformat()
    return await house.process.post(
        "/v1/suppressions", {"rule": "large_win", "reason": "known", "until": until, **body}
    )


@pytest.mark.parametrize("scope", [Scope.PLAYER, Scope.ALL])
async def test_a_suppressed_finding_is_counted_and_not_raised(house: House, scope: Scope) -> None:
    player = await house.player()
    await suppress(house, **({"player": player} if scope is Scope.PLAYER else {}))
    before = len(house.log.entries)
    assert (await raised(house, player, ANOMALY)).answer == NoticeRaised(None)
    assert house.log.events()[before:] == [Withheld("large_win", 1, scope)]
    assert (await raised(house, player, ANOMALY)).repeated
    house.now += timedelta(days=2)
    later = msgspec.structs.replace(ANOMALY, cause="another")
    assert (await raised(house, player, later)).answer != NoticeRaised(None)


async def test_a_suppression_is_of_its_player_and_ends_when_asked_for(house: House) -> None:
    player, other = await house.player(), await house.player()
    await suppress(house, player=player)
    assert (await raised(house, other, ANOMALY)).answer != NoticeRaised(None)
    ended = await house.process.post("/v1/suppressions", {"rule": "large_win", "reason": "over", "player": player})
    assert msgspec.to_builtins(ended.answer) == {"rule": "large_win", "player": player, "until": None}
    assert (await raised(house, player, msgspec.structs.replace(ANOMALY, cause="x"))).answer != NoticeRaised(None)


async def test_what_cannot_be_suppressed_is_refused(house: House) -> None:
    with pytest.raises(NotSuppressible):
        await suppress(house, rule="net_deposit_month")
    with pytest.raises(NotFound):
        await suppress(house, player="player_01m81j18g0e1pa2yb5e8r30c1a")
    with pytest.raises(Forbidden):
        await house.process.post("/v1/suppressions", {"rule": "large_win", "reason": "x"}, roles=["support"])


# People


async def test_people_acknowledge_assign_link_and_close(house: House) -> None:
    player = await house.player()
    notice = await notice_of(house, player, ANOMALY)
    before = len(house.log.entries)
    for verb, body in (
        ("acknowledge", {}),
        ("assign", {"to": "operator:bo"}),
        ("link", {"to": player}),
        ("link", {"to": player}),
        ("close", {"outcome": "explained"}),
    ):
        await house.process.post(f"/v1/notices/{notice}/{verb}", body, roles=["support"])
    assert tags(house, before) == ["notice.acknowledged", "notice.assigned", "notice.linked", "notice.closed"]
    with pytest.raises(Invalid):
        await house.process.post(f"/v1/notices/{notice}/link", {"to": "https://elsewhere.example"})


async def test_a_marker_is_closed_by_people_only(house: House) -> None:
    notice = await notice_of(house, await house.player(), MARKER)
    with pytest.raises(PersonDecides):
        await house.process.post(f"/v1/notices/{notice}/close", {"outcome": "explained"}, actor="service:robot")
    await house.process.post(f"/v1/notices/{notice}/close", {"outcome": "acted_on"})


async def test_what_was_talked_about_is_sealed(house: House) -> None:
    player = await house.player()
    opened = await house.process.post(f"/v1/players/{player}/contacts", {"reason": "worried"})
    contact = made(opened)
    due = (house.now + timedelta(days=7)).isoformat()
    for verb, body in (
        ("attempt", {"channel": "phone", "note": "Nobody picked up."}),
        ("make", {"channel": "phone", "outcome": "advised", "note": "Lost the job.", "follow_up_due": due}),
        ("follow-up", {"outcome": "no_concern", "note": "Works again."}),
    ):
        await house.process.post(f"/v1/contacts/{contact}/{verb}", body, roles=["support"])
    notes = [getattr(event, "note", None) for event in house.log.events("contact")[1:]]
    assert len(notes) == 3
    assert all(isinstance(note, Sealed) for note in notes)
    said = b"".join(entry.body for entry in house.log.entries)
    assert not any(word in said for word in (b"picked up", b"job", b"Works"))


async def test_a_contact_is_not_triggered_by_another_players_notice(house: House) -> None:
    notice = await notice_of(house, await house.player(), ANOMALY)
    with pytest.raises(OtherPlayer):
        await house.process.post(f"/v1/players/{await house.player()}/contacts", {"reason": "x", "trigger": notice})


# One instrument, many players


async def named(house: House, iban: str, verb: str = "deposits", **more: object) -> str:
    player = await house.player(**more)
    await known(house, player)
    body = {"amount": {"amount": 2_000, "currency": "EUR"}, "provider": "acme"}
    if verb == "withdrawals":
        deposit = made(await house.process.post(f"/v1/players/{player}/deposits", body))
        await house.process.post(f"/v1/transactions/{deposit}/settle", {})
    await house.process.post(f"/v1/players/{player}/{verb}", {**body, "instrument": iban})
    return player


async def known(house: House, player: str) -> None:
    why = {"kind": "correction", "reason": "known for long"}
    body = {"level": "identity", "method": "passport", "age_verified": True, "intervention": why}
    await house.process.post(f"/v1/players/{player}/kyc/approve", body)


def told(house: House) -> Sequence[Any]:
    return [
        event.players for event in house.log.events("transaction") if isinstance(event, transactions.InstrumentShared)
    ]


@pytest.mark.parametrize("verb", ["deposits", "withdrawals"])
async def test_who_has_named_the_same_instrument_is_told_however_it_is_written(house: House, verb: str) -> None:
    anna = await named(house, "MT84 MALT 0110 0001 2345", verb, country="MT")
    assert told(house) == []
    ben = await named(house, "mt84malt011000012345", verb, country="MT")
    assert told(house) == [(anna,)]
    await named(house, "MT84-MALT-0110-0001-2345", verb, country="MT")
    assert told(house)[-1] == tuple(sorted([anna, ben]))
    await named(house, "MT84 MALT 0110 0001 9999", verb, country="MT")
    assert len(told(house)) == 2
    said = b"".join(entry.body for entry in house.log.entries).lower()
    assert b"malt" not in said


async def test_naming_ones_own_instrument_again_is_nothing(house: House) -> None:
    player = await named(house, "MT84", country="MT")
    body = {"amount": {"amount": 2_000, "currency": "EUR"}, "provider": "acme", "instrument": "MT84"}
    await house.process.post(f"/v1/players/{player}/deposits", body)
    assert told(house) == []


def test_every_suppression_has_a_stream_of_its_kind() -> None:
    player = PlayerId("player_01m81j18g0e1pa2yb5e8r30c1a")
    assert suppressions.of_player(player).name == "suppression-01m81j18g0e1pa2yb5e8r30c1a"
    assert suppressions.of_all("eu").name == "region-eu-suppressions"
