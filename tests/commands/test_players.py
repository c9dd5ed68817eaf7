"""Players, KYC and log-ins through the write side: what is recorded, sealed, refused and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from access.policy import service
from commands.edge import InterventionMissing
from commands.plan import Plan, Receipt
from commands.players import NothingGiven
from commands.sealing import KeyNotHeld
from domain import kyc, players
from domain.eligibility import BirthDateNeeded, JurisdictionElsewhere, JurisdictionNeeded, KeysElsewhere, Underage
from domain.errors import Forbidden, GateClosed, Invalid, NotFound
from domain.kernel import Event, Sealed
from domain.players import (
    Activated,
    ActivationAwaited,
    Channel,
    ConsentGiven,
    DuplicatesFound,
    ProfileRecorded,
    Registered,
)
from eventstore.vault import CannotOpen, DataKey
from policies.gates import Level
from policies.residency import Residency
from tests.commands.house import CODEC, House, made

NOBODY = f"player_{'0' * 26}"
ADA = {
    "name": "Ada Byron",
    "email": "Ada@example.com",
    "phone": "+43 1 23",
    "birth_date": "1990-12-10",
    "country": "AT",
    "currency": "EUR",
}
WHY = {"kind": "other", "reason": "seen in person"}
PASSPORT = {"level": "identity", "method": "document", "age_verified": True, "intervention": WHY}
PENNSYLVANIAN = {"country": "US", "jurisdiction": "US-PA", "currency": "USD", "birth_date": "1990-12-10"}
STRANGER = {"country": "AT", "currency": "EUR"}


def opened(house: House, event: str) -> dict[str, str]:
    """The sealed fields of the newest event of a tag, in the clear."""
    read = [each for each in map(CODEC.decode, house.log.entries) if each.body.type == event][-1]
    key = next(iter(house.vault.kept.values()))
    return {
        name: key.open(value, event_id=read.body.id, path=f"data.{name}")
        for name in read.event.__struct_fields__
        if isinstance(value := getattr(read.event, name), Sealed)
    }


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.tag for event in events]


def fired(plan: Plan) -> Plan:
    """The same, by our timers."""
    by_timer = msgspec.structs.replace(plan.context, principal=service("reaction:timers", "reaction"))
    return msgspec.structs.replace(plan, context=by_timer)


async def test_a_player_of_whom_nothing_more_is_told_is_one_event(house: House) -> None:
    receipt = await house.process.post("/v1/players", ADA)
    assert kinds(house.log.events()) == ["player.registered"]
    assert receipt.answer.status == "active"  # type: ignore[attr-defined]


async def test_what_is_told_at_the_registration_is_recorded_with_it_and_sealed(house: House) -> None:
    more = {"street": "Ring 1", "city": "Wien", "postcode": "1010", "address_country": "AT", "language": "de-AT"}
    consents = {"consents": ["sms", "email"], "acquisition_source": "affiliate 7", "device": "ios"}
    await house.process.post("/v1/players", {**ADA, **more, **consents})
    registered, profile, *given = house.log.events()
    assert kinds([registered]) == ["player.registered"]
    assert given == [ConsentGiven(Channel.EMAIL), ConsentGiven(Channel.SMS)]
    assert isinstance(profile, ProfileRecorded)
    assert (profile.language, profile.acquisition_source, profile.address_country) == ("de-AT", "affiliate 7", "AT")
    assert opened(house, "player.profile_recorded") == {"street": "Ring 1", "city": "Wien", "postcode": "1010"}


async def test_nobody_under_age_is_registered_and_nothing_is_recorded_of_them(house: House) -> None:
    with pytest.raises(Underage) as refused:
        await house.process.post("/v1/players", {**ADA, "birth_date": "2008-11-23"})
    assert refused.value.facts == {"minimum": 18, "rule": "house.age_minimum", "verified": True}
    with pytest.raises(Underage) as refused:
        await house.process.post("/v1/players", {**PENNSYLVANIAN, "birth_date": "2006-01-01"})
    assert refused.value.facts == {"minimum": 21, "rule": "age.minimum", "verified": True}
    assert house.log.entries == []


async def test_who_registers_says_when_they_were_born_where_the_law_has_an_age_for_it(house: House) -> None:
    for body in ({**STRANGER, "country": "SE"}, {**PENNSYLVANIAN, "birth_date": None}):
        with pytest.raises(BirthDateNeeded):
            await house.process.post("/v1/players", body)
    await house.process.post("/v1/players", {**STRANGER, "country": "SE", "occurred": "2025-01-01"})
    await house.process.post("/v1/players", PENNSYLVANIAN)


async def test_where_the_rules_are_those_of_parts_of_a_country_a_player_is_of_a_part(house: House) -> None:
    unsaid = {**PENNSYLVANIAN, "jurisdiction": None}
    with pytest.raises(JurisdictionNeeded):
        await house.process.post("/v1/players", unsaid)
    with pytest.raises(JurisdictionElsewhere):
        await house.process.post("/v1/players", {**PENNSYLVANIAN, "jurisdiction": "CA-ON"})
    assert house.log.entries == []
    await house.process.post("/v1/players", {**unsaid, "occurred": "2025-01-01"})
    player = made(await house.process.post("/v1/players", PENNSYLVANIAN))
    for jurisdiction, refusal in (("US", JurisdictionNeeded), ("CA-ON", JurisdictionElsewhere)):
        with pytest.raises(refusal):
            await house.process.post(f"/v1/players/{player}/profile", {"jurisdiction": jurisdiction})


async def test_a_profile_that_makes_another_of_a_person_takes_their_verified_age_back(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    await house.process.post(f"/v1/players/{ada}/kyc/approve", PASSPORT)
    await house.process.post(f"/v1/players/{ada}/profile", {"language": "en"})
    assert kinds(house.log.events("kyc")) == ["kyc.approved"]
    await house.process.post(f"/v1/players/{ada}/profile", {"name": "Ada Lovelace"})
    await house.process.post(f"/v1/players/{ada}/profile", {"birth_date": "1990-12-11"})
    assert kinds(house.log.events("kyc")) == ["kyc.approved", "kyc.age_doubted"]


@pytest.mark.parametrize(
    ("again", "by"),
    [
        ({**STRANGER, "email": "ADA@example.com "}, ("email",)),
        ({**STRANGER, "phone": "+43 1 23"}, ("phone",)),
        ({**STRANGER, "name": "ada  BYRON", "birth_date": "1990-12-10"}, ("person",)),
        ({**ADA, "country": "DE"}, ("email", "person", "phone")),
    ],
)
async def test_who_is_like_another_waits(house: House, again: dict[str, Any], by: tuple[str, ...]) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    receipt = await house.process.post("/v1/players", again)
    assert receipt.answer.status == "pending"  # type: ignore[attr-defined]
    found, waits, told = house.log.events()[-3:]
    assert found == DuplicatesFound(by, (ada,))  # type: ignore[arg-type]
    assert waits == ActivationAwaited(("duplicates",))
    assert told == DuplicatesFound(by, (made(receipt),)), "on ada's own stream"  # type: ignore[arg-type]
    await house.process.post(f"/v1/players/{made(receipt)}/activate")
    assert house.log.events()[-1] == Activated()


async def test_a_name_or_a_birth_date_alone_make_nobody_alike(house: House) -> None:
    await house.process.post("/v1/players", ADA)
    for other in (
        {"name": "Ada Byron"},
        {"birth_date": "1990-12-10"},
        {"name": "Ada Byron", "birth_date": "1990-12-11"},
    ):
        receipt = await house.process.post("/v1/players", {**STRANGER, **other})
        assert receipt.answer.status == "active"  # type: ignore[attr-defined]


async def test_of_two_alike_at_the_same_moment_at_least_one_waits(house: House) -> None:
    receipts = await asyncio.gather(*(house.process.post("/v1/players", ADA) for _ in range(2)))
    assert "pending" in [receipt.answer.status for receipt in receipts]  # type: ignore[attr-defined]


async def test_a_registration_that_is_sent_again_is_like_nobody(house: House) -> None:
    first = await house.process.post("/v1/players", ADA, key="k")
    again = await house.another_process().post("/v1/players", ADA, key="k")
    assert again.repeated
    assert again.answer == first.answer
    assert kinds(house.log.events()) == ["player.registered"]


async def test_imported_history_is_asked_nothing(house: House) -> None:
    child = {**ADA, "birth_date": "2020-01-01", "country": "NL", "occurred": "2025-01-01"}
    for _ in range(2):
        receipt = await house.process.post("/v1/players", child)
        assert receipt.answer.status == "active"  # type: ignore[attr-defined]
    assert kinds(house.log.events()) == ["player.registered"] * 2


async def test_in_the_netherlands_an_account_waits_until_the_identity_is_verified(house: House) -> None:
    receipt = await house.process.post("/v1/players", {**ADA, "country": "NL"})
    assert receipt.answer.status == "pending"  # type: ignore[attr-defined]
    player = made(receipt)
    with pytest.raises(GateClosed):
        await house.process.post(f"/v1/players/{player}/activate")
    await house.process.post(f"/v1/players/{player}/kyc/submit", {"level": "identity", "method": "document"})
    await house.process.post(f"/v1/players/{player}/kyc/approve", PASSPORT)
    assert kinds(house.log.events())[-3:] == ["kyc.submitted", "kyc.approved", "player.activated"]


async def test_a_profile_is_sealed_under_the_players_own_key_and_found_by(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    await house.process.post(f"/v1/players/{ada}/profile", {"email": "ada@new.example", "language": "en"})
    assert opened(house, "player.profile_recorded") == {"email": "ada@new.example"}
    assert await house.vault.find("email", "ada@new.example") == [ada.removeprefix("player_")]
    await house.process.post("/v1/players", {**STRANGER, "email": "ada@new.example"})
    assert kinds(house.log.events())[-2:] == ["player.activation_awaited", "player.duplicates_found"]
    bob = made(await house.process.post("/v1/players", STRANGER))
    await house.process.post(f"/v1/players/{bob}/profile", {"phone": "+43 1 23"})
    assert house.log.events()[-2:] == [DuplicatesFound(("phone",), (ada,)), DuplicatesFound(("phone",), (bob,))]  # type: ignore[arg-type]


def registered(house: House) -> list[Registered]:
    return [event for event in house.log.events("player") if isinstance(event, Registered)]


async def test_nothing_personal_is_recorded_without_the_key(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    house.vault.kept.clear()
    before = len(house.log.entries)
    for path, body in (("profile", {"city": "Wien"}), ("notes", {"text": "x"})):
        with pytest.raises(KeyNotHeld):
            await house.another_process().post(f"/v1/players/{ada}/{path}", body)
    await house.process.post(f"/v1/players/{ada}/profile", {"language": "en"})
    assert len(house.log.entries) == before + 1


@pytest.mark.parametrize("tag", ["fast_payout", "risk", "pep"])
@pytest.mark.parametrize("verb", ["tags", "tags/remove"])
async def test_a_tag_on_which_payouts_depend_needs_a_right_of_its_own(house: House, tag: str, verb: str) -> None:
    path = f"/v1/players/{made(await house.process.post('/v1/players', ADA))}/{verb}"
    with pytest.raises(Forbidden):
        await house.process.post(path, {"tag": tag}, roles=["operator"])
    await house.process.post(path, {"tag": "likes_poker"}, roles=["operator"])
    await house.process.post(path, {"tag": tag}, roles=["compliance"])


async def test_a_wrong_key_in_the_vault_is_the_trouble_of_its_own_player_only(house: House) -> None:
    ada, bob = [made(await house.process.post("/v1/players", body)) for body in (ADA, STRANGER)]
    (key,) = [id_ for id_, kept in house.vault.kept.items() if kept.commitment == registered(house)[0].key.commitment]
    house.vault.kept[key] = DataKey(key, bytes(32))
    paths = [f"/v1/players/{player}/notes" for player in (ada, bob)]
    results = await house.process.post_batch(*((path, path, {"text": "x"}) for path in paths))
    assert isinstance(results[0], CannotOpen)
    assert isinstance(results[1], Receipt)
    assert kinds(house.log.events()).count("player.noted") == 1


async def test_a_profile_that_tells_nothing_is_refused(house: House) -> None:
    with pytest.raises(NothingGiven):
        await house.process.post(f"/v1/players/{NOBODY}/profile", {})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("profile", {"city": "Wien"}),
        ("consents", {"channels": ["sms"]}),
        ("consents/withdraw", {"channels": ["sms"]}),
        ("activate", {}),
        ("unblock", {"reason": "x"}),
        ("dormant", {}),
        ("close", {"reason": "x"}),
        ("tags", {"tag": "vip"}),
        ("tags/remove", {"tag": "vip"}),
        ("notes", {"text": "x"}),
        ("kyc/request", {"level": "identity"}),
        ("kyc/submit", {"level": "identity", "method": "x"}),
        ("kyc/approve", PASSPORT),
        ("kyc/reject", {"level": "identity", "method": "x", "reason": "x", "intervention": WHY}),
        ("logins", {"session": "1", "address": "192.0.2.1"}),
        ("logins/fail", {"reason": "password"}),
        ("logins/end", {"session": "1"}),
    ],
)
async def test_of_nobody_nothing_is_recorded_and_not_everybody_may_do_it(house: House, path: str, body: object) -> None:
    with pytest.raises(NotFound):
        await house.process.post(f"/v1/players/{NOBODY}/{path}", body, roles=("supervisor", "compliance"))
    ada = made(await house.process.post("/v1/players", ADA))
    with pytest.raises(Forbidden):
        await house.process.post(f"/v1/players/{ada}/{path}", body, roles=("viewer", "payments", "auditor"))
    assert len(house.log.entries) == 1


async def test_a_note_is_sealed_and_answers_with_its_id(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    receipt = await house.process.post(f"/v1/players/{ada}/notes", {"text": "wants German"}, key="n")
    assert opened(house, "player.noted") == {"text": "wants German"}
    assert made(receipt) == CODEC.decode(house.log.entries[-1]).body.id
    again = await house.process.post(f"/v1/players/{ada}/notes", {"text": "wants German"}, key="n")
    assert (again.repeated, again.answer) == (True, receipt.answer)


# KYC


async def test_a_person_who_decides_says_why_and_a_provider_need_not(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    unsaid = {name: value for name, value in PASSPORT.items() if name != "intervention"}
    with pytest.raises(InterventionMissing):
        await house.process.post(f"/v1/players/{ada}/kyc/approve", unsaid)
    await house.process.post(f"/v1/players/{ada}/kyc/approve", unsaid, actor="provider:acme-id")
    approved = house.log.events("kyc")[-1]
    assert approved == kyc.Approved(Level.IDENTITY, "document", age_verified=True)


async def test_a_provider_that_repeats_itself_changes_nothing(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    for _ in range(3):
        await house.process.post(f"/v1/players/{ada}/kyc/approve", PASSPORT)
    assert kinds(house.log.events("kyc")) == ["kyc.approved"]


async def test_deadlines_and_documents_are_noticed_by_timers_alone(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    due = (house.now + timedelta(days=1)).isoformat()
    await house.process.post(f"/v1/players/{ada}/kyc/request", {"level": "enhanced", "due_at": due})
    await house.process.post(
        f"/v1/players/{ada}/kyc/approve", {**PASSPORT, "document_expires": house.now.date().isoformat()}
    )
    for verb in ("miss", "expire"):
        with pytest.raises(Forbidden):
            await house.process.post(f"/v1/players/{ada}/kyc/{verb}")
        with pytest.raises(kyc.NotDue):
            await house.process.decider.decide(fired(house.plan(f"/v1/players/{ada}/kyc/{verb}")))
    house.now += timedelta(days=2)
    for _ in range(2):
        for verb in ("miss", "expire"):
            await house.process.decider.decide(fired(house.plan(f"/v1/players/{ada}/kyc/{verb}")))
    assert kinds(house.log.events("kyc"))[2:] == ["kyc.deadline_missed", "kyc.expired"]


async def test_a_deadline_is_recorded_in_utc(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    await house.process.post(
        f"/v1/players/{ada}/kyc/request", {"level": "identity", "due_at": "2026-12-01T01:00:00+02:00"}
    )
    assert b'"due_at":"2026-11-30T23:00:00Z"' in house.log.entries[-1].body
    with pytest.raises(Invalid):
        await house.process.post(f"/v1/players/{ada}/kyc/request", {"level": "none"})


@pytest.mark.parametrize("due_at", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
async def test_a_deadline_outside_the_calendar_is_refused(house: House, due_at: str) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    with pytest.raises(Invalid, match="calendar"):
        await house.process.post(f"/v1/players/{ada}/kyc/request", {"level": "identity", "due_at": due_at})


async def test_who_is_asked_again_hears_how_it_stands(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    paths = [f"/v1/players/{ada}/kyc/{verb}" for verb in ("request", "approve", "reject")]
    statuses = []
    for path, body in (
        (paths[0], {"level": "identity"}),
        (paths[2], {"level": "identity", "method": "document", "reason": "blurred", "intervention": WHY}),
        (paths[0], {"level": "identity"}),
        (paths[0], {"level": "identity"}),
        (paths[1], PASSPORT),
        (paths[0], {"level": "identity"}),
    ):
        statuses.append((await house.process.post(path, body)).answer.status)  # type: ignore[attr-defined]
    assert statuses == ["pending", "rejected", "pending", "pending", "approved", "approved"]
    assert kinds(house.log.events("kyc")) == ["kyc.requested", "kyc.rejected", "kyc.requested", "kyc.approved"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/players", {**STRANGER, "country": "AT\n"}),
        ("/v1/players", {**STRANGER, "jurisdiction": "AT\n"}),
        ("/v1/players", {**STRANGER, "brand": "main\n"}),
        ("/v1/players", {**STRANGER, "language": "de-AT\n"}),
        ("/v1/players", {**STRANGER, "occurred": "2025-01-01\n"}),
        (f"/v1/players/{NOBODY}/block", {"reason": "fraud\n"}),
        (f"/v1/tickets/ticket_{'0' * 26}/assign", {"to": "operator:maria\n"}),
        (f"/v1/approvals/approval_{'0' * 26}/approve", {"hash": "0" * 64 + "\n"}),
    ],
)
async def test_a_word_ends_where_it_ends(house: House, path: str, body: object) -> None:
    with pytest.raises(Invalid, match="regex"):
        await house.process.post(path, body)


# Log-ins


async def test_a_log_in_is_recorded_with_its_address_sealed_and_wakes_who_slept(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    await house.process.post(f"/v1/players/{ada}/dormant")
    body = {"session": "1", "device": "ios", "country": "AT", "address": "192.0.2.1"}
    await house.process.post(f"/v1/players/{ada}/logins", body)
    assert kinds(house.log.events())[-2:] == ["login.succeeded", "player.reactivated"]
    assert opened(house, "login.succeeded") == {"address": "192.0.2.1"}
    assert not any(b"192.0.2.1" in entry.body for entry in house.log.entries)
    for _ in range(2):
        await house.process.post(f"/v1/players/{ada}/logins/end", {"session": "1"})
    await house.process.post(f"/v1/players/{ada}/logins/fail", {"reason": "password"})
    assert kinds(house.log.events("login")) == ["login.succeeded", "login.ended", "login.failed"]


async def test_a_block_names_its_reason_in_a_word(house: House) -> None:
    ada = made(await house.process.post("/v1/players", ADA))
    with pytest.raises(Invalid):
        await house.process.post(f"/v1/players/{ada}/block", {"reason": "has been very rude"})
    await house.process.post(f"/v1/players/{ada}/block", {"reason": "fraud"})
    with pytest.raises(Invalid):
        await house.process.post(f"/v1/players/{ada}/unblock", {"reason": "Ada Byron was right"})
    await house.process.post(f"/v1/players/{ada}/unblock", {"reason": "mistake"})
    assert house.log.events()[-2:] == [players.Blocked("fraud"), players.Unblocked("mistake")]


async def test_whose_keys_may_not_be_held_here_is_not_registered_here_and_does_not_move_there(house: House) -> None:
    abroad = Residency({"DE": ("us",)})
    german = {"country": "DE", "currency": "EUR", "birth_date": "1990-01-01"}

    async def post(path: str, body: object) -> object:
        plan = house.plan(path, body, residency=abroad)
        return (await house.process.decider.decide(plan)).answer

    with pytest.raises(KeysElsewhere) as refused:
        await post("/v1/players", german)
    assert refused.value.facts == {"jurisdiction": "DE", "regions": ["us"]}
    assert house.vault.kept == {}
    player = await house.player(country="AT", birth_date="1990-01-01")
    with pytest.raises(KeysElsewhere):
        await post(f"/v1/players/{player}/profile", {"address_country": "DE", "jurisdiction": "DE"})
