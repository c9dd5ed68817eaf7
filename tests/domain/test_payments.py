"""What happens to deposits once they are requested, and to withdrawals from the request on."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain import transactions
from domain.errors import Conflict, CurrencyMismatch, GateClosed, PlayerBlocked, PlayerNotActive, TransactionClosed
from domain.kernel import Intervention, Money
from domain.kyc import KYC, Approved
from domain.limits import LIMITS, HeadroomConsumed, HeadroomReleased
from domain.players import PLAYERS, Blocked, Closed, Tagged
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
    DisputeWon,
    Intervened,
    NotApproved,
    NotDisputed,
    NotDue,
    NotSettled,
    RefundExceeds,
    SentAlready,
    Status,
    WithdrawalApproved,
    WithdrawalCancelled,
    WithdrawalExpired,
    WithdrawalHeld,
    WithdrawalRejected,
    WithdrawalRequested,
    WithdrawalReturned,
    WithdrawalSent,
    WithdrawalSettled,
    WrongKind,
    deposits,
)
from domain.wallets import (
    CASH,
    RECEIVABLE,
    RESERVED,
    WALLETS,
    Accounts,
    Balance,
    Credited,
    Debited,
    InsufficientFunds,
    Moved,
    Movement,
    Released,
    Reserved,
    Transfer,
)
from policies import payments
from policies.gates import Level
from tests.domain.history import DEPOSIT, NOON, PLAYER, REGISTERED, USD, euros, given

PSP = "psp:acme"
REQUESTED = DepositRequested(player=PLAYER, money=euros(5000), provider="acme")
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
    for further in (DepositAuthorised("A-7"), SETTLED, DepositFailed("declined")):
        assert transactions.authorise_deposit(deposit(further), reference="A-7") == []


@pytest.mark.parametrize(
    ("amount", "of_limits"),
    [
        (6000, HeadroomConsumed(transaction=DEPOSIT, money=euros(1000))),
        (4500, HeadroomReleased(transaction=DEPOSIT, money=euros(500), day=NOON.date())),
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
    released = HeadroomReleased(transaction=DEPOSIT, money=euros(5000), day=NOON.date())
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
        "limits": given(LIMITS),
        "wallet": given(WALLETS),
        "transaction_id": DEPOSIT,
        "requested": msgspec.structs.replace(REQUESTED, money=euros(amount)),
        "at": NOON,
    }
    return list(transactions.request_deposit(**(known | other)))


def test_all_that_a_player_has_asked_for_counts_before_they_are_known() -> None:
    """DE: 100 euros in all (rules.csv, kyc.deposit_max_before_verification), whether settled or on the way."""
    assert ask(100_00)
    on_the_way = given(LIMITS, HeadroomConsumed(transaction=DEPOSIT, money=euros(60_00)))
    assert ask(40_00, limits=on_the_way)
    with pytest.raises(GateClosed):
        ask(40_01, limits=on_the_way)
    with pytest.raises(GateClosed):
        ask(50_01, wallet=RICH)
    known = given(KYC, Approved(Level.IDENTITY, "document", age_verified=True))
    assert ask(40_01, limits=on_the_way, kyc=known)


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
    with pytest.raises(TransactionClosed):
        dispute(deposit(SETTLED, DISPUTED), "CB-2")


def test_a_dispute_that_is_won_moves_nothing() -> None:
    assert transactions.win_dispute(deposit(SETTLED, DISPUTED)) == [DisputeWon()]
    assert transactions.win_dispute(deposit(SETTLED, DISPUTED, DisputeWon())) == []
    with pytest.raises(NotDisputed):
        transactions.win_dispute(deposit(SETTLED))


def lose(state: transactions.Transaction, amount: int | None = None, wallet: Any = RICH) -> list[Any]:
    money = None if amount is None else euros(amount)
    return list(transactions.lose_dispute(state, wallet, transaction_id=DEPOSIT, money=money))


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
    back = deposit(SETTLED, DepositRefunded(euros(2000)), DISPUTED)
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
        transactions.win_dispute(lost)


def refund(state: transactions.Transaction, amount: int | None = None, **more: Any) -> list[Any]:
    money = None if amount is None else euros(amount)
    known = {"wallet": RICH, "transaction_id": DEPOSIT, "money": money} | more
    return list(transactions.refund_deposit(state, **known))


def test_refunds_never_exceed_what_is_left() -> None:
    assert refund(deposit(SETTLED), 2000)[0] == DepositRefunded(euros(2000))
    partly = deposit(SETTLED, DepositRefunded(euros(2000)))
    assert refund(partly)[0] == DepositRefunded(euros(3000))
    with pytest.raises(RefundExceeds):
        refund(partly, 3001)
    assert refund(deposit(SETTLED, DepositRefunded(euros(5000)))) == []


def test_a_person_refunds_what_is_there_and_a_provider_may_have_refunded_more() -> None:
    with pytest.raises(InsufficientFunds):
        refund(deposit(SETTLED), wallet=POOR)
    _, moved = refund(deposit(SETTLED), wallet=POOR, has_happened=True)
    assert moved.accounts == Accounts(receivable=-5000)


# Withdrawals

ANNA = given(PLAYERS, REGISTERED)
KNOWN = given(KYC, Approved(Level.IDENTITY, "document", age_verified=True))
DUE = NOON + timedelta(days=7)
WANTED = WithdrawalRequested(player=PLAYER, money=euros(2000), provider="acme", expires_at=DUE)
APPROVED, SENT, PAID = WithdrawalApproved(), WithdrawalSent("P-1"), WithdrawalSettled()
RESERVED_20 = Reserved(Transfer("withdrawal", CASH, RESERVED, euros(2000), DEPOSIT), Balance(3000, 2000))
RELEASED_20 = Released(Transfer("withdrawal", RESERVED, CASH, euros(2000), DEPOSIT), Balance(5000, 0))
HOLDING = given(WALLETS, WITH_50, RESERVED_20)


def withdraw(amount: int = 2000, **other: Any) -> list[Any]:
    known: dict[str, Any] = {
        "transaction": given(TRANSACTIONS),
        "player": ANNA,
        "kyc": KNOWN,
        "wallet": RICH,
        "transaction_id": DEPOSIT,
        "requested": msgspec.structs.replace(WANTED, money=euros(amount)),
        "at": NOON,
    }
    return list(transactions.request_withdrawal(**(known | other)))


def withdrawal(*events: Any) -> transactions.Transaction:
    return given(TRANSACTIONS, WANTED, *events)


def test_a_small_withdrawal_is_reserved_and_approved_at_once() -> None:
    assert withdraw() == [WANTED, APPROVED, RESERVED_20]


def test_a_closed_gate_holds_a_withdrawal_and_does_not_refuse_it() -> None:
    assert withdraw(kyc=given(KYC)) == [WANTED, WithdrawalHeld(("kyc",)), RESERVED_20]


def funds(amount: int, **accounts: int) -> Any:
    return given(
        WALLETS, Moved((Movement("adjustment", "house:x", CASH, euros(1), "a"),), Accounts(amount, **accounts))
    )


@pytest.mark.parametrize(
    ("amount", "tags", "reasons"),
    [
        (500_00, (), ()),
        (500_01, (), ("threshold",)),
        (500_01, ("fast_payout",), ()),
        (2_500_01, ("fast_payout",), ("threshold",)),
        (1, ("pep",), ("risk",)),
    ],
)
def test_a_person_looks_at_what_is_large_or_risky(amount: int, tags: tuple[str, ...], reasons: tuple[str, ...]) -> None:
    player = given(PLAYERS, REGISTERED, *map(Tagged, tags))
    decided = withdraw(amount, player=player, wallet=funds(10_000_00))[1]
    assert decided == (WithdrawalHeld(reasons) if reasons else APPROVED)


def test_who_owes_money_is_looked_at() -> None:
    assert withdraw(wallet=funds(5000, receivable=-1))[1] == WithdrawalHeld(("debt",))


def test_nobody_withdraws_more_than_their_cash() -> None:
    with pytest.raises(InsufficientFunds):
        withdraw(5001)


def test_a_blocked_player_takes_their_money_unless_the_block_holds_it() -> None:
    assert withdraw(player=given(PLAYERS, REGISTERED, Blocked("asked")))[1] == APPROVED
    with pytest.raises(PlayerBlocked):
        withdraw(player=given(PLAYERS, REGISTERED, Blocked("fraud")))


def approve(*events: Any, kyc: Any = KNOWN) -> list[Any]:
    return list(transactions.approve_withdrawal(withdrawal(*events), ANNA, kyc, HOLDING, at=NOON))


def test_an_approval_looks_at_the_gate_again_and_counts_once() -> None:
    held = WithdrawalHeld(("kyc",))
    with pytest.raises(GateClosed):
        approve(held, kyc=given(KYC))
    assert approve(held) == [APPROVED]
    assert approve(held, APPROVED) == approve(APPROVED, SENT) == []
    with pytest.raises(TransactionClosed):
        approve(held, WithdrawalRejected("no"))


def test_what_is_sent_was_approved_and_is_sent_once() -> None:
    def send(*events: Any, reference: str = "P-1") -> list[Any]:
        return list(transactions.send_withdrawal(withdrawal(*events), reference=reference))

    assert send(APPROVED) == [SENT]
    assert send(APPROVED, SENT) == send(APPROVED, SENT, PAID) == []
    with pytest.raises(SentAlready):
        send(APPROVED, SENT, reference="P-2")
    with pytest.raises(NotApproved):
        send(WithdrawalHeld(("kyc",)))


def pay(*events: Any, wallet: Any = HOLDING, money: Money | None = None) -> list[Any]:
    return list(transactions.settle_withdrawal(withdrawal(*events), wallet, transaction_id=DEPOSIT, money=money))


@pytest.mark.parametrize("before", [(APPROVED,), (APPROVED, SENT)], ids=["told before we knew it was sent", "sent"])
def test_what_was_paid_leaves_what_was_reserved(before: tuple[Any, ...]) -> None:
    debited = Debited(Transfer("withdrawal", RESERVED, PSP, euros(2000), DEPOSIT), Balance(3000, 0))
    assert pay(*before) == [PAID, debited]
    assert pay(*before, PAID) == []


def test_a_provider_cannot_pay_what_nobody_approved_nor_another_amount() -> None:
    with pytest.raises(NotApproved):
        pay(WithdrawalHeld(("kyc",)))
    with pytest.raises(AmountDiffers):
        pay(APPROVED, SENT, money=euros(2001))


def test_what_was_paid_although_it_was_voided_is_booked_and_may_be_owed() -> None:
    paid, moved = pay(APPROVED, WithdrawalCancelled(), wallet=funds(500))
    assert paid == PAID
    assert moved.accounts == Accounts(receivable=-1500)


VOIDS: list[tuple[Any, Any]] = [
    (WithdrawalRejected("no"), lambda state: transactions.reject_withdrawal(
        state, HOLDING, transaction_id=DEPOSIT, reason="no")),
    (WithdrawalCancelled(), lambda state: transactions.cancel_withdrawal(state, HOLDING, transaction_id=DEPOSIT)),
    (WithdrawalExpired(), lambda state: transactions.expire_withdrawal(state, HOLDING, transaction_id=DEPOSIT, at=DUE)),
]  # fmt: skip


@pytest.mark.parametrize(("event", "void"), VOIDS, ids=["rejected", "cancelled", "expired"])
def test_what_is_voided_is_cash_again_but_never_once_it_is_sent(event: Any, void: Any) -> None:
    for before in ([], [WithdrawalHeld(("kyc",))], [APPROVED]):
        assert void(withdrawal(*before)) == [event, RELEASED_20]
    assert void(withdrawal(APPROVED, event)) == []
    for after in ([APPROVED, SENT], [APPROVED, SENT, PAID]):
        with pytest.raises(TransactionClosed):
            void(withdrawal(*after))


def test_a_reservation_does_not_expire_early() -> None:
    with pytest.raises(NotDue):
        transactions.expire_withdrawal(
            withdrawal(APPROVED), HOLDING, transaction_id=DEPOSIT, at=DUE - timedelta(microseconds=1)
        )


def test_what_is_returned_is_cash_again_before_and_after_it_was_paid() -> None:
    def return_(*events: Any, wallet: Any = HOLDING) -> list[Any]:
        return list(
            transactions.return_withdrawal(
                withdrawal(*events), wallet, transaction_id=DEPOSIT, reason="no such account"
            )
        )

    returned = WithdrawalReturned("no such account")
    assert return_(APPROVED, SENT) == [returned, RELEASED_20]
    back = Credited(Transfer("withdrawal_return", PSP, CASH, euros(2000), DEPOSIT), Balance(5000, 0))
    assert return_(APPROVED, SENT, PAID, wallet=funds(3000)) == [returned, back]
    assert return_(APPROVED, SENT, returned) == []
    with pytest.raises(NotApproved):
        return_()


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


def test_the_day_that_gets_headroom_back_is_the_day_that_gave_it() -> None:
    late = datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=NOON.tzinfo)
    state = given(TRANSACTIONS, REQUESTED, at=late)
    [_, released] = transactions.fail_deposit(state, transaction_id=DEPOSIT, reason="declined")
    assert isinstance(released, HeadroomReleased)
    assert released.day == date(2026, 11, 23)
    assert deposits.deposit_due("acme", "EUR", late) == late + timedelta(days=1)
    assert state.status is Status.REQUESTED
