"""What the pure functions make of events."""

from __future__ import annotations

from datetime import timedelta

from domain.transactions import DepositFailed
from projections.dashboard import AMOUNTS, COUNTS, TOTALS, Dashboard
from projections.players import Players
from projections.projection import Events
from projections.segments import Segments, deposited
from projections.transactions import Transactions
from projections.wallets import Wallets
from tests.projections.books import Book


def suffix(id_: str) -> str:
    return id_.rpartition("_")[2]


def test_a_deposit_counts_on_the_day_on_which_it_was_settled_not_requested() -> None:
    book = Book("eu")
    transaction = book.request(book.register(), 500)
    book.wait(timedelta(days=3))
    book.settle(transaction)
    changes = Dashboard().changes(book.batch().events)
    assert changes.hashes[COUNTS] == {"2026-03-04 EUR": 1}
    assert changes.hashes[AMOUNTS] == {"2026-03-04 EUR": 500}


def test_a_deposit_of_the_past_counts_on_its_day_in_utc() -> None:
    book = Book("eu")
    player = book.register()
    book.imported(player, 500, "2024-12-31T23:30:00-01:00")
    book.imported(player, 70, "2025-01-01T00:00:00.000001Z")
    assert Dashboard().changes(book.batch().events).hashes[AMOUNTS] == {"2025-01-01 EUR": 570}


def test_what_is_not_settled_is_not_counted() -> None:
    book = Book("eu")
    player = book.register()
    book.request(player, 500)
    book.fail(book.request(player, 300))
    events = book.batch().events
    assert Dashboard().changes(events).hashes == {TOTALS: {"players": 1}}
    assert Segments().changes(events).scores == {}


def test_a_credit_that_settles_no_deposit_is_none() -> None:
    book = Book("eu")
    book.imported(book.register(), 500, "2025-01-01T00:00:00Z")
    credit_alone = Events(event for event in book.batch().events if event.body.type == "wallet.credited")
    assert Segments().changes(credit_alone).scores == {}
    assert next(iter(Players().changes(credit_alone).balances.values())).cash == 500


def test_a_players_deposits_are_added_up_per_currency() -> None:
    book = Book("eu")
    ada, bob = book.register("EUR"), book.register("SEK")
    for amount in (100, 250):
        book.settle(book.request(ada, amount))
    book.imported(bob, 40, "2025-01-01T00:00:00Z")
    assert Segments().changes(book.batch().events).scores == {
        deposited("EUR"): {suffix(ada): 350},
        deposited("SEK"): {suffix(bob): 40},
    }


def test_a_registration_keeps_the_sealed_fields_and_the_event_that_sealed_them() -> None:
    book = Book("eu")
    player = book.register(name="Ada", email="ada@example.com")
    card = Players().changes(book.batch().events).registered[suffix(player)]
    assert card.sealed_by == book.batch().events[-1].body.id
    key = suffix(player)
    assert (
        card.personal
        == f'{{"name":{{"sealed":"sealed Ada","key":"{key}"}},"email":{{"sealed":"sealed ada@example.com","key":"{key}"}}}}'
    )


def test_a_player_who_is_blocked_in_the_batch_of_the_registration_is_one_row() -> None:
    book = Book("eu")
    player = book.register()
    book.block(player, "fraud")
    changes = Players().changes(book.batch().events)
    assert changes.later == {}
    assert changes.registered[suffix(player)].block_reason == "fraud"
    assert changes.registered[suffix(player)].version == 2


def test_a_transaction_that_ends_in_the_batch_of_its_request_is_one_row() -> None:
    book = Book("eu")
    transaction = book.request(book.register(), 500)
    book.settle(transaction)
    changes = Transactions().changes(book.batch().events)
    assert changes.later == {}
    row = changes.requested[transaction]
    assert (row.version, row.status, row.settled) == (2, "settled", 500)


def test_a_transaction_that_ends_later_is_an_update() -> None:
    book = Book("eu")
    transaction = book.request(book.register(), 500)
    last = len(book.entries)
    book.fail(transaction, "declined")
    changes = Transactions().changes(book.batch(last + 1).events)
    assert changes.requested == {}
    [failed] = changes.later[transaction]
    assert isinstance(failed.event, DepositFailed)


def test_the_postings_of_every_batch_sum_to_zero() -> None:
    book = Book("eu")
    player = book.register()
    book.settle(book.request(player, 500))
    book.reserve(player, 200)
    changes = Wallets().changes(book.batch().events)
    assert {account: total for (account, _), (total, _) in changes.items()} == {
        "psp:test": -500,
        "cash": 300,
        "reserved": 200,
    }
