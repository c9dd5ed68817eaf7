"""How PostgreSQL goes about what is asked: the plans of statements, and the rows that they touch."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import sql

from queries.context import Context

READERS = ""
DEFAULTS = "SET plan_cache_mode = auto; SET enable_seqscan = on; SET enable_hashjoin = on; SET enable_mergejoin = on"
"""With what is planned: as readers do, who never scan whole tables, or by what the planner itself thinks cheap."""


class Scan(NamedTuple):
    """A leaf of a plan: its kind, and by which index."""

    kind: str
    index: str | None


@dataclass
class Notes:
    settings: str = READERS
    touched: list[int] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    sorted_bodies: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Explained(Context):
    """Notes how many rows each statement touched, by which scans, and how many bodies it sorted, under a reader's generic plan."""

    notes: Notes = field(default_factory=Notes)

    async def fetch(self, query: Any, *arguments: object) -> list[tuple[Any, ...]]:
        number = itertools.count(1)
        prepared = re.sub("%s", lambda _: f"${next(number)}", query)
        async with self.pool.connection() as connection:
            await connection.execute(self.notes.settings.encode())
            await connection.execute(f"PREPARE asked AS {prepared}".encode())
            execute = sql.SQL("EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) EXECUTE asked")
            if arguments:
                execute += sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, arguments)))
            [[explained]] = await (await connection.execute(execute)).fetchall()
            await connection.execute("DEALLOCATE asked")
        plan = explained if isinstance(explained, list) else json.loads(explained)
        self.notes.touched.append(_touched(plan[0]["Plan"]))
        self.notes.scans += _scans(plan[0]["Plan"])
        self.notes.sorted_bodies.append(_sorted_bodies(plan[0]["Plan"]))
        return await super().fetch(query, *arguments)


def _touched(plan: dict[str, Any]) -> int:
    """The rows that the scans of a plan have read, those that were thrown away included."""
    inner = sum(_touched(each) for each in plan.get("Plans", ()))
    if "Scan" not in plan["Node Type"] or plan["Node Type"] == "Subquery Scan":
        return inner
    read: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return inner + round(read * plan["Actual Loops"])


def _scans(plan: dict[str, Any]) -> list[Scan]:
    inner = [scan for each in plan.get("Plans", ()) for scan in _scans(each)]
    kind: str = plan["Node Type"]
    is_leaf = kind.endswith("Scan") and kind not in {"Subquery Scan", "Bitmap Heap Scan"}
    return [*inner, Scan(kind, plan.get("Index Name"))] if is_leaf else inner


def _sorted_bodies(plan: dict[str, Any]) -> int:
    """How many rows the sorts of a plan are given that have bodies."""
    inner = sum(_sorted_bodies(each) for each in plan.get("Plans", ()))
    if plan["Node Type"] != "Sort" or "e.body" not in plan["Output"]:
        return inner
    return inner + round(sum(each["Actual Rows"] for each in plan["Plans"]))
