"""What `countroom` prints: addresses, status, progress."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.local import Local, NothingRuns
from app.status import halted


def addresses(local: Local) -> None:
    """Where the regions are, and with which tokens to begin."""
    out = Console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("region", "API", "origin of its log"):
        table.add_column(heading)
    for region, settings in local.settings.items():
        table.add_row(region, local.url(region), settings.origin)
    out.print(table)
    out.print()
    tokens = Table(box=None, pad_edge=False, header_style="dim")
    tokens.add_column("development token for")
    tokens.add_column("bearer token")
    for role, token in local.tokens.items():
        tokens.add_row(role, token)
    out.print(tokens)
    first = next(iter(local.settings))
    out.print(f"\nlive page   {local.url(first)}/#token={local.tokens['operator']}", soft_wrap=True)
    out.print("Ctrl-C stops everything; the data stays.")


def print_status(found: dict[str, Any]) -> None:
    out = Console()
    if not found["regions"]:
        out.print("nothing runs here; start with `countroom up`")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("region", "API", "processes", "logs"):
        table.add_column(heading)
    for region in found["regions"]:
        processes = ", ".join(f"{process['role']} {process['pid']}" for process in region["processes"])
        logs = ", ".join(
            f"{name} at {log['position']:,}{_signed(log['signed'])}" for name, log in region["logs"].items()
        )
        table.add_row(region["name"], region["api"], processes, logs or "no answer")
    out.print(table)
    for region in found["regions"]:
        if (policies := region["policies"]) and not policies["adopted"]:
            out.print(
                f"policies of access in {region['name']} were not adopted: {policies['in_force']}", soft_wrap=True
            )
        if late := region["late"]:
            out.print(f"late in {region['name']}: {_late(late)}", soft_wrap=True)
    for region, log, halt in halted(found):
        out.print(
            f"[red]HALTED[/] {region}: the {halt['role']} of log {log}, since {halt['since']}:",
            escape(halt["reason"]),
            soft_wrap=True,
        )


def _signed(head: dict[str, Any] | None) -> str:
    if head is None:
        return " (unsigned)"
    by = ", ".join(head["witnesses"])
    return f" (signed up to {head['size']:,}, {f'witnessed by {by}' if by else 'not witnessed'})"


def _late(late: dict[str, Any]) -> str:
    said = [
        f"{found['count']:,} {what if found['count'] == 1 else what + 's'} {how} (the oldest for {_duration(found['oldest_seconds'])})"
        for found, what, how in (
            (late["commands"], "command", "due and not done"),
            (late["payouts"], "payout", "without an answer"),
        )
        if found["count"]
    ]
    return ", ".join(said) or "nothing"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def rebuild(name: str, region: str, data: Path, *, quiet: bool) -> dict[str, Any]:
    """Rebuild a read model with a progress bar. Raises NothingRuns and what a rebuild raises."""
    from redis.asyncio import Redis
    from rich.progress import Progress

    from devstack import read_state
    from projections.catalog import NAMES
    from projections.rebuild import Progress as Step
    from projections.rebuild import rebuild as run

    if name not in NAMES:
        raise NothingRuns(f"no read model is called {name}; there are {', '.join(NAMES)}")
    state = read_state(data)
    regions = {r["name"]: r for r in state["regions"]} if state else {}
    found = regions.get(region)
    if found is None:
        raise NothingRuns(f"no region {region} runs in {data}; start it with `countroom up`")

    async def work(progress: Progress) -> None:
        bar = progress.add_task(name)

        def show(step: Step) -> None:
            progress.update(bar, completed=step.applied, total=step.total)

        async with Redis.from_url(found["redis"]) as client:
            await run(name, dsn=found["postgres"], client=client, regions=list(regions), progress=show)

    with Progress(console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        asyncio.run(work(progress))
    return {"rebuilt": name, "region": region}
