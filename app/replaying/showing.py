"""What `countroom replay` prints: tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.replaying.accounts import Replayed
from domain.limits import Limits
from queries.dashboard import Dashboard
from queries.history import Account, Deposited
from replay.difference import Change
from replay.evidence import Evidence
from replay.timeline import Row, amount

_PLAIN_COLUMNS = 240
_DAYS_SHOWN = 14


def account(found: Replayed) -> None:
    out = _out()
    _evidence(out, found.evidence)
    out.print()
    if found.changes is None:
        _table(out, (), _facts(found.account, found))
    else:
        out.print(Text(f"changes since: {found.since_moment}"))
        _changes(out, found.changes)
    out.print()
    _events(out, found.events)


def dashboard(evidence: Evidence, shown: Dashboard, changes: Sequence[Change] | None = None) -> None:
    out = _out()
    _evidence(out, evidence)
    out.print()
    if changes is not None:
        _changes(out, changes)
        return
    _table(
        out,
        ("currency", "#deposits", "#amount"),
        [(t.currency, f"{t.count:,}", amount(t.amount, t.currency)) for t in shown.totals],
    )
    _table(
        out,
        ("day", "currency", "#deposits", "#amount"),
        [
            (d.day.isoformat(), d.currency, f"{d.count:,}", amount(d.amount, d.currency))
            for d in shown.days[-_DAYS_SHOWN:]
        ],
    )
    more = f"; the last {_DAYS_SHOWN} of {len(shown.days):,} lines" if len(shown.days) > _DAYS_SHOWN else ""
    out.print(f"{shown.players:,} players{more}")


def json(value: Any) -> None:
    """One object on one line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def line(row: Row) -> None:
    """An event as it comes."""
    money = f"  {amount(row.money.amount, row.money.currency)} {row.money.currency}" if row.money else ""
    stranded = "" if row.counts else "  STRANDED: does not count"
    _out().print(
        Text(f"{row.recorded:%Y-%m-%d %H:%M:%S}  {row.log}/{row.position}  {row.what}{money}  {row.actor}{stranded}"),
        soft_wrap=True,
    )


def _evidence(out: Console, evidence: Evidence) -> None:
    out.print(Text(evidence.moment), soft_wrap=True)
    for log in evidence.logs:
        said = f"{log.log}  up to {log.upto:,} of {log.position:,}, leaf {log.leaf[:16]}…; {log.found}"
        out.print(Text(said, style="dim"), soft_wrap=True)
    if evidence.others:
        out.print(Text(f"not replayed, since they own no partition: {', '.join(evidence.others)}", style="dim"))
    if evidence.stranded:
        out.print(Text(f"{evidence.stranded:,} stranded entries are shown and do not count", style="yellow"))


def _facts(account: Account, found: Replayed) -> Iterable[tuple[str, str]]:
    yield "player", found.player
    player = account.player
    yield "status", player.status + (f": {account.block_reason}" if account.block_reason is not None else "")
    if account.registered_at is not None:
        yield (
            "opened",
            f"{account.registered_at:%Y-%m-%d %H:%M:%S}, {account.brand}, {player.country}, {player.currency}",
        )
    for name in account.told():
        yield name.replace("_", " "), found.personal.get(name, "(sealed)")
    for currency, balance in sorted(account.balances.items()):
        deposited = account.deposited.get(currency, Deposited())
        cash, reserved, total = (amount(n, currency) for n in (balance.cash, balance.reserved, deposited.deposited))
        more = "".join(
            f", {what} {amount(held, currency)}"
            for what, held in (("bonus", balance.bonus), ("owed", -balance.receivable))
            if held
        )
        yield currency, f"cash {cash}, reserved {reserved}{more}; deposited {total} in {deposited.deposits:,} deposits"
    if (limits := account.limits) != Limits():
        daily = limits.daily_deposit
        said = f"{amount(daily.amount, daily.currency)} a day" if daily else "none"
        used = limits.deposited
        yield "deposit limit", f"{said}; used {amount(used.of_day, player.currency)} on {used.day.isoformat()}"
    statuses: dict[str, list[str]] = {
        "transactions": [each.status for each in account.transactions.values()],
        "tickets": [each.status for each in account.tickets.values()],
    }
    for what, found_of in statuses.items():
        if found_of:
            yield what, ", ".join(f"{count:,} {status}" for status, count in sorted(Counter(found_of).items()))


def _changes(out: Console, changes: Sequence[Change]) -> None:
    if not changes:
        out.print("nothing has changed")
        return
    _table(out, ("field", "before", "after"), [(c.field, _value(c.before), _value(c.after)) for c in changes])


def _events(out: Console, rows: Sequence[Row]) -> None:
    _table(
        out,
        ("when (UTC)", "what", "#amount", "#cash after", "who", "where"),
        [
            (
                f"{row.recorded:%Y-%m-%d %H:%M:%S}",
                row.what if row.counts else f"STRANDED, does not count: {row.what}",
                f"{amount(row.money.amount, row.money.currency)} {row.money.currency}" if row.money else "",
                amount(row.balance["cash"], row.money.currency) if row.balance and row.money else "",
                row.actor,
                f"{row.log}/{row.position} {row.leaf[:8]}",
            )
            for row in rows
        ],
    )


def _table(out: Console, headings: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """A heading that begins with # is one of numbers. Texts come from logs, so none is read as markup."""
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=bool(headings))
    for heading in headings or ("", ""):
        table.add_column(heading.lstrip("#"), justify="right" if heading.startswith("#") else "left", overflow="fold")
    for each in lines:
        table.add_row(*(Text(_printable(text)) for text in each))
    out.print(table)


def _out() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PLAIN_COLUMNS)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _printable(text: str) -> str:
    """Control characters of a log do not reach a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
