"""
How a run of work is told in a terminal: headings, progress, both regions' figures side by side, and what verify found.

Figures come as the HTTP API gives them. On a terminal it is coloured and moves; in a pipe it is plain text, line by line.

Invariant: standard output belongs to whoever asked for JSON: with `quiet` all of this goes to standard error, without bars.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.control import Control
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar
from rich.segment import ControlType
from rich.table import Table

from app.cdnow import Imported
from app.sending import Progress, Silent
from policies.currencies import EXPONENTS

if TYPE_CHECKING:  # it loads a database driver, which an import does not need
    from app.checking import Finding, Verification

Dashboard: TypeAlias = Mapping[str, Any]
"""{"days": [{"day", "currency", "count", "amount"}], "totals": [{"currency", "count", "amount"}], "players", "positions"}"""

WIDTH_IN_A_PIPE = 110
MONTHS_MAX = 24
BAR_CELLS = 14
PLAIN_STEPS = 5
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Report:
    """Prints what has been done, in the order in which it is called."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._out = console or _console(sys.stderr if quiet else sys.stdout)
        self._quiet = quiet
        self._most_behind = (0, "", "")
        self._lag_told = False

    def heading(self, text: str) -> None:
        self._out.print(f"\n[bold]{escape(text)}[/bold]")

    def progress(self) -> Progress:
        """A new bar on standard error; plain lines where that is no terminal; nothing with `quiet`."""
        return Silent() if self._quiet else Bar(_console(sys.stderr))

    def started(self, urls: Mapping[str, str], seconds: float) -> None:
        for region, url in urls.items():
            self._line(f"{region}  [dim]{escape(url)}[/dim]")
        self._line(
            f"ready in {seconds:.1f} s: PostgreSQL, NATS, Valkey and our own services of {_count(len(urls), 'region', 'regions')}"
        )

    def imported(self, done: Imported) -> None:
        money = ", ".join(money_text(amount, currency) for currency, amount in done.amount.items())
        rate = f", {done.deposits / done.seconds:,.0f} deposits a second" if done.seconds else ""
        self._line(
            f"{done.players:,} players and {done.deposits:,} deposits, {money}; {done.skipped:,} lines of 0.00 skipped"
        )
        self._line(f"{done.new:,} of them new, {done.repeated:,} already there; {done.seconds:.1f} s{rate}", "dim")

    def lag(self, behind: Mapping[str, Mapping[str, int]]) -> None:
        """{region: {log: entries behind its origin}}, called until all are 0: one line that rewrites itself, or two in a pipe."""
        now = [
            (entries, region, log) for region, logs in behind.items() for log, entries in logs.items() if entries > 0
        ]
        self._most_behind = max([self._most_behind, *now])
        if self._out.is_terminal:
            self._out.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
        if not now:
            entries, region, log = self._most_behind
            most = f"; the most was {entries:,}, of log {log} in {region}" if entries else ""
            self._line(f"lag 0 entries, every log in every region{most}")
            self._most_behind, self._lag_told = (0, "", ""), False
        elif self._out.is_terminal or not self._lag_told:
            text = ", ".join(f"{region} is {entries:,} entries of log {log} behind" for entries, region, log in now)
            self._out.print(f"  {text}", end="" if self._out.is_terminal else "\n", highlight=False)
            self._lag_told = True

    def dashboards(self, dashboards: Mapping[str, Dashboard]) -> None:
        """All regions side by side, then whether they are equal."""
        self._out.print()
        self._out.print(_figures(dashboards))
        for currency in sorted({total["currency"] for shown in dashboards.values() for total in shown["totals"]}):
            self._out.print()
            self._out.print(_by_month(dashboards, currency, unicode=self._out.encoding.startswith("utf")))
        self._out.print()
        positions = [_positions(shown) for shown in dashboards.values()]
        wrong = difference(dashboards)
        if wrong:
            self._verdict(False, f"not equal: {wrong}")
        elif len(set(positions)) == 1:
            self._verdict(True, f"equal at {positions[0]}: every day, all totals, the number of players")
        else:
            at = "; ".join(f"{region} at {place}" for region, place in zip(dashboards, positions, strict=True))
            self._verdict(True, f"equal: every day, all totals, the number of players ({at})")

    def segments(self, segments: Mapping[str, Mapping[str, Any]]) -> None:
        """The same segment in each region: {"at_least": money, "size"}."""
        sizes = {region: segment["size"] for region, segment in segments.items()}
        least = next(iter(segments.values()))["at_least"]
        told = ", ".join(f"{size:,} players in {region}" for region, size in sizes.items())
        text = f"segment «deposited {money_text(least['amount'], least['currency'])} or more»: {told}"
        self._verdict(len(set(sizes.values())) == 1, text)

    def verified(self, found: Verification) -> None:
        """Each log at each target, then what differs, then what could not be checked."""
        targets: dict[str, list[Finding]] = defaultdict(list)
        for finding in found.findings:
            targets[finding.target].append(finding)
        for target, findings in targets.items():
            for finding in findings:
                shown = finding.shown
                where = f"{target}  log {finding.log}"
                if shown["intact"]:
                    self._verdict(
                        True,
                        f"{where}: intact, {_count(shown['entries'], 'entry', 'entries')}, leaf {finding.leaf[:16]}…"
                        f"{_witnessed(shown)}",
                    )
                else:
                    fault = shown["fault"]
                    self._verdict(False, f"{where}: NOT INTACT at position {fault['position']:,}: {fault['detail']}")
        for text in found.differences:
            self._verdict(False, f"DIFFERENT: {text}")
        for text in found.errors:
            self._verdict(False, f"could not check {text}")

    def tamper(self, planted: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        """{"region", "log", "position"} of the changed byte, and of what verify named."""
        if found == planted:
            self._verdict(True, f"verify found exactly {_place(planted)}")
        else:
            self._verdict(False, f"changed was {_place(planted)}, verify found {_place(found) if found else 'nothing'}")

    def done(self, seconds: float) -> None:
        self._out.print(f"\n[bold]Done in {seconds:.1f} s.[/bold]", highlight=False)

    def kept(self, page: str, tokens: Mapping[str, str]) -> None:
        self.heading("Everything goes on running")
        self._out.print(f"  live page  {escape(page)}", soft_wrap=True, highlight=False)
        for role, token in tokens.items():
            self._out.print(f"  token of {role:<9} {escape(token)}", soft_wrap=True, highlight=False)
        self._line("Ctrl-C stops everything.", "dim")

    def _line(self, text: str, style: str = "") -> None:
        self._out.print(f"  {text}", style=style, highlight=False)

    def _verdict(self, good: bool, text: str) -> None:
        sign = "[green]✓[/green]" if good else "[bold red]✗[/bold red]"
        if not self._out.encoding.startswith("utf"):
            sign = "ok" if good else "!!"
        self._out.print(f"  {sign} {escape(text)}", style="" if good else "red", highlight=False, soft_wrap=True)


class Bar:
    """The progress of an import."""

    def __init__(self, console: Console) -> None:
        self._out = console
        self._bar = RichBar(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._total = self._done = self._told = 0
        self._began = 0.0
        self._outage = False

    def start(self, total: int) -> None:
        self._total, self._began = total, time.monotonic()
        self._bar.start()
        self._task = self._bar.add_task("players and deposits", total=total, rate="")

    def advance(self, count: int) -> None:
        self._done += count
        self._outage = False
        rate = f"{self._done / max(time.monotonic() - self._began, 0.001):,.0f}/s"
        self._bar.update(self._task, completed=self._done, rate=rate)
        step = PLAIN_STEPS * self._done // max(self._total, 1)
        if not self._out.is_terminal and step > self._told:
            self._told = step
            self._out.print(f"  {self._done:,} of {self._total:,} players and deposits, {rate}", highlight=False)

    def waiting(self, reason: str) -> None:
        if not self._outage:
            self._out.print(f"  no answer ({escape(reason)}): trying again", style="yellow", highlight=False)
        self._outage = True

    def stop(self) -> None:
        self._bar.stop()


def money_text(amount: int, currency: str) -> str:
    """Minor units as people write them: 24409194 USD is `USD 244,091.94`."""
    return f"{currency} {_major(amount, currency)}"


def difference(dashboards: Mapping[str, Dashboard]) -> str | None:
    """The first fact on which regions disagree, in words."""
    (first, shown), *others = dashboards.items()
    known = _facts(shown)
    for region, other in others:
        facts = _facts(other)
        for name in sorted(known.keys() | facts.keys()):
            if known.get(name) != facts.get(name):
                return f"{name}: {known.get(name, 'nothing')} in {first}, {facts.get(name, 'nothing')} in {region}"
    return None


def _facts(shown: Dashboard) -> dict[str, str]:
    def told(row: Mapping[str, Any]) -> str:
        return f"{row['count']:,} deposits of {money_text(row['amount'], row['currency'])}"

    days = {f"{row['day']} {row['currency']}": told(row) for row in shown["days"]}
    totals = {f"total {row['currency']}": told(row) for row in shown["totals"]}
    return {**days, **totals, "players": f"{shown['players']:,}"}


def _figures(dashboards: Mapping[str, Dashboard]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
    table.add_column()
    for region in dashboards:
        table.add_column(region, justify="right", min_width=14)
    table.add_row("  players", *(f"{shown['players']:,}" for shown in dashboards.values()))
    counts = (sum(total["count"] for total in shown["totals"]) for shown in dashboards.values())
    table.add_row("  deposits", *(f"{count:,}" for count in counts))
    money = (
        "\n".join(money_text(total["amount"], total["currency"]) for total in s["totals"]) for s in dashboards.values()
    )
    table.add_row("  money in", *(text or "none" for text in money))
    return table


def _by_month(dashboards: Mapping[str, Dashboard], currency: str, *, unicode: bool) -> Table:
    """All bars have one scale. The newest months that have deposits, if there are very many."""
    sums = [_months(shown["days"], currency) for shown in dashboards.values()]
    months = sorted(set().union(*sums))[-MONTHS_MAX:]
    top = max((by_month[month] for by_month in sums for month in months), default=0)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column(f"  {currency}")
    for region in dashboards:
        table.add_column(region, justify="right", min_width=14)
        table.add_column("", width=BAR_CELLS, no_wrap=True, style="green")
    for month in months:
        cells = ((_major(s[month], currency), bar(s[month], top, unicode=unicode)) for s in sums)
        table.add_row(f"  {month}", *(text for pair in cells for text in pair))
    return table


def bar(value: int, top: int, *, unicode: bool = True) -> str:
    """A bar whose length is to BAR_CELLS as `value` is to `top`; what is not nothing is seen."""
    eighths = 8 * BAR_CELLS * value // top if top else 0
    if value and not eighths:
        eighths = 1
    if not unicode:
        return "#" * ((eighths + 7) // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _months(days: Sequence[Mapping[str, Any]], currency: str) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for row in days:
        if row["currency"] == currency:
            sums[str(row["day"])[:7]] += row["amount"]
    return sums


def _major(amount: int, currency: str) -> str:
    digits = EXPONENTS.get(currency, 0)
    whole, rest = divmod(abs(amount), 10**digits)
    return ("-" if amount < 0 else "") + f"{whole:,}" + (f".{rest:0{digits}}" if digits else "")


def _positions(shown: Dashboard) -> str:
    return ", ".join(f"{log} {position:,}" for log, position in sorted(shown["positions"].items())) or "no entry"


def _place(tamper: Mapping[str, Any]) -> str:
    return f"position {tamper['position']:,} of log {tamper['log']} in {tamper['region']}"


def _witnessed(shown: Mapping[str, Any]) -> str:
    """How many heads were signed, and by whom the newest was witnessed; nothing where no signature was verified."""
    if not shown.get("trusted"):
        return ""
    signed, witnessed = shown["signed"], shown["witnessed"]
    text = f", {_count(signed['heads'], 'signed head', 'signed heads')}"
    if witnessed and witnessed["by"]:
        text += f", witnessed by {', '.join(sorted(witnessed['by']))}"
        if behind := shown["unwitnessed_entries"]:
            text += f" but for the last {behind:,}"
    return text


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _console(file: Any) -> Console:
    return Console(file=file, width=None if file.isatty() else WIDTH_IN_A_PIPE)
