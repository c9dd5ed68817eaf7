"""
The laws of money (DESIGN.md, 6) as invariants over whatever may happen: several players and currencies, deposits that settle late
or for another amount, are disputed, refunded or charged back, withdrawals that are held, sent, voided and returned, money that is
spent, given and corrected, limits that are set and cut, blocks, and a clock that crosses midnight to the microsecond.

Rules swallow `Rejected` and nothing else. What it is run for: test_money.py.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta

import msgspec
from hypothesis.stateful import invariant

from domain import payouts, wallets
from domain.kernel import EPOCH, Event
from domain.limits import HeadroomConsumed, HeadroomReleased
from domain.transactions import (
    DepositDisputed,
    DepositRefunded,
    Kind,
    Status,
    Transaction,
    WithdrawalReturned,
    WithdrawalSent,
    WithdrawalSettled,
)
from domain.wallets import BONUS, CASH, OWN, Accounts, Moved
from domain.windows import Usage
from domain.windows import day_of as counted_with
from policies.spending import Order
from tests.domain.happening import PSP, Happening
from tests.domain.history import NOON

HOUR = timedelta(hours=1)
FOUR_WEEKS = timedelta(days=28)


def _sum(usage: Usage) -> int:
    return sum(added - taken for _, added, taken in usage.days_30)


class Books(Happening):
    """The laws, over all of that."""

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
            assert moved[id_] == (-state.money.amount if state.status is Status.SETTLED else 0)
            assert sum(isinstance(event, WithdrawalSettled) for event in events) <= 1

    @invariant()
    def what_is_reserved_is_what_is_on_its_way_out(self) -> None:
        under_way = {Status.REQUESTED, Status.UNDER_REVIEW, Status.APPROVED, Status.SENT}
        reserved: dict[tuple[str, str], int] = defaultdict(int)
        for _, state, _ in self.each(Kind.WITHDRAWAL):
            reserved[state.player, state.money.currency] += state.money.amount * (state.status in under_way)
        for player, currency in self.currency_of.items():
            assert self.state(self.of("wallet", player)).balance(currency).reserved == reserved[player, currency]

    @invariant()
    def what_the_provider_says_it_has_paid_is_booked_unless_it_came_back(self) -> None:
        for payment in self.paid:
            assert self.state(self.of("transaction", payment)).status is Status.SETTLED

    @invariant()
    def nothing_is_given_up_by_hand_while_its_provider_is_asked(self) -> None:
        for id_, state, _ in self.each(Kind.WITHDRAWAL):
            if self.state(f"payout-{id_}").status is payouts.Status.ORDERED:
                assert state.status in {Status.SENT, Status.SETTLED} or state.came_back

    @invariant()
    def a_refund_and_a_dispute_are_booked_once(self) -> None:
        for _, _, events in self.each(Kind.DEPOSIT):
            refunds = [event.reference for event in events if isinstance(event, DepositRefunded)]
            disputes = [event.reference for event in events if isinstance(event, DepositDisputed)]
            assert len(set(refunds)) == len(refunds)
            assert len(set(disputes)) == len(disputes)

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
                    day = counted_with(event.day, event.utc_offset, at)
                    day_of.setdefault(event.transaction, day)
                    used[day] += event.money.amount
                elif isinstance(event, HeadroomReleased):
                    used[day_of[event.transaction]] -= event.money.amount
            assert state.deposited.of_day == used[state.deposited.day]
            assert state.requested == sum(used.values())
            assert min(state.deposited.of_day, *used.values(), 0) == 0

    @invariant()
    def what_an_hour_has_used_is_what_was_recorded_in_it_and_has_not_failed(self) -> None:
        for name in [name for name in self.streams if name.startswith("limits-")]:
            used: dict[int, int] = defaultdict(int)
            hour_of: dict[str, int] = {}
            for event, at in self.streams[name]:
                hour = (at - EPOCH) // HOUR
                if isinstance(event, HeadroomConsumed):
                    hour_of.setdefault(event.transaction, hour)
                    used[hour] += event.money.amount
                elif isinstance(event, HeadroomReleased):
                    used[hour_of[event.transaction]] -= event.money.amount
            for hour, added, _ in self.state(name).deposited.hours_24:
                assert added == used[hour]

    @invariant()
    def net_deposits_are_what_was_deposited_less_what_was_paid_out(self) -> None:
        for name in [name for name in self.streams if name.startswith("limits-")]:
            state = self.state(name)
            paid = sum(
                payment.settled
                for _, payment, _ in self.each(Kind.WITHDRAWAL)
                if payment.status is Status.SETTLED and self.of("limits", payment.player) == name
            )
            if self.now - NOON < FOUR_WEEKS:  # else some of it has been forgotten
                assert _sum(state.net) == _sum(state.deposited) - paid

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
