from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import Money, PlayerId
from domain.players import DataKey
from queries import players
from queries.players import Balance, DepositLimit, Personal
from tests.projections.books import Book
from tests.queries.house import House


async def test_a_card_says_all_about_a_player(house: House) -> None:
    book = Book("eu")
    player = book.register(name="Ada", phone="12")
    book.settle(book.request(player, 500))
    book.imported(player, 70, "2025-01-01T00:00:00Z")
    book.limit(player, 800)
    book.reserve(player, 20)
    book.block(player, "fraud")
    await house.project(book)
    card = await players.card(house.context, player)
    assert (card.status, card.block_reason, card.player_version) == ("blocked", "fraud", 2)
    assert (card.brand, card.country, card.currency) == ("north", "DE", "EUR")
    assert card.registered_at == datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert card.personal == Personal(sealed=False, name="Ada", phone="12")
    assert card.balances == [Balance("EUR", cash=550, reserved=20, deposited=570, deposits=2)]
    assert card.deposit_limit == DepositLimit(Money(800, "EUR"), date(2026, 3, 1), 500)
    assert card.version == "2.3.2"


async def test_a_field_whose_key_is_elsewhere_stays_sealed(house: House) -> None:
    book = Book("eu")
    player = book.register(name="Ada", email="ada@example.com")
    await house.project(book)
    card = await players.card(house.context, player)
    assert card.personal == Personal(sealed=True, name="Ada", email=None)
    event_id, _, asked = house.opened[-1]
    assert event_id == "id-eu-2"
    assert set(asked) == {"data.name", "data.email"}
    assert asked["data.email"].sealed == "sealed ada@example.com"


async def test_fields_are_opened_with_the_key_that_the_registration_in_the_log_commits_to(house: House) -> None:
    book = Book("eu")
    player = book.register(name="Ada")
    book.block(player)
    await house.project(book)
    await house.connection.execute('UPDATE read.player SET personal = \'{"name": {"sealed": "x", "key": "planted"}}\'')
    await players.card(house.context, player)
    _, key, asked = house.opened[-1]
    assert asked["data.name"].key == "planted"
    assert key == DataKey(id=player.removeprefix("player_"), commitment="00")


async def test_a_player_without_money_or_limits_has_a_card(house: House) -> None:
    book = Book("eu")
    player = book.register()
    await house.project(book)
    card = await players.card(house.context, player)
    assert (card.balances, card.deposit_limit, card.version) == ([], None, "1.0.0")
    assert card.personal == Personal(sealed=False)


async def test_the_version_of_a_card_changes_with_everything_on_it(house: House) -> None:
    book = Book("eu")
    player = book.register()
    seen = set()
    for act in (lambda: None, lambda: book.limit(player, 9), lambda: book.imported(player, 5, "2025-01-01T00:00:00Z"),
                lambda: book.block(player)):  # fmt: skip
        act()
        await house.project(book)
        seen.add((await players.card(house.context, player)).version)
    assert len(seen) == 4


async def test_nobody_there(house: House) -> None:
    with pytest.raises(NotFound):
        await players.card(house.context, PlayerId("player_01ka7g0000e00800000000001a"))
    with pytest.raises(InvalidId):
        await players.card(house.context, PlayerId("ticket_01ka7g0000e00800000000001a"))


async def test_pages_hold_every_player_once_the_newest_ids_first(house: House) -> None:
    eu, us = Book("eu"), Book("us")
    expected = {book.register() for book in (eu, us) for _ in range(7)}
    await house.project(eu, us)
    found, cursor = [], None
    while True:
        page = await players.page(house.context, cursor, 5)
        found += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(expected, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "!!!!", "é", "W10", "WzFd", "bnVsbA"])
async def test_a_cursor_of_ours_or_none(house: House, cursor: str) -> None:
    with pytest.raises(Invalid):
        await players.page(house.context, cursor)


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_page_has_one_to_two_hundred_items(house: House, limit: int) -> None:
    with pytest.raises(Invalid):
        await players.page(house.context, None, limit)
