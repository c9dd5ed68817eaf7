"""
A region without HTTP, on a real PostgreSQL: commands, the read model of what is due, timers, payouts, callbacks.

Its clock stands still until a test moves it; what is recorded has the time of PostgreSQL, which is earlier.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from access.policy import Principal
from commands import callbacks
from commands.callbacks import Callback
from commands.edge import Edge
from commands.plan import Context, Receipt
from domain import kyc, payouts, transactions, wallets
from domain.kernel import Event, PlayerId, Stream, TransactionId
from domain.wallets import Accounts
from eventstore import postgres, schema
from eventstore.log import Command, Outcome
from eventstore.postgres import PostgresLog, PostgresStreams
from eventstore.record import Recorded
from projections import due
from projections import postgres as read_models
from projections.postgres import PostgresStore
from projections.runner import Runner, Stop
from projections.source import LogSource
from providers.port import Accepted, Answer, Payout, Provider
from reactions.payouts import Payouts
from reactions.timers import FIRES, Fire, Timers
from tests.commands.house import CODEC, SECRET, House, MemoryVault, Process, in_the_clear, made, placed
from tests.ledger import EU, OWNED, US, Ledger

HERE = Path(due.__file__).parent
OPENED = {"eu": (EU, OWNED), "us": (US, range(128, 256))}
"""By log, its origin and the partitions with which it begins."""


class Both(PostgresStreams):
    """The log and what is read of it, in one, as the write side's tests want it."""

    def __init__(self, log: PostgresLog, pool: Any) -> None:
        super().__init__(pool)
        self._log = log
        self.name, self.origin = log.name, log.origin

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        return await self._log.append(commands)


class Bank:
    """A provider in memory, which pays each key once."""

    def __init__(self, name: str = "acme") -> None:
        self.name = name
        self.paid: list[Payout] = []
        self.asked = 0

    async def pay(self, payout: Payout) -> Answer:
        self.asked += 1
        if payout not in self.paid:
            assert payout.transaction not in {each.transaction for each in self.paid}, "asked otherwise"
            self.paid.append(payout)
        return Accepted(f"paid-{self.paid.index(payout) + 1}")


