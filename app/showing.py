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
from app.standing import Standing, duration
from app.status import halted
from queries.lags import Lag, State


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
            f"{name} at {log['position']:,}{_lag(log['lag'])}{_signed(log['signed'])}"
            for name, log in region["logs"].items()
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


def print_standing(found: Standing) -> None:
    """A region as a person reads it who was woken for it: what needs them comes last."""
    out = Console()
    write = "yes" if found.may_write else "[red]NO[/], it is read-only"
    when = " since" if found.may_write else "; it was last cleared"
    by = f"{when} {found.cleared_at:%Y-%m-%d %H:%M:%SZ}: {found.cleared_by}" if found.cleared_at else ""
    out.print(f"region [bold]{found.region}[/] at {found.at:%Y-%m-%d %H:%M:%SZ}")
    out.print(f"its log may be written: {write}", escape(by), sep="", soft_wrap=True)
    for owned in found.owned:
        ranges = ", ".join(f"{a if a == b else f'{a}-{b}'} (epoch {epoch})" for a, b, epoch in owned.partitions)
        released = f", [yellow]released to {owned.released_to} and not adopted[/]" if owned.released_to else ""
        out.print(f"{owned.log} owns {owned.number} partitions: {ranges}{released}", soft_wrap=True)
    if own := found.own:
        out.print(f"safe in another region: up to {found.geo:,} of {own.position:,}")
    out.print()
    out.print(_logs(found))
    out.print()
    out.print(_copies(found))
    _print_rest(out, found)
    if not found.wanted:
        out.print("\n[green]nothing needs a person[/]")
    for each in found.wanted:
        out.print(f"\n[red]![/] {escape(each.what)}\n  see docs/how-to/{each.see}", soft_wrap=True)


def _logs(found: Standing) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("log", "newest", "leaf", "signed up to", "newest head", "witnessed up to"):
        table.add_column(heading)
    for log in found.logs:
        head = log.head
        by = f" by {', '.join(head.witnesses)}" if head and head.witnesses else ""
        table.add_row(
            f"{log.log} (own)" if log.own else log.log,
            f"{log.position:,}",
            log.leaf[:8],
            f"{head.size:,}" if head else "-",
            f"{duration(head.seconds)} old" if head else "-",
            f"{log.witnessed:,}{by if head and head.size == log.witnessed else ''}",
        )
    return table


def _copies(found: Standing) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("copy of", "in", "goes to", "signed", "behind", "heard of"):
        table.add_column(heading)
    for copy in found.copies:
        signed = "-" if copy.signed is None else f"{copy.signed:,}"
        heard = "never" if copy.heard_seconds is None else f"{duration(copy.heard_seconds)} ago"
        table.add_row(copy.log, copy.region, f"{copy.position:,}", signed, _behind(copy), heard)
    return table


def _behind(copy: Lag) -> str:
    match copy.state:
        case State.LEVEL:
            return "[green]0[/]"
        case State.CLOSED:
            return "0, the log was closed"
        case State.UNKNOWN:
            since = f"{copy.heard_at:%H:%M:%SZ}" if copy.heard_at else "the beginning"
            return f"[red]unknown since {since}[/]"
    entries = "unknown" if copy.entries is None else f"{copy.entries:,} entries"
    seconds = f", {duration(copy.seconds)}" if copy.seconds else ""
    return f"{entries}{seconds}" if copy.state is State.BEHIND else f"[red]{copy.state.upper()}[/], {entries}{seconds}"


def _print_rest(out: Console, found: Standing) -> None:
    """What is told only where there is something to tell."""
    held = {log.log: log.position for log in found.logs}
    for fetched in found.catch_up:
        if held.get(fetched.log, fetched.position) < fetched.target:
            of = f"{fetched.position:,} of {fetched.target:,}, {fetched.per_second:,}/s, vouched for up to {fetched.vouched or 0:,}"
            out.print(f"\nfetching log {fetched.log} from {fetched.source}: {of}", soft_wrap=True)
    for keys in found.keys:
        told = f"{keys.held:,} held, {keys.missing:,} missing, {keys.not_allowed:,} not allowed here"
        out.print(f"\ndata keys of {keys.log}: {told}", soft_wrap=True)


def _signed(head: dict[str, Any] | None) -> str:
    if head is None:
        return " (unsigned)"
    by = ", ".join(head["witnesses"])
    return f" (signed up to {head['size']:,}, {f'witnessed by {by}' if by else 'not witnessed'})"


def _lag(lag: dict[str, Any] | None) -> str:
    if lag is None or lag["entries"] == 0:
        return ""
    return ", lag unknown" if lag["entries"] is None else f", {lag['entries']:,} behind"


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
