"""What runs in a data folder: its regions, their processes, how far each log has come in each, and whether it halted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg

from eventstore import postgres
from eventstore.postgres import LogReader

# The newest evidence first: of several, the oldest says what it began with.
_HALTS = """
    SELECT l.name, e.role, e.position, e.reason, e.at FROM replication.evidence AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE e.cleared_at IS NULL ORDER BY e.id DESC"""


def status(data: Path) -> dict[str, Any]:
    """{"regions": […]} as in docs/reference/cli.md; no regions when nothing runs there. Holds passwords: print with care."""
    from devstack import read_state

    state = read_state(data)
    if state is None:
        return {"regions": []}
    return {"regions": [{**region, "logs": asyncio.run(_logs(region["postgres"]))} for region in state["regions"]]}


def halted(found: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(region, log, halt) of every log whose replication has halted."""
    return [
        (region["name"], name, log["halted"])
        for region in found["regions"]
        for name, log in region["logs"].items()
        if log["halted"]
    ]


def dev_token(data: Path, role: str) -> str | None:
    """The development token of a role, for the regions in a data folder."""
    try:
        found: str | None = json.loads((data / "dev-tokens.json").read_bytes()).get(role)
    except FileNotFoundError:
        return None
    return found


async def _logs(dsn: str) -> dict[str, dict[str, Any]]:
    try:
        async with await postgres.connect(dsn, "countroom_reader") as connection:
            heads = await LogReader(connection).heads()
            halts = {
                log: {"role": role, "position": position, "reason": reason, "since": since.astimezone(UTC)}
                async for log, role, position, reason, since in await connection.execute(_HALTS)
            }
    except psycopg.Error:
        return {}
    return {
        name: {"position": head.position, "leaf": head.leaf.hex(), "halted": halts.get(name)}
        for name, head in heads.items()
    }
