"""
Segments: who has deposited at least X in total, for any X. A sorted set per currency, of players by their settled deposits.

Scores are doubles: a player's total is exact up to 2^53 minor units.
"""

from __future__ import annotations

from projections import deposits
from projections.projection import Events
from projections.redis import Increments
from projections.state import Table


def deposited(currency: str) -> str:
    """The sorted set of a currency: the suffix of the player's id → minor units."""
    return f"deposited:{currency}"


class Segments:
    name = "segments"

    def table(self, name: str) -> Table:
        return Table(name, ("member", "score"), player="member")

    def changes(self, events: Events) -> Increments:
        scores: dict[str, dict[str, int]] = {}
        for deposit in deposits.settled(events):
            totals = scores.setdefault(deposit.currency, {})
            totals[deposit.player] = totals.get(deposit.player, 0) + deposit.amount
        return Increments(scores={deposited(currency): totals for currency, totals in scores.items()})
