"""Funds: the daily report of what the house holds of its players' money, as a regulator asks for it."""

from __future__ import annotations

from datetime import date

import msgspec

from domain.wallets import OWN
from queries.context import Context
from queries.positions import MADE

_REPORT = f"""
    SELECT p.positions, p.code, f.currency, f.account, f.before, f.received, f.paid
      FROM ({MADE} WHERE projection = 'funds' AND live) AS p
      LEFT JOIN (SELECT currency, account, coalesce(sum(received - paid) FILTER (WHERE day < %s), 0)::bigint AS before,
                        coalesce(sum(received) FILTER (WHERE day = %s), 0)::bigint AS received,
                        coalesce(sum(paid) FILTER (WHERE day = %s), 0)::bigint AS paid
                   FROM read.funds WHERE day <= %s GROUP BY currency, account) AS f ON true"""


class Held(msgspec.Struct, frozen=True):
    """One account of all players together, in minor units: closing = opening + received - paid.

    What players owe (`receivable`) is never positive; in it, `paid` is what they came to owe and `received` what was settled.
    """

    currency: str
    account: str
    opening: int
    received: int
    paid: int
    closing: int


class Funds(msgspec.Struct, frozen=True):
    """Player funds on a day (UTC), by when money moved; history counts on the day on which it happened.

    `positions`: the last entry of each log that is counted, `code`: by which code, null if not known.
    """

    day: date
    items: list[Held]
    positions: dict[str, int]
    code: str | None


async def report(context: Context, day: date) -> Funds:
    """What the house held of its players' money on a day: opening, in, out, closing, by currency and account."""
    text = day.isoformat()
    rows = await context.fetch(_REPORT, text, text, text, text)
    positions, code = rows[0][:2]
    items = [
        Held(currency, account, before, received, paid, before + received - paid)
        for _, _, currency, account, before, received, paid in rows
        if currency is not None
    ]
    items.sort(key=lambda held: (held.currency, OWN.index(held.account)))
    return Funds(day, items, msgspec.json.decode(positions, type=dict[str, int]), code)
