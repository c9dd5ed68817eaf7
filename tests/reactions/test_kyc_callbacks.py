"""How well a player is known is told by the provider that was asked, by no other, and by people in any case."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from commands.kyc import ProviderUnknown
from commands.plan import Receipt
from domain.errors import NotFound
from tests.commands.house import House
from tests.reactions.test_callbacks import KNOWN, WHY, Said, said


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.close()


async def test_a_kyc_provider_decides_what_it_was_given(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/kyc/request", {"level": "identity", "provider": "ident"})
    known: Said = {"level": "identity", "method": "video", "age_verified": True, "document_expires": "2030-01-31"}
    for _ in range(2):
        await said(house, provider="ident", verb="kyc_approve", id="1", player=player, **known)
    assert [event.tag for event in house.log.events("kyc")] == ["kyc.requested", "kyc.approved"]
    await said(house, provider="ident", verb="kyc_reject", id="2", player=player, level="identity", method="video",
               reason="forged")  # fmt: skip
    assert house.log.events("kyc")[-1].tag == "kyc.rejected"


GIVEN: list[tuple[str, Said]] = [
    ("request", {"level": "identity", "provider": "ident"}),
    ("submit", {"level": "identity", "method": "video", "provider": "ident", "reference": "case 7"}),
]


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(
    "before",
    [
        [],
        [("request", {"level": "identity"})],
        [("submit", {"level": "identity", "method": "document"})],
        [("request", {"level": "identity", "provider": "other_ident"})],
        [("request", {"level": "enhanced", "provider": "other_ident"})],
    ],
)
@pytest.mark.parametrize("verb", ["kyc_approve", "kyc_reject"])
async def test_of_a_player_who_was_not_given_to_it_there_is_nothing_to_know_for_a_provider(
    house: House, before: list[tuple[str, Said]], given: tuple[str, Said], verb: str
) -> None:
    player = await house.player()
    for what, body in before:
        await house.process.post(f"/v1/players/{player}/kyc/{what}", body)
    decision: Said = KNOWN if verb == "kyc_approve" else {"level": "identity", "method": "video", "reason": "forged"}
    stranger = await said_of(house, "player_01ka7g0000e00800000000001a", verb, decision)
    entries = len(house.log.entries)
    assert str(await said_of(house, player, verb, decision)) == str(stranger)
    assert len(house.log.entries) == entries
    if before[-1:] == [("request", {"level": "enhanced", "provider": "other_ident"})] and given[0] == "request":
        return  # whoever is asked for more is not asked for less instead
    what, body = given
    await house.process.post(f"/v1/players/{player}/kyc/{what}", body)
    assert isinstance(await said_of(house, player, verb, decision), Receipt)


async def said_of(house: House, player: str, verb: str, decision: Said) -> Receipt | NotFound:
    try:
        return await said(house, provider="ident", verb=verb, id="1", player=player, **decision)
    except NotFound as error:
        return error


async def test_a_provider_decides_the_level_that_it_was_given_and_no_other(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/kyc/request", {"level": "identity", "provider": "ident"})
    with pytest.raises(NotFound):
        await said(house, provider="ident", verb="kyc_approve", id="1", player=player, **{**KNOWN, "level": "enhanced"})
    await said(house, provider="ident", verb="kyc_approve", id="2", player=player, **KNOWN)


async def test_a_level_that_is_given_to_people_again_is_no_providers_any_more(house: House) -> None:
    player = await house.player()
    request = f"/v1/players/{player}/kyc/request"
    await house.process.post(request, {"level": "identity", "provider": "ident"})
    await house.process.post(request, {"level": "identity"})
    with pytest.raises(NotFound):
        await said(house, provider="ident", verb="kyc_approve", id="1", player=player, **KNOWN)
    by_hand = {**KNOWN, "intervention": WHY}
    await house.process.post(f"/v1/players/{player}/kyc/approve", by_hand, actor="compliance:eva")
    assert [event.tag for event in house.log.events("kyc")] == ["kyc.requested", "kyc.requested", "kyc.approved"]


async def test_a_person_may_decide_what_a_provider_was_given(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/kyc/request", {"level": "identity", "provider": "ident"})
    by_hand = {**KNOWN, "intervention": WHY}
    await house.process.post(f"/v1/players/{player}/kyc/approve", by_hand, actor="compliance:eva")
    assert house.log.events("kyc")[-1].tag == "kyc.approved"


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("provider", ["acme", "nobody"])
async def test_a_level_is_given_to_a_provider_that_knows_people(
    house: House, given: tuple[str, Said], provider: str
) -> None:
    player, (what, body) = await house.player(), given
    with pytest.raises(ProviderUnknown):
        await house.process.post(f"/v1/players/{player}/kyc/{what}", {**body, "provider": provider})
    assert house.log.events("kyc") == []


async def test_a_request_is_answered_as_the_first_time_although_its_provider_is_gone(house: House) -> None:
    path = f"/v1/players/{await house.player()}/kyc/request"
    body = {"level": "identity", "provider": "ident"}
    first = await house.process.post(path, body, key="k")
    house.kyc_providers = frozenset()
    again = await house.process.post(path, body, key="k")
    assert (again.answer, again.repeated) == (first.answer, True)


async def test_what_a_provider_has_decided_stays_its_own_to_say_again(house: House) -> None:
    player = await house.player()
    request = f"/v1/players/{player}/kyc/request"
    await house.process.post(request, {"level": "identity", "provider": "ident"})
    first = await said(house, provider="ident", verb="kyc_approve", id="1", player=player, **KNOWN)
    reject = {"level": "identity", "method": "video", "reason": "forged", "intervention": WHY}
    await house.process.post(f"/v1/players/{player}/kyc/reject", reject, actor="compliance:eva")
    await house.process.post(request, {"level": "identity"})
    again = await said(house, provider="ident", verb="kyc_approve", id="1", player=player, **KNOWN)
    assert (again.answer, again.repeated) == (first.answer, True)
