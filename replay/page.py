"""
A player's timeline as one HTML file: what a regulator keeps with the case.

Invariants:
    - it stands alone: no script, no font, no picture, no address is loaded, and its policy forbids any;
    - whatever comes from a log is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

import msgspec

from domain.limits import Limits
from queries.history import Account, Deposited
from replay.evidence import Evidence
from replay.timeline import Row, amount

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--raised:#f6f7f9;--text:#1a1f27;--dim:#5c6675;--line:#dfe3e9;--mark:#0b6b50;
--warn:#9a3412;--warn-ground:#fdf1e7}
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--raised:#1a2029;--text:#e6e9ee;--dim:#98a2b1;--line:#2c3440;
--mark:#5fc9a4;--warn:#f0a878;--warn-ground:#33231a}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.5rem 4rem;max-width:72rem;background:var(--ground);color:var(--text);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .25rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2.25rem 0 .6rem}
p{margin:.25rem 0}.dim,th{color:var(--dim)}
code,.leaf{font:12.5px/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
section.evidence{background:var(--raised);border:1px solid var(--line);border-radius:8px;padding:.9rem 1.1rem;margin:1.25rem 0}
.evidence b{color:var(--mark)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.9rem 1.5rem;margin:0}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-weight:600;overflow-wrap:anywhere}
div.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:500;font-size:.85rem}td,th{padding:.45rem 1rem .45rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td.time{white-space:nowrap}.then{color:var(--dim);font-size:.85rem}
tr.stranded td{background:var(--warn-ground)}.stranded-label{color:var(--warn);font-weight:600}
details{margin-top:.15rem}summary{cursor:pointer;color:var(--dim);font-size:.85rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.5 ui-monospace,monospace;margin:.3rem 0}
@media print{:root{--ground:#fff;--raised:#fff;--text:#000;--dim:#444;--line:#bbb;--warn:#000;--warn-ground:#eee}
body{max-width:none;padding:0;font-size:10pt}tr{break-inside:avoid}thead{display:table-header-group}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(account: Account, rows: Sequence[Row], evidence: Evidence, personal: Mapping[str, str], title: str) -> str:
    """The whole document. `personal`: fields of the registration that were opened, by name."""
    parts = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_sentence(evidence.moment))}</p></header>",
        _evidence(evidence),
        "<h2>Account</h2>",
        _account(account, personal),
        *_balances(account),
        *_payments(account),
        *_tickets(account),
        f"<h2>Everything that happened ({len(rows):,})</h2>",
        _timeline(rows),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _evidence(evidence: Evidence) -> str:
    logs = "".join(
        f"<p><b>{escape(log.log)}</b> {escape(log.origin)}: replayed up to position {log.upto:,} of {log.position:,}; "
        f"{escape(log.found)}<br><span class='leaf'>leaf {escape(log.leaf)}</span></p>"
        for log in evidence.logs
    )
    more = [f"made by {evidence.program} from {evidence.target}"]
    if evidence.stranded:
        more.append(f"{evidence.stranded:,} stranded entries are shown and do not count")
    if evidence.others:
        more.append(f"not replayed, since they own no partition: {', '.join(evidence.others)}")
    return f"<section class='evidence'>{logs}<p class='dim'>{escape(_sentence('; '.join(more)))}</p></section>"


def _account(account: Account, personal: Mapping[str, str]) -> str:
    facts: list[tuple[str, str]] = [("Status", account.player.status)]
    if account.block_reason is not None:
        facts.append(("Why blocked", account.block_reason))
    if account.registered_at is not None:
        facts += [
            ("Opened", _time(account.registered_at)),
            ("Brand", account.brand),
            ("Country", account.player.country),
            ("Currency", account.player.currency),
        ]
    facts += [(name.replace("_", " ").capitalize(), personal.get(name, "sealed")) for name in account.told()]
    limits, currency = account.limits, account.player.currency
    if limits != Limits():
        daily = limits.daily_deposit
        facts += [
            ("Daily deposit limit", _money(daily.amount, daily.currency) if daily else "none"),
            ("Used of it", f"{_money(limits.deposited.of_day, currency)} on {limits.deposited.day.isoformat()}"),
        ]
    return f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in facts)}</dl>"


def _balances(account: Account) -> Iterable[str]:
    if account.balances:
        yield "<h2>Wallet</h2>"
        yield _table(
            ("Currency", "#Cash", "#Bonus", "#Reserved", "#Owed", "#Deposited", "#Deposits"),
            [
                (
                    currency,
                    amount(balance.cash, currency),
                    amount(balance.bonus, currency),
                    amount(balance.reserved, currency),
                    amount(-balance.receivable, currency),
                    amount(deposited.deposited, currency),
                    f"{deposited.deposits:,}",
                )
                for currency, balance in sorted(account.balances.items())
                for deposited in [account.deposited.get(currency, Deposited())]
            ],
        )


def _payments(account: Account) -> Iterable[str]:
    if account.transactions:
        yield f"<h2>Transactions ({len(account.transactions):,})</h2>"
        payments = sorted(account.transactions.items(), key=lambda item: (item[1].requested_at, item[0]))
        yield _table(
            ("Recorded (UTC)", "Kind", "#Amount", "Provider", "Status", "Transaction"),
            [
                (_time(p.requested_at), p.kind, _money(p.money.amount, p.money.currency), p.provider, p.status, id_)
                for id_, p in payments
            ],
        )


def _tickets(account: Account) -> Iterable[str]:
    if account.tickets:
        yield f"<h2>Tickets ({len(account.tickets):,})</h2>"
        tickets = sorted(account.tickets.items(), key=lambda item: (item[1].opened_at, item[0]))
        yield _table(
            ("Opened (UTC)", "Priority", "Status", "Assignee", "Ticket"),
            [(_time(t.opened_at), t.priority, t.status, t.assignee or "", id_) for id_, t in tickets],
        )


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A heading that begins with # is one of numbers."""
    classes = [' class="number"' if heading.startswith("#") else "" for heading in headings]
    head = "".join(f"<th{kind}>{escape(h.lstrip('#'))}</th>" for kind, h in zip(classes, headings, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(v.strip())}</td>" for kind, v in zip(classes, line, strict=True)) + "</tr>"
        for line in lines
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _timeline(rows: Sequence[Row]) -> str:
    headings = "".join(
        f"<th{kind}>{name}</th>"
        for name, kind in (
            ("When (UTC)", ""),
            ("What", ""),
            ("Amount", ' class="number"'),
            ("Cash after", ' class="number"'),
            ("Who", ""),
            ("Where", ""),
        )
    )
    lines = "".join(map(_row, rows))
    return f"<div class='wide'><table><thead><tr>{headings}</tr></thead><tbody>{lines}</tbody></table></div>"


def _row(row: Row) -> str:
    money, balance = row.money, row.balance
    kind = "" if row.counts else " class='stranded'"
    stranded = "" if row.counts else "<div class='stranded-label'>stranded: does not count</div>"
    then = f"<div class='then'>happened {escape(row.occurred)}</div>" if row.occurred else ""
    facts: dict[str, Any] = {"event": row.id, "stream": f"{row.stream}, version {row.version}", "command": row.command}
    if row.cause:
        facts["cause"] = row.cause
    told = msgspec.json.format(msgspec.json.encode({**facts, "leaf": row.leaf, "data": row.data})).decode()
    cash = ""
    if balance is not None and money is not None:
        cash = amount(balance["cash"], money.currency)
        if balance["reserved"]:
            cash += f" (+ {amount(balance['reserved'], money.currency)} reserved)"
    return (
        f"<tr{kind}><td class='time'>{_time(row.recorded)}{then}</td>"
        f"<td>{stranded}{escape(row.what)}<details><summary>{escape(row.type)}</summary><pre>{escape(told)}</pre></details></td>"
        f"<td class='number'>{escape(_money(money.amount, money.currency)) if money else ''}</td>"
        f"<td class='number'>{escape(cash)}</td><td>{escape(row.actor)}</td>"
        f"<td><code>{escape(row.log)}/{row.position}<br>{escape(row.leaf[:16])}…</code></td></tr>"
    )


def _money(minor: int, currency: str) -> str:
    return f"{amount(minor, currency)} {currency}"


def _time(at: datetime | None) -> str:
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
