"""Logs and records made by hand: a player of eu who pays in and out, as the load would have recorded it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from chaos.fold import Entry, Ledger, command_id, entry, genesis, leaf_of
from chaos.place import Place, Region, caller
from chaos.record import Op, Try
from chaos.views import Model, View

PLAYER = "01ka7g0000e00800000000001a"
PARTITION = 42
DAY_US = 1_795_348_800_000_000  # 2026-11-22T12:00:00Z
DAY = "2026-11-22"


def eur(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}


def place() -> Place:
    regions = {name: Region(f"http://{name}", "", name) for name in ("eu", "us")}
    return Place(regions, {}, "example")


class World:
    """`at` is the load's clock: each step takes ten."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Entry]] = {"eu": [], "us": []}
        self.ops: list[Op] = []
        self.at = 0
        self.cash, self.reserved = 0, 0
        self._versions: Counter[str] = Counter()
        for log, partitions in (("eu", [[0, 127]]), ("us", [[128, 255]])):
            data = {"origin": f"countroom.example/{log}", "epoch": 1, "partitions": partitions}
            self.append(log, "0" * 32, [(f"region-{log}-log", "log.opened", data)], actor="system", epoch=0)

    # What stands in logs

    def append(
        self, log: str, id_: str, events: Sequence[tuple[str, str, Any]], *, actor: str = "operator:dev", epoch: int = 1
    ) -> str:
        """A command; returns what its answer says of its position."""
        for number, (stream, type_, data) in enumerate(events, 1):
            self._versions[stream] += 1
            owned = {} if stream.startswith("region-") else {"partition": PARTITION, "epoch": epoch}
            body = {
                "stream": stream, "version": self._versions[stream], "type": type_, "actor": actor, **owned,
                "command": {"id": id_, "i": number, "n": len(events)}, "data": data,
            }  # fmt: skip
            self.put(log, orjson.dumps(body))
        last = self.logs[log][-1]
        return f"{log}/{last.position}/{last.leaf[:8].hex()}"

    def put(self, log: str, raw: bytes) -> None:
        held = self.logs[log]
        before = held[-1].leaf if held else genesis(f"countroom.example/{log}")
        position, recorded = len(held) + 1, DAY_US + len(held)
        held.append(entry(log, position, recorded, leaf_of(before, position, recorded, raw), raw))

    def hand_over(self, of: str, to: str, *, epoch: int) -> None:
        """`epoch`: at which it was owned."""
        span = [[PARTITION, PARTITION, epoch]]
        self.append(
            of, "1" * 32, [(f"region-{of}-log", "log.released", {"partitions": span, "to": to})], actor="system"
        )
        cut = self.logs[of][-1]
        data = {"partitions": [[PARTITION, PARTITION, epoch + 1]], "of": of}
        data["cut"] = {"position": cut.position, "leaf": cut.leaf.hex()}  # type: ignore[assignment]
        self.append(to, "2" * 32, [(f"region-{to}-log", "log.adopted", data)], actor="system")

    # What was asked and answered

    def step(self) -> tuple[int, int]:
        """When the next one asks, and when it is answered."""
        self.at += 10
        return self.at, self.at + 5

    def asked(
        self, kind: str, tries: list[Try], *, path: str = "", body: Any = None, role: str = "operator", key: str = ""
    ) -> Op:
        key = key or f"key {len(self.ops)}"
        op = Op(f"op-{len(self.ops)}", "c0", kind, PLAYER, caller(role), key, path, body, "", tries)
        self.ops.append(op)
        return op

    def did(
        self, kind: str, events: Sequence[tuple[str, str, Any]], answer: Any, *, path: str = "", body: Any = None,
        role: str = "operator", log: str = "eu", epoch: int = 1, status: int = 200,
    ) -> Op:  # fmt: skip
        """A command that is recorded, and answered so."""
        key = f"key {len(self.ops)}"
        position = self.append(log, command_id(caller(role), key), events, actor=caller(role), epoch=epoch)
        asked, answered = self.step()
        return self.asked(
            kind, [Try(log, asked, answered, status, answer, position, "")], path=path, body=body, role=role, key=key
        )

    def refused(
        self, kind: str, status: int, answer: Any, *, path: str = "", body: Any = None, region: str = "eu"
    ) -> Op:
        asked, answered = self.step()
        return self.asked(kind, [Try(region, asked, answered, status, answer, "", "")], path=path, body=body)

    def read(
        self, kind: str, path: str, answer: Any, *, at_least: str = "", position: str = "", status: int = 200
    ) -> Op:
        asked, answered = self.step()
        tries = [Try("us", asked, answered, status, answer, position, "")]
        self.ops.append(Op(f"op-{len(self.ops)}", "c0", kind, PLAYER, "", "", path, None, at_least, tries))
        return self.ops[-1]

    # What players do

    def registers(self) -> Op:
        event = (f"player-{PLAYER}", "player.registered", {"brand": "main", "country": "AT", "currency": "EUR"})
        return self.did(
            "register", [event], {"player": f"player_{PLAYER}", "status": "active"}, path="/v1/players", status=201
        )

    def deposits(self, amount: int, number: int, *, log: str = "eu", epoch: int = 1) -> str:
        """Asked for and settled. Returns the payment."""
        id_ = self.requests(amount, number, log=log, epoch=epoch)
        self.settles(amount, id_, log=log, epoch=epoch)
        return id_

    def requests(self, amount: int, number: int, *, log: str = "eu", epoch: int = 1) -> str:
        suffix = f"01ka7g0000e0080000000{number:03}1a"
        events = [
            (
                f"transaction-{suffix}",
                "transaction.deposit_requested",
                {"player": f"player_{PLAYER}", "money": eur(amount)},
            ),
            (
                f"limits-{PLAYER}",
                "limits.headroom_consumed",
                {"transaction": f"transaction_{suffix}", "money": eur(amount), "day": DAY},
            ),
        ]
        answer = {"transaction": f"transaction_{suffix}", "status": "requested", "amount": eur(amount)}
        path = f"/v1/players/player_{PLAYER}/deposits"
        self.did("deposit", events, answer, path=path, body={"amount": eur(amount)}, status=201, log=log, epoch=epoch)
        return f"transaction_{suffix}"

    def settles(self, amount: int, id_: str, *, log: str = "eu", epoch: int = 1) -> Op:
        self.cash += amount
        events = [
            (id_.replace("_", "-"), "transaction.deposit_settled", {}),
            self.wallet("wallet.credited", "psp:card", "cash", amount, id_),
        ]
        answer = {"transaction": id_, "status": "settled", "balance": eur(self.cash)}
        path = f"/v1/transactions/{id_}/settle"
        return self.did("settle", events, answer, path=path, body={}, role="payments", log=log, epoch=epoch)

    def withdraws(self, amount: int, number: int, *, log: str = "eu", epoch: int = 1) -> Op:
        suffix = f"01ka7g0000e0080000000{number:03}1a"
        id_ = f"transaction_{suffix}"
        self.cash -= amount
        self.reserved += amount
        events = [
            (
                f"transaction-{suffix}",
                "transaction.withdrawal_requested",
                {"player": f"player_{PLAYER}", "money": eur(amount)},
            ),
            (f"transaction-{suffix}", "transaction.withdrawal_approved", {}),
            self.wallet("wallet.reserved", "cash", "reserved", amount, id_),
        ]
        answer = {"transaction": id_, "status": "approved", "amount": eur(amount), "balance": eur(self.cash)}
        body = {"amount": eur(amount), "provider": "card"}
        return self.did("withdraw", events, answer, body=body, status=201, log=log, epoch=epoch)

    def wallet(self, type_: str, source: str, target: str, amount: int, id_: str) -> tuple[str, str, Any]:
        transfer = {"code": "any", "source": source, "target": target, "money": eur(amount), "transaction": id_}
        return (
            f"wallet-{PLAYER}",
            type_,
            {"transfer": transfer, "balance": {"cash": self.cash, "reserved": self.reserved}},
        )

    def blocks(self) -> Op:
        answer = {"player": f"player_{PLAYER}", "status": "blocked"}
        return self.did(
            "block", [(f"player-{PLAYER}", "player.blocked", {"reason": "fraud"})], answer, body={"reason": "fraud"}
        )

    def excludes(self, *, log: str = "eu") -> Op:
        """In us, which does not own the player, as a safeguard."""
        owned = log == "eu"
        stream = f"protection-{PLAYER}" if owned else f"region-{log}-protection_{PLAYER}"
        event = (stream, "protection.excluded" if owned else "safeguard.excluded", {"until": "2027-05-22T12:00:00Z"})
        answer = {"player": f"player_{PLAYER}", "until": "2027-05-22T12:00:00Z"}
        return self.did("exclude", [event], answer, body={"term": "6_months"}, log=log)

    def card(self, *, cash: int, at: dict[str, int], at_least: str = "", deposits: int = 1, deposited: int = 100) -> Op:
        held = {"cash": cash, "reserved": 0, "bonus": 0, "receivable": 0, "deposits": deposits, "deposited": deposited}
        answer = {"card": {"positions": at, "balances": [held], "status": "active"}}
        position = ",".join(f"{log}/{number}/0011223344556677" for log, number in at.items())
        return self.read("card", f"/v1/players/player_{PLAYER}", answer, at_least=at_least, position=position)

    def ledger(self) -> Ledger:
        return Ledger(self.logs)


