"""A list touches about as many rows as it shows, however few of many thousand are wanted: with the plans that readers have."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain import players as decisions
from queries import approvals, listing, players, tickets, timeline, transactions
from tests.projections.books import NOON, Book
from tests.queries.explaining import DEFAULTS, READERS, Explained
from tests.queries.house import House

SECOND = timedelta(seconds=1)
ROWS = 4_000
RARE = 3
_FILL = {
    "player": """
        INSERT INTO read.player (id, version, status, brand, country, currency, registered_at, sealed_by, personal)
        SELECT 'player_' || lpad(n::text, 26, '0'), 1, 'active', 'north', 'DE', 'EUR', %s + n * interval '1 s', 'x', '{}'
          FROM generate_series(1, %s) AS n""",
    "transaction": """
        INSERT INTO read.transaction (id, version, player, kind, status, amount, currency, provider, reference, requested_at)
        SELECT 'transaction_' || lpad(n::text, 26, '0'), 1, 'player_x', 'deposit', 'settled', 1, 'EUR', 'acme', '',
               %s + n * interval '1 s'
          FROM generate_series(1, %s) AS n""",
    "ticket": """
        INSERT INTO read.ticket (id, version, player, status, priority, channel, opened_by, assignee, opened_at, first_response_due,
                                 resolution_due, due_at, awaits_answer, first_response_missed, resolution_missed)
        SELECT 'ticket_' || lpad(n::text, 26, '0'), 1, 'player_x', 'open', 'normal', 'email', 'player', 'operator:maria',
               now(), now(), now(), %s - n * interval '1 s', 0, 0, 0
          FROM generate_series(1, %s) AS n""",
    "approval": """
        INSERT INTO read.approval (id, version, player, status, action, path, hash, reasons, requester, requested_at,
                                   expires_at)
        SELECT 'approval_' || lpad(n::text, 26, '0'), 1, 'player_x', 'expired', 'a', 'p', 'h', 'r', 'q', now(),
               %s - n * interval '1 s'
          FROM generate_series(1, %s) AS n""",
}
"""Rows that are all alike. Those with the smallest n come last in their list."""
_ANOTHER = f"player_{26 * '1'}"
_PAGES: dict[str, Any] = {
    "player": players.page,
    "transaction": transactions.page,
    "ticket": tickets.page,
    "approval": approvals.page,
}
FILTERS = {
    "player": [*(("status", each) for each in ("blocked", "pending", "closed")), ("brand", "south"), ("country", "MT")],
    "transaction": [("status", "disputed"), ("kind", "withdrawal"), ("provider", "other")],
    "ticket": [("status", "closed"), ("priority", "urgent"), ("assignee", "operator:ben"), ("player", _ANOTHER)],
    "approval": [("status", "awaiting_approval"), ("player", _ANOTHER)],
}
"""The filters of each list, with a value that few rows have."""


async def filled(house: House, table: str, statistics: str = "fresh", **rare: str) -> None:
    """Rows that are alike, but for the last few of the list, which have these values. `statistics`: none, or stale: they do
    not know of these yet.
    """
    await house.connection.execute(f"TRUNCATE read.{table}".encode())
    await house.connection.execute(_FILL[table].encode(), (NOON, ROWS))
    if statistics == "stale":
        await house.connection.execute(f"ANALYZE read.{table}".encode())
    for column, value in rare.items():
        change = f"UPDATE read.{table} SET {column} = %s WHERE id <= '{table}_' || lpad(%s::text, 26, '0')"
        await house.connection.execute(change.encode(), (value, RARE))
    if statistics == "fresh":
        await house.connection.execute(f"ANALYZE read.{table}".encode())


async def of_two_pages(page: Any, explained: Explained, **chosen: str) -> list[str]:
    first = await page(explained, limit=2, **chosen)
    rest = await page(explained, limit=2, cursor=first.next_cursor, **chosen)
    assert [len(first.items), len(rest.items), rest.next_cursor] == [2, 1, None]
    return [each.id for each in (*first.items, *rest.items)]


@pytest.mark.parametrize("table", list(FILTERS))
async def test_of_what_is_rare_only_its_own_rows_are_read(house: House, explained: Explained, table: str) -> None:
    for (column, value), statistics in itertools.product(FILTERS[table], ["none", "stale", "fresh"]):
        await filled(house, table, statistics, **{column: value})
        found = await of_two_pages(_PAGES[table], explained, **{column: value})
        assert found == [f"{table}_{n:026}" for n in range(RARE, 0, -1)]
        assert max(explained.notes.touched) <= RARE, (column, explained.notes.touched)


@pytest.mark.parametrize("table", list(FILTERS))
async def test_what_is_rare_is_found_by_the_index_that_begins_with_it_however_plans_are_made(
    house: House, explained: Explained, table: str
) -> None:
    explained.notes.settings = DEFAULTS
    for column, value in FILTERS[table]:
        explained.notes.scans.clear()
        await filled(house, table, **{column: value})
        await of_two_pages(_PAGES[table], explained, **{column: value})
        for scan in explained.notes.scans:
            assert scan.kind in {"Index Scan", "Index Only Scan"}
            assert scan.index.startswith(f"{table}_{column}_")
        assert max(explained.notes.touched) <= RARE, explained.notes.touched


_EARLY, _LATE = RARE + 1, ROWS - RARE + 1


@pytest.mark.parametrize(
    ("table", "stretches"),
    [
        ("player", [{"registered_to": NOON + _EARLY * SECOND}, {"registered_from": NOON + _LATE * SECOND}]),
        ("transaction", [{"requested_to": NOON + _EARLY * SECOND}, {"requested_from": NOON + _LATE * SECOND}]),
        ("ticket", [{"due_before": NOON - (ROWS - RARE) * SECOND}]),
        ("approval", [{"due_before": NOON - (ROWS - RARE) * SECOND}]),
    ],
)
async def test_of_a_short_time_only_its_own_rows_are_read(
    house: House, explained: Explained, table: str, stretches: list[dict[str, datetime]]
) -> None:
    await filled(house, table)
    for chosen, settings in itertools.product(stretches, [READERS, DEFAULTS]):
        explained.notes.settings = settings
        await of_two_pages(_PAGES[table], explained, **{name: at.isoformat() for name, at in chosen.items()})
        assert max(explained.notes.touched) <= RARE, explained.notes.touched
        assert {scan.kind for scan in explained.notes.scans} <= {"Index Scan", "Index Only Scan"}


async def test_of_several_filters_the_rarest_leads(house: House, explained: Explained) -> None:
    cases: list[tuple[str, dict[str, str], dict[str, str]]] = [
        ("player", {"country": "MT"}, {"status": "active", "brand": "north"}),
        ("player", {"brand": "south"}, {"status": "active", "registered_to": "2100-01-01"}),
        ("transaction", {"provider": "other"}, {"status": "settled", "requested_from": "2000-01-01T00:00:00Z"}),
        ("transaction", {"kind": "withdrawal"}, {"status": "settled", "provider": "acme"}),
        ("ticket", {"assignee": "operator:ben"}, {"status": "open", "priority": "normal"}),
        ("ticket", {"priority": "urgent"}, {"status": "open", "assignee": "operator:maria"}),
        ("approval", {"player": _ANOTHER}, {"status": "expired"}),
    ]
    for (table, rare, common), settings in itertools.product(cases, [READERS, DEFAULTS]):
        await filled(house, table, **rare)
        explained.notes.settings = settings
        explained.notes.touched.clear()
        await of_two_pages(_PAGES[table], explained, **rare, **common)
        counting, page, counting_again, page_again = explained.notes.touched
        assert max(counting, counting_again) <= listing.COUNTED_ROWS * len(common) + RARE
        assert max(page, page_again) <= RARE, (rare, explained.notes.touched)


async def test_players_with_a_rare_tag_are_read_by_it_and_those_with_a_common_one_in_order(
    house: House, explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(house, "player")
    tagged = "INSERT INTO read.player_tag SELECT %s, id FROM read.player ORDER BY id LIMIT %s"
    await house.connection.execute(tagged, ("rare", RARE))
    await house.connection.execute(tagged, ("common", ROWS))
    await house.connection.execute("ANALYZE read.player_tag")
    await of_two_pages(players.page, explained, tag="rare")
    assert max(explained.notes.touched) <= 3 * RARE, explained.notes.touched
    monkeypatch.setattr(players, "_TAGGED_MAX", 100)
    explained.notes.touched.clear()
    page = await players.page(explained, limit=2, tag="common")
    assert [each.id for each in page.items] == [f"player_{n:026}" for n in (ROWS, ROWS - 1)]
    assert max(explained.notes.touched) <= 100, explained.notes.touched


async def test_of_the_players_that_a_look_up_found_only_these_are_read(house: House, explained: Explained) -> None:
    await filled(house, "player")
    found: Any = [f"player_{n:026}" for n in (5, 70, 900)]
    first = await players.page(explained, limit=2, among=found)
    rest = await players.page(explained, first.next_cursor, 2, among=found)
    assert [each.id for each in (*first.items, *rest.items)] == found[::-1]
    assert max(explained.notes.touched) <= 2 * len(found), explained.notes.touched


async def test_a_walk_through_a_whole_table_is_noticed(house: House, explained: Explained) -> None:
    await filled(house, "player", status="blocked")
    either = "SELECT id FROM read.player WHERE (%s::text IS NULL OR status = %s) ORDER BY id DESC LIMIT 2"
    assert len(await explained.fetch(either, "blocked", "blocked")) == 2
    assert explained.notes.touched[-1] > ROWS - RARE


async def test_a_page_of_a_timeline_takes_the_bodies_of_its_own_events_only(house: House, explained: Explained) -> None:
    book = Book("eu")
    ada = book.register(name="Ada")
    for _ in range(40):
        book.know(ada, lambda p, *_: decisions.note(p, text="Hm."))
    await house.project(book)
    page = await timeline.history(explained, ada, None, 3)
    assert [each.version for each in page.items] == [41, 40, 39]
    assert max(explained.notes.sorted_bodies) <= 4, "and one to know whether there are more"
