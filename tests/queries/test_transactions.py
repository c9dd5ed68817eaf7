from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from domain import transactions as payments
from domain.errors import Invalid, NotFound
from domain.kernel import Money, PlayerId, TransactionId
from queries import asof, funds, transactions, wallets
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
    [(event, key, _)] = house.opened
    assert event == f"id-eu-{len(book.entries) - 1}"
    assert key.commitment == "00", "as the registration has it"
    assert found.failed_at is not None
    assert found.settled_at is None


async def test_a_held_payout_shows_why_until_it_goes_on(house: House) -> None:
    book = Book("eu")
    player = book.register()
    book.settle(book.request(player, 500))
    out = book.withdraw(player, 100)
    assert out is not None
    book.record(payments.stream(out), [payments.WithdrawalApproved()])
    shown = []
    for why in ("player_blocked", "action_blocked", "action_blocked", ""):
        book.pay(out, lambda state, *_, why=why: payments.hold_payout(state, why=why))  # type: ignore[misc]
        await house.project(book)
        shown.append((await transactions.get(house.context, out)).held)
    assert shown == ["player_blocked", "action_blocked", "action_blocked", None]
    book.pay(out, lambda state, *_: payments.hold_payout(state, why="player_blocked"))
    book.pay(out, lambda state, *_: payments.send_withdrawal(state, reference="P-1"))
    await house.project(book)
    [_, found] = (await transactions.of_player(house.context, player)).items[::-1]
    assert (found.status, found.held) == ("sent", None)


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


async def test_payments_are_listed_by_where_they_stand_and_counted(house: House) -> None:
    book = Book("eu")
    player = book.register()
    settled, waiting = book.request(player, 500), book.request(player, 70)
    book.settle(settled)
    out = book.withdraw(player, 200)
    assert out is not None
    await house.project(book)

    async def ids(**chosen: str) -> set[str]:
        return {each.id for each in (await transactions.page(house.context, **chosen)).items}

    assert await ids() == {settled, waiting, out}
    assert await ids(status="requested") == {waiting}
    assert await ids(kind="withdrawal") == {out}
    assert await ids(provider="nobody") == await ids(requested_to="2020-01-01T00:00:00Z") == set()
    assert await ids(requested_from="2020-01-01T00:00:00Z", kind="deposit") == {settled, waiting}
    with pytest.raises(Invalid):
        await ids(status="lost in the post")
    summary = await transactions.summary(house.context)
    assert [(each.kind, each.status, each.count, each.amount.amount) for each in summary.items] == [
        ("deposit", "requested", 1, 70),
        ("deposit", "settled", 1, 500),
        ("withdrawal", "under_review", 1, 200),
    ]


async def test_all_payments_are_paged_without_gap_or_repeat(house: House) -> None:
    book = Book("eu")
    player = book.register()
    made = [book.imported(player, 5, "2025-01-04T00:00:00Z") for _ in range(7)]
    await house.project(book)
    found: list[str] = []
    cursor = None
    while True:
        page = await transactions.page(house.context, cursor=cursor, limit=3)
        found += [each.id for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(made, reverse=True)


async def test_a_day_of_the_players_funds_opens_as_the_one_before_has_closed(house: House) -> None:
    book = Book("eu")
    player = book.register()
    book.imported(player, 500, "2025-01-01T12:00:00Z")
    book.imported(player, 30, "2025-01-02T12:00:00Z")
    await house.project(book)
    for day, opening, received in ((1, 0, 500), (2, 500, 30), (3, 530, 0)):
        [held] = (await funds.report(house.context, date(2025, 1, day))).items
        assert (held.account, held.opening, held.received, held.paid) == ("cash", opening, received, 0)
        assert held.closing == opening + received
    assert (await funds.report(house.context, date(2024, 12, 31))).items == []


async def test_a_payment_as_of_then_knows_what_happened_on_its_own_stream_alone(house: House) -> None:
    """Nothing of the player's own is written when a deposit is authorised or disputed, and yet it is the player's."""
    book = Book("eu")
    player = book.register()
    deposit = book.request(player, 500)
    book.pay(deposit, lambda state, _wallet, _at: payments.authorise_deposit(state, reference="A-1"))
    await house.project(book)
    assert [each.status for each in (await asof.player(house.context, player)).transactions] == ["authorised"]
