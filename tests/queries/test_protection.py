from __future__ import annotations

from datetime import timedelta

import pytest

from domain import players, protection
from domain.errors import NotFound
from domain.kernel import PlayerId
from domain.protection import Said, Source, Stop, TimedOut
from policies.protection import Moment, term
from queries import players as cards
from queries import protection as shown
from tests.projections.books import NOON, Book, write
from tests.queries.house import House

NOBODY = PlayerId("player_01ka7g0000e00800000000001a")


async def test_what_shuts_a_player_out_is_shown_as_the_log_has_it_by_now(house: House) -> None:
    book = Book("eu")
    ada = book.register()
    await house.project(book)
    assert (await shown.card(house.context, ada, NOON)).closed == {}
    book.protect(
        ada, lambda s, p, at: protection.exclude(s, p, wanted=term("6_months"), source=Source.PLAYER, at=at)
    )  # fmt: skip
    book.protect(
        ada, lambda s, p, _at: protection.stop(s, p, action=Stop.WITHDRAW, reason="fraud", intervention=None)
    )  # fmt: skip
    book.hear_register(ada, Said.CLEAR, Moment.LOGIN)
    write(house.dsn, book)  # and no read model has it yet
    card = await shown.card(house.context, ada, NOON + timedelta(hours=1))
    (excluded,) = card.exclusions
    assert (excluded.source, excluded.term, excluded.ends_at) == (Source.PLAYER, "6_months", None)
    assert card.closed == {
        "deposit": "excluded", "free_play": "excluded", "bet": "excluded", "bonus": "excluded", "login": "excluded",
        "withdraw": "action_blocked",
    }  # fmt: skip
    assert card.stopped == {"withdraw": ["fraud"]}
    assert [(each.register, each.answer) for each in card.registers] == [("OASIS", Said.CLEAR)]


async def test_a_time_out_is_shown_with_the_account_from_which_it_was_taken_over(house: House) -> None:
    book = Book("eu")
    ada, bob = book.register(), book.register()
    theirs = protection.fold(
        protection.Protection(), [TimedOut(until=NOON + timedelta(days=2), source=Source.PLAYER)], NOON
    )
    book.protect(ada, lambda s, p, at: protection.exclude_matched(s, p, of=bob, theirs=theirs, at=at))
    await house.project(book)
    card = await shown.card(house.context, ada, NOON)
    assert [(each.source, each.until, each.of) for each in card.time_outs] == [
        (Source.MATCHED, NOON + timedelta(days=2), bob)
    ]
    assert (await shown.card(house.context, ada, NOON + timedelta(days=3))).time_outs == []


async def test_nobody_is_protected_who_is_not_there(house: House) -> None:
    with pytest.raises(NotFound):
        await shown.card(house.context, NOBODY, NOON)


async def test_marketing_hears_of_an_exclusion_at_once_and_needs_a_register_that_has_said_clear(house: House) -> None:
    book = Book("eu")
    ada = book.register()
    book.know(ada, lambda p, *_: players.give_consent(p, channels=[players.Channel.SMS]))
    await house.project(book)
    assert (await cards.may_contact(house.context, ada, "sms", NOON)).reason == "register_not_asked"
    book.hear_register(ada, Said.CLEAR)
    write(house.dsn, book)
    assert (await cards.may_contact(house.context, ada, "sms", NOON)).allowed
    book.protect(ada, lambda s, p, at: protection.panic(s, p, at=at))
    write(house.dsn, book)
    assert (await cards.may_contact(house.context, ada, "sms", NOON)).reason == "timed_out"
