"""
`countroom region join`: a new, empty region beside those that there are, and how far it has come in copying their logs.

Invariant: it has caught up with a log when a witnessed head vouches for all that the log held at the beginning, and not before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from app import local, showing
from app.heads import read_policy
from app.local import Local
from verifier.policy import Policy

_LOOK_INTERVAL_S = 0.5
_POSITION = """
    SELECT coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1), 0)
      FROM ledger.log AS l WHERE l.name = %s"""
_VOUCHED = """
    SELECT coalesce(max(c.vouched), 0) FROM replication.catch_up AS c JOIN ledger.log AS l ON l.id = c.log WHERE l.name = %s"""
_HEADS = """
    SELECT c.size, c.note FROM ledger.checkpoint AS c JOIN ledger.log AS l ON l.id = c.log
     WHERE l.name = %s AND c.published_at IS NOT NULL AND c.size >= %s ORDER BY c.size"""
_HALTED = """
    SELECT e.reason FROM replication.evidence AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE l.name = %s AND e.cleared_at IS NULL ORDER BY e.id LIMIT 1"""


class NotJoined(Exception):
    """The region is there already, or a log was refused by its copy there."""


class _Far(NamedTuple):
    """How far a copy has come: its newest entry, and up to where witnessed heads vouch for it, if that is as far as is waited for."""

    position: int
    vouched: int


def join(
    name: str, regions: Sequence[str], data: Path, port_base: int, *, then_stop: bool, quiet: bool
) -> dict[str, Any]:
    """Returns {"region", "logs": {log: {"entries", "seconds"}}}. Raises NotJoined, and what `local.running` raises.

    Unless `then_stop`, everything runs on until Ctrl-C.
    """
    if name in regions or (data / name / "postgres").exists():
        raise NotJoined(f"{name} is one of the regions already; run it with `countroom up`")
    with local.running(data, [*regions, name], port_base) as here, ExitStack() as stack:
        if not quiet:
            showing.addresses(here)
        targets = {log: _position(here, log) for log in regions}
        connection = stack.enter_context(psycopg.connect(here.settings[name].postgres, autocommit=True))
        done = _caught_up(connection, targets, read_policy(data / local.POLICY))
        if not then_stop:
            here.stack.run_until_stopped()
    return {"region": name, "logs": done}


def _caught_up(
    connection: psycopg.Connection[Any], targets: dict[str, int], policy: Policy
) -> dict[str, dict[str, float]]:
    """Wait until every log was copied up to its target and vouched for, and say on standard error how far it is. Raises NotJoined."""
    began = time.monotonic()
    done: dict[str, dict[str, float]] = {}
    shown = ""
    while len(done) < len(targets):
        far = {log: _far(connection, log, target, policy) for log, target in targets.items()}
        seconds = time.monotonic() - began
        for log, target in targets.items():
            if log not in done and far[log].vouched >= target:
                done[log] = {"entries": target, "seconds": round(seconds, 2)}
        line = "; ".join(_lines(far, targets, seconds))
        if line != shown:
            sys.stderr.write(line + "\n")
            shown = line
        if len(done) < len(targets):
            time.sleep(_LOOK_INTERVAL_S)
    return done


def _lines(far: dict[str, _Far], targets: dict[str, int], seconds: float) -> Iterator[str]:
    for log, (position, vouched) in far.items():
        target = targets[log]
        if vouched >= target:
            yield f"{log}: all {target:,} entries, witnessed"
        elif position >= target:
            yield f"{log}: all {target:,} entries, to be witnessed"
        else:
            yield f"{log}: {position:,} of {target:,} entries ({100 * position // target} %), {position / max(seconds, 0.1):,.0f}/s"


def _position(here: Local, log: str) -> int:
    with psycopg.connect(here.settings[log].postgres) as connection:
        found = connection.execute(_POSITION, [log]).fetchone()
    return int(found[0]) if found else 0


def _far(connection: psycopg.Connection[Any], log: str, target: int, policy: Policy) -> _Far:
    if halted := connection.execute(_HALTED, [log]).fetchone():
        raise NotJoined(f"the copy of {log} has halted: {halted[0]}")
    held = connection.execute(_POSITION, [log]).fetchone()
    [(vouched,)] = connection.execute(_VOUCHED, [log])
    heads = connection.execute(_HEADS, [log, target])
    witnessed = next((size for size, note in heads if policy.accepts(bytes(note))), 0)
    return _Far(held[0] if held else 0, max(vouched, witnessed))
