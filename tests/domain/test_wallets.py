from __future__ import annotations

import pytest

from domain import wallets
from domain.errors import InvalidAmount
from domain.kernel import AMOUNT_MAX, Money
from domain.wallets import CASH, RESERVED, WALLETS, Balance, Credited, Debited, Reserved, Transfer, WalletEvent
from tests.domain.history import DEPOSIT, EUR, USD, euros, given


def credited(amount: int, balance: Balance) -> Credited:
    return Credited(Transfer("deposit", "psp:acme", CASH, euros(amount), DEPOSIT), balance)


WITH_100 = credited(100, Balance(cash=100))


def test_a_credit_enters_cash_from_outside_and_carries_the_balance() -> None:
    events = wallets.credit(given(WALLETS), code="deposit", source="psp:acme", money=euros(100), transaction=DEPOSIT)
    assert events == [WITH_100]
    assert given(WALLETS, *events).balance(EUR) == Balance(cash=100)


def test_a_reservation_moves_cash_aside() -> None:
    (event,) = wallets.reserve(given(WALLETS, WITH_100), code="withdrawal", money=euros(30), transaction=DEPOSIT)
    assert event == Reserved(Transfer("withdrawal", CASH, RESERVED, euros(30), DEPOSIT), Balance(70, 30))


@pytest.mark.parametrize(("source", "left"), [(CASH, Balance(40, 30)), (RESERVED, Balance(70, 0))])
def test_a_debit_leaves_from_cash_or_from_what_was_reserved(source: str, left: Balance) -> None:
    reserved = Reserved(Transfer("withdrawal", CASH, RESERVED, euros(30), DEPOSIT), Balance(70, 30))
    (event,) = wallets.debit(
        given(WALLETS, WITH_100, reserved),
        code="payout",
        source=source,
        target="psp:acme",
        money=euros(30),
        transaction=DEPOSIT,
    )
    assert event == Debited(Transfer("payout", source, "psp:acme", euros(30), DEPOSIT), left)


def spend(source: str, money: Money) -> list[WalletEvent]:
    wallet = given(WALLETS, WITH_100)
    return wallets.debit(wallet, code="bet", source=source, target="house:ggr", money=money, transaction=DEPOSIT)


@pytest.mark.parametrize(
    ("source", "money"), [(CASH, euros(101)), (RESERVED, euros(1)), (CASH, Money(1, USD)), (CASH, Money(100, "JPY"))]
)
def test_nothing_is_spent_that_is_not_there(source: str, money: Money) -> None:
    with pytest.raises(InvalidAmount):
        spend(source, money)


@pytest.mark.parametrize("amount", [0, -1, -(10**9)])
def test_an_amount_is_positive(amount: int) -> None:
    with pytest.raises(InvalidAmount):
        spend(CASH, euros(amount))


def test_a_balance_stays_an_exact_integer() -> None:
    full = given(WALLETS, credited(AMOUNT_MAX, Balance(cash=AMOUNT_MAX)))
    with pytest.raises(InvalidAmount):
        wallets.credit(full, code="deposit", source="psp:acme", money=euros(1), transaction=DEPOSIT)


def test_currencies_do_not_mix() -> None:
    dollars = Credited(Transfer("deposit", "psp:acme", CASH, Money(7, USD), DEPOSIT), Balance(cash=7))
    wallet = given(WALLETS, WITH_100, dollars)
    assert (wallet.balance(EUR), wallet.balance(USD), wallet.balance("SEK")) == (Balance(100), Balance(7), Balance())


def test_the_postings_of_every_event_sum_to_zero() -> None:
    assert wallets.postings(WITH_100) == [("psp:acme", -100), (CASH, 100)]
