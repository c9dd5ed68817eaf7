"""
What runs in a data folder: its regions, their processes, how far each log has come in each, what of it is signed and
witnessed, how far its copy is behind, whether it halted, and what is late.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection

from app.heads import read_policy
from app.settings import SettingsError
from eventstore import postgres
from eventstore.heads import StoredHead, newest_head
from eventstore.postgres import LogReader
from queries import due
from queries.lags import Lag, lags
from verifier.note import NoteError
from verifier.policy import Policy

# The newest evidence first: of several, the oldest says what it began with.
_POLICIES = """
    SELECT (SELECT convert_from(e.body, 'UTF8')::json -> 'data' -> 'policies' ->> 'access' FROM ledger.entry AS e
             WHERE e.stream = %(services)s ORDER BY e.version DESC LIMIT 1),
           (SELECT convert_from(e.body, 'UTF8')::json -> 'data' ->> 'hash' FROM ledger.entry AS e
             WHERE e.stream = %(policies)s AND e.type = 'policies.adopted' ORDER BY e.version DESC LIMIT 1)"""
_HALTS = """
    SELECT l.name, e.role, e.position, e.reason, e.at FROM replication.evidence AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE e.cleared_at IS NULL ORDER BY e.id DESC"""


def status(data: Path) -> dict[str, Any]:
    """{"regions": […]} as in docs/reference/cli.md; no regions when nothing runs there. Holds passwords: print with care."""
    from devstack import read_state

    state = read_state(data)
    if state is None:
        return {"regions": []}
    policy = _policy(data / "trust.policy")
    return {
        "regions": [
            {**region, **asyncio.run(_told(region["postgres"], region["name"], policy))} for region in state["regions"]
        ]
    }


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


def _policy(file: Path) -> Policy | None:
    try:
        return read_policy(file)
    except SettingsError:
        return None


async def _told(dsn: str, own: str, policy: Policy | None) -> dict[str, Any]:
    """What a region's database says of the logs held there, and of what is late in its own."""
    try:
        async with await postgres.connect(dsn, "countroom_reader") as connection:
            reader = LogReader(connection)
            heads = await reader.heads()
            signed = {log.name: _signed(await newest_head(connection, log.id), policy) for log in await reader.logs()}
            halts = {
                log: {"role": role, "position": position, "reason": reason, "since": since.astimezone(UTC)}
                async for log, role, position, reason, since in await connection.execute(_HALTS)
            }
            policies = await _policies(connection, own)
            late = [each for each in await due.late(connection) if each.log == own]
            behind = {each.log: _lag(each) for each in await lags(connection, own, [own])}
    except psycopg.Error:
        return {"logs": {}, "policies": None, "late": None}
    logs = {
        name: {
            "position": head.position,
            "leaf": head.leaf.hex(),
            "signed": signed.get(name),
            "lag": behind.get(name),
            "halted": halts.get(name),
        }
        for name, head in heads.items()
    }
    return {
        "logs": logs,
        "policies": policies,
        "late": {
            "commands": _late(each for each in late if each.duty != due.PAYOUT),
            "payouts": _late(each for each in late if each.duty == due.PAYOUT),
        },
    }


async def _policies(connection: AsyncConnection[Any], region: str) -> dict[str, Any]:
    """The hash of the policies of access that the process started last follows, and whether two people have agreed to them."""
    streams = {"services": f"region-{region}-services", "policies": f"region-{region}-policies"}
    [(in_force, adopted)] = await (await connection.execute(_POLICIES, streams)).fetchall()
    return {"in_force": in_force, "adopted": in_force is not None and in_force == adopted}


def _late(some: Iterable[due.OfLog]) -> dict[str, Any]:
    found = due.together(each.late for each in some)
    return {"count": found.number, "oldest_seconds": round(found.oldest_s, 1)}


def _lag(copy: Lag) -> dict[str, Any]:
    return {"state": copy.state, "entries": copy.entries, "seconds": copy.seconds, "heard_at": copy.heard_at}


def _signed(head: StoredHead | None, policy: Policy | None) -> dict[str, Any] | None:
    """The newest published head; `witnesses` are those whose signatures make the policy's quorum, empty when they do not."""
    if head is None:
        return None
    try:
        witnesses = sorted(policy.check(head.note).cosigned_s) if policy else []
    except NoteError:
        witnesses = []
    return {"size": head.size, "at": head.at.astimezone(UTC), "witnesses": witnesses}
