"""Every command of the public interface."""

from __future__ import annotations

from commands import disclosures, limits, players, transactions
from commands.edge import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *players.ENDPOINTS,
    *limits.ENDPOINTS,
    *transactions.ENDPOINTS,
    *disclosures.ENDPOINTS,
)
