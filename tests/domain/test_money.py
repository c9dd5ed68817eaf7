"""The laws of money hold whatever happens (money.py), and each planted fault breaks one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from domain import limits, payouts, transactions, wallets
from domain.errors import TransactionClosed
from domain.transactions import TRANSACTIONS, Status, Transaction, deposits, withdrawals
from domain.wallets import Accounts
from tests.domain.money import Books


class Payouts(Books):
    """Withdrawals alone, of two players who have money, one of whom is not known."""

    set_limit = block = request = authorise = fail = dispute = win = lose = refund = None  # type: ignore[assignment]
    spend = grant = adjust = reverse_the_last = None  # type: ignore[assignment]

    @initialize(target=Books.people)
    def one_who_is_known(self) -> str:
        return self.rich(is_known=True)

    @initialize(target=Books.people)
    def one_who_is_not(self) -> str:
        return self.rich(is_known=False)

    def rich(self, *, is_known: bool) -> str:
        player = self.register("EUR", is_known=is_known)
        self.record_history(player, 100)
        return player


class Arrived(Books):
    """What becomes of one player's money once it has arrived."""

    set_limit = block = request = authorise = fail = expire = None  # type: ignore[assignment]
    withdraw = approve = send = reject = cancel = return_ = None  # type: ignore[assignment]

    @initialize(target=Books.people)
    def one_player(self) -> str:
        return self.register("EUR", is_known=True)


class Asked(Payouts):
    """One withdrawal that its provider was asked to pay; perhaps it has declined."""

    one_who_is_known = one_who_is_not = None  # type: ignore[assignment]
    register = record_history = withdraw = approve = send = reject = cancel = expire = None  # type: ignore[assignment]

    @initialize(target=Books.payments, is_declined=st.booleans())
    def one_under_way(self, is_declined: bool) -> str:
        player = Books.register(self, "EUR", is_known=True)
        Books.record_history(self, player, 100)
        payment = Books.withdraw(self, player, 50)
        Books.approve(self, payment)
        Books.order(self, payment)
        if is_declined:
            Books.answer(self, payment, is_paid=False)
        return payment


class Disputed(Arrived):
    """One deposit that has arrived, and who disputes it."""

    one_player = register = record_history = settle = refund = None  # type: ignore[assignment]
    spend = grant = adjust = reverse_the_last = wait = None  # type: ignore[assignment]

    @initialize(target=Books.payments)
    def one_deposit(self) -> str:
        return Books.record_history(self, Books.register(self, "EUR", is_known=True), 100)


def check(machine: type[Books], **options: Any) -> None:
    options = {"stateful_step_count": 30, "deadline": None, "print_blob": True} | options
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck), **options))


def test_the_books_balance_whatever_happens() -> None:
    check(Books, max_examples=60)


def test_what_is_paid_out_keeps_the_law_too() -> None:
    check(Payouts, max_examples=40)


def overdraw(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wallets, "_after", lambda before, _transfer: Accounts(before.cash - 1))


def post_one_side_only(patch: pytest.MonkeyPatch) -> None:
    both = wallets.postings
    patch.setattr(wallets, "postings", lambda event: both(event)[1:])


def forget_the_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits.Limits, "refuse", lambda *_, **__: None)


def forget_what_was_settled(patch: pytest.MonkeyPatch) -> None:
    right = TRANSACTIONS.evolve
    patch.setattr(TRANSACTIONS, "evolve", lambda *given: msgspec.structs.replace(right(*given), settled=0))


def refund_what_is_not_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deposits, "_refuse_beyond", lambda *_: None)


def release_in_the_hour_of_the_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deposits, "NEXT", timedelta(0))


def count_nothing_of_a_late_settlement(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deposits, "_headroom", lambda *_: ())


def keep_what_was_reserved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(withdrawals, "_void", lambda _state, _wallet, _id, event, _ended: [event])


def void_what_was_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(withdrawals, "_VOIDABLE", withdrawals._VOIDABLE | {Status.SENT})


def leave_the_gate_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(withdrawals, "_closed_gate", lambda *_: None)


def book_each_refund_that_is_told(patch: pytest.MonkeyPatch) -> None:
    right = TRANSACTIONS.evolve
    patch.setattr(TRANSACTIONS, "evolve", lambda *given: msgspec.structs.replace(right(*given), refunds={}))


def decide_whatever_dispute_is_open(patch: pytest.MonkeyPatch) -> None:
    right = deposits._refuse_undisputed
    patch.setattr(deposits, "_refuse_undisputed", lambda state, _: right(state, state.dispute))


def keep_what_was_returned_although_it_was_paid(patch: pytest.MonkeyPatch) -> None:
    right = transactions.settle_withdrawal

    def stubborn(state: Transaction, *given: Any, **named: Any) -> Any:
        if state.status is Status.RETURNED:
            raise TransactionClosed
        return right(state, *given, **named)

    patch.setattr(transactions, "settle_withdrawal", stubborn)


def give_up_what_a_provider_is_asked_to_pay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(payouts, "require_answered", lambda _: None)


def spend_the_second_first(patch: pytest.MonkeyPatch) -> None:
    right = wallets._split
    patch.setattr(wallets, "_split", lambda wallet, money, first, second: right(wallet, money, second, first))


@pytest.mark.parametrize(
    ("machine", "plant"),
    [
        (Books, overdraw),
        (Books, post_one_side_only),
        (Books, forget_the_limit),
        (Books, forget_what_was_settled),
        (Arrived, refund_what_is_not_left),
        (Books, release_in_the_hour_of_the_request),
        (Books, count_nothing_of_a_late_settlement),
        (Arrived, spend_the_second_first),
        (Arrived, book_each_refund_that_is_told),
        (Disputed, decide_whatever_dispute_is_open),
        (Asked, keep_what_was_returned_although_it_was_paid),
        (Asked, give_up_what_a_provider_is_asked_to_pay),
        (Payouts, keep_what_was_reserved),
        (Payouts, void_what_was_sent),
        (Payouts, leave_the_gate_open),
    ],
)
def test_a_planted_fault_breaks_the_law(
    monkeypatch: pytest.MonkeyPatch, machine: type[Books], plant: Callable[..., None]
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(machine, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False, derandomize=True)
