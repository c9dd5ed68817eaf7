"""Payouts: whatever is killed at whatever step, and whatever the provider does, a withdrawal is paid exactly once or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from typing import Any

import httpx2
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.identity import command_id
from commands.plan import Plan, Receipt
from domain import payouts
from domain.kernel import PlayerId
from domain.payouts import AnsweredOtherwise, PayoutAccepted, PayoutDeclined, PayoutDropped, PayoutOrdered
from domain.transactions import Status
from providers.http import HttpProvider
from providers.known import Known
from providers.port import Accepted, Answer, Declined, Payout, Unanswered, Unbelievable
from reactions.payouts import AT_ONCE
from replication import geo
from tests.commands.house import CODEC, SECRET, Process
from tests.reactions.region import Bank, Region, payout, settled_down


async def test_an_approved_withdrawal_is_sent_ordered_and_asked_for(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000, instrument="DE02 1203 0000")
    await settled_down(region, bank)
    assert [(each.transaction, each.money.amount, each.instrument) for each in bank.paid] == [
        (withdrawal, 10_000, "DE02 1203 0000")
    ]
    assert bank.asked == 1
    assert payout(region, withdrawal) == payouts.Payout(
        payouts.Status.ACCEPTED, "acme", region.transaction(withdrawal).money, "paid-1"
    )
    assert region.transaction(withdrawal).status is Status.SENT
    assert region.due() == []
    await region.said("acme", verb="settle", id="1", transaction=withdrawal)
    assert (region.accounts(player).cash, region.accounts(player).reserved) == (90_000, 0)
    region.books_balance()


async def test_one_that_a_person_has_to_look_at_waits_for_them(region: Region) -> None:
    bank, player = Bank(), await region.rich(300_000)
    withdrawal = await region.withdrawal(player, 200_000)
    await settled_down(region, bank)
    assert bank.asked == 0
    why = {"kind": "other", "reason": "a good customer"}
    await region.process.post(f"/v1/transactions/{withdrawal}/approve", {"intervention": why})
    await settled_down(region, bank)
    assert len(bank.paid) == 1


async def test_nobody_is_asked_before_another_region_has_the_order(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, bank, is_alone=False)
    assert region.transaction(withdrawal).status is Status.SENT
    assert bank.asked == 0
    [ordered] = [entry for entry in region.ledger.entries() if b'"payout.ordered"' in entry.body]
    await acknowledged(region, ordered.position - 1)
    await settled_down(region, bank, is_alone=False)
    assert bank.asked == 0
    await acknowledged(region, ordered.position)
    await settled_down(region, bank, is_alone=False)
    assert len(bank.paid) == 1


async def test_a_copy_that_differs_is_no_copy(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    await region.withdrawal(player, 10_000)
    await settled_down(region, bank, is_alone=False)
    await acknowledged(region, len(region.ledger.entries()), leaf=b"x" * 32)
    async with region.pool.connection() as connection:
        assert await geo.watermark(connection, "eu") == 0
    await settled_down(region, bank, is_alone=False)
    assert bank.asked == 0


async def acknowledged(region: Region, position: int, leaf: bytes | None = None) -> None:
    held = region.ledger.entries()[position - 1].leaf
    region.ledger.sql(
        "SELECT replication.acknowledge(1::smallint, 'us', %s::bigint, %s, true, false)", position, leaf or held
    )


async def test_a_refusal_gives_the_money_back(region: Region) -> None:
    class Declining(Bank):
        async def pay(self, _payout: Payout) -> Answer:
            self.asked += 1
            return Declined("no such account")

    bank, player = Declining(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, bank)
    assert bank.asked == 1
    assert region.transaction(withdrawal).status is Status.RETURNED
    assert region.opened("payout")[-1] == PayoutDeclined("no such account")
    assert (region.accounts(player).cash, region.accounts(player).reserved) == (100_000, 0)
    assert region.due() == []
    region.books_balance()


@pytest.mark.parametrize("error", [Unanswered, Unbelievable, RuntimeError])
async def test_no_answer_changes_nothing_and_is_asked_for_again(region: Region, error: type[Exception]) -> None:
    class Silent(Bank):
        async def pay(self, payout: Payout) -> Answer:
            answer = await super().pay(payout)
            if self.asked < 3:
                raise error("the line is dead")
            return answer

    bank, player = Silent(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, bank, steps=3)
    assert payout(region, withdrawal).status is payouts.Status.ORDERED
    await settled_down(region, bank)
    assert (bank.asked, len(bank.paid)) == (3, 1)
    assert payout(region, withdrawal).status is payouts.Status.ACCEPTED


@contextlib.contextmanager
def silence() -> Iterator[Known]:
    """A provider that takes every call and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield Known("acme", SECRET, f"http://127.0.0.1:{listening.getsockname()[1]}/payouts")


