"""A cursor that nobody was given is refused, whichever list it is shown to."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from domain.errors import Invalid
from domain.kernel import Money
from queries import approvals, audit, players, segments, tickets, tiles, timeline, transactions
from queries.context import Context, read_cursor, write_cursor
from tests.queries.house import House

PLAYER: Any = f"player_{'0' * 26}"
TICKET: Any = f"ticket_{'0' * 26}"
APPROVAL = f"approval_{'0' * 26}"
FAR = 10**18

ODD: list[tuple[Callable[[Context, str], Awaitable[Any]], list[Any]]] = [
    (players.page, [FAR, "x"]),
    (lambda c, cursor: players.page(c, cursor, among=[PLAYER]), [1, "\0"]),
    (lambda c, cursor: transactions.page(c, cursor=cursor), [FAR, "x"]),
    (lambda c, cursor: transactions.of_player(c, PLAYER, cursor), [FAR, "x"]),
    (lambda c, cursor: approvals.page(c, cursor=cursor), [FAR, APPROVAL]),
    (lambda c, cursor: tickets.page(c, cursor=cursor), [FAR, "x"]),
    (lambda c, cursor: tickets.get(c, TICKET, cursor), [2**63]),
    (lambda c, cursor: timeline.history(c, PLAYER, cursor), [2**63, "eu", 1]),
    (lambda c, cursor: timeline.history(c, PLAYER, cursor), [1, "\0", 1]),
    (lambda c, cursor: timeline.notes(c, PLAYER, cursor), [2**63]),
    (lambda c, cursor: audit.page(c, "eu", cursor=cursor), [2**63]),
    (lambda c, cursor: tiles.heads(c, "eu", cursor=cursor), [2**64]),
    (lambda c, cursor: segments.deposited_at_least(c, Money(1, "EUR"), cursor), [2**63, "x"]),
]


@pytest.mark.parametrize(("asked", "place"), ODD)
async def test_a_place_that_no_list_has_is_no_cursor(
    house: House, asked: Callable[[Context, str], Awaitable[Any]], place: list[Any]
) -> None:
    with pytest.raises(Invalid):
        await asked(house.context, write_cursor(*place))


@pytest.mark.parametrize("us", [-62_135_596_800_000_000, -1, 0, 253_402_300_799_999_999])
async def test_every_time_that_there_is_may_stand_in_a_cursor(house: House, us: int) -> None:
    cursor = write_cursor(us, "x")
    assert read_cursor(cursor, tuple[int, str]) == (us, "x")
    assert (await transactions.page(house.context, cursor=cursor)).items == []
    with pytest.raises(Invalid):
        read_cursor(write_cursor(us + (1 if us > 0 else -(10**17)), "x"), tuple[int, str])


@pytest.mark.parametrize("raw", [b"[" * 10**6, b'["\\ud800"]', b"[1e400]"])
def test_what_no_cursor_is_made_of_is_none(raw: bytes) -> None:
    with pytest.raises(Invalid):
        read_cursor(base64.urlsafe_b64encode(raw).decode().rstrip("="), tuple[str])


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
async def test_the_edges_of_the_calendar_are_times_too(house: House, at: str) -> None:
    assert (await approvals.page(house.context, due_before=at)).items == []
    assert (await tickets.page(house.context, due_before=at)).items == []
    assert (await players.page(house.context, registered_from=at)).items == []
    assert (await transactions.page(house.context, requested_from=at)).items == []
