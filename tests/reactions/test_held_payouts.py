"""Held payouts: what comes between the approval and the asking counts, and the payout goes on when it is over."""

from __future__ import annotations

import pytest

from domain import payouts
from domain.transactions import Status
from tests.reactions.region import Bank, Region, payout, settled_down

STOP = {"action": "withdraw", "reason": "doubts", "intervention": {"kind": "other", "reason": "it was looked into"}}
BLOCKS = {"player_blocked": "fraud", "under_review": "aml"}
HELD = [*BLOCKS, "action_blocked"]


async def block(region: Region, player: str, code: str) -> None:
    """So that a withdrawal would be refused with this code."""
    verb, body = ("block", {"reason": BLOCKS[code]}) if code in BLOCKS else ("blocks", STOP)
    await region.process.post(f"/v1/players/{player}/{verb}", body)


async def unblock(region: Region, player: str, code: str) -> None:
    verb, body = ("unblock", {"reason": "cleared"}) if code in BLOCKS else ("unblocks", STOP)
    await region.process.post(f"/v1/players/{player}/{verb}", body)


@pytest.mark.parametrize("code", HELD)
async def test_an_approved_payout_is_held_while_its_player_may_not_be_paid(region: Region, code: str) -> None:
    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await block(region, player, code)
    await settled_down(region, bank)
    held = region.transaction(withdrawal)
    assert (bank.asked, held.status, held.held) == (0, Status.APPROVED, code)
    assert region.tags("transaction").count("transaction.payout_held") == 1, "told once, however often it is tried"
    await unblock(region, player, code)
    await settled_down(region, bank)
    assert [each.transaction for each in bank.paid] == [withdrawal]
    assert (region.transaction(withdrawal).status, region.transaction(withdrawal).held) == (Status.SENT, "")
    region.books_balance()


@pytest.mark.parametrize("code", HELD)
async def test_an_ordered_payout_is_not_asked_for_while_its_player_may_not_be_paid(region: Region, code: str) -> None:
    """It waits for another region's copy when the block comes."""
    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await settled_down(region, bank, is_alone=False)
    for _ in range(2):  # and again
        await block(region, player, code)
        await settled_down(region, bank)
        held = region.transaction(withdrawal)
        assert (bank.asked, held.status, held.held) == (0, Status.SENT, code)
        assert payout(region, withdrawal).status is payouts.Status.ORDERED
        await unblock(region, player, code)
        await settled_down(region, bank, is_alone=False)
        assert bank.asked == 0
    await settled_down(region, bank)
    assert [each.transaction for each in bank.paid] == [withdrawal]
    assert region.transaction(withdrawal).held == ""
    assert region.tags("transaction").count("transaction.payout_resumed") == 1, (
        "the first block was not known to be over"
    )


async def test_the_reason_of_a_held_payout_is_the_one_that_holds_now(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    for code in ("player_blocked", "under_review", "player_blocked"):
        await block(region, player, code)
        await settled_down(region, bank)
        assert region.transaction(withdrawal).held == code
        await unblock(region, player, code)
    assert region.tags("transaction").count("transaction.payout_held") == 3
    await settled_down(region, bank)
    assert len(bank.paid) == 1


async def test_who_is_merely_excluded_is_paid(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    await region.withdrawal(player, 10_000)
    await region.process.post(f"/v1/players/{player}/exclude", {"term": "1_year"})
    await settled_down(region, bank)
    assert len(bank.paid) == 1
    assert "transaction.payout_held" not in region.tags("transaction")


async def test_a_held_payout_can_still_be_rejected(region: Region) -> None:
    bank, player = Bank(), await region.rich()
    withdrawal = await region.withdrawal(player, 10_000)
    await block(region, player, "player_blocked")
    await settled_down(region, bank)
    body = {"reason": "not their money", "intervention": STOP["intervention"]}
    await region.process.post(f"/v1/transactions/{withdrawal}/reject", body)
    await unblock(region, player, "player_blocked")
    await settled_down(region, bank)
    assert (bank.asked, region.transaction(withdrawal).held, region.due()) == (0, "", [])
    assert region.accounts(player).cash == 100_000
    region.books_balance()
