from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from domain import tickets as decisions
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import PlayerId, TicketId
from domain.players import DataKey
from domain.tickets import Resolution
from policies.sla import SLA, Priority
from queries import tickets
from queries.context import Context, write_cursor
from tests.projections.books import NOON, Book
from tests.queries.house import House


async def test_a_ticket_is_shown_with_what_was_written_on_it(house: House) -> None:
    book = Book("eu")
    player = book.register()
    ticket = book.ticket(player, Priority.HIGH, "Where is it?")
    book.wait(timedelta(hours=3))
    book.work(ticket, lambda state, at: decisions.assign(state, to="operator:maria"))
    book.work(ticket, lambda state, at: decisions.answer(state, text="Here.", at=at))
    book.work(ticket, lambda state, at: decisions.note(state, text="Hm."))
    book.work(ticket, lambda state, at: decisions.close(state, resolution=Resolution.SOLVED, at=at))
    await house.project(book)
    found = await tickets.get(house.context, ticket)
    assert (found.id, found.player, found.status, found.priority) == (ticket, player, "closed", "high")
    assert (found.assignee, found.resolution, found.version) == ("operator:maria", "solved", 6)
    assert found.opened_at.replace(microsecond=0) == NOON
    assert found.resolution_due == found.due_at == NOON + SLA[Priority.HIGH].resolution
    assert (found.first_response_missed, found.resolution_missed) == (True, False)
    assert [(m.kind, m.subject, m.text, m.sealed) for m in found.messages.items] == [
        ("opened", "Money", "Where is it?", False),
        ("answered", None, "Here.", False),
        ("noted", None, "Hm.", False),
    ]
    assert found.messages.next_cursor is None


async def test_words_are_opened_with_the_key_that_the_registration_in_the_log_commits_to(house: House) -> None:
    book = Book("eu")
    player = book.register()
    ticket = book.ticket(player)
    await house.project(book)
    await tickets.get(house.context, ticket)
    event_id, key, asked = house.opened[-1]
    assert key == DataKey(id=player.removeprefix("player_"), commitment="00")
    assert (event_id, set(asked)) == ("id-eu-3", {"data.subject", "data.text"})


async def test_words_that_cannot_be_opened_stay_sealed(house: House) -> None:
    async def opens_nothing(*_: object) -> dict[str, str]:
        return {}

    book = Book("eu")
    ticket = book.ticket(book.register())
    await house.project(book)
    context = Context(house.context.pool, house.context.redis, opens_nothing)
    [message] = (await tickets.get(context, ticket)).messages.items
    assert (message.sealed, message.subject, message.text) == (True, None, None)


async def test_a_long_conversation_comes_in_pages_in_the_order_in_which_it_was_written(house: House) -> None:
    book = Book("eu")
    ticket = book.ticket(book.register(), text="0")
    for number in range(1, 12):
        book.work(ticket, lambda state, _at, text=str(number): decisions.note(state, text=text))  # type: ignore[misc]
    await house.project(book)
    said: list[str | None] = []
    cursor = None
    while True:
        page = (await tickets.get(house.context, ticket, cursor, 5)).messages
        said += [message.text for message in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert said == [str(number) for number in range(12)]


async def desk(house: House) -> tuple[Book, Book]:
    """Two regions with eight tickets: of each priority one, opened hour by hour."""
    eu, us = Book("eu"), Book("us")
    for book in (eu, us):
        player = book.register()
        for priority in Priority:
            book.ticket(player, priority)
            book.wait(timedelta(hours=1))
    eu.work(eu.tickets[0], lambda state, at: decisions.close(state, resolution=Resolution.SPAM, at=at))
    eu.work(eu.tickets[1], lambda state, at: decisions.assign(state, to="operator:maria"))
    us.work(us.tickets[1], lambda state, at: decisions.assign(state, to="operator:maria"))
    us.work(us.tickets[2], lambda state, at: decisions.assign(state, to="operator:ben"))
    await house.project(eu, us)
    return eu, us


async def test_a_list_holds_every_ticket_once_those_due_first_first(house: House) -> None:
    eu, us = await desk(house)
    found, cursor = [], None
    while True:
        page = await tickets.page(house.context, cursor=cursor, limit=3)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert {ticket.id for ticket in found} == {*eu.tickets, *us.tickets}
    assert [(t.due_at, t.id) for t in found] == sorted((t.due_at, t.id) for t in found)
    assert len(found) == 8
    assert found[0].priority == "urgent", "opened last and due first"


async def test_a_list_is_chosen_by_status_priority_assignee_player_and_due_time(house: House) -> None:
    eu, us = await desk(house)

    async def ids(**chosen: str) -> set[str]:
        return {ticket.id for ticket in (await tickets.page(house.context, **chosen)).items}  # type: ignore[arg-type]

    assert await ids(status="closed") == {eu.tickets[0]}
    assert await ids(status="open", priority="low") == {us.tickets[0]}
    assert await ids(assignee="operator:maria") == {eu.tickets[1], us.tickets[1]}
    assert await ids(player=eu.players[0]) == set(eu.tickets)
    assert await ids(player=us.players[0], assignee="operator:maria", priority="normal") == {us.tickets[1]}
    assert await ids(due_before="2026-03-01T16:00:00Z") == {eu.tickets[3], us.tickets[3]}
    assert await ids(assignee="operator:\0") == set()


@pytest.mark.parametrize(
    "wrong", [{"status": "new"}, {"priority": "1"}, {"due_before": "noon"}, {"cursor": "x"}, {"limit": 0}]
)
async def test_what_cannot_be_meant_is_refused(house: House, wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        await tickets.page(house.context, **wrong)  # type: ignore[arg-type]


async def test_a_cursor_of_ours_or_none(house: House) -> None:
    for place in ((2**70, "x"), (10**18, "x"), (-(10**18), "x"), ("x", "x"), (1, 2)):
        with pytest.raises(Invalid):
            await tickets.page(house.context, cursor=write_cursor(*place))


async def test_nothing_is_there(house: House) -> None:
    with pytest.raises(NotFound):
        await tickets.get(house.context, TicketId("ticket_01ka7g0000e00800000000001a"))
    with pytest.raises(InvalidId):
        await tickets.get(house.context, TicketId("player_01ka7g0000e00800000000001a"))
    with pytest.raises(InvalidId):
        await tickets.page(house.context, player=PlayerId("ticket_01ka7g0000e00800000000001a"))


def test_a_ticket_in_a_list_says_nothing_that_was_written() -> None:
    assert not {"subject", "text", "messages"} & {field.name for field in msgspec.structs.fields(tickets.Ticket)}
