"""
The law of money, as invariants over whatever may happen: several players and currencies, requests that settle, fail or wait,
limits that are set and cut, blocks, reservations and payouts, and a clock that crosses midnight to the microsecond.

Rules swallow `Rejected` and nothing else. Each planted fault at the end breaks an invariant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from domain import limits, players, transactions, wallets
from domain.errors import Rejected
from domain.kernel import Aggregate, Event, Money, PlayerId, TransactionId, suffix, uuid7
from domain.limits import LIMITS, HeadroomConsumed, HeadroomReleased, Period
from domain.players import PLAYERS, DataKey, Registered
from domain.transactions import TRANSACTIONS, DepositFailed, DepositRequested, DepositSettled
from domain.wallets import CASH, RESERVED, WALLETS, Balance, Credited, Debited, Reserved
from tests.domain.history import NOON

CURRENCIES = ("EUR", "USD", "JPY")
AGGREGATES: dict[str, Aggregate[Any]] = {a.name: a for a in (PLAYERS, LIMITS, WALLETS, TRANSACTIONS)}
PEOPLE_MAX = 2
MICROSECOND = timedelta(microseconds=1)

amounts = st.sampled_from([1, 30, 50, 10**12]) | st.integers(1, 60)
mostly = st.sampled_from([True] * 7 + [False])
currencies = st.sampled_from(CURRENCIES)


class Books(RuleBasedStateMachine):
    """A ledger in miniature: streams of (event, time), and the folded state of each."""

    people = Bundle("people")
    deposits = Bundle("deposits")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.streams: dict[str, list[tuple[Event, datetime]]] = defaultdict(list)
        self.folded: dict[str, Any] = {}
        self.ids = 0
        self.currency_of: dict[str, str] = {}
        self.requested_under: list[tuple[Money, int]] = []

    # The machinery

    def new(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}_{suffix(uuid7(NOON, self.ids.to_bytes(10, 'big'), 42))}"

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
    @rule(target=people, currency=currencies)
    def register(self, currency: str) -> str:
        player = self.new("player")
        self.currency_of[player] = currency
        registered = Registered(brand="main", country="DE", currency=currency, key=DataKey("", ""))
        self.decide([self.of("player", player)], lambda state: players.register(state, registered=registered))
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

    @rule(
        target=deposits,
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
        names = [self.of(kind, player) for kind in ("player", "limits")]
        before = self.state(names[1])
        money = Money(amount, self.currency_of[player] if own else other)
        id_ = TransactionId(self.new("transaction"))
        requested = DepositRequested(player=PlayerId(player), money=money, provider="acme")
        events = self.decide(
            [self.of("transaction", id_), *names],
            lambda state, person, limits: transactions.request_deposit(
                state, person, limits, transaction_id=id_, requested=requested, at=self.now
            ),
        )
        if events and before.daily_deposit:
            used = self.state(names[1]).used_on(self.state(names[1]).day)
            self.requested_under.append((before.daily_deposit, used))
        return id_

    @rule(player=people, amount=amounts)
    def record_history(self, player: str, amount: int) -> None:
        money = Money(amount, self.currency_of[player])
        id_ = TransactionId(self.new("transaction"))
        requested = DepositRequested(player=PlayerId(player), money=money, provider="past")
        self.decide(
            [self.of("transaction", id_), self.of("player", player), self.of("wallet", player)],
            lambda state, person, wallet: transactions.record_deposit(
                state, person, wallet, transaction_id=id_, requested=requested
            ),
        )

    @rule(deposit=deposits)
    def settle(self, deposit: TransactionId) -> None:
        if player := self.state(self.of("transaction", deposit)).player:
            self.decide(
                [self.of("transaction", deposit), self.of("wallet", player)],
                lambda state, wallet: transactions.settle_deposit(state, wallet, transaction_id=deposit),
            )

    @rule(deposit=deposits)
    def fail(self, deposit: TransactionId) -> None:
        if player := self.state(self.of("transaction", deposit)).player:
            self.decide(
                [self.of("transaction", deposit), self.of("limits", player)],
                lambda state, _: transactions.fail_deposit(state, transaction_id=deposit, reason="test"),
            )

    @rule(player=people, amount=amounts, currency=currencies)
    def reserve(self, player: str, amount: int, currency: str) -> None:
        id_ = TransactionId(self.new("transaction"))
        self.decide(
            [self.of("wallet", player)],
            lambda state: wallets.reserve(state, code="withdrawal", money=Money(amount, currency), transaction=id_),
        )

    @rule(player=people, amount=amounts, currency=currencies, source=st.sampled_from([CASH, RESERVED]))
    def debit(self, player: str, amount: int, currency: str, source: str) -> None:
        id_ = TransactionId(self.new("transaction"))
        self.decide(
            [self.of("wallet", player)],
            lambda state: wallets.debit(
                state, code="payout", source=source, target="psp:acme", money=Money(amount, currency), transaction=id_
            ),
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

    @invariant()
    def all_postings_sum_to_zero_in_each_currency(self) -> None:
        books: dict[str, int] = defaultdict(int)
        for _, event, _ in self.events("wallet"):
            assert isinstance(event, Credited | Reserved | Debited)
            for _, amount in wallets.postings(event):
                books[event.transfer.money.currency] += amount
        assert set(books.values()) <= {0}

    @invariant()
    def the_balance_that_an_event_carries_is_the_sum_of_the_postings_and_never_negative(self) -> None:
        sums: dict[tuple[str, str, str], int] = defaultdict(int)
        for name, event, _ in self.events("wallet"):
            assert isinstance(event, Credited | Reserved | Debited)
            currency = event.transfer.money.currency
            for account, amount in wallets.postings(event):
                sums[name, currency, account] += amount
            assert event.balance == Balance(sums[name, currency, CASH], sums[name, currency, RESERVED])
            assert min(event.balance.cash, event.balance.reserved) >= 0
        for name in [name for name in self.streams if name.startswith("wallet-")]:
            for currency, balance in self.state(name).balances.items():
                assert balance == Balance(sums[name, currency, CASH], sums[name, currency, RESERVED])

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
                    day_of[event.transaction] = at.date()
                    used[at.date()] += event.money.amount
                elif isinstance(event, HeadroomReleased):
                    assert event.transaction in day_of, "released once"
                    used[day_of.pop(event.transaction)] -= event.money.amount
            assert state.used == used[state.day]
            assert state.used >= 0

    @invariant()
    def a_failure_releases_exactly_what_was_consumed(self) -> None:
        consumed = {e.transaction: e.money for _, e, _ in self.events("limits") if isinstance(e, HeadroomConsumed)}
        released = {e.transaction: e.money for _, e, _ in self.events("limits") if isinstance(e, HeadroomReleased)}
        failed = [name for name, event, _ in self.events("transaction") if isinstance(event, DepositFailed)]
        assert {self.of("transaction", id_) for id_ in released} == set(failed)
        assert all(consumed[id_] == money for id_, money in released.items())

    @invariant()
    def a_transaction_ends_at_most_once_and_credits_what_was_requested(self) -> None:
        credited: dict[str, list[Money]] = defaultdict(list)
        for _, event, _ in self.events("wallet"):
            if isinstance(event, Credited):
                credited[self.of("transaction", event.transfer.transaction)].append(event.transfer.money)
        for name in [name for name in self.streams if name.startswith("transaction-")]:
            events = [event for event, _ in self.streams[name]]
            ends = [event for event in events if isinstance(event, DepositSettled | DepositFailed)]
            assert len(ends) <= 1
            is_settled = bool(ends) and isinstance(ends[0], DepositSettled)
            requested = [event.money for event in events if isinstance(event, DepositRequested)]
            assert credited[name] == (requested if is_settled else [])

    @invariant()
    def a_state_survives_being_stored(self) -> None:
        """Snapshots hold it as JSON."""
        for name in self.streams:
            state = self.state(name)
            assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state


def check(machine: type[Books], **options: Any) -> None:
    options = {"stateful_step_count": 25, "deadline": None, "print_blob": True} | options
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck), **options))


def test_the_books_balance_whatever_happens() -> None:
    check(Books, max_examples=80)


def overdraw(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        wallets.Wallet, "after", lambda self, transfer: Balance(self.balance(transfer.money.currency).cash - 1)
    )


def forget_the_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits.Limits, "refuse_excess", lambda *_: None)


def end_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transactions, "_ended", lambda *_: False)


def release_on_the_day_of_the_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transactions, "_NEXT", timedelta(0))


def post_one_side_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wallets, "postings", lambda event: [(event.transfer.target, event.transfer.money.amount)])


@pytest.mark.parametrize(
    "plant", [overdraw, forget_the_limit, end_twice, release_on_the_day_of_the_request, post_one_side_only]
)
def test_a_planted_fault_breaks_the_law(monkeypatch: pytest.MonkeyPatch, plant: Callable[..., None]) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(Books, max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False, derandomize=True)
