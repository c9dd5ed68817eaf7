"""
Histories for tests: a region's commands, decided by the domain itself, as the entries that they leave in its log.

A `Book` is one log in memory; `write` puts it into PostgreSQL through the door that the product uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import psycopg

from commands.sealing import seal
from domain import (
    approvals,
    bets,
    kernel,
    kyc,
    limits,
    logins,
    operators,
    players,
    protection,
    tickets,
    tokens,
    transactions,
    wallets,
)
from domain.catalog import AGGREGATES
from domain.errors import Rejected
from domain.kernel import (
    EPOCH,
    ApprovalId,
    Event,
    Money,
    OperatorId,
    PlayerId,
    Sealed,
    Stream,
    TicketId,
    TokenId,
    TransactionId,
)
from domain.kyc import Kyc
from domain.limits import Limits
from domain.logins import Login
from domain.logs import Adopted, Cut, Opened, Released, spans
from domain.players import DataKey, Player, Registered
from domain.protection import Protection, Said
from domain.transactions import DepositRequested
from domain.wallets import Wallet
from eventstore.record import Body, Codec, CommandPart, Entry, decode_body, encode_body, genesis, leaf_hash
from policies import protection as protection_rules
from policies.protection import Moment
from policies.sla import Priority
from projections.projection import Batch, Events, Position
from projections.source import LogSource

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARTITIONS = {"eu": (0, 127), "us": (128, 255)}
DAY = timedelta(days=1)
SALT = "5a" * 16
INVITATION = "6b" * 32
CODEC = Codec(AGGREGATES)

_Paying = Callable[[transactions.Transaction, Wallet, datetime], Sequence[Event]]


class Book:
    """A log in memory, and what the domain makes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.origin = f"countroom.test/{name}"
        self.entries: list[Entry] = []
        self.commands: list[tuple[bytes, list[bytes]]] = []
        self.players: list[PlayerId] = []
        self.transactions: list[TransactionId] = []
        self.tickets: list[TicketId] = []
        self.approvals: list[ApprovalId] = []
        self.operators: list[OperatorId] = []
        self.tokens: list[TokenId] = []
        self.bets: list[Any] = []
        self._states: dict[str, tuple[int, Any]] = {}
        self._owners: dict[TransactionId, PlayerId] = {}
        self._now = NOON
        self._epochs = dict.fromkeys(range(PARTITIONS[name][0], PARTITIONS[name][1] + 1), 1)
        self._ownership_events = 1
        opened = Opened(origin=self.origin, epoch=1, partitions=(PARTITIONS[name],))
        self._append(f"region-{name}-log", [opened], actor="system")

    # Commands

    def wait(self, duration: timedelta) -> None:
        self._now += duration

    def register(self, currency: str = "EUR", **personal: str) -> PlayerId:
        suffix = self._suffix(self._partition(len(self.players)))
        player = PlayerId(f"player_{suffix}")
        sealed = {field: Sealed(sealed=f"sealed {value}", key=suffix) for field, value in personal.items()}
        registered = Registered(
            brand="north", country="DE", currency=currency, key=DataKey(id=suffix, commitment="00"), **sealed
        )
        self._decided(players.stream(player), players.register(players.PLAYERS.initial, registered=registered))
        self.players.append(player)
        return player

    def block(self, player: PlayerId, reason: str = "fraud") -> None:
        self.know(player, lambda state, *_: players.block(state, reason=reason))

    def know(self, player: PlayerId, decision: Callable[[Player, Kyc, Login, datetime], Sequence[Event]]) -> None:
        """Whatever is decided now on who a player is, how well that is known, and their coming and going; nothing if refused."""
        homes = {"player": players.stream(player), "kyc": kyc.stream(player), "login": logins.stream(player)}
        try:
            events = decision(*(self.state(stream) for stream in homes.values()), self._now)  # type: ignore[arg-type]
        except Rejected:
            return
        if events:
            self._append_many([(homes[e.tag.partition(".")[0]], [e]) for e in events])

    def hear_register(self, player: PlayerId, said: Said, moment: Moment = Moment.MARKETING) -> None:
        """What the register of the player's jurisdiction says of them."""
        where = self.state(players.stream(player)).jurisdiction
        register = protection_rules.register(where, moment, self._now)
        assert register is not None
        answer = protection.Answer(register.name, moment, said)
        state = self.state(protection.stream(player))
        self._decided(protection.stream(player), protection.hear(state, where, answer, at=self._now))

    def protect(self, player: PlayerId, decision: Callable[[Protection, Player, datetime], Sequence[Event]]) -> None:
        """Whatever is decided now on a player's protection."""
        state, who = self.state(protection.stream(player)), self.state(players.stream(player))
        self._decided(protection.stream(player), decision(state, who, self._now))

    def limit(self, player: PlayerId, amount: int) -> None:
        """Set the daily limit; a raise is no command of this release, so it is not asked for."""
        state: Limits = self.state(limits.stream(player))
        if state.daily_deposit is None or amount < state.daily_deposit.amount:
            who = self.state(players.stream(player))
            money = Money(amount, who.currency)
            self._decided(
                limits.stream(player),
                limits.set_deposit_limit(state, who, period=limits.Period.DAY, limit=money, at=self._now),
            )

    def request(self, player: PlayerId, amount: int, *, reference: str = "") -> TransactionId:
        """Ask for a deposit, whatever the limit: what a decision refuses is not a projection's business."""
        transaction, requested = self._new(player, amount, reference)
        consumed = limits.HeadroomConsumed(transaction=transaction, money=requested.money, day=self._now.date())
        self._append_many([(transactions.stream(transaction), [requested]), (limits.stream(player), [consumed])])
        return transaction

    def settle(self, transaction: TransactionId) -> None:
        self._split(transaction, transactions.settle_deposit(
            self.state(transactions.stream(transaction)), self.state(wallets.stream(self._owners[transaction])),
            transaction_id=transaction,
        ))  # fmt: skip

    def fail(self, transaction: TransactionId, reason: str = "declined") -> None:
        self._split(transaction, transactions.fail_deposit(
            self.state(transactions.stream(transaction)), transaction_id=transaction, reason=reason
        ))  # fmt: skip

    def imported(self, player: PlayerId, amount: int, occurred: str) -> TransactionId:
        """Record a deposit of the past."""
        transaction, requested = self._new(player, amount, "")
        wallet = self.state(wallets.stream(player))
        transfer = wallets.Transfer("deposit", "psp:test", wallets.CASH, requested.money, transaction)
        events = [requested, transactions.DepositSettled(), wallets.Credited(transfer, wallet.after(transfer))]
        self._split(transaction, events, occurred=occurred)
        return transaction

    def reserve(self, player: PlayerId, amount: int) -> None:
        """Set cash aside, for no payment."""
        stream = wallets.stream(player)
        currency = self.state(players.stream(player)).currency
        transaction = TransactionId(f"transaction_{self._suffix(stream.partition)}")
        transfer = wallets.Transfer("hold", wallets.CASH, wallets.RESERVED, Money(amount, currency), transaction)
        self._decided(stream, [wallets.Reserved(transfer, self.state(stream).after(transfer))])

    def withdraw(self, player: PlayerId, amount: int) -> TransactionId | None:
        """Ask for a withdrawal, if there is so much."""
        if self.cash(player) < amount:
            return None
        transaction, requested = self._new(player, amount, "")
        wanted = transactions.WithdrawalRequested(
            player=player, money=requested.money, provider="test", expires_at=self._now + DAY,
            instrument=Sealed("sealed IBAN", player.removeprefix("player_")),
        )  # fmt: skip
        self.pay(
            transaction,
            lambda state, wallet, at: transactions.request_withdrawal(
                state, self.state(players.stream(player)), self.state(kyc.stream(player)), wallet,
                transaction_id=transaction, requested=wanted, at=at,
            ),
        )  # fmt: skip
        return transaction

    def pay(self, transaction: TransactionId, decision: _Paying) -> None:
        """Whatever is decided on a payment now; nothing if refused."""
        wallet = self.state(wallets.stream(self._owners[transaction]))
        try:
            events = decision(self.state(transactions.stream(transaction)), wallet, self._now)
        except Rejected:
            return
        if events:
            self._split(transaction, events)

    def move(self, player: PlayerId, decision: Callable[[Wallet, str], Sequence[Event]]) -> None:
        """Whatever is decided on a wallet, in the player's currency; nothing if refused."""
        stream = wallets.stream(player)
        try:
            self._decided(stream, decision(self.state(stream), self.state(players.stream(player)).currency))
        except Rejected:
            return

    def game(
        self, player: PlayerId, decision: Callable[[Wallet, Player, datetime], Sequence[Event]]
    ) -> Sequence[Event]:
        """Whatever is decided on what a game provider says, and what that was; nothing if refused."""
        homes = {"wallet": wallets.stream(player), "bet": bets.stream(player)}
        try:
            events = decision(self.state(homes["wallet"]), self.state(players.stream(player)), self._now)
        except Rejected:
            return []
        self._append_many([(homes[event.tag.partition(".")[0]], [event]) for event in events])
        return events

    def record(self, stream: Stream[Any], events: Sequence[Event]) -> None:
        self._decided(stream, events)  # whoever has decided it

    @property
    def now(self) -> datetime:
        return self._now

    @property
    def recorded(self) -> datetime:
        """When the last entry was."""
        return kernel.instant(self.entries[-1].recorded)

    def ticket(self, player: PlayerId, priority: Priority = Priority.NORMAL, text: str = "Where is it?") -> TicketId:
        """Open a ticket whose subject is Money."""
        ticket = TicketId(f"ticket_{self._suffix(players.stream(player).partition)}")
        opened = tickets.open_(
            tickets.Ticket(), self.state(players.stream(player)), None, player_id=player, channel="email",
            by=tickets.Author.PLAYER, subject="Money", text=text, priority=priority, transaction=None, at=self._now,
        )  # fmt: skip
        self._decided(tickets.stream(ticket), [_sealed(event, players.stream(player)) for event in opened])
        self.tickets.append(ticket)
        return ticket

    def work(self, ticket: TicketId, decision: Callable[[tickets.Ticket, datetime], Sequence[Event]]) -> None:
        """Whatever is decided on a ticket now."""
        state = self.state(tickets.stream(ticket))
        events = [_sealed(event, players.stream(state.player)) for event in decision(state, self._now)]
        self._decided(tickets.stream(ticket), events)

    def ask(self, player: PlayerId, body: str = "{}") -> ApprovalId:
        """Ask for a second person, who has a day."""
        approval = ApprovalId(f"approval_{self._suffix(players.stream(player).partition)}")
        path = f"/v1/players/{player}/adjustments"
        requested = approvals.Requested(
            action="money.adjust", path=path, body=body, salt=SALT, hash=approvals.digest(path, SALT, body), player=player,
            requester="operator:maria", expires_at=self._now + DAY, reasons=("operator_day", "player_day"),
        )  # fmt: skip
        self._decided(approvals.stream(approval), approvals.request(approvals.Approval(), requested=requested))
        self.approvals.append(approval)
        return approval

    def answer(self, approval: ApprovalId, decision: Callable[[approvals.Approval, datetime], Sequence[Event]]) -> None:
        """Whatever is decided on an approval now."""
        self._decided(approvals.stream(approval), decision(self.state(approvals.stream(approval)), self._now))

    def invite(self, name: str = "Otto") -> OperatorId:
        """Somebody who may join within three days."""
        suffix = self._suffix(self._partition(len(self.operators)))
        invited = operators.Invited(
            name=name, email=f"{name.lower()}@house.example", person=f"staff-{len(self.operators)}",
            key=DataKey(id=suffix, commitment="00"), invitation=INVITATION, until=self._now + 3 * DAY,
        )  # fmt: skip
        self.operators.append(OperatorId(f"operator_{suffix}"))
        self._decided(operators.stream(self.operators[-1]), operators.invite(operators.Operator(), invited=invited))
        return self.operators[-1]

    def manage(self, operator: OperatorId, decision: Callable[[operators.Operator, datetime], Sequence[Event]]) -> None:
        """Whatever is decided on an operator now."""
        self._decided(operators.stream(operator), decision(self.state(operators.stream(operator)), self._now))

    def issue(self, holder: str = "service:reports") -> TokenId:
        """A token, which lasts a day."""
        suffix = self._suffix(self._partition(len(self.tokens)))
        issued = tokens.Issued(
            holder=holder,
            digest=suffix,
            roles=("viewer",),
            expires=self._now + DAY,
            person="staff-0",
            brands=("north",),
        )
        self.tokens.append(TokenId(f"token_{suffix}"))
        self._decided(
            tokens.stream(self.tokens[-1]),
            tokens.issue(tokens.Token(), None, issued=issued, by="operator:ada", at=self._now),
        )
        return self.tokens[-1]

    def answer_for(self, token: TokenId, decision: Callable[[tokens.Token, datetime], Sequence[Event]]) -> None:
        """Whatever is decided on a token now."""
        self._decided(tokens.stream(token), decision(self.state(tokens.stream(token)), self._now))

    def unknown(self, player: PlayerId) -> None:
        """An event of a later release."""

        class Renamed(Event, frozen=True, tag="player.renamed"):
            pass

        self._decided(players.stream(player), [Renamed()])

    def hand_over(self, count: int, to: Book) -> None:
        """Give the first partitions up to another log, which adopts them, and with them all that is known of who is there."""
        moving = dict(sorted(self._epochs.items())[:count])
        self._say(Released(spans(moving), to.name))
        cut = Cut(len(self.entries), self.entries[-1].leaf.hex())
        moved = {partition: epoch + 1 for partition, epoch in moving.items()}
        to.wait(max(self._now - to.now, timedelta()))
        to._say(Adopted(spans(moved), self.name, cut))
        self._epochs = {partition: epoch for partition, epoch in self._epochs.items() if partition not in moving}
        to._epochs |= moved
        for name in [
            name for name in self._states if not name.startswith("region-") and kernel.partition_of(name) in moved
        ]:
            to._states[name] = self._states.pop(name)
        members = ("players", "transactions", "tickets", "approvals", "operators", "tokens", "bets")
        for mine, theirs in ((getattr(self, name), getattr(to, name)) for name in members):
            gone = [each for each in mine if kernel.partition_of(getattr(each, "player", each)) in moved]
            mine[:], theirs[:] = [each for each in mine if each not in gone], [*theirs, *gone]
        to._owners |= self._owners

    def _partition(self, n: int) -> int:
        return list(self._epochs)[n % len(self._epochs)]

    def _say(self, event: Released | Adopted) -> None:
        command, name = self._bytes(16), f"region-{self.name}-log"
        self._ownership_events += 1
        self._commit(command, [self._body(name, self._ownership_events, event, command, 1, 1, None, None, "system")])

    # What came of them

    def state(self, stream: Stream[Any]) -> Any:
        return self._states.get(stream.name, (0, stream.aggregate.initial))[1]

    def cash(self, player: PlayerId) -> int:
        currency = self.state(players.stream(player)).currency
        wallet: Wallet = self.state(wallets.stream(player))
        return wallet.balance(currency).cash

    def open_transactions(self) -> list[TransactionId]:
        return [
            t for t in self.transactions if self.state(transactions.stream(t)).status is transactions.Status.REQUESTED
        ]

    def batch(self, first: int = 1, last: int | None = None) -> Batch:
        """The entries `first` … `last`, decoded."""
        entries = self.entries[first - 1 : last]
        before = Position(first - 1, self.entries[first - 2].leaf if first > 1 else b"")
        after = Position(entries[-1].position, entries[-1].leaf)
        return Batch(self.name, before, after, Events(CODEC.decode(entry) for entry in entries))

    def _new(self, player: PlayerId, amount: int, reference: str) -> tuple[TransactionId, DepositRequested]:
        who = self.state(players.stream(player))
        transaction = TransactionId(f"transaction_{self._suffix(players.stream(player).partition)}")
        self.transactions.append(transaction)
        self._owners[transaction] = player
        money = Money(amount, who.currency)
        return transaction, DepositRequested(player=player, money=money, provider="test", reference=reference)

    def _split(self, transaction: TransactionId, events: Sequence[Event], occurred: str | None = None) -> None:
        """One command over the streams of a deposit."""
        player = self._owners[transaction]
        homes = {
            "transaction": transactions.stream(transaction),
            "wallet": wallets.stream(player),
            "limits": limits.stream(player),
        }
        self._append_many([(homes[event.tag.partition(".")[0]], [event]) for event in events], occurred=occurred)

    def _decided(self, stream: Stream[Any], events: Sequence[Event]) -> None:
        if events:
            self._append_many([(stream, events)])

    def _append_many(self, parts: Iterable[tuple[Stream[Any], Sequence[Event]]], occurred: str | None = None) -> None:
        written = [(stream, _sealed(event, stream)) for stream, events in parts for event in events]
        command = self._bytes(16)
        bodies = []
        for i, (stream, event) in enumerate(written, 1):
            version, state = self._states.get(stream.name, (0, stream.aggregate.initial))
            body = self._body(stream.name, version + 1, event, command, i, len(written), stream.partition, occurred)
            if event.tag in stream.aggregate.events:
                state = stream.aggregate.evolve(state, event, self._now)
            self._states[stream.name] = (version + 1, state)
            bodies.append(body)
        self._commit(command, bodies)

    def _append(self, stream: str, events: Sequence[Event], actor: str) -> None:
        command = self._bytes(16)
        self._commit(
            command,
            [self._body(stream, i, e, command, i, len(events), None, None, actor) for i, e in enumerate(events, 1)],
        )

    def _body(
        self, stream: str, version: int, event: Event, command: bytes, i: int, n: int, partition: int | None,
        occurred: str | None, actor: str = "operator:test",
    ) -> bytes:  # fmt: skip
        return encode_body(
            Body(
                stream=stream, version=version, type=event.tag, id=f"id-{self.name}-{len(self.entries) + i}", actor=actor,
                command=CommandPart(id=command.hex(), i=i, n=n), data=msgspec.Raw(msgspec.json.encode(event)),
                partition=partition, epoch=None if partition is None else self._epochs[partition], occurred=occurred,
            )
        )  # fmt: skip

    def _commit(self, command: bytes, bodies: list[bytes]) -> None:
        self.commands.append((command, bodies))
        recorded = (self._now - EPOCH) // timedelta(microseconds=1)
        if self.entries:
            recorded = max(recorded, self.entries[-1].recorded + 1)
        for body in bodies:
            position = len(self.entries) + 1
            before = self.entries[-1].leaf if self.entries else genesis(self.origin)
            self.entries.append(Entry(self.name, position, recorded, leaf_hash(before, position, recorded, body), body))
            recorded += 1

    def _suffix(self, partition: int) -> str:
        return kernel.suffix(kernel.uuid7(self._now, self._bytes(10), partition))

    def _bytes(self, count: int) -> bytes:
        """Random enough, and the same in every run."""
        seed = f"{self.name}/{len(self.entries)}/{len(self.transactions)}/{len(self.players)}/{count}"
        return hashlib.sha256(seed.encode()).digest()[:count]


