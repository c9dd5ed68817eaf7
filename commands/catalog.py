"""Every command of the public interface."""

from __future__ import annotations

from commands import (
    adjustments,
    approvals,
    contacts,
    disclosures,
    kyc,
    limits,
    logins,
    notices,
    play,
    players,
    protection,
    registers,
    rounds,
    tickets,
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
)

ENDPOINTS: tuple[Endpoint, ...] = approvals.guarded(_ENDPOINTS)