class Region(House):
    def __init__(self, dsn: str, log: Both, pool: Any, projecting: Any) -> None:
        self.dsn, self.pool = dsn, pool
        self.log = log  # type: ignore[assignment]
        self.name = log.name
        self.vault = MemoryVault()
        self.now = datetime.now(UTC)
        self.known: dict[str, Principal] = {}
        self.process = Process(self)
        self._processes = [self.process]
        self._keys = itertools.count(1)
        self.ledger = Ledger(dsn)
        self._projecting = projecting

    # What happens

    async def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    async def project(self) -> None:
        stores = [PostgresStore(due.Due(), self._projecting)]
        runner = Runner(LogSource(self._projecting, CODEC, ["eu", "us"]), stores, _unexpected)
        while await runner.step():
            pass

    def edge(self, context: Context) -> Edge:
        group, residency = list(self.partitions), placed(self.partitions)
        return Edge(context, self.vault, group, self.name, known=self.known.get, residency=residency)  # type: ignore[arg-type]

    def timers(self, process: Process | None = None, fires: Mapping[str, Fire] = FIRES) -> Timers:
        run = (process or self.process).decider.run
        return Timers(self.name, self.pool, self.log, run, self.edge, fires=fires, clock=lambda: self.now)

    def payouts(self, *providers: Provider, decide: Any = None, is_alone: bool = True, linger_s: float = 60) -> Payouts:
        return Payouts(
            self.name, self.pool, self.log, CODEC, self.vault, decide or self.process.decider.decide, self.edge,  # type: ignore[arg-type]
            {each.name: each for each in providers}, is_alone=is_alone, clock=lambda: self.now,
            linger_s=linger_s,
        )  # fmt: skip

    async def said(self, provider: str, process: Process | None = None, **callback: Any) -> Receipt:
        """A callback, as the door takes it after its signature was found right. Raises Rejected."""
        plan = callbacks.plan(
            provider, Callback(**callback), speaks=("payments", "kyc"), now=self.now, secret=SECRET, edge=self.edge, trace=None
        )  # fmt: skip
        return await (process or self.process).decider.decide(plan)

    async def rich(self, amount: int = 100_000, **more: object) -> str:
        """A player who is known and has so much cash."""
        player = await self.player(**more)
        why = {"kind": "correction", "reason": "known for long"}
        known = {"level": "identity", "method": "passport", "age_verified": True, "intervention": why}
        await self.process.post(f"/v1/players/{player}/kyc/approve", known)
        deposit = await self.deposit(player, amount)
        await self.said("acme", verb="settle", id=f"rich {deposit}", transaction=deposit)
        return player

    async def withdrawal(self, player: str, amount: int, **more: object) -> str:
        body = {"amount": {"amount": amount, "currency": "EUR"}, "provider": "acme", **more}
        return made(await self.process.post(f"/v1/players/{player}/withdrawals", body))

    # What came of it

    def events(self, aggregate: str = "") -> list[Event]:
        read = [CODEC.decode(entry) for entry in self.ledger.entries(self.name)]
        return [each.event for each in read if each.body.stream.startswith(aggregate)]

    def opened(self, aggregate: str = "") -> list[Event]:
        chosen = [
            each for each in self.ledger.entries(self.name) if CODEC.decode(each).body.stream.startswith(aggregate)
        ]
        return [in_the_clear(entry, self.vault) for entry in chosen]

    def tags(self, aggregate: str = "") -> list[str]:
        return [event.tag for event in self.events(aggregate)]

    def state(self, stream: Stream[Any]) -> Any:
        state = stream.aggregate.initial
        for read in self.recorded():
            if read.body.stream == stream.name:
                state = stream.aggregate.evolve(state, read.event, read.at)
        return state

    def recorded(self) -> list[Recorded]:
        """What stands in all logs held here, each stream in the order of its versions."""
        read = [CODEC.decode(entry) for log in ("eu", "us") for entry in self.ledger.entries(log)]
        return sorted(read, key=lambda each: each.body.version)

    def transaction(self, id_: str) -> transactions.Transaction:
        found: transactions.Transaction = self.state(transactions.stream(TransactionId(id_)))
        return found

    def accounts(self, player: str) -> Accounts:
        wallet: wallets.Wallet = self.state(wallets.stream(PlayerId(player)))
        return wallet.balance("EUR")

    def kyc(self, player: str) -> kyc.Kyc:
        found: kyc.Kyc = self.state(kyc.stream(PlayerId(player)))
        return found

    def due(self) -> list[tuple[str, str]]:
        """(kind, stream) of all that is open, as it was last projected."""
        return self.ledger.sql("SELECT kind, stream FROM read.due ORDER BY kind, stream")

    def books_balance(self) -> None:
        """Over each currency, all postings sum to zero, and players' accounts are what their wallets hold."""
        sums: Counter[str] = Counter()
        for event in (each.event for each in self.recorded() if each.body.stream.startswith("wallet")):
            assert sum(amount for _, amount in wallets.postings(event)) == 0  # type: ignore[arg-type]
            for account, amount in wallets.postings(event):  # type: ignore[arg-type]
                sums[account] += amount
        held: Counter[str] = Counter()
        for player in {each.body.stream for each in self.recorded()}:
            if player.startswith("wallet-"):
                accounts = self.accounts("player_" + player.partition("-")[2])
                for name in wallets.OWN:
                    held[name] += getattr(accounts, name)
        assert {name: sums[name] for name in wallets.OWN} == {name: held[name] for name in wallets.OWN}
        assert sum(sums.values()) == 0


async def settled_down(region: Region, *providers: Any, steps: int = 4, **more: Any) -> None:
    """What a reactor comes to if it is left alone."""
    reaction = region.payouts(*providers, **more)
    for _ in range(steps):
        await region.project()
        await reaction.step()
        await region.wait(hours=2)
    await region.project()


def payout(region: Region, withdrawal: str) -> payouts.Payout:
    found: payouts.Payout = region.state(payouts.stream(TransactionId(withdrawal)))
    return found


async def _unexpected(stop: Stop) -> None:
    raise AssertionError(stop)


def migrate(dsn: str, own: str = "eu") -> None:
    """`own`: the log that is written there; the other is a copy."""
    import replication.schema

    schema.migrate(dsn, [("ledger", schema.HERE), ("read", HERE / "schema"), ("replication", replication.schema.HERE)])
    ledger = Ledger(dsn)
    for name, origin in sorted((("eu", EU), ("us", US)), key=lambda each: each[0] != own):
        ledger.sql("SELECT ledger.register_log(%s, %s, %s)", name, origin, name == own)
    ledger.close()


def begin_again(
    dsn: str, tables: Iterable[str] = ("read.due", "read.position", "read.generation"), own: str = "eu"
) -> None:
    ledger = Ledger(dsn)
    ledger.empty(*OPENED[own])
    for table in tables:
        ledger.sql(f"DELETE FROM {table}".encode())
    ledger.sql("DELETE FROM replication.watermark")
    ledger.close()


@asynccontextmanager
async def opened(dsn: str, own: str = "eu") -> AsyncIterator[Region]:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(postgres.pool(dsn, "countroom_writer", size=4))
        connection = await stack.enter_async_context(await postgres.connect(dsn, "countroom_writer"))
        projecting = await stack.enter_async_context(await read_models.connect(dsn))
        region = Region(dsn, Both(await PostgresLog.open(connection, own), pool), pool, projecting)
        region.partitions = OPENED[own][1]
        try:
            yield region
        finally:
            await region.close()
            region.ledger.close()