def replaced(op: Op, place: int = 0, **changes: Any) -> Op:
    """The operation with another answer."""
    tries = list(op.tries)
    tries[place] = tries[place]._replace(**changes)
    return op._replace(tries=tries)


def again(op: Op, at: int, **changes: Any) -> Op:
    """The operation, said once more at that time, with an answer that differs in this."""
    return op._replace(tries=[*op.tries, op.tries[0]._replace(asked_ns=at, answered_ns=at + 5, **changes)])


def view(world: World, region: str = "eu") -> View:
    """A region that shows exactly what the log of `world` comes to, for a player who has paid in once, 100."""
    at = {log: len(entries) for log, entries in world.logs.items()}
    player = f"player_{PLAYER}"
    payment = "transaction_01ka7g0000e00800000000011a"
    tables: dict[str, dict[str, tuple[list[str], list[list[Any]]]]] = {
        "players": {
            "balance": (
                ["player", "currency", "version", "cash", "reserved", "deposits", "deposited", "bonus", "receivable"],
                [[player, "EUR", 1, 100, 0, 1, 100, 0, 0]],
            ),
            "player": (["id", "status"], [[player, "active"]]),
        },
        "transactions": {
            "transaction": (["id", "kind", "currency", "amount", "status"], [[payment, "deposit", "EUR", 100, "settled"]]),
            "payments": (["kind", "status", "currency", "count", "amount"], [["deposit", "settled", "EUR", 1, 100]]),
        },
        "wallets": {
            "account": (
                ["account", "currency", "balance", "postings"], [["cash", "EUR", 100, 1], ["psp:card", "EUR", -100, 1]],
            )
        },
        "funds": {"funds": (["day", "account", "currency", "received", "paid"], [[DAY, "cash", "EUR", 100, 0]])},
        "dashboard": {
            "counts": (["field", "value"], [[f"{DAY} EUR", 1]]),
            "amounts": (["field", "value"], [[f"{DAY} EUR", 100]]),
            "totals": (["field", "value"], [["players", 1]]),
        },
        "segments": {"deposited:EUR": (["member", "score"], [[PLAYER, 100]])},
    }  # fmt: skip
    accounts = [
        {"account": "cash", "currency": "EUR", "balance": 100}, {"account": "psp:card", "currency": "EUR", "balance": -100},
    ]  # fmt: skip
    trial = {"balanced": True, "sums": {"EUR": 0}, "accounts": accounts, "positions": at}
    dashboard = {"days": [{"day": DAY, "currency": "EUR", "count": 1, "amount": 100}], "positions": at}
    models = {name: Model(at, each) for name, each in tables.items()}
    return View(region, {log: list(entries) for log, entries in world.logs.items()}, models, trial, dashboard)
