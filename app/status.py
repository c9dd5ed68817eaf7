"""What runs in a data folder: its regions, their processes, and how far each log has come in each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg

from eventstore import postgres
from eventstore.postgres import LogReader


def status(data: Path) -> dict[str, Any]:
    """{"regions": […]} as in docs/reference/cli.md; no regions when nothing runs there. Holds passwords: print with care."""
    from devstack import read_state

    state = read_state(data)
    if state is None:
        return {"regions": []}
    return {"regions": [{**region, "logs": asyncio.run(_logs(region["postgres"]))} for region in state["regions"]]}


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
    except psycopg.Error:
        return {}
    return {name: {"position": head.position, "leaf": head.leaf.hex()} for name, head in heads.items()}
