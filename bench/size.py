"""
The same commands on a log of 10 million entries and a million streams, through checkpoints; then with a snapshot held open.

Each contender of `append` (in its best arrangement there) is measured empty, then filled and measured again, minute by minute, in a
server of its own. Players are drawn evenly from all, so most commands find no state in memory and load it: what a store pays for
being large is in the figures, and what an application saves by serving the same players again is not. Takes hours at full size.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import uvloop

from app.workers import spare_the_collector
from bench import servers
from bench.peers import Clock, Load, Peer
from bench.peers.message_db import MessageDb
from bench.peers.ours import NAME as OURS
from bench.peers.ours import Ours
from bench.peers.raw import Raw
from bench.peers.stock import Stock
from bench.peers.uma import Uma
from bench.servers import Missing, Servers
from eventstore import postgres
from eventstore.heads import LogTree

CONTENDERS: tuple[Peer, ...] = (Ours(), Stock(tuned=True), MessageDb(8, 8), Uma(), Raw())
EMPTY = Load(players=2_000, events=1)
_CHECKOUT = Path(__file__).parent.parent
_EMPTY_MINUTES = 3
_PROOFS = 1_000
_CHECKPOINTS = 4
"""About so many in the minutes that are measured, if PostgreSQL's least checkpoint_timeout of 30 s allows it."""


class Minute(NamedTuple):
    """`wal`: bytes written to PostgreSQL's WAL an event; `checkpoints`: completed in it."""

    per_s: float
    wal: float
    checkpoints: int


class Plan(NamedTuple):
    load: Load
    minutes: int
    held: int
    seconds: float
    verified: bool

    @property
    def settings(self) -> dict[str, str]:
        """A region's max_wal_size stays; checkpoints come by time more often than a region's, whichever is first."""
        return {"checkpoint_timeout": f"{max(30, round(self.minutes * self.seconds / _CHECKPOINTS))}s"}


