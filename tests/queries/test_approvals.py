from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import timedelta

import pytest

from domain import approvals as decisions
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import ApprovalId, PlayerId
from queries import approvals
from queries.asof import UnknownMoment
from queries.context import write_cursor
from tests.projections.books import NOON, SALT, Book
from tests.queries.house import House

DAY = timedelta(days=1)


async def test_an_approval_is_shown_with_exactly_what_was_asked(house: House) -> None:
    book = Book("eu")
    player = book.register()
    approval = book.ask(player, '{"amount":  1}')
    await house.project(book)
    found = await approvals.get(house.context, approval)
    path = f"/v1/players/{player}/adjustments"
    assert (found.player, found.status, found.version) == (player, "awaiting_approval", 1)
    assert (found.path, found.body, found.hash) == (
        path,
        '{"amount":  1}',
        decisions.digest(path, SALT, '{"amount":  1}'),
    )
    assert (found.requester, found.reasons) == ("operator:maria", ["operator_day", "player_day"])
    assert (found.expires_at, found.decided_at, found.decided_by) == (NOON + DAY, None, None)
    book.answer(approval, lambda state, at: decisions.reject(state, reason="no ticket", at=at))
    await house.project(book)
    found = await approvals.get(house.context, approval)
    assert (found.status, found.version, found.decided_by, found.reject_reason) == (
        "rejected", 2, "operator:test", "no ticket"
    )  # fmt: skip


async def test_whoever_may_read_nothing_personal_sees_who_asks_for_what_and_no_words(house: House) -> None:
    book = Book("eu")
    approval = book.ask(book.register())
    book.answer(approval, lambda state, at: decisions.reject(state, reason="no ticket", at=at))
    await house.project(book)
    blind = dataclasses.replace(house.context, open_personal=nothing)
    [listed] = (await approvals.page(blind)).items
    for found in (listed, await approvals.get(blind, approval)):
        assert (found.body, found.salt, found.reject_reason) == (None, None, None)
        assert (found.requester, found.decided_by) == ("operator:maria", "operator:test")
    [listed] = (await approvals.page(house.context)).items
    assert (listed.body, listed.salt, listed.reject_reason) == ("{}", SALT, "no ticket")


async def nothing(*_: object) -> Mapping[str, str]:
    """What a token opens that may not."""
    return {}


async def test_what_lapses_first_comes_first_page_by_page(house: House) -> None:
    book = Book("eu")
    player, other = book.register(), book.register()
    asked = []
    for _ in range(4):
        asked += [book.ask(player), book.ask(other)]
        book.wait(timedelta(hours=1))
    await house.project(book)
    found, cursor = [], None
    while True:
        page = await approvals.page(house.context, cursor=cursor, limit=3)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [each.expires_at for each in found] == sorted(each.expires_at for each in found)
    assert sorted(each.id for each in found) == sorted(asked)
    of_one = await approvals.page(house.context, player=player)
    assert [each.id for each in of_one.items] == asked[::2]
    soon = await approvals.page(house.context, due_before=(NOON + DAY + timedelta(hours=1)).isoformat())
    assert {each.id for each in soon.items} == set(asked[:2])


async def test_what_waits_is_told_from_what_has_ended(house: House) -> None:
    book = Book("eu")
    player = book.register()
    done, waiting = book.ask(player), book.ask(player)
    book.answer(done, lambda state, _at: [decisions.Approved(state.hash)])
    await house.project(book)
    for status, expected in (("awaiting_approval", [waiting]), ("approved", [done]), ("expired", [])):
        assert [each.id for each in (await approvals.page(house.context, status=status)).items] == expected


async def test_nothing_and_nonsense(house: House) -> None:
    nothing = "approval_01ka7g0000e00800000000001a"
    with pytest.raises(NotFound):
        await approvals.get(house.context, ApprovalId(nothing))
    with pytest.raises(InvalidId):
        await approvals.get(house.context, ApprovalId("approval_1"))
    with pytest.raises(InvalidId):
        await approvals.page(house.context, player=PlayerId(nothing))
    for cursor in (write_cursor(10**30, nothing), write_cursor(1, "\0"), write_cursor("x"), "%"):
        with pytest.raises(Invalid):
            await approvals.page(house.context, cursor=cursor)
    with pytest.raises(UnknownMoment):
        await approvals.page(house.context, due_before="soon")
    for status in ("unknown", "asleep"):
        with pytest.raises(Invalid):
            await approvals.page(house.context, status=status)
