"""Wallets: the trial balance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from queries.context import Context, Made
from queries.positions import MADE

_BOOKS = f"""
    SELECT p.positions, p.code, a.account, a.currency, a.balance, a.postings
      FROM ({MADE} WHERE projection = 'wallets' AND live) AS p LEFT JOIN read.account AS a ON true"""


class Account(msgspec.Struct, frozen=True):
    """The sum of all postings to an account, in minor units; `cash` and `reserved` are those of all players together."""

    account: str
    currency: str
    balance: int
    postings: int


class TrialBalance(msgspec.Struct, frozen=True):
    """
    All accounts, with the sum over each currency: in double entry each is zero.

    `positions`: the last entry of each log that is counted, `code`: by which code, null if not known.
    """

    balanced: bool
    sums: dict[str, int]
    accounts: list[Account]
    positions: dict[str, int]
    code: str | None


def answer(rows: Iterable[tuple[Any, ...]], made: Made) -> TrialBalance:
    """The books that these rows make, which have the columns of read.account."""
    accounts = sorted((Account(*row) for row in rows), key=lambda account: (account.currency, account.account))
    sums: dict[str, int] = {}
    for account in accounts:
        sums[account.currency] = sums.get(account.currency, 0) + account.balance
    return TrialBalance(not any(sums.values()), sums, accounts, made.positions, made.code)


async def trial_balance(context: Context) -> TrialBalance:
    """The books of all logs held here, from one snapshot."""
    rows = await context.fetch(_BOOKS)
    positions, code = rows[0][:2]
    made = Made(msgspec.json.decode(positions, type=dict[str, int]), code)
    return answer((row[2:] for row in rows if row[2] is not None), made)
