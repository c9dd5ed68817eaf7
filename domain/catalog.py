"""Every aggregate whose events may stand in a log: what a reader must know before a writer may use it."""

from __future__ import annotations

from typing import Any

from domain.adjustments import ADJUSTMENTS
from domain.approvals import APPROVALS
from domain.bets import BETS
from domain.contacts import CONTACTS
from domain.disclosures import DISCLOSURES
from domain.kernel import Aggregate
from domain.kyc import KYC
from domain.limits import LIMITS
from domain.logins import LOGINS
from domain.logs import LOGS
from domain.notices import NOTICES
from domain.payouts import PAYOUTS
from domain.play import PLAY
from domain.players import PLAYERS
from domain.protection import PROTECTION
from domain.reads import READS
from domain.rounds import ROUNDS
from domain.services import SERVICES
from domain.suppressions import SUPPRESSIONS
from domain.tickets import TICKETS
from domain.transactions import TRANSACTIONS
from domain.wallets import WALLETS

AGGREGATES: tuple[Aggregate[Any], ...] = (
    LOGS,
    PLAYERS,
    KYC,
    LOGINS,
    LIMITS,
    PROTECTION,
    WALLETS,
    BETS,
    ROUNDS,
    PLAY,
    TRANSACTIONS,
    PAYOUTS,
    TICKETS,
    SERVICES,
    READS,
    DISCLOSURES,
    ADJUSTMENTS,
    APPROVALS,
    NOTICES,
    CONTACTS,
    SUPPRESSIONS,
)
_BY_NAME = {
    aggregate.name: aggregate for aggregate in AGGREGATES if aggregate.kind is None or aggregate is SUPPRESSIONS
}
_BY_KIND = {aggregate.kind: aggregate for aggregate in AGGREGATES if aggregate.kind is not None}


def aggregate_of(stream: str) -> Aggregate[Any] | None:
    """Whose stream this is, by its name; None if it is nobody's of this release."""
    name, _, rest = stream.partition("-")
    if name != "region":
        return _BY_NAME.get(name)
    return _BY_KIND.get(rest.partition("-")[2].partition("_")[0])
