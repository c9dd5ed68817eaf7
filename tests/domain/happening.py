"""
What may happen to money, for the laws of money.py: a ledger in miniature, and rules that do to it whatever anybody may ask for.

Rules swallow `Rejected` and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    precondition,
    rule,
)

from domain import kyc, limits, payouts, players, transactions, wallets
from domain.errors import Rejected
from domain.kernel import Aggregate, Event, Money, PlayerId, TransactionId, suffix, uuid7
from domain.kyc import KYC
from domain.limits import LIMITS, Period
from domain.payouts import PAYOUTS
from domain.players import PLAYERS, DataKey, Registered
from domain.transactions import (
    TRANSACTIONS,
    DepositRequested,
    Kind,
    Status,
    Transaction,
    WithdrawalApproved,
    WithdrawalRequested,
)
from domain.wallets import BONUS, CASH, RECEIVABLE, RESERVED, WALLETS, Direction, Moved
from policies import gates
from policies.spending import Order
from tests.domain.history import NOON, paid

CURRENCIES = ("EUR", "USD", "JPY")
AGGREGATES: dict[str, Aggregate[Any]] = {a.name: a for a in (PLAYERS, KYC, LIMITS, WALLETS, TRANSACTIONS, PAYOUTS)}
PEOPLE_MAX = 2
MICROSECOND = timedelta(microseconds=1)
PSP = "psp:acme"

amounts = st.sampled_from([1, 30, 50, 10**12]) | st.integers(1, 60)
mostly = st.sampled_from([True] * 7 + [False])
currencies = st.sampled_from(CURRENCIES)


class Happening(RuleBasedStateMachine):
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
        self.paid: set[str] = set()
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
        country = "AT" if is_known else "DE"  # where nobody is paid who is not known, or deposits without a limit
        registered = Registered(brand="main", country=country, currency=currency, key=DataKey("", ""))
        self.decide([self.of("player", player)], lambda state: players.register(state, registered=registered))
        if is_known:
            approved = kyc.Approved(gates.Level.ENHANCED, "document", age_verified=True)
            self.decide(
                [self.of("kyc", player), self.of("player", player)],
                lambda state, person: kyc.approve(state, person, approved=approved, at=self.now),
            )
        else:
            self.decide(
                [self.of("limits", player), self.of("player", player)],
                lambda state, person: limits.set_deposit_limit(
                    state, person, period=Period.MONTH, limit=Money(10**13, currency), at=self.now
                ),
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
                state, person, period=Period.DAY, limit=Money(amount, currency), at=self.now
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
            used = self.state(names[2]).deposited.of_day
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
        before = self.state(self.of("transaction", payment))

        def decision(
            state: Transaction, wallet: wallets.Wallet, used: limits.Limits, person: players.Player
        ) -> Sequence[Event]:
            day = used.day_at(person, self.now)
            if state.kind is Kind.WITHDRAWAL:
                return transactions.settle_withdrawal(
                    state, wallet, transaction_id=payment, money=money, counted_on=day
                )
            return transactions.settle_deposit(state, wallet, transaction_id=payment, money=money, counted_on=day)

        self.tell(payment, ["wallet", "limits", "player"], decision)
        could_be_paid = before.status not in {Status.UNKNOWN, Status.REQUESTED, Status.UNDER_REVIEW}
        is_told_first = not before.settled and not before.came_back
        if before.kind is Kind.WITHDRAWAL and could_be_paid and is_told_first and money in (None, before.money):
            self.paid.add(payment)

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

    @rule(payment=payments, reference=st.sampled_from(["D1", "D2"]))
    def win(self, payment: TransactionId, reference: str) -> None:
        events = self.tell(payment, [], lambda state: transactions.win_dispute(state, reference=reference))
        assert not events or self.state(self.of("transaction", payment)).dispute == reference

    @rule(payment=payments, reference=st.sampled_from(["D1", "D2"]), amount=st.none() | amounts)
    def lose(self, payment: TransactionId, reference: str, amount: int | None) -> None:
        money = self.money(payment, amount)
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.lose_dispute(
                state, wallet, transaction_id=payment, reference=reference, money=money
            ),
        )

    @rule(
        payment=payments,
        reference=st.sampled_from(["R1", "R2", "R3"]),
        amount=st.none() | amounts,
        has_happened=st.booleans(),
    )
    def refund(self, payment: TransactionId, reference: str, amount: int | None, has_happened: bool) -> None:
        money = self.money(payment, amount)
        self.tell(
            payment,
            ["wallet"],
            lambda state, wallet: transactions.refund_deposit(
                state, wallet, transaction_id=payment, reference=reference, money=money, has_happened=has_happened
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

    @rule(payment=payments, by_provider=st.booleans())
    def return_(self, payment: TransactionId, by_provider: bool) -> None:
        def decision(
            state: Transaction, wallet: wallets.Wallet, used: limits.Limits, person: players.Player
        ) -> Sequence[Event]:
            if not by_provider:
                payouts.require_answered(self.state(self.of("payout", payment)))
            return transactions.return_withdrawal(
                state, wallet, transaction_id=payment, reason="test", by_provider=by_provider,
                counted_on=used.day_at(person, self.now),
            )  # fmt: skip

        if self.tell(payment, ["wallet", "limits", "player"], decision):
            self.paid.discard(payment)

    @rule(payment=payments)
    def order(self, payment: TransactionId) -> None:
        def decision(state: Transaction, payout: payouts.Payout) -> Sequence[Event]:
            sent = transactions.send_withdrawal(state, reference=payment)
            ordered = payouts.order(payout, player=state.player, provider="acme", money=state.money)
            return [*sent, *ordered] if sent else []

        self.decide([self.of("transaction", payment), self.of("payout", payment)], decision)

    @rule(payment=payments, is_paid=mostly)
    def answer(self, payment: TransactionId, is_paid: bool) -> None:
        """The provider pays what it is asked to pay, and says so at once, or it declines."""
        if self.state(self.of("payout", payment)).status is not payouts.Status.ORDERED:
            return
        status = self.state(self.of("transaction", payment)).status
        if is_paid:
            wanted = status in {Status.SENT, Status.SETTLED}
            self.decide(
                [self.of("payout", payment)], lambda payout: payouts.accept(payout, reference="paid", is_wanted=wanted)
            )
            self.settle(payment, None)
        elif status is Status.SENT:
            self.decide([self.of("payout", payment)], lambda payout: payouts.decline(payout, reason="test"))
            self.return_(payment, by_provider=False)

    # Games, bonuses, corrections

    @rule(player=people, amount=amounts, order=st.sampled_from(Order))
    def spend(self, player: str, amount: int, order: Order) -> None:
        money = Money(amount, self.currency_of[player])
        self.decide(
            [self.of("wallet", player)],
            lambda wallet: paid(wallet, money, order, code=f"bet {order}"),
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
            movements = tuple(
                msgspec.structs.replace(each, code="rollback", source=each.target, target=each.source)
                for each in bets[-1].movements
            )
            currency = self.currency_of[player]
            self.decide(
                [self.of("wallet", player)], lambda wallet: [Moved(movements, wallet.booked(movements, currency))]
            )

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
