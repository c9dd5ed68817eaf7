from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

import domain.players
from domain import kyc, logins
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import Money, PlayerId
from domain.players import Channel, DataKey, ProfileRecorded
from policies.gates import Level
from queries import players
from queries.players import Balance, DepositLimit, KycState, Personal, Profile
from tests.projections.books import NOON, Book
from tests.projections.knowing import Learnt
from tests.queries.house import House

PROFILE = ProfileRecorded(
    jurisdiction="AT", language="de", acquisition_source="affiliate 7", city="Wien", email="new", phone="34"
)
APPROVE: Learnt = lambda p, k, _l, at: kyc.approve(  # noqa: E731
    k, p, approved=kyc.Approved(Level.IDENTITY, "document", age_verified=True), at=at
)


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
    assert card.balances == [Balance("EUR", cash=550, reserved=20, deposited=570, deposits=2, bonus=0, receivable=0)]
    assert card.deposit_limit == DepositLimit(Money(800, "EUR"), date(2026, 3, 1), 500)
    assert card.version == "2.3.2.0"


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
    assert (card.balances, card.deposit_limit, card.version) == ([], None, "1.0.0.0")
    assert card.personal == Personal(sealed=False)


async def test_the_version_of_a_card_changes_with_everything_on_it(house: House) -> None:
    book = Book("eu")
    player = book.register()
    seen = set()
    for act in (lambda: None, lambda: book.limit(player, 9), lambda: book.imported(player, 5, "2025-01-01T00:00:00Z"),
                lambda: book.know(player, APPROVE), lambda: book.block(player)):  # fmt: skip
        act()
        await house.project(book)
        seen.add((await players.card(house.context, player)).version)
    assert len(seen) == 5


async def test_a_card_says_what_is_known_of_a_player(house: House) -> None:
    book = Book("eu")
    player = book.register(name="Ada", email="old", phone="12")
    book.know(player, lambda p, _k, _l, at: domain.players.record_profile(
        p, profile=PROFILE, birth_date=None, at=at, alike={"email": ["b", "a"]}))  # fmt: skip
    book.know(player, lambda p, *_: domain.players.give_consent(p, channels=[Channel.SMS]))
    book.know(player, lambda p, *_: domain.players.tag(p, tag="vip"))
    book.know(player, lambda p, k, _l, at: kyc.request(
        k, p, level=Level.ENHANCED, due_at=NOON, at=at, provider="ident"))  # fmt: skip
    book.know(player, APPROVE)
    book.know(player, lambda p, _k, login, _at: logins.succeed(
        login, p, succeeded=logins.Succeeded(session="1", device="ios", country="AT", address="192.0.2.1")))  # fmt: skip
    await house.project(book)
    card = await players.card(house.context, player)
    assert card.personal == Personal(sealed=True, name="Ada", phone="34", city="Wien")  # the house opens no e-mail
    facts = card.facts
    assert facts.profile == Profile("AT", language="de", acquisition_source="affiliate 7")
    assert (facts.consents, facts.tags, facts.duplicates) == ((Channel.SMS,), ("vip",), ("player_a", "player_b"))
    assert facts.kyc == KycState(
        kyc.Status.APPROVED, Level.IDENTITY, "document", age_verified=True, wanted=Level.ENHANCED, due_at=NOON,
        given={Level.ENHANCED: "ident"},
    )  # fmt: skip
    assert facts.last_login is not None
    assert (facts.last_login.device, facts.last_login.country, facts.last_login.failures) == ("ios", "AT", 0)
    opened = {event: sorted(asked) for event, _, asked in house.opened}
    assert opened == {"id-eu-2": ["data.name"], "id-eu-3": ["data.city", "data.email", "data.phone"]}


async def test_pages_of_some_players_hold_those_alone(house: House) -> None:
    book = Book("eu")
    one = book.register()
    book.wait(timedelta(days=2))
    two, three = book.register(), book.register()
    book.block(two)
    for player in (one, three):
        book.know(player, lambda p, *_: domain.players.tag(p, tag="vip"))
    book.know(one, lambda p, *_: domain.players.untag(p, tag="vip"))
    await house.project(book)
    for chosen, expected in (
        ({"status": "blocked"}, [two]),
        ({"status": "active", "tag": "vip"}, [three]),
        ({"brand": "north", "country": "DE"}, [three, two, one]),
        ({"country": "AT"}, []),
        ({"registered_to": "2026-03-02"}, [one]),
        ({"registered_from": "2026-03-03T12:00:00Z"}, [three, two]),
    ):
        found = await players.page(house.context, None, 50, **chosen)
        assert [item.id for item in found.items] == expected, chosen
    first = await players.page(house.context, None, 1, country="DE", registered_from="2026-03-02")
    rest = await players.page(house.context, first.next_cursor, 1, country="DE", registered_from="2026-03-02")
    assert [item.id for item in (*first.items, *rest.items)] == [three, two]
    assert rest.next_cursor is None


@pytest.mark.parametrize("chosen", [{"status": "odd"}, {"tag": "a\0"}, {"registered_to": "soon"}])
async def test_a_choice_that_cannot_be_meant_is_refused(house: House, chosen: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        await players.page(house.context, None, 50, **chosen)


async def test_nobody_there(house: House) -> None:
    with pytest.raises(NotFound):
        await players.card(house.context, PlayerId("player_01ka7g0000e00800000000001a"))
    with pytest.raises(InvalidId):
        await players.card(house.context, PlayerId("ticket_01ka7g0000e00800000000001a"))


async def test_pages_hold_every_player_once_those_who_registered_last_first(house: House) -> None:
    eu, us = Book("eu"), Book("us")
    expected = []
    for _ in range(7):
        for book in (eu, us):
            book.wait(timedelta(minutes=10 + 5 * (book is us)))
            expected.append((book._now, book.register()))
    await house.project(eu, us)
    found, cursor = [], None
    while True:
        page = await players.page(house.context, cursor, 5)
        found += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [player for _, player in sorted(expected, reverse=True)]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "é", "W10", "WzFd", "bnVsbA"])
async def test_a_cursor_of_ours_or_none(house: House, cursor: str) -> None:
    with pytest.raises(Invalid):
        await players.page(house.context, cursor)


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_page_has_one_to_two_hundred_items(house: House, limit: int) -> None:
    with pytest.raises(Invalid):
        await players.page(house.context, None, limit)
