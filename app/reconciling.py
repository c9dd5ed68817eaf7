"""
`countroom reconcile`: a provider's statement against the ledger. It changes nothing: what it finds is for people to act on.

The statement is CSV (RFC 4180) with a header line that names these columns, in any order:

    id           the provider's own, one for each line
    transaction  our transaction's id
    kind         deposit, refund, chargeback, withdrawal or return
    amount       minor units, an integer
    currency     ISO 4217
    status       settled; a line of any other status moved no money, and is left out
    at           RFC 3339, when it was settled

For each transaction and kind, what the provider's lines come to and what the ledger has booked are `matched`, or it is
`missing_here` (the ledger has none), `missing_there` (the statement has none), or `amount_differs`.

Invariants:
    - every line that moved money and every booked movement of the period is in exactly one of the four;
    - a file with a line that cannot be understood is refused as a whole, by its number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec

from domain.errors import InvalidId
from domain.kernel import AMOUNT_MAX, Money, parse_id, parse_instant
from policies.currencies import EXPONENTS

COLUMNS = ("id", "transaction", "kind", "amount", "currency", "status", "at")
KINDS = ("deposit", "refund", "chargeback", "withdrawal", "return")
SETTLED = "settled"
LIVES = timedelta(days=60)
"""A payment that was requested longer ago than this before the period is only found if the statement names it."""
_PAGE = 200
_OK, _NOT_FOUND = 200, 404


class NotReconciled(Exception):
    """The statement cannot be read, or the ledger cannot be asked."""


class Line(NamedTuple):
    """A line of the statement; `number` is its place in the file."""

    number: int
    id: str
    transaction: str
    kind: str
    money: Money
    status: str
    at: datetime


class Period(NamedTuple):
    """From, and before. None: without end."""

    first: datetime | None = None
    last: datetime | None = None

    @classmethod
    def of(cls, first: str | None, last: str | None) -> Period:
        """Raises NotReconciled for what is no RFC 3339 time."""
        try:
            return cls(*(parse_instant(text) if text else None for text in (first, last)))
        except ValueError as error:
            raise NotReconciled(str(error)) from error

    def holds(self, at: datetime | None) -> bool:
        """What has no time is in every period."""
        return at is None or not ((self.first and at < self.first) or (self.last and at >= self.last))


class Payment(msgspec.Struct, frozen=True):
    """What GET /v1/transactions says of one, as far as it matters here."""

    id: str
    kind: str
    status: str
    provider: str
    settled_at: datetime | None
    settled: Money
    refunded: Money
    lost: Money

    def booked(self) -> dict[str, tuple[Money, datetime | None]]:
        """What has moved, by kind, and when, as far as that is known."""
        if self.kind == "withdrawal":
            moved = {"withdrawal": (self.settled, self.settled_at)}
            if self.status == "returned":
                moved["return"] = (self.settled, None)
        else:
            moved = {
                "deposit": (self.settled, self.settled_at), "refund": (self.refunded, None), "chargeback": (self.lost, None),
            }  # fmt: skip
        return {kind: each for kind, each in moved.items() if each[0].amount}


class Finding(msgspec.Struct, frozen=True):
    """`here`: booked in the ledger; `there`: on the statement, in its `lines`. Null: none."""

    transaction: str
    kind: str
    here: Money | None
    there: Money | None
    lines: list[int]


class Reconciled(msgspec.Struct, frozen=True):
    provider: str
    matched: list[Finding]
    missing_here: list[Finding]
    missing_there: list[Finding]
    amount_differs: list[Finding]

    @property
    def status(self) -> int:
        """0 all matched, 1 something differs."""
        return int(bool(self.missing_here or self.missing_there or self.amount_differs))


def run(file: Path, provider: str, url: str, token: str, period: Period) -> Reconciled:
    """Raises NotReconciled."""
    lines = [line for line in read(file) if period.holds(line.at)]
    with httpx2.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    ) as client:
        try:
            payments = {payment.id: payment for payment in _listed(client, provider, period)}
            for id_ in sorted({line.transaction for line in lines} - payments.keys()):
                if (found := _one(client, id_)) is not None and found.provider == provider:
                    payments[id_] = found
        except (httpx2.HTTPError, msgspec.DecodeError) as error:
            raise NotReconciled(f"{url}: {error}") from error
    return compare(provider, lines, payments.values(), period)


def compare(provider: str, lines: Sequence[Line], payments: Iterable[Payment], period: Period) -> Reconciled:
    """What matches and what does not. Pure."""
    there: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        there.setdefault((line.transaction, line.kind), []).append(line)
    here = {(payment.id, kind): moved for payment in payments for kind, moved in payment.booked().items()}
    found: dict[str, list[Finding]] = {"matched": [], "missing_here": [], "missing_there": [], "amount_differs": []}
    for key in sorted(here.keys() | there.keys()):
        told, (booked, at) = there.get(key, []), here.get(key, (None, None))
        if not told and not period.holds(at):
            continue
        sums = _sums(told)
        finding = Finding(*key, booked, sums[0] if len(sums) == 1 else None, [line.number for line in told])
        if booked is None:
            found["missing_here"].append(finding)
        elif not told:
            found["missing_there"].append(finding)
        else:
            found["matched" if sums == [booked] else "amount_differs"].append(finding)
    return Reconciled(provider, **found)


def _sums(lines: Iterable[Line]) -> list[Money]:
    """One for each currency: lines in two currencies match nothing."""
    sums: dict[str, int] = {}
    for line in lines:
        sums[line.money.currency] = sums.get(line.money.currency, 0) + line.money.amount
    return [Money(amount, currency) for currency, amount in sums.items()]


# The statement


def read(file: Path) -> list[Line]:
    """The lines that moved money; the same line twice is one. Raises NotReconciled."""
    lines: dict[str, Line] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = csv.DictReader(opened, strict=True)
            if missing := set(COLUMNS) - set(rows.fieldnames or ()):
                raise NotReconciled(f"{file}: the header does not name {', '.join(sorted(missing))}")
            for row in rows:
                line = _line(rows.line_num, row)
                known = lines.setdefault(line.id, line)
                if known._replace(number=line.number) != line:
                    raise NotReconciled(f"{file}: lines {known.number} and {line.number} have the same id")
    except (OSError, ValueError, csv.Error) as error:
        raise NotReconciled(f"{file}: {error}") from error
    return [line for line in lines.values() if line.status == SETTLED]


def _line(number: int, row: Mapping[str, Any]) -> Line:
    """Raises ValueError."""
    if None in row or None in row.values() or not row["id"]:
        raise ValueError(f"line {number} does not have the columns of the header")
    amount = row["amount"]
    if not (amount.isascii() and amount.isdecimal()) or not 0 < int(amount) <= AMOUNT_MAX:
        raise ValueError(f"line {number}: the amount is minor units, an integer from 1, and not {amount!r}")
    if row["currency"] not in EXPONENTS:
        raise ValueError(f"line {number}: {row['currency']!r} is not a currency of ISO 4217")
    if row["kind"] not in KINDS:
        raise ValueError(f"line {number}: a kind is one of {', '.join(KINDS)}, and not {row['kind']!r}")
    try:
        at = parse_instant(row["at"])
    except ValueError as error:
        raise ValueError(f"line {number}: {row['at']!r} is {error}") from None
    money = Money(int(amount), row["currency"])
    return Line(number, row["id"], row["transaction"], row["kind"], money, row["status"], at)


# The ledger


class _Page(msgspec.Struct, frozen=True):
    items: list[Payment]
    next_cursor: str | None


def _listed(client: httpx2.Client, provider: str, period: Period) -> Iterator[Payment]:
    """The provider's payments that may have moved money in the period. Raises NotReconciled, HTTPError, DecodeError."""
    asked = {"provider": provider, "limit": str(_PAGE)}
    if period.first:
        asked["requested_from"] = (period.first - LIVES).isoformat()
    if period.last:
        asked["requested_to"] = period.last.isoformat()
    while True:
        page = msgspec.json.decode(_answered(client.get("/v1/transactions", params=asked)), type=_Page)
        yield from page.items
        if page.next_cursor is None:
            return
        asked["cursor"] = page.next_cursor


