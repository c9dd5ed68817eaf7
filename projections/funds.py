"""Funds: what the house holds of its players' money, day by day (UTC), by when it happened.

Money that moves between two accounts of a player leaves the one and enters the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from domain.wallets import KINDS, OWN, currency_of, postings
from projections.columns import bigint, shown, text
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Table
from projections.times import day_of, occurred_us

Changes = dict[tuple[str, str, str], tuple[int, int]]
"""By (day, account, currency): what entered and what left, in minor units."""


class Funds:
    name = "funds"
    tables: ClassVar[Sequence[Table]] = (Table("funds", ("day", "account", "currency", "received", "paid"), key=3),)

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        for kind in KINDS:
            for recorded, event in events.of(kind):
                day, currency = day_of(occurred_us(recorded)), currency_of(event)
                for account, amount in postings(event):
                    if account in OWN:
                        received, paid = changes.get((day, account, currency), (0, 0))
                        changes[day, account, currency] = (received + max(amount, 0), paid + max(-amount, 0))
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        await cursor.execute(
            f"""
            INSERT INTO {schema}.funds AS old (day, account, currency, received, paid)
            SELECT * FROM unnest(%b, %b, %b, %b, %b)
            ON CONFLICT (day, account, currency) DO UPDATE
               SET received = old.received + excluded.received, paid = old.paid + excluded.paid""",
            (
                text([day for day, _, _ in changes]),
                text([account for _, account, _ in changes]),
                text([currency for _, _, currency in changes]),
                bigint([received for received, _ in changes.values()]),
                bigint([paid for _, paid in changes.values()]),
            ),
        )

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["funds"]
        for (day, account, currency), (received, paid) in changes.items():
            key = (day, account, shown(currency))
            *_, before_received, before_paid = rows.get(key) or (0, 0)
            rows[key] = (*key, before_received + received, before_paid + paid)
