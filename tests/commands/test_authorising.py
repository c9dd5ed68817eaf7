"""What the policies say of a command, on the states that it is decided from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from access.policy import Principal, Scope, principal
from commands.plan import Receipt
from domain.errors import Forbidden, NotFound
from tests.commands.house import NOON, House, made

MARIA = "operator:maria"
MAIN, OTHER = Scope(frozenset({"main"})), Scope(frozenset({"other"}))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.close()


async def as_(house: House, who: Principal, path: str, body: Any = None) -> Receipt:
    """Raises Rejected."""
    plan = house.plan(path, body, actor=who.actor, roles=[])
    plan = msgspec.structs.replace(plan, context=msgspec.structs.replace(plan.context, principal=who))
    house.known[who.actor] = who
    return await house.process.decider.decide(plan)


async def a_ticket(house: House, **player: object) -> tuple[str, str]:
    id_ = await house.player(**player)
    asked = {"channel": "email", "subject": "?", "text": "?"}
    return id_, made(await house.process.post(f"/v1/players/{id_}/tickets", asked))


def absent(ticket: str) -> str:
    """An id of the same partition that was never given."""
    return ticket[:-10] + ("0" if ticket[-10] != "0" else "1") + ticket[-9:]


def of(roles: list[str], scope: Scope) -> Principal:
    return principal(MARIA, roles, scope=scope, stepped_up=NOON)


async def test_who_is_bound_to_a_brand_works_on_its_tickets_alone(house: House) -> None:
    _, ticket = await a_ticket(house)
    assert (await as_(house, of(["support"], MAIN), f"/v1/tickets/{ticket}/escalate", ESCALATE)).position
    with pytest.raises(Forbidden) as refused:
        await as_(house, of(["support"], OTHER), f"/v1/tickets/{ticket}/escalate", ESCALATE)
    assert refused.value.facts == {"action": "ticket.work", "policy": "scope.brand", "reason": "outside_brands"}


ESCALATE = {"priority": "urgent", "reason": "x"}


async def test_a_ticket_of_another_brand_and_none_are_refused_alike(house: House) -> None:
    _, ticket = await a_ticket(house)
    refusals = []
    for each in (ticket, absent(ticket)):
        with pytest.raises(Forbidden) as refused:
            await as_(house, of(["support"], OTHER), f"/v1/tickets/{each}/escalate", ESCALATE)
        refusals.append((str(refused.value), refused.value.facts))
    assert refusals[0] == refusals[1]
    with pytest.raises(NotFound):
        await as_(house, of(["support"], Scope()), f"/v1/tickets/{absent(ticket)}/escalate", ESCALATE)


async def test_nothing_is_recorded_of_a_command_that_is_refused(house: House) -> None:
    player, ticket = await a_ticket(house)
    before = len(house.log.entries)
    for path, body in (
        (f"/v1/tickets/{ticket}/answer", {"text": "hello"}),
        (f"/v1/players/{player}/block", {"reason": "fraud"}),
        (f"/v1/players/{player}/notes", {"text": "hello"}),
    ):
        with pytest.raises(Forbidden):
            await as_(house, of(["supervisor"], OTHER), path, body)
    assert len(house.log.entries) == before


async def test_who_is_bound_registers_players_of_their_own_brand_and_country(house: House) -> None:
    bound = of(["operator"], Scope(frozenset({"main"}), frozenset({"AT"})))
    assert (await as_(house, bound, "/v1/players", {"country": "AT", "currency": "EUR"})).position
    for other in ({"country": "AT", "brand": "other"}, {"country": "GB"}):
        with pytest.raises(Forbidden):
            await as_(house, bound, "/v1/players", {"currency": "EUR", **other})


async def test_a_vip_is_one_from_the_moment_of_the_tag(house: House) -> None:
    player = await house.player()
    manager = of(["vip_manager"], Scope())
    with pytest.raises(Forbidden) as refused:
        await as_(house, manager, f"/v1/players/{player}/tags", {"tag": "big"})
    assert refused.value.facts["policy"] == "vip_manager.vips"
    await house.process.post(f"/v1/players/{player}/tags", {"tag": "vip"})
    assert (await as_(house, manager, f"/v1/players/{player}/tags", {"tag": "big"})).position


async def test_a_stale_cache_neither_refuses_nor_lets_in(house: House) -> None:
    """Another process tags the player, and takes the tag away: this one has the state of before each time."""
    player, manager = await house.player(), of(["vip_manager"], Scope())
    elsewhere = house.another_process()
    with pytest.raises(Forbidden):
        await as_(house, manager, f"/v1/players/{player}/tags", {"tag": "one"})
    await elsewhere.post(f"/v1/players/{player}/tags", {"tag": "vip"})
    assert (await as_(house, manager, f"/v1/players/{player}/tags", {"tag": "two"})).position
    await elsewhere.post(f"/v1/players/{player}/tags/remove", {"tag": "vip"})
    with pytest.raises(Forbidden):
        await as_(house, manager, f"/v1/players/{player}/tags", {"tag": "three"})


async def test_an_amount_is_asked_of_the_command(house: House) -> None:
    player = await house.player()
    paying = of(["payments"], Scope())
    body = {"direction": "credit", "reason_code": "goodwill", "intervention": {"kind": "correction", "reason": "x"}}
    small = {**body, "amount": {"amount": 5_000, "currency": "EUR"}}
    large = {**body, "amount": {"amount": 50_001, "currency": "EUR"}}
    assert (await as_(house, paying, f"/v1/players/{player}/adjustments", small)).position
    with pytest.raises(Forbidden) as refused:
        await as_(house, paying, f"/v1/players/{player}/adjustments", large)
    assert refused.value.facts["policy"] == "payments.by_hand"


async def test_what_is_approved_is_asked_again_of_who_requested_it(house: House) -> None:
    player = await house.player()
    body = {"direction": "credit", "reason_code": "goodwill", "intervention": {"kind": "correction", "reason": "x"}}
    body["amount"] = {"amount": 20_000, "currency": "EUR"}
    asked = await as_(house, of(["cashier"], MAIN), f"/v1/players/{player}/adjustments", body)
    approval, hash_ = asked.answer.approval, asked.answer.hash  # type: ignore[attr-defined]
    house.known[MARIA] = of(["cashier"], OTHER)  # moved meanwhile
    with pytest.raises(Forbidden) as refused:
        await house.process.post(f"/v1/approvals/{approval}/approve", {"hash": hash_}, actor="supervisor:bo")
    assert refused.value.facts["policy"] == "scope.brand"
    with pytest.raises(Forbidden):
        await as_(
            house,
            principal("supervisor:cy", ["supervisor"], scope=OTHER, stepped_up=NOON),
            f"/v1/approvals/{approval}/approve",
            {"hash": hash_},
        )


async def test_commands_that_are_settled_by_roles_load_nothing_more(house: House) -> None:
    _, ticket = await a_ticket(house)
    process = house.another_process()
    house.log.loaded.clear()
    plan = house.plan(f"/v1/tickets/{ticket}/escalate", ESCALATE, roles=["support"])
    await process.decider.decide(plan)
    assert [stream for loaded in house.log.loaded for stream in loaded] == [ticket.replace("_", "-")]


async def test_two_at_once_are_each_asked_for_themselves(house: House) -> None:
    _, ticket = await a_ticket(house)
    results = await asyncio.gather(
        as_(house, of(["support"], MAIN), f"/v1/tickets/{ticket}/escalate", ESCALATE),
        as_(house, principal("operator:olga", ["support"], scope=OTHER), f"/v1/tickets/{ticket}/escalate", ESCALATE),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [Receipt, Forbidden]