def _one(client: httpx2.Client, id_: str) -> Payment | None:
    """A payment that the statement names, None if there is none of this id. Raises as `_listed`."""
    try:
        parse_id("transaction", id_)
    except InvalidId:
        return None
    response = client.get(f"/v1/transactions/{id_}")
    return None if response.status_code == _NOT_FOUND else msgspec.json.decode(_answered(response), type=Payment)


def _answered(response: httpx2.Response) -> bytes:
    """Raises NotReconciled."""
    if response.status_code != _OK:
        raise NotReconciled(f"{response.url}: {response.status_code} {response.text[:200]}")
    return response.content


def in_words(result: Reconciled) -> str:
    """For people: the sums, and each thing that does not match."""
    counts = (len(result.matched), len(result.missing_here), len(result.missing_there), len(result.amount_differs))
    said = ["{} matched, {} missing here, {} missing there, {} of another amount".format(*counts)]
    for title in ("missing_here", "missing_there", "amount_differs"):
        for each in getattr(result, title):
            where = f" (line {', '.join(map(str, each.lines))})" if each.lines else ""
            said.append(
                f"{title.replace('_', ' ')}: {each.kind} {each.transaction}, here {_shown(each.here)}, "
                f"there {_shown(each.there)}{where}"
            )
    return "\n".join(said)


def _shown(money: Money | None) -> str:
    return "nothing" if money is None else f"{money.amount} {money.currency}"
