from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from domain import players
from domain.errors import Invalid, NotFound
from domain.kernel import PlayerId
from domain.protection import Said
from queries import players as cards
from queries import timeline
from queries.players import MayContact
from tests.projections.books import NOON, Book, write
from tests.queries.house import House

NOBODY = PlayerId("player_01ka7g0000e00800000000001a")


async def test_a_timeline_holds_everything_of_a_player_once_the_newest_first(house: House) -> None:
    book = Book("eu")
    ada, bob = book.register(name="Ada"), book.register(name="Bob")
    for player in (ada, bob):
        book.settle(book.request(player, 500))
        book.know(player, lambda p, *_: players.note(p, text="Hm."))
        book.ticket(player)
        book.wait(timedelta(hours=1))
    await house.project(book)
    found, cursor = [], None
    while True:
        page = await timeline.history(house.context, ada, cursor, 3)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [each.type for each in found][::-1] == [
        "player.registered",
        "transaction.deposit_requested",
        "limits.headroom_consumed",
        "transaction.deposit_settled",
        "wallet.credited",
        "player.noted",
        "ticket.opened",
    ]
    assert [each.position for each in found] == sorted((each.position for each in found), reverse=True)
    assert found[0].actor == "operator:test"


async def test_what_is_sealed_stays_sealed_in_a_timeline(house: House) -> None:
    book = Book("eu")
    ada = book.register(name="Ada")
    await house.project(book)
    [registered] = (await timeline.history(house.context, ada)).items
    assert msgspec.json.decode(registered.data)["name"]["sealed"] == "sealed Ada"
    assert house.opened == []


async def test_notes_are_opened_the_newest_first(house: House) -> None:
    book = Book("eu")
    ada = book.register()
    for text in ("one", "two", "three"):
        book.know(ada, lambda p, _k, _l, _at, text=text: players.note(p, text=text))  # type: ignore[misc]
    await house.project(book)
    page = await timeline.notes(house.context, ada, None, 2)
    assert [note.text for note in page.items] == ["three", "two"]
    rest = await timeline.notes(house.context, ada, page.next_cursor, 2)
    assert ([note.text for note in rest.items], rest.next_cursor) == (["one"], None)
    event_id, key, asked = house.opened[0]
    assert (event_id, key.id, list(asked)) == (page.items[0].id, ada.removeprefix("player_"), ["data.text"])


async def test_nobody_has_a_timeline_notes_or_consents(house: House) -> None:
    for asked in (
        timeline.history(house.context, NOBODY),
        timeline.notes(house.context, NOBODY),
        cards.may_contact(house.context, NOBODY, "sms", NOON),
    ):
        with pytest.raises(NotFound):
            await asked


async def test_marketing_hears_of_a_withdrawn_consent_at_once(house: House) -> None:
    book = Book("eu")
    ada = book.register()
    book.know(ada, lambda p, *_: players.give_consent(p, channels=[players.Channel.SMS]))
    book.hear_register(ada, Said.CLEAR)
    await house.project(book)
    told = await cards.may_contact(house.context, ada, "sms", NOON)
    assert told == MayContact(ada, players.Channel.SMS, allowed=True, reason=None)
    assert (await cards.may_contact(house.context, ada, "email", NOON)).reason == "no_consent"
    book.know(ada, lambda p, *_: players.withdraw_consent(p, channels=[players.Channel.SMS]))
    write(house.dsn, book)
    told = await cards.may_contact(house.context, ada, "sms", NOON)
    assert (told.allowed, told.reason) == (False, "no_consent")
    with pytest.raises(Invalid):
        await cards.may_contact(house.context, ada, "fax", NOON)