class _Lock(NamedTuple):
    """Seals as a data key does, for all to see."""

    id: str

    def seal(self, text: str, **_: object) -> Sealed:
        return Sealed(f"sealed {text}", self.id)


def _sealed(event: Event, stream: Stream[Any]) -> Event:
    """Under a key that is called as the stream's suffix."""
    return seal(event, _Lock(stream.name.partition("-")[2]), "")  # type: ignore[arg-type]


class MemorySource(LogSource):
    """Logs in memory, read as those in PostgreSQL are. `stranded`: positions whose index is empty."""

    def __init__(self, *books: Book, stranded: Iterable[int] = ()) -> None:
        self._books = {book.name: book for book in books}
        self._codec = CODEC
        self._stranded = frozenset(stranded)

    async def heads(self) -> dict[str, int]:
        return {name: len(book.entries) for name, book in self._books.items()}

    async def _rows(self, log: str, first: int, count: int) -> list[tuple[Any, ...]]:
        entries = self._books[log].entries
        return [
            (e.position, e.recorded, e.leaf, None if e.position in self._stranded else e.body)
            for e in entries[max(first - 1, 0) : max(first, 1) - 1 + count]
        ]


def write(dsn: str, *books: Book, stranded: Iterable[int] = ()) -> None:
    """
    Put what is new in the books into a database's ledger; entries at `stranded` do not count.

    Not through ledger.append, which takes the time from its own clock: these tests are about times.
    """
    left_out = frozenset(stranded)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for book in books:
            row = connection.execute("SELECT ledger.register_log(%s, %s, true)", (book.name, book.origin)).fetchone()
            assert row is not None
            head = "SELECT coalesce(max(position), 0) FROM ledger.entry WHERE log = %s"
            (done,) = connection.execute(head, row).fetchone() or (0,)
            with connection.cursor().copy(
                "COPY ledger.entry (log, position, recorded, leaf, body, version, stream, type) FROM STDIN"
            ) as copy:
                for entry in book.entries[done:]:
                    body = decode_body(entry.body)
                    index = (None,) * 3 if entry.position in left_out else (body.version, body.stream, body.type)
                    copy.write_row((row[0], *entry[1:], *index))
            connection.execute("SELECT pg_notify('ledger', '')")
