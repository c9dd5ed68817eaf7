"""Payments as they are asked for and told: the commands' answers, what they record, and who may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from access.policy import service
from commands import payouts
from commands.approvals import AwaitingApproval
from commands.edge import Edge, InterventionMissing
from commands.identity import command_id
from commands.payouts import Paid
from commands.plan import Context, Plan, Receipt
from commands.transactions import MoreThanAsked, Payment
from domain.approvals import SamePerson
from domain.errors import Forbidden, GateClosed, PlayerBlocked, TransactionClosed, UnderReview
from domain.kernel import Money, Sealed, TransactionId
from domain.payouts import PayoutAccepted, PayoutDeclined, PayoutDisputed, UnderWay
from domain.payouts import Status as PayoutStatus
from domain.protection import ActionIsBlocked
from domain.transactions import SentAlready, Status, WithdrawalHeld, WithdrawalRequested
from domain.wallets import Credited
from tests.commands.house import House, deposit_of, euros, made
from tests.ledger import OWNED

WHY = {"kind": "payment_trouble", "reason": "the bank has written"}
PAYMENTS = "payments:acme"


async def rich(house: House, amount: int = 9_000, *, known: bool = True, country: str = "AT") -> str:
    """A player with so much cash, by default one who is known."""
    player = await house.player(country=country)
    if country == "DE":  # where nobody deposits without a limit of their own
        await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100_000), "period": "month"})
    if known:
        body = {"level": "identity", "method": "document", "age_verified": True}
        await house.process.post(f"/v1/players/{player}/kyc/approve", body, actor=PAYMENTS)
    await tell(house, await house.deposit(player, amount), "settle")
    return player


async def tell(house: House, payment: str, verb: str, **body: Any) -> Any:
    return (await house.process.post(f"/v1/transactions/{payment}/{verb}", body, actor=PAYMENTS)).answer


async def agree(house: House, asked: Receipt, actor: str = "supervisor:cy") -> None:
    """A second person approves what was asked."""
    awaiting = asked.answer
    assert isinstance(awaiting, AwaitingApproval)
    await house.process.post(f"/v1/approvals/{awaiting.approval}/approve", {"hash": awaiting.hash}, actor=actor)


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
    player = await rich(house, known=False, country="DE")
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
    await agree(house, await house.process.post(settle, {"intervention": WHY}, actor="cashier:ines"))
    recorded = [type(event).__name__ for event in house.log.events()][-4:]
    assert recorded == ["Approved", "DepositSettled", "Credited", "Intervened"]


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
    lost = await tell(house, payment, "dispute/lose", reference="CB-1")
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


# Nobody makes money alone


async def test_a_person_books_no_more_than_was_asked_for(house: House) -> None:
    payment = await house.deposit(await house.player(), 100)
    settle, why = f"/v1/transactions/{payment}/settle", {"intervention": WHY}
    with pytest.raises(MoreThanAsked):
        await house.process.post(settle, {"amount": euros(100_000_000), **why}, actor="cashier:ines", roles=["cashier"])
    assert house.log.events("wallet") == []
    asked = await house.process.post(settle, {"amount": euros(90), **why}, actor="cashier:ines", roles=["cashier"])
    await agree(house, asked)
    assert [event.balance.cash for event in house.log.events("wallet") if isinstance(event, Credited)] == [90]


@pytest.mark.parametrize("amount", [1, 4_000])
@pytest.mark.parametrize("kind", ["deposit", "withdrawal"])
async def test_nobody_settles_alone_what_no_provider_has_told_of(house: House, kind: str, amount: int) -> None:
    player = await rich(house)
    payment = (
        await house.deposit(player, amount)
        if kind == "deposit"
        else (await withdraw(house, player, amount)).transaction
    )
    before, settle = house.log.events("wallet"), f"/v1/transactions/{payment}/settle"
    asked = await house.process.post(settle, {"intervention": WHY}, actor="supervisor:bo")
    assert isinstance(asked.answer, AwaitingApproval)
    with pytest.raises(SamePerson):
        await agree(house, asked, actor="supervisor:bo")
    assert house.log.events("wallet") == before
    await agree(house, asked)
    assert len(house.log.events("wallet")) == len(before) + 1
    again = await house.process.post(settle, {"intervention": WHY}, actor="supervisor:bo")
    assert again.answer == Payment(payment, Status.SETTLED), "what changes nothing needs nobody"


@pytest.mark.parametrize("more", [{}, {"intervention": WHY}])
async def test_a_program_that_settles_needs_nobody(house: House, more: dict[str, Any]) -> None:
    """Also one that says why."""
    payment = await house.deposit(await house.player(), 50)
    assert (await tell(house, payment, "settle", **more)).status is Status.SETTLED


async def test_what_two_people_agree_on_is_still_decided_by_what_has_happened_meanwhile(house: House) -> None:
    payment = await house.deposit(await house.player(), 50)
    settle = f"/v1/transactions/{payment}/settle"
    asked = await house.process.post(settle, {"intervention": WHY}, actor="cashier:ines")
    await tell(house, payment, "settle")
    await agree(house, asked)
    assert [type(event).__name__ for event in house.log.events("wallet")] == ["Credited"]


async def test_what_was_paid_out_comes_back_by_the_word_of_two_people_or_of_its_provider(house: House) -> None:
    payments = [(await withdraw(house, await rich(house), 4_000)).transaction for _ in range(3)]
    by_hand, by_provider, unpaid = payments
    for payment in (by_hand, by_provider):
        await tell(house, payment, "settle")
    asked, back = {"reason": "account closed", "intervention": WHY}, Money(9_000, "EUR")
    returned = (await house.process.post(f"/v1/transactions/{by_hand}/return", asked, actor="cashier:ines")).answer
    assert isinstance(returned, AwaitingApproval)
    assert not isinstance(house.log.events("wallet")[-1], Credited)
    await house.process.post(
        f"/v1/approvals/{returned.approval}/approve", {"hash": returned.hash}, actor="supervisor:bo"
    )
    assert isinstance(house.log.events("wallet")[-1], Credited)
    assert await tell(house, by_provider, "return", reason="account closed") == Payment(
        by_provider, Status.RETURNED, balance=back
    )
    alone = await house.process.post(f"/v1/transactions/{unpaid}/return", asked, actor="cashier:ines")
    assert alone.answer == Payment(unpaid, Status.RETURNED, balance=back), "nothing was paid, so nobody gets anything"


async def test_a_cashier_sends_what_they_pay_by_hand(house: House) -> None:
    payment = (await withdraw(house, await rich(house), 100)).transaction
    body = {"reference": "bank-7", "intervention": WHY}
    sent = await house.process.post(f"/v1/transactions/{payment}/send", body, actor="cashier:ines", roles=["cashier"])
    assert sent.answer == Payment(payment, Status.SENT)


async def test_nobody_gives_back_alone_what_a_person_has_sent(house: House) -> None:
    """Who was told to pay it may do so yet: the player would have it twice."""
    payment = (await withdraw(house, await rich(house), 4_000)).transaction
    body = {"reference": "bank-7", "intervention": WHY}
    await house.process.post(f"/v1/transactions/{payment}/send", body, actor="cashier:ines", roles=["cashier"])
    give_up = {"reason": "the bank says no", "intervention": WHY}
    asked = await house.process.post(f"/v1/transactions/{payment}/return", give_up, actor="cashier:ines")
    assert isinstance(asked.answer, AwaitingApproval)
    await agree(house, asked)
    assert house.log.events("wallet")[-1].tag == "wallet.released"


@pytest.mark.parametrize(("reason", "refusal"), [("fraud", PlayerBlocked), ("aml", UnderReview), ("", ActionIsBlocked)])
async def test_nobody_sends_by_hand_what_its_player_may_not_be_paid(
    house: House, reason: str, refusal: type[Exception]
) -> None:
    player = await rich(house)
    payment = (await withdraw(house, player, 4_000)).transaction
    if reason:
        await house.process.post(f"/v1/players/{player}/block", {"reason": reason})
    else:
        stop = {"action": "withdraw", "reason": "doubts", "intervention": WHY}
        await house.process.post(f"/v1/players/{player}/blocks", stop)
    body = {"reference": "bank-7", "intervention": WHY}
    with pytest.raises(refusal):
        await house.process.post(f"/v1/transactions/{payment}/send", body, actor="cashier:ines", roles=["cashier"])


# What a provider is asked to pay


async def reacts(house: House, make: Callable[[Edge], Plan], key: str = "") -> Any:
    """A command of the reaction that has payouts made."""
    actor = "reaction:payouts"
    command = command_id(actor, key or str(len(house.log.entries)))
    context = Context(service(actor, "reaction"), house.now, command, fingerprint=None)
    edge = Edge(context, house.vault, list(OWNED), "eu")  # type: ignore[arg-type]
    return (await house.process.decider.decide(make(edge))).answer


async def ordered(house: House) -> TransactionId:
    """A withdrawal of 40.00 that its provider is asked to pay."""
    payment = TransactionId((await withdraw(house, await rich(house), 4_000)).transaction)
    await reacts(house, lambda edge: payouts.order(payment, "acme", edge))
    return payment


async def test_nobody_returns_by_hand_what_a_provider_is_being_asked_to_pay(house: House) -> None:
    payment = await ordered(house)
    give_up = {"reason": "it takes too long", "intervention": WHY}
    with pytest.raises(UnderWay):
        await house.process.post(f"/v1/transactions/{payment}/return", give_up, actor="cashier:ines")
    await reacts(house, lambda edge: payouts.accept(payment, "paid-1", edge))
    assert PayoutAccepted("paid-1") in house.log.events("payout")
    asked = await house.process.post(f"/v1/transactions/{payment}/return", give_up, actor="cashier:ines")
    assert isinstance(asked.answer, AwaitingApproval), "the provider may pay it yet"
    with pytest.raises(SamePerson):
        await agree(house, asked, actor="cashier:ines")
    assert house.log.events("wallet")[-1].tag == "wallet.reserved"
    await agree(house, asked)
    assert house.log.events("wallet")[-1].tag == "wallet.released"


async def test_what_is_paid_after_it_was_given_up_is_booked_all_the_same(house: House) -> None:
    payment = await ordered(house)
    await reacts(house, lambda edge: payouts.decline(payment, "no such account", edge))
    assert house.opened("payout")[-1] == PayoutDeclined("no such account")
    assert await tell(house, payment, "settle") == Payment(payment, Status.SETTLED, balance=Money(5_000, "EUR"))


async def test_an_answer_to_what_has_ended_without_it_is_told_to_a_person(house: House) -> None:
    payment = await ordered(house)
    await tell(house, payment, "return", reason="account closed")
    for _ in range(2):
        await reacts(house, lambda edge: payouts.accept(payment, "paid-1", edge))
    assert house.log.events("payout")[1:] == [PayoutDisputed("paid-1")]


async def test_a_provider_that_has_told_of_the_payment_before_it_answered_is_believed(house: House) -> None:
    payment = await ordered(house)
    await tell(house, payment, "settle")
    await reacts(house, lambda edge: payouts.accept(payment, "paid-1", edge))
    assert house.log.events("payout")[1:] == [PayoutAccepted("paid-1")]


async def test_a_payout_answers_with_what_its_own_events_say_and_so_does_a_repeat(house: House) -> None:
    def said(status: PayoutStatus) -> Paid:
        return Paid(payment, status)

    payment = await ordered(house)
    for _ in range(2):
        accepted = await reacts(house, lambda edge: payouts.accept(payment, "paid-1", edge), key="accept")
        assert accepted == said(PayoutStatus.ACCEPTED)
    payment = await ordered(house)
    await tell(house, payment, "return", reason="account closed")
    for _ in range(2):
        disputed = await reacts(house, lambda edge: payouts.accept(payment, "paid-2", edge), key="too late")
        assert disputed == said(PayoutStatus.DISPUTED)
    payment = await ordered(house)
    await tell(house, payment, "return", reason="account closed")
    for _ in range(2):
        dropped = await reacts(house, lambda edge: payouts.decline(payment, "no such account", edge), key="decline")
        assert dropped == said(PayoutStatus.DROPPED)


async def test_an_answer_to_a_payout_that_records_nothing_says_where_it_stands(house: House) -> None:
    payment = await ordered(house)
    await tell(house, payment, "return", reason="account closed")
    for make in (
        lambda edge: payouts.accept(payment, "paid-1", edge),
        lambda edge: payouts.accept(payment, "paid-1", edge),
        lambda edge: payouts.decline(payment, "no such account", edge),
        lambda edge: payouts.drop(payment, edge),
    ):
        assert await reacts(house, make) == Paid(payment, PayoutStatus.DISPUTED)
    sent = (await withdraw(house, await rich(house), 100)).transaction
    await tell(house, sent, "send", reference="bank-7")
    with pytest.raises(SentAlready):
        await reacts(house, lambda edge: payouts.order(sent, "acme", edge))
    await tell(house, sent, "settle")
    assert await reacts(house, lambda edge: payouts.order(sent, "acme", edge)) == Paid(sent, PayoutStatus.UNKNOWN)


# What changes nothing


async def test_what_changes_nothing_answers_with_what_is(house: House) -> None:
    deposit = await house.deposit(await house.player(), 50)
    await tell(house, deposit, "settle")
    assert await tell(house, deposit, "authorise") == Payment(deposit, Status.SETTLED)
    await tell(house, deposit, "dispute", reference="CB-1", reason="stolen")
    assert await tell(house, deposit, "settle") == Payment(deposit, Status.DISPUTED)
    payment = await ordered(house)
    await tell(house, payment, "settle")
    approve = f"/v1/transactions/{payment}/approve"
    assert (await house.process.post(approve, {"intervention": WHY})).answer == Payment(payment, Status.SETTLED)


async def test_a_deposit_that_was_given_up_is_not_authorised(house: House) -> None:
    deposit = await house.deposit(await house.player(), 50)
    await tell(house, deposit, "fail", reason="declined")
    with pytest.raises(TransactionClosed):
        await tell(house, deposit, "authorise")
