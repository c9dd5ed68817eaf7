"""What happens to deposits once they are requested, and what holds for every payment."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain import transactions
from domain.errors import Conflict, CurrencyMismatch, GateClosed, PlayerNotActive, TransactionClosed
from domain.kernel import Intervention, Money
from domain.kyc import KYC, Approved
from domain.limits import LIMITS, HeadroomConsumed, HeadroomReleased
from domain.players import PLAYERS, Closed
from domain.transactions import (
    TRANSACTIONS,
    AmountDiffers,
    AmountOutOfRange,
    DepositAuthorised,
    DepositDisputed,
    DepositExpired,
    DepositFailed,
    DepositRefunded,
    DepositRequested,
    DepositSettled,
    DepositSettledFor,
    DisputeLost,
    DisputeOpen,
    DisputeWon,
    Intervened,
    NotDisputed,
    NotDue,
    NotSettled,
    RefundExceeds,
    Status,
    WrongKind,
    deposits,
)
from domain.wallets import (
    CASH,
    RECEIVABLE,
    WALLETS,
    Accounts,
    Balance,
    Credited,
    InsufficientFunds,
    Moved,
    Movement,
    Transfer,
)
from policies import payments
from policies.gates import Level
from tests.domain.history import A_MONTH, DEPOSIT, NOON, PLAYER, REGISTERED, USD, euros, given
from tests.domain.test_withdrawals import ANNA, KNOWN, withdraw, withdrawal

PSP = "psp:acme"
TODAY = NOON.date()
COUNTED_AT = NOON + timedelta(microseconds=1)
REQUESTED = DepositRequested(player=PLAYER, money=euros(5000), provider="acme", day=TODAY)
SETTLED = DepositSettled()
DISPUTED = DepositDisputed("CB-1", "the card was stolen")
WITH_50 = Credited(Transfer("deposit", PSP, CASH, euros(5000), DEPOSIT), Balance(5000))
POOR = given(WALLETS)
RICH = given(WALLETS, WITH_50)


def deposit(*events: Any) -> transactions.Transaction:
    return given(TRANSACTIONS, REQUESTED, *events)


# Deposits: settling


def settle(state: transactions.Transaction, amount: int | None = None) -> list[Any]:
    money = None if amount is None else euros(amount)
    return list(transactions.settle_deposit(state, POOR, transaction_id=DEPOSIT, money=money))


def test_an_authorisation_is_remembered_until_the_deposit_goes_further() -> None:
    assert transactions.authorise_deposit(deposit(), reference="A-7") == [DepositAuthorised("A-7")]
    assert deposit(DepositAuthorised("A-7")).reference == "A-7"
    for further in (DepositAuthorised("A-7"), SETTLED):
        assert transactions.authorise_deposit(deposit(further), reference="A-7") == []


@pytest.mark.parametrize("given_up", [DepositFailed("declined"), DepositExpired()])
def test_a_deposit_that_was_given_up_is_not_authorised_any_more(given_up: Any) -> None:
    with pytest.raises(TransactionClosed):
        transactions.authorise_deposit(deposit(given_up), reference="A-7")


@pytest.mark.parametrize(
    ("amount", "of_limits"),
    [
        (6000, HeadroomConsumed(transaction=DEPOSIT, money=euros(1000), day=TODAY)),
        (4500, HeadroomReleased(transaction=DEPOSIT, money=euros(500), day=TODAY, at=COUNTED_AT)),
    ],
)
def test_another_amount_is_booked_as_it_came_and_the_limits_count_the_difference(amount: int, of_limits: Any) -> None:
    ended, credited, counted = settle(deposit(), amount)
    assert ended == DepositSettledFor(euros(amount))
    assert credited == Credited(Transfer("deposit", PSP, CASH, euros(amount), DEPOSIT), Balance(amount))
    assert counted == of_limits


def test_the_amount_that_was_asked_for_is_nothing_special_to_be_told() -> None:
    assert settle(deposit(), 5000) == settle(deposit())


def test_a_second_settlement_of_another_amount_leaves_the_books_alone() -> None:
    assert settle(deposit(SETTLED), 5000) == []
    with pytest.raises(AmountDiffers):
        settle(deposit(SETTLED), 4999)


def test_a_settlement_is_in_the_deposits_currency() -> None:
    with pytest.raises(CurrencyMismatch):
        transactions.settle_deposit(deposit(), POOR, transaction_id=DEPOSIT, money=Money(5000, USD))


def test_a_deposit_is_given_up_when_its_time_is_over_and_not_before() -> None:
    due = NOON + payments.of("acme", "EUR").deposit_lives
    with pytest.raises(NotDue):
        transactions.expire_deposit(deposit(), transaction_id=DEPOSIT, at=due - timedelta(microseconds=1))
    released = HeadroomReleased(transaction=DEPOSIT, money=euros(5000), day=TODAY, at=COUNTED_AT)
    assert transactions.expire_deposit(deposit(), transaction_id=DEPOSIT, at=due) == [DepositExpired(), released]
    assert transactions.expire_deposit(deposit(DepositExpired()), transaction_id=DEPOSIT, at=due) == []
    with pytest.raises(TransactionClosed):
        transactions.expire_deposit(deposit(SETTLED), transaction_id=DEPOSIT, at=due)


# Deposits: asking


def ask(amount: int, **other: Any) -> list[Any]:
    known: dict[str, Any] = {
        "transaction": given(TRANSACTIONS),
        "player": given(PLAYERS, REGISTERED),
        "kyc": given(KYC),
        "limits": given(LIMITS, A_MONTH),
        "wallet": given(WALLETS),
        "transaction_id": DEPOSIT,
        "requested": msgspec.structs.replace(REQUESTED, money=euros(amount)),
        "at": NOON,
    }
    return list(transactions.request_deposit(**(known | other)))


def test_all_that_a_player_has_asked_for_counts_before_they_are_known() -> None:
    """DE: 100 euros in all (rules.csv, kyc.deposit_max_before_verification), whether settled or on the way."""
    assert ask(100_00)
    on_the_way = given(LIMITS, A_MONTH, HeadroomConsumed(transaction=DEPOSIT, money=euros(60_00), day=TODAY))
    assert ask(40_00, limits=on_the_way)
    with pytest.raises(GateClosed):
        ask(40_01, limits=on_the_way)
    with pytest.raises(GateClosed):
        ask(50_01, wallet=RICH)
    known = given(KYC, Approved(Level.IDENTITY, "document", age_verified=True))
    assert ask(40_01, limits=on_the_way, kyc=known)


def test_what_was_imported_and_what_is_on_its_way_add_up_before_a_player_is_known() -> None:
    past = transactions.record_deposit(
        given(TRANSACTIONS),
        given(PLAYERS, REGISTERED),
        given(WALLETS),
        transaction_id=DEPOSIT,
        requested=msgspec.structs.replace(REQUESTED, money=euros(90_00)),
    )
    imported = given(WALLETS, *[event for event in past if isinstance(event, Credited)])
    assert imported.deposited == imported.imported == {"EUR": 90_00}
    on_the_way = given(LIMITS, A_MONTH, HeadroomConsumed(transaction=DEPOSIT, money=euros(9_00), day=TODAY))
    assert ask(1_00, wallet=imported, limits=on_the_way)
    with pytest.raises(GateClosed):
        ask(9_00, wallet=imported, limits=on_the_way)


def test_a_closed_account_takes_no_deposit() -> None:
    with pytest.raises(PlayerNotActive):
        ask(1, player=given(PLAYERS, REGISTERED, Closed("asked")))


def test_a_method_says_how_much_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "METHODS", {("", ""): payments.Method(deposit_min=10, deposit_max=50)})
    payments.of.cache_clear()
    try:
        assert ask(10_00)
        assert ask(50_00)
        for amount in (9_99, 50_01):
            with pytest.raises(AmountOutOfRange):
                ask(amount)
    finally:
        payments.of.cache_clear()


# Deposits: disputes and refunds


def test_a_dispute_is_told_once_and_is_about_money_that_has_arrived() -> None:
    def dispute(state: transactions.Transaction, reference: str = "CB-1") -> list[Any]:
        return list(transactions.dispute_deposit(state, reference=reference, reason="the card was stolen"))

    assert dispute(deposit(SETTLED)) == [DISPUTED]
    assert dispute(deposit(SETTLED, DISPUTED)) == []
    assert dispute(deposit(SETTLED, DISPUTED, DisputeWon())) == []
    assert dispute(deposit(SETTLED, DISPUTED, DisputeWon()), "CB-2") == [DepositDisputed("CB-2", DISPUTED.reason)]
    with pytest.raises(NotSettled):
        dispute(deposit())
    with pytest.raises(DisputeOpen):
        dispute(deposit(SETTLED, DISPUTED), "CB-2")
    with pytest.raises(TransactionClosed):
        dispute(deposit(SETTLED, DISPUTED, DisputeLost(euros(5000))), "CB-2")


def test_a_dispute_that_was_decided_is_not_opened_again_by_being_told_after_the_next_one() -> None:
    second = DepositDisputed("CB-2", "again")
    for later in ([second], [second, DisputeWon()]):
        state = deposit(SETTLED, DISPUTED, DisputeWon(), *later)
        assert transactions.dispute_deposit(state, reference="CB-1", reason="the card was stolen") == []


def test_a_dispute_that_is_won_moves_nothing() -> None:
    assert win(deposit(SETTLED, DISPUTED)) == [DisputeWon()]
    assert win(deposit(SETTLED, DISPUTED, DisputeWon())) == []
    with pytest.raises(NotDisputed):
        win(deposit(SETTLED))


def test_the_end_of_an_earlier_dispute_does_not_decide_the_open_one() -> None:
    second = deposit(SETTLED, DISPUTED, DisputeWon(), DepositDisputed("CB-2", "again"))
    assert win(second) == []
    with pytest.raises(TransactionClosed):
        lose(second)
    assert win(second, "CB-2") == [DisputeWon()]
    assert lose(second, reference="CB-2")[0] == DisputeLost(euros(5000))
    for decide in (win, lose):
        with pytest.raises(NotDisputed):
            decide(second, reference="CB-3")


def win(state: transactions.Transaction, reference: str = "CB-1") -> list[Any]:
    return list(transactions.win_dispute(state, reference=reference))


def lose(
    state: transactions.Transaction, amount: int | None = None, wallet: Any = RICH, reference: str = "CB-1"
) -> list[Any]:
    money = None if amount is None else euros(amount)
    return list(transactions.lose_dispute(state, wallet, transaction_id=DEPOSIT, reference=reference, money=money))


def test_a_dispute_that_is_lost_takes_cash_and_what_is_missing_is_owed() -> None:
    spent = Moved((Movement("bet", CASH, "house:ggr", euros(3000), "round_1"),), Accounts(2000))
    lost, moved = lose(deposit(SETTLED, DISPUTED), wallet=given(WALLETS, WITH_50, spent))
    assert lost == DisputeLost(euros(5000))
    assert [(each.source, each.target, each.money.amount) for each in moved.movements] == [
        (CASH, PSP, 2000),
        (RECEIVABLE, PSP, 3000),
    ]
    assert moved.accounts == Accounts(receivable=-3000)


def test_what_was_refunded_is_not_charged_back_as_well() -> None:
    back = deposit(SETTLED, DepositRefunded(euros(2000), "R-1"), DISPUTED)
    assert lose(back)[0] == DisputeLost(euros(3000))
    with pytest.raises(RefundExceeds):
        lose(back, 3001)


def test_a_lost_dispute_stays_lost() -> None:
    lost = deposit(SETTLED, DISPUTED, DisputeLost(euros(5000)))
    assert lose(lost) == []
    assert lose(lost, 5000) == []
    with pytest.raises(AmountDiffers):
        lose(lost, 4000)
    with pytest.raises(TransactionClosed):
        win(lost)
    for decide in (win, lose):
        with pytest.raises(TransactionClosed):
            decide(lost, reference="CB-2")


def refund(state: transactions.Transaction, amount: int | None = None, **more: Any) -> list[Any]:
    money = None if amount is None else euros(amount)
    known = {"wallet": RICH, "transaction_id": DEPOSIT, "reference": "R-2", "money": money} | more
    return list(transactions.refund_deposit(state, **known))


def test_refunds_never_exceed_what_is_left() -> None:
    assert refund(deposit(SETTLED), 2000)[0] == DepositRefunded(euros(2000), "R-2")
    partly = deposit(SETTLED, DepositRefunded(euros(2000), "R-1"))
    assert refund(partly)[0] == DepositRefunded(euros(3000), "R-2")
    with pytest.raises(RefundExceeds):
        refund(partly, 3001)
    assert refund(deposit(SETTLED, DepositRefunded(euros(5000), "R-1"))) == []


def test_a_refund_is_booked_once_whoever_tells_of_it() -> None:
    booked = deposit(SETTLED, DepositRefunded(euros(2000), "R-2"))
    assert refund(booked, 2000) == refund(booked) == refund(booked, 2000, has_happened=True) == []
    with pytest.raises(AmountDiffers):
        refund(booked, 1000)
    later = deposit(SETTLED, DepositRefunded(euros(2000), "R-2"), DepositRefunded(euros(100), "R-3"), DISPUTED)
    assert refund(later, 2000) == []


def test_nothing_is_refunded_while_a_dispute_is_open() -> None:
    with pytest.raises(DisputeOpen):
        refund(deposit(SETTLED, DISPUTED), 2000)
    with pytest.raises(TransactionClosed):
        refund(deposit(SETTLED, DISPUTED, DisputeLost(euros(1000))), 2000)


def test_a_person_refunds_what_is_there_and_a_provider_may_have_refunded_more() -> None:
    with pytest.raises(InsufficientFunds):
        refund(deposit(SETTLED), wallet=POOR)
    _, moved = refund(deposit(SETTLED), wallet=POOR, has_happened=True)
    assert moved.accounts == Accounts(receivable=-5000)


# Both


def test_a_deposit_is_not_treated_as_a_withdrawal_nor_the_other_way_round() -> None:
    with pytest.raises(WrongKind):
        transactions.approve_withdrawal(deposit(), ANNA, KNOWN, RICH, at=NOON)
    with pytest.raises(WrongKind):
        transactions.fail_deposit(withdrawal(), transaction_id=DEPOSIT, reason="declined")


def test_a_withdrawal_is_requested_once() -> None:
    with pytest.raises(Conflict):
        withdraw(transaction=withdrawal())


def test_whoever_acts_by_hand_is_recorded_with_the_reason_if_anything_is() -> None:
    why = Intervention("correction", "the bank has written")
    assert transactions.by_hand([SETTLED], why) == [SETTLED, Intervened("correction", "the bank has written")]
    assert transactions.by_hand([SETTLED], None) == [SETTLED]
    assert transactions.by_hand([], why) == []
    assert deposit(SETTLED, Intervened("correction", "x")) == deposit(SETTLED)


def test_thresholds_follow_the_currencys_digits() -> None:
    assert payments.of("acme", "EUR").automatic == 500_00
    assert payments.of("acme", "JPY").automatic == 50_000
    assert payments.of("acme", "KWD").automatic == 500_000


def test_what_gets_headroom_back_is_the_day_and_the_hour_that_gave_it() -> None:
    late = datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=NOON.tzinfo)
    state = given(TRANSACTIONS, REQUESTED, at=late)
    [_, released] = transactions.fail_deposit(state, transaction_id=DEPOSIT, reason="declined")
    assert isinstance(released, HeadroomReleased)
    assert (released.day, released.at) == (date(2026, 11, 23), datetime(2026, 11, 23, tzinfo=NOON.tzinfo))
    assert deposits.deposit_due("acme", "EUR", late) == late + timedelta(days=1)
    assert state.status is Status.REQUESTED
