"""The dashboard: settled deposits by the day on which they were settled (UTC) and currency; how many players there are."""

from __future__ import annotations

from domain.players import Registered
from projections import deposits
from projections.projection import Events
from projections.redis import Increments
from projections.state import Table
from projections.times import day_of

COUNTS, AMOUNTS, TOTALS = "counts", "amounts", "totals"
"""Hashes. Counts and amounts: fields "<day> <currency>"; totals: "players"."""


class Dashboard:
    name = "dashboard"

    def table(self, name: str) -> Table:
        return Table(name, ("field", "value"))

    def changes(self, events: Events) -> Increments:
        changes = Increments()
        counts: dict[str, int] = {}
        amounts: dict[str, int] = {}
        for deposit in deposits.settled(events):
            field = f"{day_of(deposit.settled_us)} {deposit.currency}"
            counts[field] = counts.get(field, 0) + 1
            amounts[field] = amounts.get(field, 0) + deposit.amount
        if counts:
            changes.hashes[COUNTS] = counts
            changes.hashes[AMOUNTS] = amounts
        players = len(events.of(Registered))
        if players:
            changes.hashes[TOTALS] = {"players": players}
        return changes
