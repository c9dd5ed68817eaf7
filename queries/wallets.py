"""Wallets: the trial balance."""

from __future__ import annotations

import msgspec

from queries.context import Context


class Account(msgspec.Struct, frozen=True):
    """The sum of all postings to an account, in minor units; `cash` and `reserved` are those of all players together."""

    account: str
    currency: str
    balance: int
    postings: int


class TrialBalance(msgspec.Struct, frozen=True):
    """All accounts, with the sum over each currency: in double entry each is zero. `positions`: from which it was made."""

    balanced: bool
    sums: dict[str, int]
    accounts: list[Account]
    positions: dict[str, int]


async def trial_balance(context: Context) -> TrialBalance:
    """The books of all logs held here, from one snapshot."""
    rows = await context.fetch("""
        SELECT a.account, a.currency, a.balance, a.postings, p.positions::text
          FROM (SELECT coalesce(json_object_agg(log, position), '{}') AS positions
                  FROM read.position JOIN read.generation USING (projection, generation)
                 WHERE projection = 'wallets' AND live) AS p
               LEFT JOIN read.account AS a ON true
         ORDER BY a.currency, a.account""")
    accounts = [Account(*row[:4]) for row in rows if row[0] is not None]
    sums: dict[str, int] = {}
    for account in accounts:
        sums[account.currency] = sums.get(account.currency, 0) + account.balance
    positions = msgspec.json.decode(rows[0][4], type=dict[str, int])
    return TrialBalance(not any(sums.values()), sums, accounts, positions)
