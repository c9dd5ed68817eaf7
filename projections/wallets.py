"""
Wallets: the trial balance. All postings summed per account and currency; over a currency they are zero, or books are wrong.

The players' own accounts (cash, bonus, reserved, receivable) are one account each here; whose money it is, read.balance knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from domain.wallets import KINDS, currency_of, postings
from projections.columns import bigint, shown, text
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Table

Changes = dict[tuple[str, str], tuple[int, int]]
"""By (account, currency): what is added to the balance, and by how many postings."""


class Wallets:
    name = "wallets"
    tables: ClassVar[Sequence[Table]] = (Table("account", ("account", "currency", "balance", "postings"), key=2),)

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        for kind in KINDS:
            for _, event in events.of(kind):
                currency = currency_of(event)
                for account, amount in postings(event):
                    total, count = changes.get((account, currency), (0, 0))
                    changes[account, currency] = (total + amount, count + 1)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        await cursor.execute(
            f"""
            INSERT INTO {schema}.account AS old (account, currency, balance, postings)
            SELECT * FROM unnest(%b, %b, %b, %b)
            ON CONFLICT (account, currency) DO UPDATE
               SET balance = old.balance + excluded.balance, postings = old.postings + excluded.postings""",
            (
                text([account for account, _ in changes]),
                text([currency for _, currency in changes]),
                bigint([amount for amount, _ in changes.values()]),
                bigint([count for _, count in changes.values()]),
            ),
        )

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["account"]
        for (account, currency), (amount, count) in changes.items():
            key = (shown(account), shown(currency))
            _, _, balance, postings = rows.get(key) or (*key, 0, 0)
            rows[key] = (*key, balance + amount, postings + count)
