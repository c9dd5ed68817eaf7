from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from domain import operators as decisions
from domain import tokens
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import OperatorId
from queries import operators
from queries.context import open_nothing
from tests.projections.books import DAY, INVITATION, NOON, Book
from tests.queries.house import House


async def test_an_operator_is_shown_with_the_roles_of_now(house: House) -> None:
    book = Book("eu")
    otto = book.invite("Otto")
    book.manage(otto, lambda state, at: decisions.activate(state, invitation=INVITATION, at=at))
    book.manage(otto, lambda state, at: decisions.grant(state, role="risk", until=at + timedelta(hours=1), at=at))
    book.manage(otto, lambda state, at: decisions.grant(state, role="support", until=None, at=at))
    book.manage(otto, lambda state, at: decisions.scope(state, brands=("north",), countries=None, at=at))
    await house.project(book)
    context = dataclasses.replace(house.context, open_operators=house.context.open_personal)
    found = await operators.get(context, otto, NOON)
    assert (found.status, found.person, found.name, found.version) == ("active", "staff-0", "Otto", 5)
    assert [(each.role, each.until) for each in found.roles] == [("risk", NOON + timedelta(hours=1)), ("support", None)]
    assert (found.brands, found.countries, found.invited_until) == (["north"], None, None)
    later = await operators.get(context, otto, NOON + DAY)
    assert [each.role for each in later.roles] == ["support"]


async def test_names_are_opened_for_whoever_may_read_of_operators_and_no_others(house: House) -> None:
    """The right to read what is personal of players opens nothing of operators."""
    book = Book("eu")
    otto = book.invite("Otto")
    await house.project(book)
    found = await operators.get(house.context, otto, NOON)
    assert (found.name, found.email) == (None, None)
    assert house.opened == []
    may = dataclasses.replace(house.context, open_personal=open_nothing, open_operators=house.context.open_personal)
    assert (await operators.get(may, otto, NOON)).name == "Otto"


async def test_operators_are_listed_in_the_order_in_which_they_were_invited_page_by_page(house: House) -> None:
    book = Book("eu")
    for number in range(5):
        book.wait(timedelta(hours=1))
        book.invite(f"Otto{number}")
    book.manage(book.operators[1], lambda state, _at: decisions.suspend(state, reason="left"))
    await house.project(book)
    seen, cursor = [], None
    while True:
        page = await operators.page(house.context, NOON, cursor=cursor, limit=2)
        seen += [each.id for each in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == book.operators
    [left] = (await operators.page(house.context, NOON, status="suspended")).items
    assert left.id == book.operators[1]


async def test_tokens_are_listed_without_their_digests(house: House) -> None:
    book = Book("eu")
    one, two = book.issue(), book.issue("importer:crm")
    book.answer_for(one, lambda token, _at: tokens.confirm(token, person="staff-1"))
    await house.project(book)
    [confirmed] = (await operators.tokens(house.context, NOON, status="confirmed")).items
    assert (confirmed.id, confirmed.holder, confirmed.roles, confirmed.expired) == (
        one,
        "service:reports",
        ["viewer"],
        False,
    )
    assert (confirmed.issued_by, confirmed.brands, confirmed.expires) == ("staff-0", ["north"], NOON + DAY)
    assert "digest" not in confirmed.__struct_fields__
    shown = (await operators.tokens(house.context, NOON + DAY)).items
    assert [(each.id, each.expired) for each in shown] == [(one, True), (two, True)]


async def test_what_is_asked_is_checked(house: House) -> None:
    with pytest.raises(NotFound):
        await operators.get(house.context, OperatorId("operator_01m81j18g0e1pa2yb5e8r30c1a"), NOON)
    with pytest.raises(InvalidId):
        await operators.get(house.context, OperatorId("player_01m81j18g0e1pa2yb5e8r30c1a"), NOON)
    for wrong in ({"status": "unknown"}, {"status": "confirmed"}, {"cursor": "x"}, {"limit": 0}):
        with pytest.raises(Invalid):
            await operators.page(house.context, NOON, **wrong)  # type: ignore[arg-type]
