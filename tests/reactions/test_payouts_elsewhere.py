"""What was ordered before its player was handed over: paid once, and the provider's answer is recorded, by whoever owns the player then."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import structlog

from domain import payouts
from domain.transactions import Status
from providers.port import Accepted, Answer, Declined, Payout, Unanswered
from tests.reactions.moving import Pair
from tests.reactions.region import Bank, Region, payout, settled_down
from tests.reactions.test_payouts import STEPS, Dying, Killed


class Moves(Bank):
    """The player is handed over while this provider is asked the first time."""

    def __init__(self, pair: Pair, answer: Answer | None = None) -> None:
        super().__init__()
        self.pair, self.answer = pair, answer

    async def pay(self, asked: Payout) -> Answer:
        answer = self.answer or await super().pay(asked)
        if self.answer:
            self.asked += 1
        if self.asked == 1:
            await self.pair.hand_over(asked.transaction)
        return answer


async def a_withdrawal(region: Region, amount: int = 10_000, **more: object) -> tuple[str, str]:
    player = await region.rich()
    return player, await region.withdrawal(player, amount, **more)


async def paid_there(pair: Pair, bank: Bank, player: str, withdrawal: str) -> None:
    """us has heard the answer, and then of the payment; eu sees the same."""
    assert [each.transaction for each in bank.paid] == [withdrawal]
    assert payout(pair.us, withdrawal) == payouts.Payout(
        payouts.Status.ACCEPTED, "acme", pair.us.transaction(withdrawal).money, "paid-1"
    )
    assert pair.us.transaction(withdrawal).status is Status.SENT
    await pair.us.said("acme", verb="settle", id="1", transaction=withdrawal)
    await pair.replicate()
    for region in pair:
        assert region.transaction(withdrawal).status is Status.SETTLED
        assert (region.accounts(player).cash, region.accounts(player).reserved) == (90_000, 0)
        assert region.due() == []
        region.books_balance()


async def test_an_answer_that_came_after_the_player_had_gone_is_asked_for_again_and_recorded_once(pair: Pair) -> None:
    player, withdrawal = await a_withdrawal(pair.eu, instrument="DE02 1203 0000")
    bank = Moves(pair)
    with structlog.testing.capture_logs() as said:
        await settled_down(pair.eu, bank)
    told = [(each["transaction"], each["answer"], each["owner"]) for each in said if "has moved" in each["event"]]
    assert told == [(withdrawal, {"reference": "paid-1"}, "us")]
    assert payout(pair.eu, withdrawal).status is payouts.Status.ORDERED
    assert bank.asked == 1, "who does not own the player asks no more"
    await settled_down(pair.us, bank)
    assert bank.asked == 2
    assert [each.instrument for each in bank.paid] == ["DE02 1203 0000"]
    assert pair.us.tags("payout") == ["payout.accepted"]
    await paid_there(pair, bank, player, withdrawal)


async def test_what_waited_for_a_copy_when_the_player_went_is_asked_for_by_the_new_owner_alone(pair: Pair) -> None:
    """The order stands in the giver's log, and in the copy by which its player came: two regions have it."""
    player, withdrawal = await a_withdrawal(pair.eu)
    bank = Bank()
    await settled_down(pair.eu, bank, is_alone=False)
    assert (payout(pair.eu, withdrawal).status, bank.asked) == (payouts.Status.ORDERED, 0)
    await pair.hand_over(player)
    await settled_down(pair.eu, bank, is_alone=False)
    assert bank.asked == 0
    await settled_down(pair.us, bank, is_alone=False)
    assert bank.asked == 1
    await paid_there(pair, bank, player, withdrawal)


async def test_a_refusal_that_came_after_the_player_had_gone_gives_the_money_back(pair: Pair) -> None:
    player, withdrawal = await a_withdrawal(pair.eu)
    bank = Moves(pair, Declined("no such account"))
    await settled_down(pair.eu, bank)
    await settled_down(pair.us, bank)
    assert bank.asked == 2
    assert pair.us.transaction(withdrawal).status is Status.RETURNED
    assert pair.us.accounts(player).cash == 100_000
    assert pair.us.due() == []


