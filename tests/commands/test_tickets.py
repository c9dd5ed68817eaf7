"""Tickets as the write side takes them: who may, what is sealed, what a repeat is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from access.policy import service
from commands.plan import PreconditionFailed, Receipt
from commands.sealing import KeyNotHeld
from commands.tickets import TEXT_MAX, Ticket
from domain.errors import Forbidden, Invalid, NotFound
from domain.kernel import Sealed
from domain.tickets import (
    Answered,
    Assigned,
    Closed,
    Escalated,
    FirstResponseMissed,
    Noted,
    Opened,
    Reopened,
    Resolution,
    ResolutionMissed,
    Status,
    TicketClosed,
)
from eventstore.record import decode_body
from policies.sla import SLA, Priority
from tests.commands.house import House, made, partition

TEXT = "Where is my money, says Anna?"


def opening(**more: object) -> dict[str, object]:
    return {"channel": "email", "subject": "Money", "text": TEXT, **more}


async def opened(house: House, player: str, **more: object) -> str:
    """A ticket's id."""
    return made(await house.process.post(f"/v1/players/{player}/tickets", opening(**more)))


async def timer(house: House, path: str) -> Receipt:
    """What our own process does when a time has come."""
    plan = house.plan(path)
    context = msgspec.structs.replace(plan.context, principal=service("reaction:timers", "reaction"))
    return await house.process.decider.decide(msgspec.structs.replace(plan, context=context))


async def test_a_tickets_life(house: House) -> None:
    player = await house.player()
    receipt = await house.process.post(f"/v1/players/{player}/tickets", opening())
    ticket = made(receipt)
    [event] = house.log.events("ticket")
    assert isinstance(event, Opened)
    assert receipt.answer == Ticket(
        ticket, Status.OPEN, Priority.NORMAL, None, event.first_response_due, event.resolution_due
    )
    assert partition(ticket) == partition(player)
    answers = [
        (await house.process.post(f"/v1/tickets/{ticket}/{verb}", body)).answer
        for verb, body in (
            ("assign", {"to": "operator:maria"}),
            ("note", {"text": "Asked the provider."}),
            ("escalate", {"priority": "urgent", "reason": "complaint"}),
            ("answer", {"text": "It has arrived."}),
            ("close", {"resolution": "solved"}),
            ("reopen", {"reason": "not_solved"}),
        )
    ]
    assert answers[0] == Ticket(ticket, assignee="operator:maria")
    assert answers[4] == Ticket(ticket, Status.CLOSED)
    assert [type(event) for event in house.log.events("ticket")] == [
        Opened, Assigned, Noted, Escalated, Answered, Closed, Reopened,
    ]  # fmt: skip


async def test_what_people_write_is_sealed_under_the_players_own_key(house: House) -> None:
    player = await house.player()
    ticket = await opened(house, player)
    await house.process.post(f"/v1/tickets/{ticket}/answer", {"text": "It has arrived, Anna."})
    await house.process.post(f"/v1/tickets/{ticket}/note", {"text": "Anna was angry."})
    assert not any(b"Anna" in entry.body or b"Money" in entry.body for entry in house.log.entries)
    [key] = house.vault.kept.values()
    entry, event = house.log.entries[1], house.log.events("ticket")[0]
    assert isinstance(event, Opened)
    assert isinstance(event.text, Sealed)
    assert key.open(event.text, event_id=decode_body(entry.body).id, path="data.text") == TEXT


async def test_nothing_is_written_whose_key_is_gone(house: House) -> None:
    player = await house.player()
    ticket = await opened(house, player)
    house.vault.kept.clear()
    with pytest.raises(KeyNotHeld):
        await house.process.post(f"/v1/tickets/{ticket}/answer", {"text": "Hello."})
    with pytest.raises(KeyNotHeld):
        await opened(house, player)
    await house.process.post(f"/v1/tickets/{ticket}/close", {"resolution": "solved"})


async def test_a_ticket_may_be_about_a_payment_of_the_same_player_only(house: House) -> None:
    anna, ben = await house.player(), await house.player()
    deposit = await house.deposit(anna, 50)
    await opened(house, anna, transaction=deposit)
    with pytest.raises(NotFound):
        await opened(house, ben, transaction=deposit)


async def test_asking_again_records_nothing(house: House) -> None:
    ticket = await opened(house, await house.player())
    for verb, body in (
        ("assign", {"to": "operator:maria"}),
        ("escalate", {"priority": "high", "reason": "complaint"}),
        ("close", {"resolution": "solved"}),
        ("reopen", {"reason": "not_solved"}),
    ):
        await house.process.post(f"/v1/tickets/{ticket}/{verb}", body)
        before = len(house.log.entries)
        again = await house.process.post(f"/v1/tickets/{ticket}/{verb}", body)
        assert (made(again), again.position) == (ticket, None)
        assert len(house.log.entries) == before


