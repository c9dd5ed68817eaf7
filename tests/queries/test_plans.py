"""A list touches about as many rows as it shows, however few of many thousand are wanted: with the plans that readers have."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from psycopg import sql

from domain import players as decisions
from queries import approvals, players, timeline, transactions
from queries.context import Context
from tests.projections.books import NOON, Book
from tests.queries.house import House

ROWS = 4_000
RARE = 3
_PLAYERS = """
    INSERT INTO read.player (id, version, status, brand, country, currency, registered_at, sealed_by, personal)
    SELECT 'player_' || lpad(n::text, 26, '0'), 1, CASE WHEN n <= %s THEN %s ELSE 'active' END, 'north', 'DE', 'EUR', %s, 'x', '{}'
      FROM generate_series(1, %s) AS n"""
_TRANSACTIONS = """
    INSERT INTO read.transaction (id, version, player, kind, status, amount, currency, provider, reference, requested_at)
    SELECT 'transaction_' || lpad(n::text, 26, '0'), 1, 'player_x', 'deposit', CASE WHEN n <= %s THEN %s ELSE 'settled' END, 1,
           'EUR', 'acme', '', %s + n * interval '1 s'
      FROM generate_series(1, %s) AS n"""
_APPROVALS = """
    INSERT INTO read.approval (id, version, player, status, action, path, body, hash, reasons, requester, requested_at, expires_at)
    SELECT 'approval_' || lpad(n::text, 26, '0'), 1, 'player_x', CASE WHEN n > %s THEN %s ELSE 'expired' END, 'a', 'p', '', 'h',
           'r', 'q', now(), %s + n * interval '1 s'
      FROM generate_series(1, %s) AS n"""


class Explained(Context):
    """Notes how many rows each statement touched, and how many bodies it sorted, under a reader's generic plan."""

    touched: list[int]
    sorted_bodies: list[int]

    async def fetch(self, query: Any, *arguments: object) -> list[tuple[Any, ...]]:
        number = itertools.count(1)
        prepared = re.sub("%s", lambda _: f"${next(number)}", query)
        async with self.pool.connection() as connection:
            await connection.execute(f"PREPARE asked AS {prepared}".encode())
            execute = sql.SQL("EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) EXECUTE asked")
            if arguments:
                execute += sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, arguments)))
            [[explained]] = await (await connection.execute(execute)).fetchall()
            await connection.execute("DEALLOCATE asked")
        plan = explained if isinstance(explained, list) else json.loads(explained)
        self.touched.append(_touched(plan[0]["Plan"]))
        self.sorted_bodies.append(_sorted_bodies(plan[0]["Plan"]))
        return await super().fetch(query, *arguments)


def _touched(plan: dict[str, Any]) -> int:
    """The rows that the scans of a plan have read, those that were thrown away included."""
    inner = sum(_touched(each) for each in plan.get("Plans", ()))
    if "Scan" not in plan["Node Type"] or plan["Node Type"] == "Subquery Scan":
        return inner
    read: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return inner + round(read * plan["Actual Loops"])


def _sorted_bodies(plan: dict[str, Any]) -> int:
    """How many rows the sorts of a plan are given that have bodies."""
    inner = sum(_sorted_bodies(each) for each in plan.get("Plans", ()))
    if plan["Node Type"] != "Sort" or "e.body" not in plan["Output"]:
        return inner
    return inner + round(sum(each["Actual Rows"] for each in plan["Plans"]))


@pytest.fixture
def explained(house: House) -> Explained:
    made = Explained(house.context.pool, house.context.redis, house.context.open_personal)
    object.__setattr__(made, "touched", [])
    object.__setattr__(made, "sorted_bodies", [])
    return made


@pytest.mark.parametrize(
    ("insert", "table", "page", "statuses"),
    [
        (_PLAYERS, "player", players.page, ["blocked", "pending", "dormant", "closed"]),
        (_TRANSACTIONS, "transaction", transactions.page, ["disputed", "requested"]),
        (_APPROVALS, "approval", approvals.page, ["awaiting_approval", "approved"]),
    ],
)
@pytest.mark.parametrize("analysed", [True, False])
async def test_of_a_rare_status_only_its_own_rows_are_read(
    house: House, explained: Explained, insert: Any, table: str, page: Any, statuses: list[str], *, analysed: bool
) -> None:
    for status in statuses:
        await house.connection.execute(f"DELETE FROM read.{table}".encode())
        await house.connection.execute(insert, (RARE if table != "approval" else ROWS - RARE, status, NOON, ROWS))
        if analysed:
            await house.connection.execute(f"ANALYZE read.{table}".encode())
        first = await page(explained, limit=2, status=status)
        rest = await page(explained, limit=2, status=status, cursor=first.next_cursor)
        assert [len(first.items), len(rest.items), rest.next_cursor] == [2, 1, None]
        assert max(explained.touched) <= RARE, explained.touched


async def test_of_the_players_that_a_look_up_found_only_these_are_read(house: House, explained: Explained) -> None:
    await house.connection.execute(_PLAYERS, (0, "", NOON, ROWS))
    await house.connection.execute("ANALYZE read.player")
    found: Any = [f"player_{n:026}" for n in (5, 70, 900)]
    first = await players.page(explained, limit=2, among=found)
    rest = await players.page(explained, first.next_cursor, 2, among=found)
    assert [each.id for each in (*first.items, *rest.items)] == found[::-1]
    assert max(explained.touched) <= 2 * len(found), explained.touched


async def test_a_walk_through_a_whole_table_is_noticed(house: House, explained: Explained) -> None:
    await house.connection.execute(_PLAYERS, (RARE, "blocked", NOON, ROWS))
    either = "SELECT id FROM read.player WHERE (%s::text IS NULL OR status = %s) ORDER BY id DESC LIMIT 2"
    assert len(await explained.fetch(either, "blocked", "blocked")) == 2
    assert explained.touched[-1] > ROWS - RARE


async def test_a_page_of_a_timeline_takes_the_bodies_of_its_own_events_only(house: House, explained: Explained) -> None:
    book = Book("eu")
    ada = book.register(name="Ada")
    for _ in range(40):
        book.know(ada, lambda p, *_: decisions.note(p, text="Hm."))
    await house.project(book)
    page = await timeline.history(explained, ada, None, 3)
    assert [each.version for each in page.items] == [41, 40, 39]
    assert max(explained.sorted_bodies) <= 4, "and one to know whether there are more"
