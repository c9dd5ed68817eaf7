"""
Settled deposits, read off the two events of the command that settled them: the end of the transaction and the credit.

`transaction.deposit_settled` (or `…_settled_for`) says that and when, `wallet.credited` whose and how much. A batch holds whole commands, so both
are always at hand and no projection needs to remember requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from domain.transactions import DepositSettled, DepositSettledFor
from domain.wallets import Credited
from projections.projection import Events
from projections.times import occurred_us

_TRANSACTION = len("transaction-")
_WALLET = len("wallet-")


class Deposit(NamedTuple):
    """`player` is the suffix of the player's id; `settled_us` when the settling event occurred."""

    player: str
    amount: int
    currency: str
    settled_us: int


def settled(events: Events) -> Sequence[Deposit]:
    return events.derive(_settled)


def _settled(events: Events) -> Sequence[Deposit]:
    ends = {
        recorded.body.stream[_TRANSACTION:]: recorded
        for kind in (DepositSettled, DepositSettledFor)
        for recorded, _ in events.of(kind)
    }
    found = []
    for recorded, event in events.of(Credited):
        end = ends.get(event.transfer.transaction[_TRANSACTION:])
        if end is not None and end.body.command.id == recorded.body.command.id:
            money = event.transfer.money
            found.append(Deposit(recorded.body.stream[_WALLET:], money.amount, money.currency, occurred_us(end)))
    return found
