from __future__ import annotations

from datetime import UTC, datetime

import pytest

from domain.errors import NotFound
from domain.kernel import Money, PlayerId, TransactionId
from queries import transactions, wallets
from tests.projections.books import Book
from tests.queries.house import House


async def test_a_transaction_is_found_by_its_id(house: House) -> None:
    book = Book("eu")
    player = book.register()
    transaction = book.request(player, 500, reference="abc")
    await house.project(book)
    found = await transactions.get(house.context, transaction)
    assert (found.player, found.status, found.money, found.reference) == (player, "requested", Money(500, "EUR"), "abc")
    book.fail(transaction, "declined")
    await house.project(book)
    found = await transactions.get(house.context, transaction)
    assert (found.status, found.failure_reason, found.version) == ("failed", "declined", 2)
    assert found.failed_at is not None
    assert found.settled_at is None


async def test_history_shows_when_it_happened(house: House) -> None:
    book = Book("eu")
    transaction = book.imported(book.register(), 5, "2025-01-01T00:30:00+01:00")
    await house.project(book)
    found = await transactions.get(house.context, transaction)
    assert found.requested_at == found.settled_at == datetime(2024, 12, 31, 23, 30, tzinfo=UTC)
    assert found.reference is None


async def test_a_players_transactions_are_paged_last_requested_first(house: House) -> None:
    book = Book("eu")
    player, other = book.register(), book.register()
    book.imported(other, 1, "2025-01-01T00:00:00Z")
    expected = [book.imported(player, 5, f"2025-01-{day:02}T00:00:00Z") for day in (3, 1, 7, 5, 9, 2)]
    same_moment = [book.imported(player, 5, "2025-01-04T00:00:00Z") for _ in range(4)]
    await house.project(book)
    found, cursor = [], None
    while True:
        page = await transactions.of_player(house.context, player, cursor, 3)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(item.id for item in found) == sorted(expected + same_moment)
    assert [item.requested_at for item in found] == sorted((item.requested_at for item in found), reverse=True)


async def test_nobody_and_nothing(house: House) -> None:
    nobody = PlayerId("player_01ka7g0000e00800000000001a")
    with pytest.raises(NotFound):
        await transactions.of_player(house.context, nobody)
    with pytest.raises(NotFound):
        await transactions.get(house.context, TransactionId("transaction_01ka7g0000e00800000000001a"))
    book = Book("eu")
    player = book.register()
    await house.project(book)
    assert (await transactions.of_player(house.context, player)).items == []


async def test_the_books_balance_in_every_currency(house: House) -> None:
    assert (await wallets.trial_balance(house.context)).balanced
    book = Book("eu")
    book.imported(book.register("EUR"), 500, "2025-01-01T00:00:00Z")
    book.imported(book.register("SEK"), 70, "2025-01-01T00:00:00Z")
    await house.project(book)
    found = await wallets.trial_balance(house.context)
    assert (found.balanced, found.sums) == (True, {"EUR": 0, "SEK": 0})
    assert [(a.account, a.balance) for a in found.accounts if a.currency == "EUR"] == [
        ("cash", 500),
        ("psp:test", -500),
    ]
    assert found.positions == {"eu": len(book.entries)}
    await house.connection.execute(
        "UPDATE read.account SET balance = balance + 1 WHERE account = 'cash' AND currency = 'SEK'"
    )
    assert not (await wallets.trial_balance(house.context)).balanced
