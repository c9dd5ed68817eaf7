from __future__ import annotations

import pytest

from domain import wallets
from domain.errors import InvalidAmount
from domain.kernel import AMOUNT_MAX, Money
from domain.wallets import (
    BONUS,
    CASH,
    RECEIVABLE,
    RESERVED,
    WALLETS,
    Accounts,
    Balance,
    Credited,
    Direction,
    InsufficientFunds,
    Moved,
    Movement,
    Reserved,
    Transfer,
    WalletEvent,
)
from policies import spending
from policies.spending import Order
from tests.domain.history import DEPOSIT, EUR, USD, euros, given, paid


def credited(amount: int, balance: Balance) -> Credited:
    return Credited(Transfer("deposit", "psp:acme", CASH, euros(amount), DEPOSIT), balance)


WITH_100 = credited(100, Balance(cash=100))


RESERVED_30 = Reserved(Transfer("withdrawal", CASH, RESERVED, euros(30), DEPOSIT), Balance(70, 30))


@pytest.mark.parametrize(
    ("before", "source", "target", "left"),
    [
        ([], "psp:acme", CASH, Balance(130)),
        ([], CASH, RESERVED, Balance(70, 30)),
        ([RESERVED_30], CASH, "psp:acme", Balance(40, 30)),
        ([RESERVED_30], RESERVED, "psp:acme", Balance(70, 0)),
        ([RESERVED_30], RESERVED, CASH, Balance(100, 0)),
    ],
)
def test_a_transfer_leaves_one_account_and_enters_the_other(
    before: list[WalletEvent], source: str, target: str, left: Balance
) -> None:
    wallet = given(WALLETS, WITH_100, *before)
    assert wallet.after(Transfer("any", source, target, euros(30), DEPOSIT)) == left


def spend(source: str, money: Money) -> Balance:
    return given(WALLETS, WITH_100).after(Transfer("bet", source, "house:ggr", money, DEPOSIT))


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
        full.after(Transfer("deposit", "psp:acme", CASH, euros(1), DEPOSIT))


def test_currencies_do_not_mix() -> None:
    dollars = Credited(Transfer("deposit", "psp:acme", CASH, Money(7, USD), DEPOSIT), Balance(cash=7))
    wallet = given(WALLETS, WITH_100, dollars)
    assert (wallet.balance(EUR), wallet.balance(USD), wallet.balance("SEK")) == (Accounts(100), Accounts(7), Accounts())


def test_the_postings_of_every_event_sum_to_zero() -> None:
    assert wallets.postings(WITH_100) == [("psp:acme", -100), (CASH, 100)]


# Games and bonuses

BONUS_40 = Moved((Movement("bonus", "house:bonus", BONUS, euros(40), "bonus_1"),), Accounts(100, 40))


def bet(amount: int, order: Order) -> Moved:
    (event,) = paid(given(WALLETS, WITH_100, BONUS_40), euros(amount), order)
    return event


@pytest.mark.parametrize(
    ("order", "amount", "funded"),
    [
        (Order.CASH_FIRST, 100, {CASH: 100}),
        (Order.CASH_FIRST, 120, {CASH: 100, BONUS: 20}),
        (Order.BONUS_FIRST, 120, {BONUS: 40, CASH: 80}),
        (Order.BONUS_FIRST, 30, {BONUS: 30}),
    ],
)
def test_a_spend_says_who_has_funded_it(order: Order, amount: int, funded: dict[str, int]) -> None:
    event = bet(amount, order)
    assert {each.source: each.money.amount for each in event.movements} == funded
    assert list(funded) == [each.source for each in event.movements]
    assert event.accounts == Accounts(100 - funded.get(CASH, 0), 40 - funded.get(BONUS, 0))


def test_cash_and_bonus_together_cover_a_spend_or_it_is_refused() -> None:
    with pytest.raises(InsufficientFunds):
        bet(141, Order.CASH_FIRST)


def test_the_order_of_spending_is_the_most_particular_ones() -> None:
    rules = {("", "SE"): Order.BONUS_FIRST, ("north", ""): Order.CASH_FIRST, ("east", "SE"): Order.CASH_FIRST}
    assert spending.order("main", "SE", rules) is Order.BONUS_FIRST
    assert spending.order("north", "SE", rules) is Order.CASH_FIRST
    assert spending.order("main", "DK", rules) is spending.DEFAULT


# What the player owes


def test_a_chargeback_takes_cash_and_the_rest_is_owed() -> None:
    wallet = given(WALLETS, WITH_100)
    event = wallet.charged_back(code="chargeback", target="psp:acme", money=euros(130), transaction=DEPOSIT)
    assert event.accounts == Accounts(cash=0, receivable=-30)
    assert [(each.source, each.money.amount) for each in event.movements] == [(CASH, 100), (RECEIVABLE, 30)]


def owing(amount: int) -> Moved:
    return Moved((Movement("chargeback", RECEIVABLE, "psp:acme", euros(amount), DEPOSIT),), Accounts(0, 0, 0, -amount))


def test_a_debt_is_waived_by_hand_but_never_more_than_is_owed() -> None:
    wallet = given(WALLETS, owing(30))

    def waive(amount: int) -> list[WalletEvent]:
        return wallets.adjust(
            wallet, account=RECEIVABLE, direction=Direction.CREDIT, money=euros(amount), transaction="adjustment_1"
        )

    (event,) = waive(30)
    assert isinstance(event, Moved)
    assert event.accounts == Accounts()
    with pytest.raises(InsufficientFunds):
        waive(31)


def test_what_is_reserved_is_not_corrected_by_hand() -> None:
    with pytest.raises(InvalidAmount):
        wallets.adjust(
            given(WALLETS), account=RESERVED, direction=Direction.CREDIT, money=euros(1), transaction="adjustment_1"
        )


@pytest.mark.parametrize("currency", ["JPY", "EUR", "KWD"])
@pytest.mark.parametrize("account", [CASH, BONUS])
def test_no_account_leaves_the_range_of_exact_integers_in_any_currency(currency: str, account: str) -> None:
    """Amounts are minor units, of which a currency has 1, 100 or 1000 to its unit: the edge is the same."""

    def give(wallet: wallets.Wallet, amount: int) -> list[WalletEvent]:
        return wallets.adjust(
            wallet,
            account=account,
            direction=Direction.CREDIT,
            money=Money(amount, currency),
            transaction="adjustment_1",
        )

    full = given(WALLETS, *give(given(WALLETS), AMOUNT_MAX))
    with pytest.raises(InvalidAmount):
        give(full, 1)


def test_nobody_owes_more_than_can_be_written() -> None:
    most = given(WALLETS, owing(AMOUNT_MAX))
    with pytest.raises(InvalidAmount):
        most.charged_back(code="chargeback", target="psp:acme", money=euros(1), transaction=DEPOSIT)


def test_what_was_deposited_over_a_life_counts_deposits_alone() -> None:
    bonus = wallets.grant_bonus(given(WALLETS, WITH_100), money=euros(5), transaction="bonus_1")
    returned = Credited(Transfer("withdrawal_return", "psp:acme", CASH, euros(30), DEPOSIT), Balance(130))
    assert given(WALLETS, WITH_100, *bonus, returned, credited(1, Balance(131))).deposited == {EUR: 101}