async def test_a_provider_that_hangs_holds_up_no_other_payout(region: Region) -> None:
    other, player = Bank("other"), await region.rich()
    for _ in range(AT_ONCE + 1):
        await region.withdrawal(player, 1_000)
    with silence() as known:
        async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
            hanging = HttpProvider(known, client, timeout_s=3_600)
            reaction = region.payouts(hanging, other, linger_s=0.05)
            for amount in (500, 600):  # the second one comes while the hanging provider is being waited for
                await region.withdrawal(player, amount, provider="other")
                while amount not in [each.money.amount for each in other.paid]:
                    await region.project()
                    await reaction.step()
                    await region.wait(hours=2)
            await reaction.close()
    assert region.tags("payout").count("payout.ordered") == AT_ONCE + 3


async def test_a_payout_for_which_a_provider_is_being_waited_for_is_not_asked_for_again(region: Region) -> None:
    class Slow(Bank):
        async def pay(self, payout: Payout) -> Answer:
            answer = await super().pay(payout)
            await speaks.wait()
            return answer

    speaks = asyncio.Event()
    bank, player = Slow(), await region.rich()
    withdrawal = await region.withdrawal(player, 1_000)
    reaction = region.payouts(bank, linger_s=0.05)
    async with asyncio.timeout(30):
        while bank.asked < 1:
            await region.project()
            await reaction.step()
        for _ in range(3):
            await region.wait(hours=2)
            await reaction.step()
        assert bank.asked == 1
        speaks.set()
        while payout(region, withdrawal).status is payouts.Status.ORDERED:
            await reaction.step()
    assert payout(region, withdrawal).answer == "paid-1"


async def test_nobody_is_asked_any_more_once_another_region_has_taken_over(region: Region) -> None:
    class Last(Bank):
        async def pay(self, payout: Payout) -> Answer:
            region.ledger.sql("UPDATE ledger.ownership SET cut = since, released_to = 'us' WHERE cut IS NULL")
            return await super().pay(payout)

    bank, player = Last(), await region.rich()
    for _ in range(AT_ONCE + 1):
        await region.withdrawal(player, 1_000)
    await settled_down(region, bank, steps=2)
    assert region.tags("payout") == ["payout.ordered"] * (AT_ONCE + 1)
    assert 0 < bank.asked <= AT_ONCE, "those under way when it was lost, and not one that had to wait for them"


async def test_without_its_provider_a_withdrawal_stays_approved(region: Region) -> None:
    player = await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region)
    assert region.transaction(withdrawal).status is Status.APPROVED


async def test_what_was_returned_by_then_is_not_paid_any_more(region: Region) -> None:
    class Dead(Bank):
        async def pay(self, _payout: Payout) -> Answer:
            raise Unanswered("dead")

    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, Dead())
    await region.said("acme", verb="return", id="1", transaction=withdrawal, reason="account closed")
    await settled_down(region, bank)
    assert bank.asked == 0
    ordered = PayoutOrdered(PlayerId(player), "acme", region.transaction(withdrawal).money)
    assert region.events("payout") == [ordered, PayoutDropped()]
    assert region.due() == []
    assert region.accounts(player).cash == 100_000


async def test_what_was_returned_by_then_is_dropped_even_if_its_provider_is_known_no_more(region: Region) -> None:
    class Dead(Bank):
        async def pay(self, _payout: Payout) -> Answer:
            raise Unanswered("dead")

    player = await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, Dead())
    await region.said("acme", verb="return", id="1", transaction=withdrawal, reason="account closed")
    await settled_down(region)
    assert region.tags("payout") == ["payout.ordered", "payout.dropped"]
    assert region.due() == []


async def test_a_provider_that_says_both_paid_and_refused_is_left_to_a_person(region: Region) -> None:
    class Lying(Bank):
        async def pay(self, payout: Payout) -> Answer:
            await region.said("acme", verb="settle", id="1", transaction=payout.transaction)
            return Declined("never")

    player = await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, Lying())
    assert region.transaction(withdrawal).status is Status.SETTLED
    assert payout(region, withdrawal).status is payouts.Status.DROPPED
    assert region.accounts(player).cash == 90_000
    region.books_balance()


def test_another_answer_than_the_first_is_a_conflict() -> None:
    accepted = payouts.Payout(payouts.Status.ACCEPTED, "acme", answer="paid-1")
    assert payouts.accept(accepted, reference="paid-1") == []
    for other in (lambda: payouts.accept(accepted, reference="paid-2"), lambda: payouts.decline(accepted, reason="no")):
        with pytest.raises(AnsweredOtherwise):
            other()
    assert payouts.drop(accepted) == []