def run(
    *,
    entries: int = 10_000_000,
    streams: int = 1_000_000,
    minutes: int = 10,
    held: int = 10,
    minute: float = 60.0,
    only: Sequence[str] = (),
    verified: bool = True,
) -> dict[str, Any]:
    """
    `held`: minutes with a snapshot held open, of our log only. `minute`: its length in seconds, to try the program out.
    `only`: contenders whose names begin so, e.g. --only ours --only raw. --no-verified does not read the whole log again at the end.

    {"entries", "streams", "contenders": {name: {…}}, "ratios", "held", "proof", "verified", "left_out"}; see docs/reference/benchmarks.md.
    """
    players = streams // 2  # each has a stream of their own and one of limits
    plan = Plan(Load(players, entries // players - 1), minutes, held, minute, verified)
    found: dict[str, Any] = {"entries": entries, "streams": streams, "contenders": {}, "left_out": {}}
    for contender in CONTENDERS:
        if only and not contender.name.startswith(tuple(only)):
            continue
        try:
            found["contenders"][contender.name] = _measured(contender, plan, found)
        except Missing as missing:
            found["left_out"][contender.name] = str(missing)
    ours = found["contenders"].get(OURS)
    found["ratios"] = {
        name: round(ours["median"] / each["median"], 2)
        for name, each in found["contenders"].items()
        if ours and name != OURS
    }
    return found


def _measured(contender: Peer, plan: Plan, found: dict[str, Any]) -> dict[str, Any]:
    with servers.running(settings=plan.settings) as here:
        empty = uvloop.run(_minutes(contender, here, plan._replace(load=EMPTY, minutes=_EMPTY_MINUTES, held=0)))
    with servers.running(settings=plan.settings) as here:
        full = uvloop.run(_minutes(contender, here, plan._replace(held=plan.held if contender.name == OURS else 0)))
        if contender.name == OURS:
            found["held"] = full.pop("held", None)
            found["proof"] = uvloop.run(_proved(here.at("ours")))
            found["verified"] = _verified(here.at("ours")) if plan.verified else None
    return {"empty": empty["median"], **full, "to_empty": round(full["median"] / empty["median"], 2)}


async def _minutes(contender: Peer, here: Servers, plan: Plan) -> dict[str, Any]:
    began = time.monotonic()
    async with contender.open(here, plan.load) as clock:
        filled_s = time.monotonic() - began
        with psycopg.connect(here.dsn, autocommit=True) as administrator:
            administrator.execute("CHECKPOINT")
            spare_the_collector()
            await clock(min(5.0, plan.seconds))
            measured = [await _minute(contender, clock, administrator, plan.seconds) for _ in range(plan.minutes)]
            found = _told(measured) | {"filled_s": round(filled_s)}
            if plan.held:
                with _snapshot(here.at("ours")):
                    held = [await _minute(contender, clock, administrator, plan.seconds) for _ in range(plan.held)]
                found["held"] = _told(held) | {"last_to_first": _trend(held)}
    return found


async def _minute(contender: Peer, clock: Clock, administrator: psycopg.Connection[Any], seconds: float) -> Minute:
    before = _written(administrator)
    done = await clock(seconds)
    after = _written(administrator)
    print(f"{contender.name}: {done.per_s:,.0f}/s", file=sys.stderr)
    return Minute(done.per_s, (after[0] - before[0]) / done.commands, after[1] - before[1])


def _written(administrator: psycopg.Connection[Any]) -> tuple[int, int]:
    """Bytes of WAL, and checkpoints, since the server began."""
    row = administrator.execute(
        "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, num_done FROM pg_stat_checkpointer"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _told(minutes: Sequence[Minute]) -> dict[str, Any]:
    speeds = [minute.per_s for minute in minutes]
    return {
        "median": round(statistics.median(speeds)),
        "worst": round(min(speeds)),
        "minutes": [round(speed) for speed in speeds],
        "wal_per_event": round(statistics.mean(minute.wal for minute in minutes)),
        "checkpoints": sum(minute.checkpoints for minute in minutes),
    }


def _trend(minutes: Sequence[Minute]) -> float:
    """The median of the last third by that of the first: 1 means that nothing declined."""
    third = max(1, len(minutes) // 3)
    first, last = (statistics.median(each.per_s for each in some) for some in (minutes[:third], minutes[-third:]))
    return round(last / first, 2)


@contextmanager
def _snapshot(dsn: str) -> Iterator[None]:
    """What a forgotten transaction does: nothing that was there at its beginning may be cleaned up."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM ledger.log")
        yield


async def _proved(dsn: str) -> dict[str, Any]:
    """How long the stored hashes take to be made, and then the proof of one entry (reading and computing), of a random one each time."""
    async with await postgres.connect(dsn, "countroom_heads") as connection:
        tree = LogTree(connection, 1)
        began = time.perf_counter()
        size = await tree.extend()
        extended_s = time.perf_counter() - began
        taken = []
        for _ in range(_PROOFS):
            began = time.perf_counter()
            await tree.inclusion_proof(random.randrange(size), size)
            taken.append(1e3 * (time.perf_counter() - began))
    return {
        "size": size,
        "extended_s": round(extended_s, 1),
        "median_ms": round(statistics.median(taken), 2),
        "p99_ms": round(statistics.quantiles(taken, n=100)[98], 2),
    }


def _verified(dsn: str) -> dict[str, Any]:
    """What `countroom verify` says of the whole log, filled and appended."""
    began = time.monotonic()
    command = [sys.executable, "-m", "app", "verify", dsn, "--json"]
    done = subprocess.run(command, cwd=_CHECKOUT, stdout=subprocess.PIPE, check=False)
    said = json.loads(done.stdout)
    entries = sum(log["entries"] for target in said["targets"] for log in target["logs"].values())
    return {"entries": entries, "intact": said["intact"], "seconds": round(time.monotonic() - began), "said": said}


def show(found: dict[str, Any]) -> str:
    """The table of docs/reference/benchmarks.md, ready to be pasted."""
    lines = [
        f"{found['entries']:,} entries, {found['streams']:,} streams",
        "",
        "| | empty | median minute | worst minute | to empty | WAL an event | checkpoints | ours ÷ it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found["contenders"].items():
        wal = "-" if name == Uma.name else f"{each['wal_per_event']:,} B"
        cells = (f"{each['empty']:,}", f"{each['median']:,}", f"{each['worst']:,}", each["to_empty"], wal)
        lines.append(
            f"| {name} | {' | '.join(map(str, cells))} | {each['checkpoints']} | {found['ratios'].get(name, '')} |"
        )
    if held := found.get("held"):
        speeds = (
            f"median {held['median']:,}/s, worst {held['worst']:,}/s, last third ÷ first third {held['last_to_first']}"
        )
        lines += ["", f"With a snapshot held open for {len(held['minutes'])} minutes: {speeds}."]
    if proof := found.get("proof"):
        lines.append(
            f"A proof of one of {proof['size']:,} entries, from the database: median {proof['median_ms']} ms, p99 {proof['p99_ms']} ms;"
            f" the stored hashes of the whole log were made in {proof['extended_s']} s."
        )
    if verified := found.get("verified"):
        state = f"intact, in {verified['seconds']} s" if verified["intact"] else f"NOT intact: {verified['said']}"
        lines.append(f"The log of {verified['entries']:,} entries verifies: {state}.")
    lines += [f"left out: {name}: {why}" for name, why in found["left_out"].items()]
    return "\n".join(lines)