async def test_the_same_key_is_the_same_ticket(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/tickets"
    first = await house.process.post(path, opening(), key="k")
    repeat = await house.another_process().post(path, opening(), key="k")
    assert (repeat.answer, repeat.repeated) == (first.answer, True)
    assert len(house.log.events("ticket")) == 1


async def test_a_batch_opens_a_ticket_and_goes_on_with_it(house: House) -> None:
    player = await house.player()
    first, second, third = await house.process.post_batch(
        ("1", f"/v1/players/{player}/tickets", opening()),
        ("2", "/v1/tickets/$0/assign", {"to": "operator:maria"}),
        ("3", "/v1/tickets/$0/answer", {"text": "Here."}),
    )
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert isinstance(third, Receipt)
    assert second.answer == Ticket(made(first), assignee="operator:maria")
    assert [type(event) for event in house.log.events("ticket")] == [Opened, Assigned, Answered]


async def test_of_two_who_close_at_once_one_end_stands(house: House) -> None:
    ticket = await opened(house, await house.player())
    results = await asyncio.gather(
        house.process.post(f"/v1/tickets/{ticket}/close", {"resolution": "solved"}),
        house.another_process().post(f"/v1/tickets/{ticket}/close", {"resolution": "spam"}),
        return_exceptions=True,
    )
    assert sum(isinstance(result, TicketClosed) for result in results) == 1
    assert sum(isinstance(event, Closed) for event in house.log.events("ticket")) == 1


async def test_who_changes_a_ticket_may_say_in_which_state(house: House) -> None:
    ticket = await opened(house, await house.player())
    await house.process.post(f"/v1/tickets/{ticket}/assign", {"to": "operator:maria"}, seen="1")
    with pytest.raises(PreconditionFailed):
        await house.process.post(f"/v1/tickets/{ticket}/assign", {"to": "operator:ben"}, seen="1")


async def test_only_a_timer_records_a_missed_promise_and_each_once(house: House) -> None:
    ticket = await opened(house, await house.player())
    path = f"/v1/tickets/{ticket}/miss"
    with pytest.raises(Forbidden):
        await house.process.post(path)
    early = await timer(house, path)
    assert (early.answer, early.position) == (Ticket(ticket), None)
    house.now += SLA[Priority.NORMAL].first_response
    assert (await timer(house, path)).answer == Ticket(ticket, missed=["first_response"])
    assert (await timer(house, path)).answer == Ticket(ticket)
    house.now += SLA[Priority.NORMAL].resolution
    assert (await timer(house, path)).answer == Ticket(ticket, missed=["resolution"])
    kinds = [type(event) for event in house.log.events("ticket")]
    assert kinds == [Opened, FirstResponseMissed, ResolutionMissed]


async def test_an_answer_that_is_late_says_so(house: House) -> None:
    ticket = await opened(house, await house.player())
    house.now += SLA[Priority.NORMAL].first_response + timedelta(seconds=1)
    answer = await house.process.post(f"/v1/tickets/{ticket}/answer", {"text": "Sorry."})
    assert answer.answer == Ticket(ticket, missed=["first_response"])


async def test_who_may_not_is_told_so(house: House) -> None:
    player = await house.player()
    ticket = await opened(house, player)
    for path, body in (
        (f"/v1/players/{player}/tickets", opening()),
        (f"/v1/tickets/{ticket}/assign", {"to": "operator:maria"}),
        (f"/v1/tickets/{ticket}/answer", {"text": "Hello."}),
        (f"/v1/tickets/{ticket}/close", {"resolution": "solved"}),
    ):
        with pytest.raises(Forbidden):
            await house.process.post(path, body, roles=["cashier"])
    assert len(house.log.events("ticket")) == 1


async def test_nobody_and_nothing_is_there(house: House) -> None:
    with pytest.raises(NotFound):
        await opened(house, "player_01ka7g0000e00800000000001a")
    for verb, body in (
        ("answer", {"text": "Hello."}),
        ("close", {"resolution": "solved"}),
        ("assign", {"to": "operator:maria"}),
    ):
        with pytest.raises(NotFound):
            await house.process.post(f"/v1/tickets/ticket_01ka7g0000e00800000000001a/{verb}", body)


async def test_the_longest_text_is_kept_and_a_longer_one_refused(house: House) -> None:
    player = await house.player()
    await opened(house, player, text="\N{GRINNING FACE}" * TEXT_MAX)
    with pytest.raises(Invalid):
        await opened(house, player, text="x" * (TEXT_MAX + 1))


@pytest.mark.parametrize(
    "wrong",
    [{"channel": "E-Mail!"}, {"priority": "later"}, {"by": "bot"}, {"subject": ""}, {"transaction": "deposit_1"}],
)
async def test_what_cannot_be_meant_is_refused(house: House, wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        await opened(house, await house.player(), **wrong)


def test_every_resolution_is_a_word() -> None:
    assert all(resolution.replace("_", "").isalpha() for resolution in Resolution)
