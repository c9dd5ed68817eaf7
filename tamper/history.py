"""
What a casino's players do, as commands for a log: they register, limit themselves, deposit, and are blocked.

Invariant: the same seed makes the same commands, byte for byte.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec

from domain import kyc, limits, players, transactions, wallets
from domain.errors import Rejected
from domain.kernel import Event, Money, PlayerId, Sealed, Stream, TransactionId, suffix, uuid7, uuid7_texts
from domain.logs import Opened
from domain.transactions import DepositRequested
from eventstore.log import Command
from eventstore.record import Body, CommandPart, encode_body

BEGINS = datetime(2026, 11, 22, 12, tzinfo=UTC)
Facts = list[tuple[Stream[Any], Event]]


class History:
    """The commands of one log, which owns these partitions."""

    def __init__(self, random: Random, origin: str, partitions: Sequence[int]) -> None:
        self._random = random
        self._origin = origin
        self._partitions = partitions
        self._now = BEGINS
        self._versions: dict[str, int] = {}
        self._states: dict[str, Any] = {}
        self._players: list[PlayerId] = []
        self._open: list[tuple[TransactionId, PlayerId]] = []

    def commands(self, entries: int) -> Iterator[Command]:
        """The opening, and then what makes up a log of so many entries."""
        name = self._origin.rpartition("/")[2]
        owned = (self._partitions[0], self._partitions[-1])
        yield self._command([(f"region-{name}-log", None, Opened(self._origin, 1, (owned,)))], "system")
        left = entries - 1
        while left:
            self._now += timedelta(milliseconds=self._random.randrange(1, 5_000))
            facts = self._happens()
            if 0 < len(facts) <= left:
                left -= len(facts)
                yield self._take(facts)

    def _happens(self) -> Facts:
        """One thing; nothing where the house rules refuse it."""
        happens = self._random.choices(
            (self._register, self._request, self._settle, self._fail, self._limit, self._block), (3, 8, 6, 1, 2, 0.1)
        )[0]
        try:
            return happens() if self._players else self._register()
        except Rejected:
            return []

    def _register(self) -> Facts:
        key = self._uuid_text()
        sealed = [Sealed(base64.b64encode(self._random.randbytes(40)).decode(), key) for _ in range(2)]
        player_id = PlayerId(f"player_{suffix(self._uuid(self._random.choice(self._partitions)))}")
        stream = players.stream(player_id)
        registered = players.Registered(
            brand=self._random.choice(("lucky", "royal")),
            country=self._random.choice(("AT", "FR", "PT")),
            currency="EUR",
            key=players.DataKey(key, self._random.randbytes(32).hex()),
            name=sealed[0],
            email=sealed[1],
        )
        self._players.append(player_id)
        return [(stream, event) for event in players.register(self._state(stream), registered=registered)]

    def _limit(self) -> Facts:
        player_id = self._random.choice(self._players)
        of_limits = limits.stream(player_id)
        money = Money(self._random.randrange(50_000, 500_000, 5_000), "EUR")
        decided = limits.set_deposit_limit(
            self._state(of_limits),
            self._state(players.stream(player_id)),
            period=limits.Period.DAY,
            limit=money,
            at=self._now,
        )
        return [(of_limits, event) for event in decided]

    def _request(self) -> Facts:
        player_id = self._random.choice(self._players)
        partition = players.stream(player_id).partition
        transaction_id = TransactionId(f"transaction_{suffix(self._uuid(partition))}")
        stream, of_limits = transactions.stream(transaction_id), limits.stream(player_id)
        requested = DepositRequested(
            player=player_id,
            money=Money(self._random.randrange(1_000, 20_000), "EUR"),
            provider=self._random.choice(("acme", "paywell")),
            reference=f"ACME-2026-{self._random.randrange(10**6):06d}",
        )
        decided = transactions.request_deposit(
            self._state(stream),
            self._state(players.stream(player_id)),
            self._state(kyc.stream(player_id)),
            self._state(of_limits),
            self._state(wallets.stream(player_id)),
            transaction_id=transaction_id,
            requested=requested,
            at=self._now,
        )
        self._open.append((transaction_id, player_id))
        return [(stream if event.tag.startswith("transaction.") else of_limits, event) for event in decided]

    def _settle(self) -> Facts:
        if not self._open:
            return []
        transaction_id, player_id = self._open.pop(self._random.randrange(len(self._open)))
        stream, wallet = transactions.stream(transaction_id), wallets.stream(player_id)
        decided = transactions.settle_deposit(self._state(stream), self._state(wallet), transaction_id=transaction_id)
        return [(stream if event.tag.startswith("transaction.") else wallet, event) for event in decided]

    def _fail(self) -> Facts:
        if not self._open:
            return []
        transaction_id, player_id = self._open.pop(self._random.randrange(len(self._open)))
        stream, of_limits = transactions.stream(transaction_id), limits.stream(player_id)
        decided = transactions.fail_deposit(
            self._state(stream), transaction_id=transaction_id, reason=self._random.choice(("declined", "expired"))
        )
        return [(stream if event.tag.startswith("transaction.") else of_limits, event) for event in decided]

    def _block(self) -> Facts:
        stream = players.stream(self._random.choice(self._players))
        return [(stream, event) for event in players.block(self._state(stream), reason="asked to be blocked")]

    def _take(self, facts: Facts) -> Command:
        for stream, event in facts:
            self._states[stream.name] = stream.aggregate.evolve(self._state(stream), event, self._now)
        return self._command([(stream.name, stream.partition, event) for stream, event in facts], "service:wallet")

    def _command(self, events: Iterable[tuple[str, int | None, Event]], actor: str) -> Command:
        events = list(events)
        id_, fingerprint = self._random.randbytes(16), self._random.randbytes(16).hex()
        bodies = []
        for nth, (stream, partition, event) in enumerate(events, 1):
            version = self._versions[stream] = self._versions.get(stream, 0) + 1
            body = Body(
                stream=stream,
                version=version,
                type=event.tag,
                partition=partition,
                epoch=None if partition is None else 1,
                command=CommandPart(nth, len(events), id_.hex(), fingerprint),
                id=self._uuid_text(),
                actor=actor,
                data=msgspec.Raw(msgspec.json.encode(event)),
            )
            bodies.append(encode_body(body))
        return Command(id_, bodies, (), frozenset(stream for stream, _, _ in events))

    def _state(self, stream: Stream[Any]) -> Any:
        return self._states.get(stream.name, stream.aggregate.initial)

    def _uuid(self, partition: int) -> bytes:
        return uuid7(self._now, self._random.randbytes(10), partition)

    def _uuid_text(self) -> str:
        return uuid7_texts(self._now, self._random.randbytes(10))[0]
