"""
Durable commands a second, one event a command: ours against other event stores, and against bare INSERTs.

Every contender does the same task (bench/peers) on the same machine and, but for UmaDB, in the same PostgreSQL. Rounds take turns, one
contender after another, so that a slow minute of the machine hits all of them; the medians are compared. Then all of it again
with an fsync that takes 1 ms longer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from app.workers import spare_the_collector
from bench import servers
from bench.peers import CLIENTS, Clock, Load, Peer, Round
from bench.peers.message_db import MessageDb
from bench.peers.ours import NAME as OURS
from bench.peers.ours import Ours
from bench.peers.pgbench import Pgbench
from bench.peers.raw import Raw
from bench.peers.stock import Stock
from bench.peers.uma import Uma
from bench.servers import Missing, Servers

PLAYERS = 2_000
GROUPS: dict[str, tuple[Peer, ...]] = {
    "eventsourcing_default": (Stock(tuned=False),),
    "eventsourcing_tuned": (Stock(tuned=True),),
    "message_db": (MessageDb(1, 1), MessageDb(8, 1), MessageDb(8, 8), Pgbench()),
    "umadb": (Uma(),),
    "raw_indexed_insert": (Raw(),),
}
"""The peers, each in the arrangements of which its best counts."""


def run(*, rounds: int = 9, seconds: float = 2.0, slow: bool = True) -> dict[str, Any]:
    """
    Rounds of so many seconds for each contender. --no-slow leaves out the second table.

    {"ours_per_s", "p50_ms", "p99_ms", "peers", "ratios", "spread", "left_out", "fsync_plus_1ms"}; see docs/reference/benchmarks.md.
    """
    found = _measured(rounds, seconds, slow=False)
    if slow:
        try:
            found["fsync_plus_1ms"] = _measured(rounds, seconds, slow=True)
        except Missing as missing:
            found["left_out"]["fsync_plus_1ms"] = str(missing)
    return found


def _measured(rounds: int, seconds: float, *, slow: bool) -> dict[str, Any]:
    with servers.running(slow=slow) as here:
        return uvloop.run(_compete(here, rounds, seconds))


async def _compete(here: Servers, rounds: int, seconds: float) -> dict[str, Any]:
    contenders: list[Peer] = [Ours(), *(peer for group in GROUPS.values() for peer in group)]
    left_out: dict[str, str] = {}
    clocks: dict[str, Clock] = {}
    commit_ms = await asyncio.to_thread(servers.commit_ms, here.dsn)  # while the server has nothing else to do
    async with AsyncExitStack() as stack:
        for contender in contenders:
            try:
                clocks[contender.name] = await stack.enter_async_context(contender.open(here, Load(PLAYERS, 1)))
            except Missing as missing:
                left_out[contender.name] = str(missing)
        for clock in clocks.values():
            await clock(min(1.0, seconds))  # plans are made, states loaded
        spare_the_collector()
        results: dict[str, list[Round]] = {name: [] for name in clocks}
        for n in range(rounds):
            for name, clock in clocks.items():
                results[name].append(await clock(seconds))
            print(f"round {n + 1} of {rounds}", file=sys.stderr)
    return _compared(results, left_out) | {"commit_ms": commit_ms}


def _compared(results: dict[str, list[Round]], left_out: dict[str, str]) -> dict[str, Any]:
    speeds = {name: [each.per_s for each in done] for name, done in results.items()}
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    best = {
        group: max((peer.name for peer in peers if peer.name in medians), key=medians.__getitem__, default=None)
        for group, peers in GROUPS.items()
    }
    latencies = sorted(latency for each in results[OURS] for latency in each.latencies)
    return {
        "ours_per_s": round(medians[OURS]),
        "p50_ms": _quantile_ms(latencies, 0.5),
        "p99_ms": _quantile_ms(latencies, 0.99),
        "clients": CLIENTS,
        "rounds": len(results[OURS]),
        "peers": {group: round(medians[name]) if name else None for group, name in best.items()},
        "ratios": {group: round(medians[OURS] / medians[name], 2) if name else None for group, name in best.items()},
        "best": best,
        "arrangements": {name: round(each) for name, each in medians.items()},
        "spread": {name: [round(min(each)), round(max(each))] for name, each in speeds.items()},
        "left_out": left_out,
    }


def _quantile_ms(latencies: Sequence[float], q: float) -> float:
    return round(latencies[int(len(latencies) * q)] * 1e3, 2)


def show(found: dict[str, Any]) -> str:
    """The table of docs/reference/benchmarks.md, ready to be pasted."""
    lines = _table(found)
    if slow := found.get("fsync_plus_1ms"):
        lines += ["", "With 1 ms added to every fsync:", "", *_table(slow)]
    lines += [f"left out: {name}: {why}" for name, why in found["left_out"].items()]
    return "\n".join(lines)


def _table(found: dict[str, Any]) -> list[str]:
    best = {name: group for group, name in found["best"].items()}
    lines = ["| | commands/s | spread | ours ÷ it |", "|---|---|---|---|"]
    for name, per_s in found["arrangements"].items():
        low, high = found["spread"][name]
        ratio = found["ratios"].get(best.get(name, ""), "")
        lines.append(f"| {name} | {per_s:,} | {low:,} to {high:,} | {f'**{ratio}**' if ratio else ''} |")
    clients = f"Ours: p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms, {found['clients']} clients."
    return [
        *lines,
        "",
        f"{clients} Medians of {found['rounds']} rounds. An empty commit takes {found['commit_ms']} ms.",
    ]
