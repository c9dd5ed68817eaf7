"""What happens to withdrawals from the request on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from domain import transactions
from domain.errors import GateClosed, PlayerBlocked, TransactionClosed
from domain.kernel import Money
from domain.kyc import KYC, Approved
from domain.limits import WithdrawalCounted, WithdrawalUncounted
from domain.players import PLAYERS, Blocked, Tagged
from domain.transactions import (
    TRANSACTIONS,
    AmountDiffers,
    NotApproved,
    NotDue,
    NotSettled,
    SentAlready,
    WithdrawalApproved,
    WithdrawalCancelled,
    WithdrawalExpired,
    WithdrawalHeld,
    WithdrawalRejected,
    WithdrawalRequested,
    WithdrawalReturned,
    WithdrawalSent,
    WithdrawalSettled,
)
from domain.wallets import (
    CASH,
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
from policies.gates import Level
from policies.limits import LocalDay
from tests.domain.history import DEPOSIT, NOON, PLAYER, REGISTERED, euros, given

PSP = "psp:acme"
TODAY = LocalDay(NOON.date(), 60)
COUNTED = WithdrawalCounted(DEPOSIT, euros(2000), *TODAY)
WITH_50 = Credited(Transfer("deposit", PSP, CASH, euros(5000), DEPOSIT), Balance(5000))
RICH = given(WALLETS, WITH_50)

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
        (2_000_01, ("fast_payout",), ("threshold",)),
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
    return list(
        transactions.settle_withdrawal(
            withdrawal(*events), wallet, transaction_id=DEPOSIT, money=money, counted_on=TODAY
        )
    )


@pytest.mark.parametrize("before", [(APPROVED,), (APPROVED, SENT)], ids=["told before we knew it was sent", "sent"])
def test_what_was_paid_leaves_what_was_reserved(before: tuple[Any, ...]) -> None:
    debited = Debited(Transfer("withdrawal", RESERVED, PSP, euros(2000), DEPOSIT), Balance(3000, 0))
    assert pay(*before) == [PAID, debited, COUNTED]
    assert pay(*before, PAID) == []


def test_a_provider_cannot_pay_what_nobody_approved_nor_another_amount() -> None:
    with pytest.raises(NotApproved):
        pay(WithdrawalHeld(("kyc",)))
    with pytest.raises(AmountDiffers):
        pay(APPROVED, SENT, money=euros(2001))


def test_what_was_paid_although_it_was_voided_is_booked_and_may_be_owed() -> None:
    paid, moved, counted = pay(APPROVED, WithdrawalCancelled(), wallet=funds(500))
    assert (paid, counted) == (PAID, COUNTED)
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
    returned = WithdrawalReturned("no such account")
    assert return_(APPROVED, SENT) == [returned, RELEASED_20]
    back = Credited(Transfer("withdrawal_return", PSP, CASH, euros(2000), DEPOSIT), Balance(5000, 0))
    uncounted = WithdrawalUncounted(DEPOSIT, euros(2000), *TODAY)
    assert return_(APPROVED, SENT, PAID, wallet=funds(3000)) == [returned, back, uncounted]
    assert return_(APPROVED, SENT, returned) == []
    with pytest.raises(NotApproved):
        return_()
    with pytest.raises(NotSettled):
        return_(APPROVED, WithdrawalCancelled())


def return_(*events: Any, wallet: Any = HOLDING, by_provider: bool = False) -> list[Any]:
    return list(
        transactions.return_withdrawal(
            withdrawal(*events),
            wallet,
            transaction_id=DEPOSIT,
            reason="no such account",
            by_provider=by_provider,
            counted_on=TODAY,
        )
    )


def test_what_was_paid_although_we_had_returned_it_is_booked_and_may_be_owed() -> None:
    paid, moved, counted = pay(APPROVED, SENT, WithdrawalReturned("given up"), wallet=funds(500))
    assert (paid, counted) == (PAID, COUNTED)
    assert moved.accounts == Accounts(receivable=-1500)
    assert pay(APPROVED, SENT, WithdrawalReturned("given up"), PAID, wallet=funds(500)) == []


def test_what_the_provider_has_returned_itself_is_not_paid_by_what_it_says_late() -> None:
    itself = WithdrawalReturned("closed", by_provider=True)
    for before in ([APPROVED, SENT, itself], [APPROVED, SENT, WithdrawalReturned("given up"), itself]):
        with pytest.raises(TransactionClosed):
            pay(*before, wallet=RICH)
    assert pay(APPROVED, SENT, PAID, itself, wallet=RICH) == []
    assert pay(APPROVED, SENT, PAID, WithdrawalReturned("by hand"), wallet=RICH) == []


def test_that_the_provider_has_returned_it_too_is_recorded_once_and_moves_nothing() -> None:
    itself = WithdrawalReturned("no such account", by_provider=True)
    assert return_(APPROVED, SENT, WithdrawalReturned("given up"), by_provider=True) == [itself]
    assert return_(APPROVED, SENT, WithdrawalReturned("given up"), itself, by_provider=True) == []
