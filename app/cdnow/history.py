"""
What a file says. A line is one purchase; columns are separated by white space:

    sample    master id · sample id · date · units · dollars
    master    customer · date · units · dollars                 its first line names the columns
"""

from __future__ import annotations

import hashlib
import re
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from app.cdnow.stopped import MalformedLine


class Purchase(NamedTuple):
    line: int
    day: date
    cents: int


class Customer(NamedTuple):
    """`line` and `since` are of the customer's first line; `purchases` are those above 0.00, in the order of the file."""

    id: str
    line: int
    since: date
    purchases: list[Purchase]


class History(NamedTuple):
    """A whole file. `digest` is the SHA-256 of its bytes, in hex; `lines` counts those of customers, `skipped` those of 0.00."""

    digest: str
    customers: list[Customer]
    lines: int
    skipped: int


def parse(data: bytes) -> History:
    """Raises MalformedLine."""
    customers: dict[str, Customer] = {}
    columns = lines = skipped = 0
    for number, text in enumerate(data.decode("ascii", "replace").split("\n"), 1):  # so a digit is one of 0 to 9
        fields = text.split()
        if not fields or (number == 1 and fields[0] == "customer_id"):
            continue
        columns = columns or len(fields)
        id_, purchase = _line(number, fields, columns)
        customer = customers.get(id_)
        if customer is None:
            customer = customers[id_] = Customer(id_, number, purchase.day, [])
        lines += 1
        if purchase.cents:
            customer.purchases.append(purchase)
        else:
            skipped += 1
    return History(hashlib.sha256(data).hexdigest(), list(customers.values()), lines, skipped)


_COLUMNS = (4, 5)
_ID_DIGITS_MAX = 20
_DAY = re.compile(r"[0-9]{8}").fullmatch
_DOLLARS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?").fullmatch


def _line(number: int, fields: list[str], columns: int) -> tuple[str, Purchase]:
    if columns not in _COLUMNS:
        raise MalformedLine(number, f"has {len(fields)} columns; a line of the sample has 5, of the master file 4")
    if len(fields) != columns:
        raise MalformedLine(number, f"has {len(fields)} columns, the lines before it have {columns}")
    id_, day, units, dollars = fields[0], fields[-3], fields[-2], fields[-1]
    for part in (id_, fields[-4], units):
        if not part.isdigit() or len(part) > _ID_DIGITS_MAX:
            raise MalformedLine(number, f"{part[:40]!r} is not a number")
    try:
        return id_, Purchase(number, _day(day), _cents(dollars))
    except ValueError as error:
        raise MalformedLine(number, str(error)) from None


# The same days and prices come again and again.


@lru_cache(maxsize=10_000)
def _day(text: str) -> date:
    if not _DAY(text):
        raise ValueError(f"{text[:40]!r} is not a date (YYYYMMDD)")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a day of the calendar") from None


@lru_cache(maxsize=10_000)
def _cents(text: str) -> int:
    if not _DOLLARS(text):
        raise ValueError(f"{text[:40]!r} is not an amount of dollars")
    cents = Decimal(text).scaleb(2)
    if cents != (whole := int(cents)):
        raise ValueError(f"{text!r} dollars are not a whole number of cents")
    return whole
