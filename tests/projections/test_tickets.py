"""The read model of tickets: what the domain folds, and every word that was written, sealed as the log has it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from domain import tickets
from domain.kernel import TicketId
from domain.tickets import Resolution, Ticket
from policies.sla import Priority
from projections import catalog
from projections.memory import MemoryStore
from projections.postgres import PostgresStore
from projections.projection import OutOfOrder
from projections.tickets import Tickets
from tests.projections.books import Book
from tests.projections.histories import WORK, Act, acts, played

SIZES = st.lists(st.integers(1, 9), max_size=8)


def in_memory() -> MemoryStore:
    return catalog.in_memory()["tickets"]


def replayed(book: Book, sizes: list[int]) -> MemoryStore:
    """In batches of whole commands, of about these sizes, and the rest in one."""
    store = in_memory()
    ends = {recorded.position for recorded in book.batch().events if recorded.body.command.i == recorded.body.command.n}
    for size in [*sizes, len(book.entries)]:
        first = store.at("eu").position + 1
        last = min((end for end in ends if end >= first + size - 1), default=len(book.entries))
        if first <= last:
            store.apply(book.batch(first, last))
    return store


def folded(book: Book, ticket: TicketId) -> Ticket:
    name, state = tickets.stream(ticket).name, Ticket()
    for recorded in book.batch().events:
        if recorded.body.stream == name:
            state = tickets.evolve(state, recorded.event, recorded.at)  # type: ignore[arg-type]
    return state


@settings(max_examples=40)
@given(history=acts, sizes=SIZES)
def test_a_row_is_what_the_domain_folds_however_the_log_was_cut(history: list[Act], sizes: list[int]) -> None:
    book = played("eu", [("register", 0, 0), ("ticket", 0, 1), ("ticket", 0, 2), *history])
    rows = replayed(book, sizes).tables["ticket"]
    assert set(rows) == set(book.tickets)
    for id_ in book.tickets:
        state = folded(book, id_)
        row = dict(zip(Tickets.tables[0].columns, rows[id_], strict=True))
        assert (row["status"], row["priority"], row["assignee"]) == (state.status, state.priority, state.assignee)
        for column in ("opened_at", "first_response_due", "resolution_due", "due_at", "answered_at", "closed_at"):
            at = getattr(state, column)
            assert row[column] == (None if at is None else round(at.timestamp() * 1_000_000)), column
        for column in ("awaits_answer", "first_response_missed", "resolution_missed"):
            assert row[column] == getattr(state, column)


def worked() -> Book:
    """A book with a ticket to which everything was done once."""
    book = Book("eu")
    ticket = book.ticket(book.register(), text="Where?")
    for decision in WORK:
        book.work(ticket, decision)
    return book


def test_every_word_is_kept_sealed_with_the_event_that_sealed_it() -> None:
    book = worked()
    [ticket], [player] = book.tickets, book.players
    messages = sorted(replayed(book, []).rows("ticket_message"), key=lambda row: row[2])
    assert [(row[3], row[4]) for row in messages] == [
        (kind, "operator:test") for kind in ("opened", "answered", "noted")
    ]
    first = book.batch().events[2]
    assert (messages[0][0], messages[0][1]) == (ticket, first.body.id)
    key = player.removeprefix("player_")
    assert json.loads(messages[0][6]) == {
        "subject": {"sealed": "sealed Money", "key": key},
        "text": {"sealed": "sealed Where?", "key": key},
    }


async def stored(connection: AsyncConnection[Any], book: Book, cuts: list[int]) -> PostgresStore:
    store = PostgresStore(Tickets(), connection)
    standing = await store.open()
    for first, last in zip([1, *(cut + 1 for cut in cuts)], [*cuts, None], strict=True):
        standing = await store.apply(standing, book.batch(first, last))
    return store


async def test_postgresql_holds_what_memory_holds_step_by_step_and_at_once(connection: AsyncConnection[Any]) -> None:
    book = worked()
    store = await stored(connection, book, list(range(1, len(book.entries))))
    assert (await store.state_hash()).digest == replayed(book, []).state_hash().digest


async def test_a_row_that_was_changed_is_noticed(connection: AsyncConnection[Any]) -> None:
    book = worked()
    store = await stored(connection, book, [])
    for fault in (
        "UPDATE read.ticket SET due_at = due_at + '1us'::interval",
        "UPDATE read.ticket SET assignee = NULL",
        "UPDATE read.ticket_message SET author = 'x' WHERE kind = 'noted'",
        "DELETE FROM read.ticket_message",
    ):
        before = (await store.state_hash()).digest
        await connection.execute(fault)
        assert (await store.state_hash()).digest != before


@pytest.mark.parametrize("decision", WORK[:3])
async def test_a_ticket_that_goes_on_before_it_was_opened_is_refused_and_nothing_is_kept(
    connection: AsyncConnection[Any], decision: Any
) -> None:
    book = Book("eu")
    ticket = book.ticket(book.register())
    seen = len(book.entries)
    book.work(ticket, decision)
    gap = book.batch(seen + 1)
    store, own = PostgresStore(Tickets(), connection), in_memory()
    with pytest.raises(OutOfOrder) as one:
        await store.apply(await store.open(), gap)
    with pytest.raises(OutOfOrder) as other:
        own.apply(gap._replace(before=own.at("eu")))
    assert str(one.value) == str(other.value) == "of 1 tickets that went on, 0 had been opened"
    assert own.state_hash() == in_memory().state_hash() == await store.state_hash()


def test_a_ticket_is_opened_once() -> None:
    book = Book("eu")
    book.ticket(book.register(), Priority.HIGH)
    store = in_memory()
    store.apply(book.batch())
    with pytest.raises(OutOfOrder, match="twice"):
        store.apply(book.batch()._replace(before=store.at("eu")))


def test_what_is_due_next_changes_with_the_answer_and_the_end() -> None:
    book = Book("eu")
    ticket = book.ticket(book.register())
    due = []
    for decision in (
        lambda ticket, at: [],
        lambda ticket, at: tickets.answer(ticket, text="Here.", at=at),
        lambda ticket, at: tickets.close(ticket, resolution=Resolution.SOLVED, at=at),
    ):
        book.work(ticket, decision)
        row = dict(zip(Tickets.tables[0].columns, replayed(book, []).tables["ticket"][ticket], strict=True))
        due.append((row["due_at"] == row["first_response_due"], row["due_at"] == row["resolution_due"], row["status"]))
    assert due == [(True, False, "open"), (False, True, "open"), (False, True, "closed")]