async def test_both_regions_ask_at_once_and_one_records_the_answer(pair: Pair) -> None:
    """The old owner's question is under way still when the new one's is answered."""
    player, withdrawal = await a_withdrawal(pair.eu)
    bank = Bank()

    class Slow(Bank):
        async def pay(self, asked: Payout) -> Answer:
            await pair.hand_over(asked.transaction)
            await settled_down(pair.us, bank)
            return await bank.pay(asked)

    await settled_down(pair.eu, Slow())
    assert bank.asked == 2
    assert pair.eu.tags("payout") == ["payout.ordered"]
    assert pair.us.tags("payout") == ["payout.accepted"]
    await paid_there(pair, bank, player, withdrawal)


async def test_what_is_approved_and_not_ordered_when_the_player_goes_is_ordered_by_the_new_owner(pair: Pair) -> None:
    player, withdrawal = await a_withdrawal(pair.eu)
    await pair.hand_over(player)
    bank = Bank()
    await settled_down(pair.eu, bank)
    await settled_down(pair.us, bank)
    assert pair.us.tags("payout") == ["payout.ordered", "payout.accepted"]
    assert bank.asked == 1
    await paid_there(pair, bank, player, withdrawal)


async def test_a_provider_that_the_new_owner_cannot_ask_is_left_to_a_person_who_is_told_what_to_do(pair: Pair) -> None:
    player, withdrawal = await a_withdrawal(pair.eu)
    bank = Moves(pair)
    await settled_down(pair.eu, bank)
    with structlog.testing.capture_logs() as said:
        await settled_down(pair.us)
    told = [(each["log_level"], each["transaction"]) for each in said if "nobody can be asked" in each["event"]]
    assert set(told) == {("warning", withdrawal)}
    why: Any = {"reason": "x", "intervention": {"kind": "payment_trouble", "reason": "no answer"}}
    with pytest.raises(payouts.UnderWay, match="let that region know the provider, or hand the player back"):
        await pair.us.process.post(f"/v1/transactions/{withdrawal}/return", why)
    await settled_down(pair.us, bank)  # that region knows the provider now
    await paid_there(pair, bank, player, withdrawal)


async def test_no_answer_is_no_refusal_for_the_new_owner_either(pair: Pair) -> None:
    class Dead(Bank):
        async def pay(self, _payout: Payout) -> Answer:
            self.asked += 1
            raise Unanswered("dead")

    player, withdrawal = await a_withdrawal(pair.eu)
    await settled_down(pair.eu, Dead())
    await pair.hand_over(player)
    await settled_down(pair.us, Dead())
    assert payout(pair.us, withdrawal).status is payouts.Status.ORDERED
    bank = Bank()
    await settled_down(pair.us, bank)
    await paid_there(pair, bank, player, withdrawal)


async def dies(region: Region, bank: Bank, step: int) -> None:
    dying = Dying(step)
    reaction = region.payouts(dying.asking(bank), decide=dying.deciding(region.another_process()))
    with contextlib.suppress(Killed):
        for _ in range(3):
            await region.project()
            await reaction.step()


@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_killed_at_any_step_on_both_sides_of_a_hand_over_it_is_paid_once(pair: Pair, step: int) -> None:
    player, withdrawal = await a_withdrawal(pair.eu)
    bank = Bank()
    await dies(pair.eu, bank, step)
    await pair.hand_over(player)
    await dies(pair.us, bank, STEPS + 1 - step)
    await settled_down(pair.eu, bank)
    await settled_down(pair.us, bank, decide=pair.us.another_process().decider.decide)
    assert sorted([*pair.eu.tags("payout"), *pair.us.tags("payout")]) == ["payout.accepted", "payout.ordered"]
    await paid_there(pair, bank, player, withdrawal)


async def test_a_key_of_its_own_would_be_seen_to_pay_twice(pair: Pair) -> None:
    """What these tests look at, with the mistake that they are for: the new owner asks under another key."""
    _, withdrawal = await a_withdrawal(pair.eu)

    class Otherwise(Moves):
        async def pay(self, asked: Payout) -> Answer:
            if self.asked:
                other: Any = asked._replace(transaction=asked.transaction[:-1] + "x")
                self.asked += 1
                self.paid.append(other)
                return Accepted("paid-2")
            return await super().pay(asked)

    bank = Otherwise(pair)
    await settled_down(pair.eu, bank)
    await settled_down(pair.us, bank)
    assert [each.transaction for each in bank.paid] != [withdrawal]
    assert payout(pair.us, withdrawal).answer == "paid-2"
