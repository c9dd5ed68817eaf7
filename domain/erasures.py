"""
Erasure: what identifies a former player is given up for good, by destroying the one key that opens it.

The log stays as it is, so that money still replays and every proof still verifies; what stands there of the person is
ciphertext without a key from then on, in every copy.

Invariants:
    - nobody is erased before the account was closed and every retention period is over;
    - nobody is erased to whom money is owed, or whom an investigation concerns;
    - nobody is erased while they are shut out from gambling: who came back could not be recognised;
    - who has lived under several jurisdictions is kept for as long as the longest of them asks;
    - it happens once: asking again records nothing.
"""

from __future__ import annotations

from datetime import datetime

from domain.errors import Conflict, RuleRefused, UnderReview
from domain.players import Erased, ErasureDue, Player
from domain.protection import PlayerExcluded, PlayerTimedOut, Protection
from domain.wallets import Wallet
from policies.limits import MONEY_LAUNDERING
from policies.retention import longest
from policies.rules import RULES


class NotClosed(Conflict):
    code = "player_not_closed"
    title = "Only the data of a closed account are erased"


class MoneyLeft(Conflict):
    """Facts: currencies."""

    code = "money_left"
    title = "There is money in the account: nobody could be paid after an erasure"


class RetentionNotOver(RuleRefused):
    """Facts: allowed_from, jurisdiction, rule, years, verified, of_law."""

    code = "retention_not_over"
    title = "What identifies the player must be kept for longer"


class ErasureNotDue(Conflict):
    """Facts: due_at."""

    code = "erasure_not_due"
    title = "The time for this has not come"


def fall_due(player: Player, *, at: datetime) -> list[ErasureDue]:
    """Note that what identifies the player is to be gone. Saying so again records nothing. Raises NotFound, ErasureNotDue."""
    player.require()
    if player.erase_by is None:
        return []
    if at < player.erase_by:
        raise ErasureNotDue(due_at=player.erase_by)
    return [ErasureDue()]


def erase(player: Player, wallet: Wallet, protection: Protection, *, basis: str, at: datetime) -> list[Erased]:
    """Give up what identifies the player.

    Raises NotFound, NotClosed, UnderReview, MoneyLeft, PlayerExcluded (until), PlayerTimedOut (until), RetentionNotOver.
    """
    player.require()
    if player.erased_at is not None:
        return []
    if player.closed_at is None:
        raise NotClosed
    if player.block_reason in MONEY_LAUNDERING:
        raise UnderReview
    if left := sorted(currency for currency, held in wallet.balances.items() if held.cash > 0 or held.reserved > 0):
        raise MoneyLeft(currencies=left)
    if protection.running(at):
        raise PlayerExcluded(until=protection.shut_out_until(at))
    if protection.is_timed_out(at):
        raise PlayerTimedOut(until=protection.shut_out_until(at))
    kept = longest(player.jurisdictions, player.closed_at, at)
    if at < kept.until:
        last = kept.periods[0]
        raise RetentionNotOver(
            f"{last.jurisdiction} {last.rule}: {last.years} years, until {last.until:%Y-%m-%d}",
            allowed_from=last.until,
            jurisdiction=last.jurisdiction,
            rule=last.rule,
            years=last.years,
            verified=last.verified,
            of_law=last.of_law,
        )
    return [Erased(player.key, basis, player.closed_at, kept.periods, RULES.digest)]
