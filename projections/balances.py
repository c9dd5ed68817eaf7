"""Balances: what a player's accounts hold in each currency, and the sum and number of all settled deposits (of read.balance)."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from domain.wallets import BONUS, KINDS, RECEIVABLE, UNMOVED, Movements, Unmoved, WalletEvent, currency_of, postings
from eventstore.record import Recorded
from projections import deposits
from projections.columns import bigint, shown, text
from projections.memory import Rows
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Table

_PLAYER = "player_"


class Balance(msgspec.Struct, gc=False):
    """How the batch leaves `cash` and `reserved`, as of `version`, and what it adds to the rest.

    An event carries cash and reserved after it, so the newest version says all; the other two accounts stand in few events.
    """

    version: int = 0
    cash: int = 0
    reserved: int = 0
    deposits: int = 0
    deposited: int = 0
    bonus: int = 0
    receivable: int = 0


Changes: TypeAlias = dict[tuple[str, str], Balance]
"""By (suffix of the player's id, currency)."""

TABLE = Table("balance", ("player", "currency", *Balance.__struct_fields__), key=2, player="player")


def changes(events: Events) -> Changes:
    found: Changes = {}
    for kind in (*KINDS, *UNMOVED):  # the version, too, of what moves nothing
        for recorded, event in events.of(kind):
            _take(found, recorded, event)
    for deposit in deposits.settled(events):
        balance = found[deposit.player, deposit.currency]
        balance.deposits += 1
        balance.deposited += deposit.amount
    return found


def _take(found: Changes, recorded: Recorded, event: WalletEvent | Unmoved) -> None:
    key = (recorded.body.stream.rpartition("-")[2], currency_of(event))
    balance = found.get(key)
    if balance is None:
        balance = found[key] = Balance()
    after = event.accounts if isinstance(event, Movements | Unmoved) else event.balance
    if recorded.body.version > balance.version:
        balance.version, balance.cash, balance.reserved = recorded.body.version, after.cash, after.reserved
    if isinstance(event, Movements):
        for account, amount in postings(event):
            if account == BONUS:
                balance.bonus += amount
            elif account == RECEIVABLE:
                balance.receivable += amount


def fold(rows: Rows, changed: Changes) -> None:
    for (suffix, currency), new in changed.items():
        key = (_PLAYER + suffix, shown(currency))
        *_, count, deposited, bonus, receivable = rows.get(key) or (0, 0, 0, 0)
        rows[key] = (
            *key, new.version, new.cash, new.reserved, count + new.deposits, deposited + new.deposited,
            bonus + new.bonus, receivable + new.receivable,
        )  # fmt: skip


async def write(cursor: Cursor, schema: str, changed: Changes) -> None:
    if not changed:
        return
    rows = changed.values()
    await cursor.execute(
        f"""
        INSERT INTO {schema}.balance AS old
            (player, currency, version, cash, reserved, deposits, deposited, bonus, receivable)
        SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b)
        ON CONFLICT (player, currency) DO UPDATE
           SET version = excluded.version, cash = excluded.cash, reserved = excluded.reserved,
               deposits = old.deposits + excluded.deposits, deposited = old.deposited + excluded.deposited,
               bonus = old.bonus + excluded.bonus, receivable = old.receivable + excluded.receivable""",
        (
            text([_PLAYER + suffix for suffix, _ in changed]),
            text([currency for _, currency in changed]),
            bigint([row.version for row in rows]),
            bigint([row.cash for row in rows]),
            bigint([row.reserved for row in rows]),
            bigint([row.deposits for row in rows]),
            bigint([row.deposited for row in rows]),
            bigint([row.bonus for row in rows]),
            bigint([row.receivable for row in rows]),
        ),
    )
