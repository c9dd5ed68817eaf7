"""Pages of a list hold what a slow search finds, in its order: without gap or repeat, whichever filter leads."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from queries import listing, players, tickets, transactions
from queries.context import Context
from tests.projections.books import NOON
from tests.queries.house import House

ROWS = 120
_INSERT = {
    "player": """
        INSERT INTO read.player (id, registered_at, status, brand, country, version, currency, sealed_by, personal)
        VALUES (%s, %s, %s, %s, %s, 1, 'EUR', 'x', '{}')""",
    "transaction": """
        INSERT INTO read.transaction (id, requested_at, status, kind, provider, version, player, amount, currency, reference)
        VALUES (%s, %s, %s, %s, %s, 1, 'player_x', 1, 'EUR', '')""",
    "ticket": """
        INSERT INTO read.ticket (id, due_at, status, priority, assignee, version, player, channel, opened_by, opened_at,
                                 first_response_due, resolution_due, awaits_answer, first_response_missed, resolution_missed)
        VALUES (%s, %s, %s, %s, %s, 1, 'player_x', 'email', 'player', now(), now(), now(), 0, 0, 0)""",
}
_LISTS: dict[str, Any] = {
    "player": (players.page, {"status": ["active", "blocked"], "brand": ["n", "s"], "country": ["DE", "É", "ß"]}),
    "transaction": (
        transactions.page,
        {"status": ["settled", "failed"], "kind": ["deposit", "withdrawal"], "provider": ["a", "A", "a-a"]},
    ),
    "ticket": (
        tickets.page,
        {"status": ["open", "closed"], "priority": ["low", "urgent"], "assignee": ["operator:a", "operator:b", None]},
    ),
}
_BOUNDS = {
    "player": ("registered_from", "registered_to"),
    "transaction": ("requested_from", "requested_to"),
    "ticket": (None, "due_before"),
}


def moment(draw: random.Random) -> datetime:
    """Few of them, so that many rows have the same one."""
    return NOON + timedelta(microseconds=draw.randint(0, 9))


async def everything(page: Any, context: Context, limit: int, chosen: dict[str, Any]) -> list[str]:
    found, cursor = [], None
    while True:
        some = await page(context, cursor=cursor, limit=limit, **chosen)
        found += [item.id for item in some.items]
        cursor = some.next_cursor
        if cursor is None:
            return found
        assert len(some.items) == limit


@pytest.mark.parametrize("table", list(_LISTS))
async def test_pages_hold_what_a_slow_search_finds(house: House, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "COUNTED_ROWS", 20)
    draw = random.Random(table)
    page, columns = _LISTS[table]
    rows = [
        (f"{table}_{n:026}", moment(draw), *(draw.choice(values) for values in columns.values()))
        for n in draw.sample(range(1_000), ROWS)
    ]
    async with house.connection.cursor() as cursor:
        await cursor.executemany(_INSERT[table].encode(), rows)
    for _ in range(60):
        wanted = {name: draw.choice(values) for name, values in columns.items() if draw.random() < 0.5}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        since, until = (moment(draw) if name and draw.random() < 0.4 else None for name in _BOUNDS[table])
        bounds = zip(_BOUNDS[table], (since, until), strict=True)
        chosen = {**wanted, **{name: at.isoformat() for name, at in bounds if name and at}}
        fitting = [
            (row[1], row[0])
            for row in rows
            if all(row[2 + list(columns).index(name)] == value for name, value in wanted.items())
            and (since is None or since <= row[1])
            and (until is None or row[1] < until)
        ]
        expected = [id_ for _, id_ in sorted(fitting, reverse=table != "ticket")]
        assert await everything(page, house.context, draw.randint(1, 9), chosen) == expected, chosen
