"""
The laws of money (DESIGN.md, 6) as invariants over whatever may happen: several players and currencies, deposits that settle late
or for another amount, are disputed, refunded or charged back, withdrawals that are held, sent, voided and returned, money that is
spent, given and corrected, limits that are set and cut, blocks, and a clock that crosses midnight to the microsecond.

Rules swallow `Rejected` and nothing else. What it is run for: test_money.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from domain import kyc, limits, players, transactions, wallets
from domain.errors import Rejected
from domain.kernel import Aggregate, Event, Money, PlayerId, TransactionId, suffix, uuid7
from domain.kyc import KYC
from domain.limits import LIMITS, HeadroomConsumed, HeadroomReleased, Period
from domain.players import PLAYERS, DataKey, Registered
from domain.transactions import (
    TRANSACTIONS,
    DepositRequested,
    Kind,
    Status,
    Transaction,
    WithdrawalApproved,
    WithdrawalRequested,
    WithdrawalReturned,
    WithdrawalSent,
    WithdrawalSettled,
)
from domain.wallets import BONUS, CASH, OWN, RECEIVABLE, RESERVED, WALLETS, Accounts, Direction, Moved
from policies import gates
from policies.spending import Order
from tests.domain.history import NOON

CURRENCIES = ("EUR", "USD", "JPY")
AGGREGATES: dict[str, Aggregate[Any]] = {a.name: a for a in (PLAYERS, KYC, LIMITS, WALLETS, TRANSACTIONS)}
PEOPLE_MAX = 2
MICROSECOND = timedelta(microseconds=1)
PSP = "psp:acme"

amounts = st.sampled_from([1, 30, 50, 10**12]) | st.integers(1, 60)
mostly = st.sampled_from([True] * 7 + [False])
currencies = st.sampled_from(CURRENCIES)


class Books(RuleBasedStateMachine):
    """A ledger in miniature: streams of (event, time), and the folded state of each."""

    people = Bundle("people")
    payments = Bundle("payments")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.streams: dict[str, list[tuple[Event, datetime]]] = defaultdict(list)
        self.folded: dict[str, Any] = {}
        self.ids = 0
        self.currency_of: dict[str, str] = {}
        self.requested_under: list[tuple[Money, int]] = []
        self.approved_through: list[gates.Missing | None] = []

    # The machinery

    def new(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}_{suffix(uuid7(NOON, (self.ids << 8).to_bytes(10, 'big'), 42))}"

    def state(self, name: str) -> Any:
        return self.folded.get(name, AGGREGATES[name.partition("-")[0]].initial)

    def decide(self, names: Sequence[str], decision: Callable[..., Sequence[Event]]) -> Sequence[Event]:
        """Fold, decide, record: each event on the stream of its aggregate, one microsecond after the other."""
        try:
            events = decision(*(self.state(name) for name in names))
        except Rejected:
            return ()
        homes = {name.partition("-")[0]: name for name in names}
        for event in events:
            aggregate = event.tag.partition(".")[0]
            name = homes[aggregate]
            self.streams[name].append((event, self.now))
            self.folded[name] = AGGREGATES[aggregate].evolve(self.state(name), event, self.now)
            self.now += MICROSECOND
        return events

    def of(self, kind: str, id_: str) -> str:
        return f"{kind}-{id_.rpartition('_')[2]}"

    # What may happen

    @precondition(lambda self: len(self.currency_of) < PEOPLE_MAX)
    @rule(target=people, currency=currencies, is_known=mostly)
    def register(self, currency: str, is_known: bool) -> str:
        player = self.new("player")
        self.currency_of[player] = currency
        country = "SE" if is_known else "DE"  # where nobody is paid who is not known
        registered = Registered(brand="main", country=country, currency=currency, key=DataKey("", ""))
        self.decide([self.of("player", player)], lambda state: players.register(state, registered=registered))
        if is_known:
            approved = kyc.Approved(gates.Level.ENHANCED, "document", age_verified=True)
            self.decide(
                [self.of("kyc", player), self.of("player", player)],
                lambda state, person: kyc.approve(state, person, approved=approved, at=self.now),
            )
        return player

    @rule(player=people, really=mostly.map(lambda often: not often))
    def block(self, player: str, really: bool) -> None:
        if not really:  # who is blocked does nothing interesting any more
            return
        self.decide([self.of("player", player)], lambda state: players.block(state, reason="test"))

    @rule(player=people, amount=amounts | st.just(0), other=currencies, own=mostly)
    def set_limit(self, player: str, amount: int, other: str, own: bool) -> None:
        currency = self.currency_of[player] if own else other
        self.decide(
            [self.of("limits", player), self.of("player", player)],
            lambda state, person: limits.set_deposit_limit(
                state, person, period=Period.DAY, limit=Money(amount, currency)
            ),
        )

    # Deposits

    @rule(
        target=payments,
        player=people,
        amount=amounts,
        other=currencies,
        own=mostly,
        late=st.sampled_from([True, True, False]),
    )
    def request(self, player: str, amount: int, other: str, own: bool, late: bool) -> str:
        """`late`: in the last microsecond of the day, so that the request's second event is recorded on the next."""
        if late:
            midnight = datetime.combine(self.now.date() + timedelta(days=1), time(), tzinfo=UTC)
            self.now = midnight - MICROSECOND
        names = [self.of(kind, player) for kind in ("player", "kyc", "limits", "wallet")]
        before = self.state(names[2])
        money = Money(amount, self.currency_of[player] if own else other)
        id_ = TransactionId(self.new("transaction"))
        requested = DepositRequested(player=PlayerId(player), money=money, provider="acme")
        events = self.decide(
            [self.of("transaction", id_), *names],
            lambda state, person, known, limits, wallet: transactions.request_deposit(
                state, person, known, limits, wallet, transaction_id=id_, requested=requested, at=self.now
            ),
        )
        if events and before.daily_deposit:
            used = self.state(names[2]).used_on(self.state(names[2]).day)
            self.requested_under.append((before.daily_deposit, used))
        return id_

    @rule(target=payments, player=people, amount=amounts)
    def record_history(self, player: str, amount: int) -> str:
        money = Money(amount, self.currency_of[player])
        id_ = TransactionId(self.new("transaction"))
        requested = DepositRequested(player=PlayerId(player), money=money, provider="acme")
        self.decide(
            [self.of("transaction", id_), self.of("player", player), self.of("wallet", player)],
            lambda state, person, wallet: transactions.record_deposit(
                state, person, wallet, transaction_id=id_, requested=requested
            ),
        )
        return id_

    def tell(self, payment: str, kinds: Sequence[str], decision: Callable[..., Sequence[Event]]) -> Sequence[Event]:
        """Something about a payment, to be decided on further streams of its player."""
        player = self.state(self.of("transaction", payment)).player
        if not player:
            return ()
        return self.decide([self.of("transaction", payment), *(self.of(kind, player) for kind in kinds)], decision)

    def money(self, payment: str, amount: int | None) -> Money | None:
        return None if amount is None else Money(amount, self.state(self.of("transaction", payment)).money.currency)

    @rule(payment=payments)
    def authorise(self, payment: TransactionId) -> None:
        self.tell(payment, [], lambda state: transactions.authorise_deposit(state, reference="A"))

    @rule(payment=payments, amount=st.none() | amounts)
    def settle(self, payment: TransactionId, amount: int | None) -> None:
        money = self.money(payment, amount)

        def decision(state: Transaction, wallet: wallets.Wallet, _limits: limits.Limits) -> Sequence[Event]:
            if state.kind is Kind.WITHDRAWAL:
                return transactions.settle_withdrawal(state, wallet, transaction_id=payment, money=money)
            return transactions.settle_deposit(state, wallet, transaction_id=payment, money=money)

        self.tell(payment, ["wallet", "limits"], decision)

    @rule(payment=payments)
    def fail(self, payment: TransactionId) -> None:
        self.tell(
            payment,
            ["limits"],
            lambda state, _: transactions.fail_deposit(state, transaction_id=payment, reason="test"),
        )

    @rule(payment=payments, days=st.sampled_from([0, 2, 8]))
    def expire(self, payment: TransactionId, days: int) -> None:
        self.now += timedelta(days=days)

        def decision(state: Transaction, wallet: wallets.Wallet, _limits: limits.Limits) -> Sequence[Event]:
            if state.kind is Kind.WITHDRAWAL:
                return transactions.expire_withdrawal(state, wallet, transaction_id=payment, at=self.now)
            return transactions.expire_deposit(state, transaction_id=payment, at=self.now)

        self.tell(payment, ["wallet", "limits"], decision)

    @rule(payment=payments, reference=st.sampled_from(["D1", "D2"]))
    def dispute(self, payment: TransactionId, reference: str) -> None:
        self.tell(payment, [], lambda state: transactions.dispute_deposit(state, reference=reference, reason="test"))

    @rule(payment=payments)
    def win(self, payment: TransactionId) -> None:
        self.tell(payment, [], transactions.win_dispute)

    @rule(payment=payments, amount=st.none() | amounts)
    def lose(self, payment: TransactionId, amount: int | None) -> None:
        money = self.money(payment, amount)
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.lose_dispute(state, wallet, transaction_id=payment, money=money),
        )

    @rule(payment=payments, amount=st.none() | amounts, has_happened=st.booleans())
    def refund(self, payment: TransactionId, amount: int | None, has_happened: bool) -> None:
        money = self.money(payment, amount)
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.refund_deposit(
                state, wallet, transaction_id=payment, money=money, has_happened=has_happened
            ),
        )

    # Withdrawals

    def through(self, player: str, events: Sequence[Event]) -> None:
        """Remember through which gate a withdrawal went that was approved just now."""
        if any(isinstance(event, WithdrawalApproved) for event in events):
            known, wallet = self.state(self.of("kyc", player)), self.state(self.of("wallet", player))
            person, deposited = self.state(self.of("player", player)), wallet.deposited.get(self.currency_of[player], 0)
            self.approved_through.append(known.missing(person, gates.Action.WITHDRAW, deposited=deposited, at=self.now))

    @rule(target=payments, player=people, amount=amounts | st.just(60_000))
    def withdraw(self, player: str, amount: int) -> str:
        id_ = TransactionId(self.new("transaction"))
        money = Money(amount, self.currency_of[player])
        due = transactions.withdrawal_due("acme", money.currency, self.now)
        requested = WithdrawalRequested(player=PlayerId(player), money=money, provider="acme", expires_at=due)
        events = self.decide(
            [self.of("transaction", id_), *(self.of(kind, player) for kind in ("player", "kyc", "wallet"))],
            lambda state, person, known, wallet: transactions.request_withdrawal(
                state, person, known, wallet, transaction_id=id_, requested=requested, at=self.now
            ),
        )
        self.through(player, events)
        return id_

    @rule(payment=payments)
    def approve(self, payment: TransactionId) -> None:
        events = self.tell(
            payment,
            ["player", "kyc", "wallet"],
            lambda state, person, known, wallet: transactions.approve_withdrawal(
                state, person, known, wallet, at=self.now
            ),
        )
        self.through(self.state(self.of("transaction", payment)).player, events)

    @rule(payment=payments, reference=st.sampled_from(["P1", "P2"]))
    def send(self, payment: TransactionId, reference: str) -> None:
        self.tell(payment, [], lambda state: transactions.send_withdrawal(state, reference=reference))

    @rule(payment=payments)
    def reject(self, payment: TransactionId) -> None:
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.reject_withdrawal(state, wallet, transaction_id=payment, reason="test"),
        )

    @rule(payment=payments)
    def cancel(self, payment: TransactionId) -> None:
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.cancel_withdrawal(state, wallet, transaction_id=payment),
        )

    @rule(payment=payments)
    def return_(self, payment: TransactionId) -> None:
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.return_withdrawal(state, wallet, transaction_id=payment, reason="test"),
        )

    # Games, bonuses, corrections

    @rule(player=people, amount=amounts, order=st.sampled_from(Order))
    def spend(self, player: str, amount: int, order: Order) -> None:
        money = Money(amount, self.currency_of[player])
        self.decide(
            [self.of("wallet", player)],
            lambda wallet: wallets.spend(
                wallet, code=f"bet {order}", target="house:ggr", money=money, transaction="round_1", order=order
            ),
        )

    @rule(player=people, amount=amounts)
    def grant(self, player: str, amount: int) -> None:
        money = Money(amount, self.currency_of[player])
        self.decide(
            [self.of("wallet", player)], lambda wallet: wallets.grant_bonus(wallet, money=money, transaction="bonus_1")
        )

    @rule(
        player=people,
        amount=amounts,
        direction=st.sampled_from(Direction),
        account=st.sampled_from([CASH, BONUS, RECEIVABLE, RESERVED]),
    )
    def adjust(self, player: str, amount: int, direction: Direction, account: str) -> None:
        money = Money(amount, self.currency_of[player])
        self.decide(
            [self.of("wallet", player)],
            lambda wallet: wallets.adjust(
                wallet, account=account, direction=direction, money=money, transaction="adjustment_1"
            ),
        )

    @rule(player=people)
    def reverse_the_last(self, player: str) -> None:
        moved = [event for event, _ in self.streams[self.of("wallet", player)] if isinstance(event, Moved)]
        bets = [event for event in moved if event.movements[0].code.startswith("bet")]
        if bets:
            self.decide(
                [self.of("wallet", player)],
                lambda wallet: wallets.reverse(wallet, bets[-1].movements, code="rollback", transaction="round_1"),
            )

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    # The law

    def events(self, kind: str) -> list[tuple[str, Event, datetime]]:
        return [
            (name, event, at)
            for name, recorded in self.streams.items()
            if name.startswith(kind + "-")
            for event, at in recorded
        ]

    def each(self, kind: Kind) -> list[tuple[str, Transaction, list[Event]]]:
        """Every payment of a kind: its id's suffix, how it stands, what happened to it."""
        return [
            (name.partition("-")[2], state, [event for event, _ in self.streams[name]])
            for name in self.streams
            if name.startswith("transaction-") and (state := self.state(name)).kind is kind
        ]

    @invariant()
    def all_postings_sum_to_zero_in_each_currency(self) -> None:
        books: dict[str, int] = defaultdict(int)
        for _, event, _ in self.events("wallet"):
            for _, amount in wallets.postings(event):  # type: ignore[arg-type]
                books[wallets.currency_of(event)] += amount  # type: ignore[arg-type]
        assert set(books.values()) <= {0}

    @invariant()
    def what_an_event_carries_is_the_sum_of_the_postings_and_never_of_the_wrong_sign(self) -> None:
        sums: dict[tuple[str, str, str], int] = defaultdict(int)
        for name, event, _ in self.events("wallet"):
            currency = wallets.currency_of(event)  # type: ignore[arg-type]
            for account, amount in wallets.postings(event):  # type: ignore[arg-type]
                sums[name, currency, account] += amount
            held = Accounts(*(sums[name, currency, account] for account in OWN))
            if isinstance(event, Moved):
                assert event.accounts == held
            else:
                assert (event.balance.cash, event.balance.reserved) == (held.cash, held.reserved)  # type: ignore[attr-defined]
            assert min(held.cash, held.bonus, held.reserved, -held.receivable) >= 0
        for name in [name for name in self.streams if name.startswith("wallet-")]:
            for currency, balance in self.state(name).balances.items():
                assert balance == Accounts(*(sums[name, currency, account] for account in OWN))

    @invariant()
    def what_a_provider_owes_for_a_payment_is_what_has_arrived_and_not_gone_back(self) -> None:
        moved: dict[str, int] = defaultdict(int)
        for _, event, _ in self.events("wallet"):
            for each in event.movements if isinstance(event, Moved) else [event.transfer]:  # type: ignore[attr-defined]
                if PSP in (each.source, each.target):
                    moved[each.transaction.partition("_")[2]] += each.money.amount * (1 if each.source == PSP else -1)
        for id_, state, events in self.each(Kind.DEPOSIT):
            arrived = [event for event in events if type(event).__name__ in {"DepositSettled", "DepositSettledFor"}]
            assert len(arrived) <= 1
            assert moved[id_] == state.left
            assert 0 <= state.left <= state.settled
        for id_, state, events in self.each(Kind.WITHDRAWAL):
            paid = sum(isinstance(event, WithdrawalSettled) for event in events)
            back = sum(isinstance(event, WithdrawalReturned) for event in events) if paid else 0
            assert moved[id_] == (back - paid) * state.money.amount
            assert back <= paid <= 1

    @invariant()
    def what_is_reserved_is_what_is_on_its_way_out(self) -> None:
        under_way = {Status.REQUESTED, Status.UNDER_REVIEW, Status.APPROVED, Status.SENT}
        reserved: dict[tuple[str, str], int] = defaultdict(int)
        for _, state, _ in self.each(Kind.WITHDRAWAL):
            reserved[state.player, state.money.currency] += state.money.amount * (state.status in under_way)
        for player, currency in self.currency_of.items():
            assert self.state(self.of("wallet", player)).balance(currency).reserved == reserved[player, currency]

    @invariant()
    def what_was_sent_ends_by_its_provider_only(self) -> None:
        for _, _, events in self.each(Kind.WITHDRAWAL):
            sent = next((place for place, event in enumerate(events) if isinstance(event, WithdrawalSent)), len(events))
            assert all(isinstance(event, WithdrawalSettled | WithdrawalReturned) for event in events[sent + 1 :])

    @invariant()
    def nothing_is_approved_through_a_closed_gate(self) -> None:
        assert not any(self.approved_through)

    @invariant()
    def who_pays_first_pays_all_that_is_there(self) -> None:
        for _, event, _ in self.events("wallet"):
            if isinstance(event, Moved) and event.movements[0].code.startswith("bet"):
                first = CASH if event.movements[0].code.endswith(Order.CASH_FIRST) else BONUS
                others = [each for each in event.movements if each.source != first]
                assert not others or getattr(event.accounts, first) == 0

    @invariant()
    def use_never_exceeds_the_limit_in_force_at_the_request(self) -> None:
        assert all(used <= limit.amount for limit, used in self.requested_under)

    @invariant()
    def what_is_used_is_what_was_requested_that_day_and_has_not_failed(self) -> None:
        for name in [name for name in self.streams if name.startswith("limits-")]:
            state = self.state(name)
            used: dict[date, int] = defaultdict(int)
            day_of: dict[str, date] = {}
            for event, at in self.streams[name]:
                if isinstance(event, HeadroomConsumed):
                    day_of.setdefault(event.transaction, at.date())
                    used[at.date()] += event.money.amount
                elif isinstance(event, HeadroomReleased):
                    used[day_of[event.transaction]] -= event.money.amount
            assert state.used == used[state.day]
            assert state.requested == sum(used.values())
            assert min(state.used, *used.values(), 0) == 0

    @invariant()
    def a_deposit_counts_against_the_limits_with_what_has_arrived_or_may_still_arrive(self) -> None:
        counted: dict[str, int] = defaultdict(int)
        for _, event, _ in self.events("limits"):
            if isinstance(event, HeadroomConsumed | HeadroomReleased):
                sign = 1 if isinstance(event, HeadroomConsumed) else -1
                counted[event.transaction.partition("_")[2]] += sign * event.money.amount
        for id_, state, _ in self.each(Kind.DEPOSIT):
            given_up = state.status in {Status.FAILED, Status.EXPIRED}
            expected = state.settled or (0 if given_up else state.money.amount)
            if id_ in counted:  # history touches no limit
                assert counted[id_] == expected

    @invariant()
    def a_state_survives_being_stored(self) -> None:
        """Snapshots hold it as JSON."""
        for name in self.streams:
            state = self.state(name)
            assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state
