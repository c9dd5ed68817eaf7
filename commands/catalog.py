"""Every command of the public interface."""

from __future__ import annotations

from commands import adjustments, approvals, disclosures, kyc, limits, logins, players, tickets, transactions
from commands.edge import Endpoint

_ENDPOINTS: tuple[Endpoint, ...] = (
    *players.ENDPOINTS,
    *kyc.ENDPOINTS,
    *logins.ENDPOINTS,
    *limits.ENDPOINTS,
    *transactions.ENDPOINTS,
    *adjustments.ENDPOINTS,
    *tickets.ENDPOINTS,
    *disclosures.ENDPOINTS,
)

ENDPOINTS: tuple[Endpoint, ...] = approvals.guarded(_ENDPOINTS)
