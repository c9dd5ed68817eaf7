"""
Read models, folded again by the judge's own few lines, and held against those that a region shows.

What a model shows has to be what the log comes to at the model's own positions, whatever has come since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from chaos.fold import Entry, Ledger, State, currency_of, day_of, postings
from chaos.views import Model, View

Rows = Mapping[tuple[Any, ...], tuple[Any, ...]]
_OWN = ("cash", "reserved", "bonus", "receivable")


def unlike(view: View) -> list[str]:
    """What a region's read models, dashboard and trial balance show, and the log does not come to."""
    folded: dict[str, Ledger] = {}

    def at(positions: Mapping[str, int]) -> Ledger:
        key = repr(sorted(positions.items()))
        if key not in folded:
            folded[key] = Ledger({log: entries[: positions.get(log, 0)] for log, entries in view.logs.items()})
        return folded[key]

    broken = [f"{view.region}: {each}" for each in view.stops]
    for name, model in view.models.items():
        ledger = at(model.positions)
        for table, shown, due in _MODELS[name](model, ledger):
            broken += [f"{view.region}: {name}.{table}: {each}" for each in differences(shown, due)]
        broken += [f"{view.region}: {name} stands at {model.positions}, where {fault}" for fault in _unfit(ledger)]
    accounts = {(each["account"], each["currency"]): (each["balance"],) for each in view.trial["accounts"]}
    due = {key: (balance,) for key, (balance, _) in trial(at(view.trial["positions"])).items()}
    broken += [f"{view.region}: the trial balance: {each}" for each in differences(accounts, due)]
    days = {(each["day"], each["currency"]): (each["count"], each["amount"]) for each in view.dashboard["days"]}
    broken += [
        f"{view.region}: the dashboard: {each}" for each in differences(days, settled(at(view.dashboard["positions"])))
    ]
    return broken


def _unfit(ledger: Ledger) -> list[str]:
    """A place where a model may not stand: behind an adoption, and before the cut from which it goes on."""
    _ = ledger.states
    return ledger.faults


def differences(shown: Rows, due: Rows) -> list[str]:
    return [
        f"{'/'.join(map(str, key))} is {shown.get(key, 'missing')}, the log comes to {due.get(key, 'nothing')}"
        for key in sorted({*shown, *due}, key=repr)
        if shown.get(key) != due.get(key)
    ]


def trial(ledger: Ledger) -> dict[tuple[str, str], tuple[int, int]]:
    """By account and currency: balance, number of postings."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for each in _wallet(ledger):
        for account, amount in postings(each):
            key = account, currency_of(each)
            balance, count = found.get(key, (0, 0))
            found[key] = balance + amount, count + 1
    return found


def unbalanced(ledger: Ledger, trial_balance: Mapping[str, Any]) -> list[str]:
    """Sums over a currency that are not zero: of the log's own postings, and as a region shows them."""
    sums: Counter[str] = Counter()
    for (_, currency), (balance, _) in trial(ledger).items():
        sums[currency] += balance
    broken = [f"the postings in {currency} come to {total}" for currency, total in sums.items() if total]
    broken += [
        f"the trial balance in {currency} is {total}" for currency, total in trial_balance["sums"].items() if total
    ]
    return broken if trial_balance["balanced"] else [*broken, "the trial balance says that it is not balanced"]


def settled(ledger: Ledger) -> dict[tuple[str, str], tuple[int, int]]:
    """By day (UTC) and currency: how many deposits were settled, and their sum."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for command in ledger.commands:
        made = command.first("wallet.credited")
        if made is not None and "transaction.deposit_settled" in command.types:
            end = next(each for each in command.entries if each.body["type"] == "transaction.deposit_settled")
            key = day_of(end.recorded), str(made["transfer"]["money"]["currency"])
            count, amount = found.get(key, (0, 0))
            found[key] = count + 1, amount + int(made["transfer"]["money"]["amount"])
    return found


def _wallet(ledger: Ledger) -> list[Entry]:
    return [
        each
        for command in ledger.commands
        for each in command.entries
        if str(each.body["stream"]).startswith("wallet-")
    ]


def _now(ledger: Ledger) -> dict[str, State]:
    return {player: states[-1] for player, states in ledger.states.items() if states[-1].registered}


def _players(model: Model, ledger: Ledger) -> list[tuple[str, Rows, Rows]]:
    now = _now(ledger)
    held = ("version", "cash", "reserved", "deposits", "deposited", "bonus", "receivable")
    balances = {
        (f"player_{player}", "EUR"): (s.wallet, s.cash, s.reserved, s.deposits, s.deposited, s.bonus, s.receivable)
        for player, s in now.items()
        if s.wallet
    }
    standing = {
        (f"player_{player}",): ("closed" if s.closed else "blocked" if s.blocked else "active",)
        for player, s in now.items()
    }
    return [
        ("balance", model.rows("balance", 2, *held), balances),
        ("player", model.rows("player", 1, "status"), standing),
    ]


def _transactions(model: Model, ledger: Ledger) -> list[tuple[str, Rows, Rows]]:
    due = {(id_,): (amount, status) for s in _now(ledger).values() for id_, (status, amount) in s.payments.items()}
    sums: dict[tuple[Any, ...], tuple[int, int]] = {}
    shown = model.rows("transaction", 1, "amount", "status")
    kinds = model.rows("transaction", 1, "kind", "currency")
    for key, (amount, status) in due.items():
        kind, currency = kinds.get(key, ("", ""))
        count, total = sums.get((kind, status, currency), (0, 0))
        sums[kind, status, currency] = count + 1, total + amount
    return [("transaction", shown, due), ("payments", model.rows("payments", 3, "count", "amount"), sums)]


def _wallets(model: Model, ledger: Ledger) -> list[tuple[str, Rows, Rows]]:
    return [("account", model.rows("account", 2, "balance", "postings"), trial(ledger))]


def _funds(model: Model, ledger: Ledger) -> list[tuple[str, Rows, Rows]]:
    due: dict[tuple[str, str, str], tuple[int, int]] = {}
    for each in _wallet(ledger):
        for account, amount in postings(each):
            if account in _OWN:
                key = day_of(each.recorded), account, currency_of(each)
                received, paid = due.get(key, (0, 0))
                due[key] = received + max(amount, 0), paid + max(-amount, 0)
    return [("funds", model.rows("funds", 3, "received", "paid"), due)]


def _dashboard(model: Model, ledger: Ledger) -> list[tuple[str, Rows, Rows]]:
    days = settled(ledger)
    counts = {(f"{day} {currency}",): (count,) for (day, currency), (count, _) in days.items()}
    amounts = {(f"{day} {currency}",): (amount,) for (day, currency), (_, amount) in days.items()}
    players = len(_now(ledger))
    return [
        ("counts", model.rows("counts", 1, "value"), counts),
        ("amounts", model.rows("amounts", 1, "value"), amounts),
        ("totals", model.rows("totals", 1, "value"), {("players",): (players,)} if players else {}),
    ]


def _segments(model: Model, ledger: Ledger) -> list[tuple[str, Rows, Rows]]:
    due = {(player,): (s.deposited,) for player, s in _now(ledger).items() if s.deposits}
    return [("deposited:EUR", model.rows("deposited:EUR", 1, "score"), due)]


_MODELS = {
    "players": _players,
    "transactions": _transactions,
    "wallets": _wallets,
    "funds": _funds,
    "dashboard": _dashboard,
    "segments": _segments,
}
