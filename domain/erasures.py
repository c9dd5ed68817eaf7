"""
Erasure: what identifies a former player is given up for good, by destroying the one key that opens it.

The log stays as it is, so that money still replays and every proof still verifies; what stands there of the person is
ciphertext without a key from then on, in every copy.

Invariants:
    - nobody is erased before the account was closed and every retention period is over;
    - nobody is erased to whom money is owed, or whom an investigation concerns;
    - it happens once: asking again records nothing.
"""

from __future__ import annotations

from datetime import datetime

from domain.errors import Conflict, RuleRefused, UnderReview
from domain.players import Erased, Player
from domain.wallets import Wallet
from policies.limits import MONEY_LAUNDERING
from policies.retention import retention
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


def erase(player: Player, wallet: Wallet, *, basis: str, at: datetime) -> list[Erased]:
    """Give up what identifies the player. Raises NotFound, NotClosed, UnderReview, MoneyLeft, RetentionNotOver."""
    player.require()
    if player.erased_at is not None:
        return []
    if player.closed_at is None:
        raise NotClosed
    if player.block_reason in MONEY_LAUNDERING:
        raise UnderReview
    if left := sorted(currency for currency, held in wallet.balances.items() if held.cash > 0 or held.reserved > 0):
        raise MoneyLeft(currencies=left)
    kept = retention(player.jurisdiction, player.closed_at, at)
    if at < kept.until:
        longest = kept.periods[0]
        raise RetentionNotOver(
            f"{longest.jurisdiction} {longest.rule}: {longest.years} years, until {longest.until:%Y-%m-%d}",
            allowed_from=longest.until,
            jurisdiction=longest.jurisdiction,
            rule=longest.rule,
            years=longest.years,
            verified=longest.verified,
            of_law=longest.of_law,
        )
    return [Erased(player.key, basis, player.closed_at, kept.periods, RULES.digest)]
