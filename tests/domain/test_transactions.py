from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import transactions
from domain.errors import Conflict, CurrencyMismatch, LimitExceeded, NotFound, PlayerBlocked, TransactionClosed
from domain.kernel import Money
from domain.kyc import KYC
from domain.limits import LIMITS, HeadroomConsumed, HeadroomReleased, Kind, LimitSet, Period
from domain.players import PLAYERS, Blocked
from domain.transactions import (
    TRANSACTIONS,
    DepositExpired,
    DepositFailed,
    DepositRequested,
    DepositSettled,
    Transaction,
)
from domain.wallets import CASH, WALLETS, Balance, Credited, Transfer
from policies.limits import local_day
from tests.domain.history import A_MONTH, DEPOSIT, NOON, PLAYER, REGISTERED, TOMORROW, USD, euros, fold, given

ASKED = DepositRequested(player=PLAYER, money=euros(50), provider="acme", reference="A-1")
REQUESTED = DepositRequested(
    player=PLAYER, money=euros(50), provider="acme", reference="A-1", day=NOON.date(), utc_offset=60
)
SETTLED = DepositSettled()
FAILED = DepositFailed(reason="declined")
CONSUMED = HeadroomConsumed(transaction=DEPOSIT, money=euros(50), day=NOON.date(), utc_offset=60)
COUNTED_LATE = HeadroomConsumed(transaction=DEPOSIT, money=euros(50), day=NOON.date())
CREDITED = Credited(Transfer("deposit", "psp:acme", CASH, euros(50), DEPOSIT), Balance(cash=50))
ANNA = given(PLAYERS, REGISTERED)
BLOCKED = given(PLAYERS, REGISTERED, Blocked(reason="fraud"))
NOTHING = given(LIMITS, A_MONTH)


def request(**other: Any) -> list[Any]:
    known: dict[str, Any] = {
        "transaction": given(TRANSACTIONS),
        "player": ANNA,
        "kyc": KYC.initial,
        "limits": NOTHING,
        "wallet": WALLETS.initial,
        "transaction_id": DEPOSIT,
        "requested": ASKED,
        "at": NOON,
    }
    return list(transactions.request_deposit(**(known | other)))


# Requesting


def test_a_request_consumes_headroom() -> None:
    assert request() == [REQUESTED, CONSUMED]


def test_a_request_beyond_the_limit_is_refused() -> None:
    limits = given(LIMITS, A_MONTH, LimitSet(kind=Kind.DEPOSIT, period=Period.DAY, money=euros(49)))
    with pytest.raises(LimitExceeded):
        request(limits=limits)


def test_a_blocked_player_cannot_deposit() -> None:
    with pytest.raises(PlayerBlocked):
        request(player=BLOCKED)


def test_a_stranger_cannot_deposit() -> None:
    with pytest.raises(NotFound):
        request(player=given(PLAYERS))


def test_a_deposit_is_in_the_players_currency() -> None:
    with pytest.raises(CurrencyMismatch):
        request(requested=DepositRequested(player=PLAYER, money=Money(50, USD), provider="acme"))


def test_a_transaction_is_requested_once() -> None:
    with pytest.raises(Conflict):
        request(transaction=given(TRANSACTIONS, REQUESTED))


# Its end


def settle(*events: Any) -> list[Any]:
    return list(transactions.settle_deposit(given(TRANSACTIONS, *events), given(WALLETS), transaction_id=DEPOSIT))


def fail(*events: Any, at: datetime = NOON) -> list[Any]:
    transaction = given(TRANSACTIONS, *events, at=at)
    return list(transactions.fail_deposit(transaction, transaction_id=DEPOSIT, reason="declined"))


def test_settling_books_the_money() -> None:
    assert settle(REQUESTED) == [SETTLED, CREDITED]


def test_failing_gives_the_headroom_back() -> None:
    counted_at = NOON + timedelta(microseconds=1)
    assert fail(REQUESTED) == [
        FAILED, HeadroomReleased(transaction=DEPOSIT, money=euros(50), day=NOON.date(), at=counted_at)
    ]  # fmt: skip


def test_the_same_end_again_records_nothing() -> None:
    assert settle(REQUESTED, SETTLED) == []
    assert fail(REQUESTED, FAILED) == []


def test_a_transaction_that_has_ended_does_not_end_otherwise() -> None:
    with pytest.raises(TransactionClosed):
        fail(REQUESTED, SETTLED)


@pytest.mark.parametrize("given_up", [FAILED, DepositExpired()])
def test_money_that_comes_after_all_is_booked_and_counts_again(given_up: Any) -> None:
    assert settle(REQUESTED, given_up) == [SETTLED, CREDITED, COUNTED_LATE]


def test_a_failure_after_the_expiry_releases_nothing_twice() -> None:
    assert fail(REQUESTED, DepositExpired()) == [FAILED]


def test_what_was_never_requested_does_not_end() -> None:
    with pytest.raises(NotFound):
        settle()
    with pytest.raises(NotFound):
        fail()
    with pytest.raises(NotFound):
        transactions.owner(Transaction())


def test_a_settlement_knows_neither_limits_nor_blocks() -> None:
    """Its decision is not even given them: the money has arrived."""
    annotations = transactions.settle_deposit.__annotations__
    assert set(annotations) == {"transaction", "wallet", "transaction_id", "money", "counted_on", "return"}


@pytest.mark.parametrize("microseconds_before_midnight", [0, 1, 2, 3_600_000_000])
def test_a_failure_releases_exactly_what_was_consumed_even_around_midnight(microseconds_before_midnight: int) -> None:
    """The events of a command are recorded one microsecond apart: request and use may lie in different hours."""
    at = datetime(2026, 11, 23, tzinfo=UTC) - timedelta(microseconds=microseconds_before_midnight)
    asked, consumed = request(at=at)
    before = fold(
        LIMITS,
        [HeadroomConsumed(transaction=DEPOSIT, money=euros(7), day=local_day("DE", at))],
        at=at - timedelta(microseconds=1),
    )
    limits = LIMITS.evolve(before, consumed, at + timedelta(microseconds=1))
    _, released = fail(asked, at=at)
    after = LIMITS.evolve(limits, released, at + timedelta(microseconds=2))
    assert (limits.deposited.of_day, after.deposited.of_day) == (57, 7)
    assert sum(added for _, added, _ in after.deposited.hours_24) == 7


# History


def test_imported_history_is_settled_at_once_and_touches_no_limit() -> None:
    events = transactions.record_deposit(
        given(TRANSACTIONS), ANNA, given(WALLETS), transaction_id=DEPOSIT, requested=REQUESTED
    )
    credited = Credited(Transfer("deposit_history", "psp:acme", CASH, euros(50), DEPOSIT), Balance(cash=50))
    assert events == [REQUESTED, SETTLED, credited]


@pytest.mark.parametrize(
    ("player", "refusal"), [(given(PLAYERS), NotFound), (BLOCKED, PlayerBlocked)], ids=["stranger", "blocked"]
)
def test_history_is_recorded_of_registered_players(player: Any, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        transactions.record_deposit(
            given(TRANSACTIONS), player, given(WALLETS), transaction_id=DEPOSIT, requested=REQUESTED
        )


def test_the_state_says_when_it_was_requested() -> None:
    transaction = fold(TRANSACTIONS, [SETTLED], at=TOMORROW, state=given(TRANSACTIONS, REQUESTED))
    assert transaction == Transaction(
        transactions.Status.SETTLED, PLAYER, euros(50), "acme", NOON, settled=50, day=NOON.date()
    )
    assert transactions.owner(transaction) == PLAYER
