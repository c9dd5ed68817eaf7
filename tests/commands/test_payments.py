"""Payments as they are asked for and told: the commands' answers, what they record, and who may."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from commands.edge import InterventionMissing
from commands.transactions import Payment
from domain.errors import Forbidden, GateClosed, TransactionClosed
from domain.kernel import Money, Sealed
from domain.transactions import Status, WithdrawalHeld, WithdrawalRequested
from tests.commands.house import House, deposit_of, euros, made

WHY = {"kind": "payment_trouble", "reason": "the bank has written"}
PAYMENTS = "payments:acme"


async def rich(house: House, amount: int = 9_000, *, known: bool = True) -> str:
    """A player with so much cash, by default one who is known."""
    player = await house.player()
    if known:
        body = {"level": "identity", "method": "document", "age_verified": True}
        await house.process.post(f"/v1/players/{player}/kyc/approve", body, actor=PAYMENTS)
    await tell(house, await house.deposit(player, amount), "settle")
    return player


async def tell(house: House, payment: str, verb: str, **body: Any) -> Any:
    return (await house.process.post(f"/v1/transactions/{payment}/{verb}", body, actor=PAYMENTS)).answer


async def withdraw(house: House, player: str, amount: int, **body: Any) -> Any:
    path = f"/v1/players/{player}/withdrawals"
    return (await house.process.post(path, {"amount": euros(amount), "provider": "acme", **body})).answer


async def test_a_small_withdrawal_is_approved_at_once_and_leaves_when_it_was_paid(house: House) -> None:
    player = await rich(house)
    asked = await withdraw(house, player, 4_000)
    payment = asked.transaction
    assert asked == Payment(payment, Status.APPROVED, Money(4_000, "EUR"), Money(5_000, "EUR"))
    assert await tell(house, payment, "settle") == Payment(payment, Status.SETTLED, balance=Money(5_000, "EUR"))
    assert await tell(house, payment, "settle") == Payment(payment, Status.SETTLED), "told again"


async def test_a_closed_gate_holds_a_withdrawal_until_the_player_is_known(house: House) -> None:
    player = await rich(house, known=False)
    asked = await withdraw(house, player, 4_000)
    assert (asked.status, asked.reasons) == (Status.UNDER_REVIEW, ("kyc",))
    assert WithdrawalHeld(("kyc",)) in house.log.events("transaction")
    approve = f"/v1/transactions/{asked.transaction}/approve"
    with pytest.raises(GateClosed):
        await house.process.post(approve, {"intervention": WHY})
    rejected = await tell(house, asked.transaction, "reject", reason="not known")
    assert rejected == Payment(asked.transaction, Status.REJECTED, balance=Money(9_000, "EUR"))


async def test_where_the_money_goes_stands_sealed_in_the_log(house: House) -> None:
    player = await rich(house)
    await withdraw(house, player, 100, instrument="DE02 1203 0000 0000 2020 51")
    [requested] = [event for event in house.log.events("transaction") if isinstance(event, WithdrawalRequested)]
    assert isinstance(requested.instrument, Sealed)
    assert not any(b"2020 51" in entry.body for entry in house.log.entries)


async def test_a_person_who_settles_says_why_and_it_is_recorded(house: House) -> None:
    payment = await house.deposit(await house.player(), 50)
    settle = f"/v1/transactions/{payment}/settle"
    with pytest.raises(InterventionMissing):
        await house.process.post(settle, actor="supervisor:bo")
    await house.process.post(settle, {"intervention": WHY}, actor="supervisor:bo")
    recorded = [type(event).__name__ for event in house.log.events()][-3:]
    assert recorded == ["DepositSettled", "Credited", "Intervened"]


async def test_what_was_given_up_settles_late_and_counts_against_the_limit_again(house: House) -> None:
    player = await house.player()
    payment = await house.deposit(player, 50)
    await tell(house, payment, "fail", reason="declined")
    assert await tell(house, payment, "settle") == Payment(payment, Status.SETTLED, balance=Money(50, "EUR"))
    counted = [type(event).__name__ for event in house.log.events("limits")]
    assert counted == ["HeadroomConsumed", "HeadroomReleased", "HeadroomConsumed"]


async def test_a_lost_dispute_is_answered_with_what_is_left(house: House) -> None:
    payment = await house.deposit(await house.player(), 50)
    await tell(house, payment, "settle", amount=euros(60))
    await tell(house, payment, "dispute", reference="CB-1", reason="stolen")
    lost = await tell(house, payment, "dispute/lose")
    assert lost == Payment(payment, Status.LOST, Money(60, "EUR"), Money(0, "EUR"))


async def test_only_those_who_review_may_approve(house: House) -> None:
    asked = await withdraw(house, await rich(house, known=False), 100)
    with pytest.raises(Forbidden):
        await house.process.post(
            f"/v1/transactions/{asked.transaction}/approve", {"intervention": WHY}, roles=["support"]
        )


async def test_of_all_who_would_end_a_withdrawal_at_once_one_does(house: House) -> None:
    player = await rich(house, known=False)
    asked = await withdraw(house, player, 100)
    processes = [house.another_process() for _ in range(4)]
    verbs = [("cancel", {}), ("reject", {"reason": "not known"})] * 10
    ends = await asyncio.gather(
        *(
            processes[n % 4].post(f"/v1/transactions/{asked.transaction}/{verb}", body, actor=PAYMENTS)
            for n, (verb, body) in enumerate(verbs)
        ),
        return_exceptions=True,
    )
    assert all(isinstance(end, TransactionClosed) for end in ends if isinstance(end, Exception))
    assert [type(event).__name__ for event in house.log.events("wallet")] == ["Credited", "Reserved", "Released"]


async def test_a_deposit_is_asked_for_as_before(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    receipt = await house.process.post(path, deposit_of(50))
    assert receipt.answer == Payment(made(receipt), Status.REQUESTED, Money(50, "EUR"))
    assert [type(event).__name__ for event in house.log.events()][-2:] == ["DepositRequested", "HeadroomConsumed"]
