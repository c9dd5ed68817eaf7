"""Every command of the public interface."""

from __future__ import annotations

from commands import (
    adjustments,
    adoptions,
    approvals,
    compartments,
    contacts,
    disclosures,
    erasures,
    handovers,
    kyc,
    limits,
    logins,
    notices,
    operators,
    play,
    players,
    protection,
    registers,
    rounds,
    tickets,
    tokens,
    transactions,
)
from commands.edge import Endpoint

_ENDPOINTS: tuple[Endpoint, ...] = (
    *players.ENDPOINTS,
    *kyc.ENDPOINTS,
    *logins.ENDPOINTS,
    *limits.ENDPOINTS,
    *transactions.ENDPOINTS,
    *adjustments.ENDPOINTS,
    *play.ENDPOINTS,
    *rounds.ENDPOINTS,
    *tickets.ENDPOINTS,
    *protection.ENDPOINTS,
    *registers.ENDPOINTS,
    *notices.ENDPOINTS,
    *contacts.ENDPOINTS,
    *disclosures.ENDPOINTS,
    *erasures.ENDPOINTS,
    *operators.ENDPOINTS,
    *tokens.ENDPOINTS,
    *compartments.ENDPOINTS,
    *adoptions.ENDPOINTS,
    *handovers.ENDPOINTS,
)

ENDPOINTS: tuple[Endpoint, ...] = approvals.guarded(_ENDPOINTS)