@pytest.mark.parametrize("other", [Accepted("paid-2"), Declined("never")])
async def test_an_answer_that_contradicts_the_first_is_not_taken_for_a_repeat(region: Region, other: Answer) -> None:
    class Fickle(Bank):
        async def pay(self, _payout: Payout) -> Answer:
            self.asked += 1
            return Accepted("paid-1") if self.asked == 1 else other

    bank, player = Fickle(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await region.project()
    await region.payouts(bank).step()
    await region.project()
    with structlog.testing.capture_logs() as said:
        for _ in range(2):  # two reactors whose read model has heard of no answer
            await region.payouts(bank, decide=region.another_process().decider.decide).step()
    assert bank.asked == 2
    [(level, reference)] = [(each["log_level"], each.get("answer")) for each in said if "contradicts" in each["event"]]
    assert (level, reference) == ("error", "paid-1")
    assert (payout(region, withdrawal).status, payout(region, withdrawal).answer) == ("accepted", "paid-1")
    assert region.transaction(withdrawal).status is Status.SENT


async def test_an_answer_is_the_same_command_each_time_it_is_given(region: Region) -> None:
    """The key as docs/reference/providers.md has it."""
    player = await region.rich()
    await region.withdrawal(player, 10_000)
    await settled_down(region, Bank())
    ordered, accepted = [each for each in map(CODEC.decode, region.ledger.entries()) if "payout" in each.body.stream]
    digest = sha256(b'{"reference":"paid-1"}').hexdigest()
    key = f"{ordered.body.id}\naccept\n{digest}"
    assert accepted.body.command.id == command_id("reaction:payouts", key).hex()


# Killed at each step


class Killed(BaseException):
    """The process is no more: nothing of it catches this."""


class Dying:
    """Counts the steps of a reactor, before and after each command and each question, and dies at one of them."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def deciding(self, process: Process) -> Callable[[Plan], Awaitable[Receipt]]:
        async def decide(plan: Plan) -> Receipt:
            self.step()
            receipt = await process.decider.decide(plan)
            self.step()
            return receipt

        return decide

    def asking(self, bank: Bank) -> Any:
        dying = self

        class Asked:
            name = bank.name

            async def pay(self, payout: Payout) -> Answer:
                dying.step()
                answer = await bank.pay(payout)
                dying.step()
                return answer

        return Asked()


STEPS = 6  # before and after: order, question, answer


async def paid_whatever_dies(region: Region, deaths: list[int], amounts: list[int]) -> Bank:
    bank, player = Bank(), await region.rich()
    for amount in amounts:
        await region.withdrawal(player, amount)
    for death in deaths:
        dying = Dying(death)
        reaction = region.payouts(dying.asking(bank), decide=dying.deciding(region.another_process()))
        with contextlib.suppress(Killed):
            for _ in range(3):
                await region.project()
                await reaction.step()
    await settled_down(region, bank, decide=region.another_process().decider.decide)
    return bank


@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_killed_at_any_step_a_reactor_has_paid_once(region: Region, step: int) -> None:
    bank = await paid_whatever_dies(region, [step], [10_000])
    assert len(bank.paid) == 1
    assert region.tags("payout") == ["payout.ordered", "payout.accepted"]
    assert region.events("payout")[1] == PayoutAccepted("paid-1")
    assert region.tags("transaction").count("transaction.withdrawal_sent") == 1
    region.books_balance()


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    deaths=st.lists(st.integers(1, 3 * STEPS), max_size=5),
    amounts=st.lists(st.integers(1, 5_000), min_size=1, max_size=3),
)
async def test_however_often_it_is_killed_everybody_is_paid_once(
    region: Region, deaths: list[int], amounts: list[int]
) -> None:
    before = region.tags("payout").count("payout.accepted")
    bank = await paid_whatever_dies(region, deaths, amounts)
    assert sorted(each.money.amount for each in bank.paid) == sorted(amounts)
    assert region.tags("payout").count("payout.accepted") - before == len(amounts)
    region.books_balance()


async def test_two_reactors_at_once_pay_once(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    for _ in range(4):
        await region.withdrawal(player, 1_000)
    await region.project()
    for _ in range(3):
        reactors = [region.payouts(bank, decide=region.another_process().decider.decide) for _ in range(3)]
        await asyncio.gather(*(reactor.step() for reactor in reactors))
        await region.project()
    assert len(bank.paid) == 4
    assert region.tags("payout").count("payout.ordered") == 4


async def test_a_provider_without_keys_would_be_noticed(region: Region) -> None:
    """The check finds a planted fault: a provider that pays each time it is asked."""

    class Forgetful(Bank):
        async def pay(self, payout: Payout) -> Answer:
            self.asked += 1
            self.paid.append(payout)
            return Accepted(f"paid-{len(self.paid)}")

    bank, player = Forgetful(), await region.rich()
    await region.withdrawal(player, 1_000)
    await region.project()
    dying = Dying(4)  # it has paid, and nobody has heard
    with contextlib.suppress(Killed):
        reaction = region.payouts(dying.asking(bank), decide=dying.deciding(region.another_process()))
        for _ in range(3):
            await reaction.step()
            await region.project()
    await settled_down(region, bank)
    assert len(bank.paid) == 2
