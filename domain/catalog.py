"""Every aggregate whose events may stand in a log: what a reader must know before a writer may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from domain.adjustments import ADJUSTMENTS
from domain.adoptions import ADOPTIONS
from domain.approvals import APPROVALS
from domain.bets import BETS
from domain.bootstraps import BOOTSTRAPS
from domain.compartments import COMPARTMENTS
from domain.contacts import CONTACTS
from domain.denials import DENIALS
from domain.disclosures import DISCLOSURES
from domain.kernel import Aggregate
from domain.kyc import KYC
from domain.limits import LIMITS
from domain.logins import LOGINS
from domain.logs import LOGS
from domain.notices import NOTICES
from domain.operators import OPERATORS
from domain.payouts import PAYOUTS
from domain.play import PLAY
from domain.players import PLAYERS
from domain.protection import PROTECTION
from domain.reads import READS
from domain.rounds import ROUNDS
from domain.safeguards import SAFEGUARDS
from domain.sealed import SEALED
from domain.services import SERVICES
from domain.signins import SIGNINS
from domain.suppressions import SUPPRESSIONS
from domain.tickets import TICKETS
from domain.tokens import TOKENS
from domain.transactions import TRANSACTIONS
from domain.vaults import VAULTS
from domain.wallets import WALLETS

AGGREGATES: tuple[Aggregate[Any], ...] = (
    LOGS,
    PLAYERS,
    KYC,
    LOGINS,
    LIMITS,
    PROTECTION,
    SAFEGUARDS,
    WALLETS,
    BETS,
    ROUNDS,
    PLAY,
    TRANSACTIONS,
    PAYOUTS,
    TICKETS,
    SERVICES,
    READS,
    DENIALS,
    ADOPTIONS,
    DISCLOSURES,
    ADJUSTMENTS,
    APPROVALS,
    NOTICES,
    CONTACTS,
    SUPPRESSIONS,
    VAULTS,
    OPERATORS,
    TOKENS,
    SIGNINS,
    BOOTSTRAPS,
    COMPARTMENTS,
    SEALED,
)

OF_PLAYERS: Final = (
    PLAYERS, KYC, LOGINS, LIMITS, PROTECTION, WALLETS, BETS, ROUNDS, PLAY, ADJUSTMENTS, SUPPRESSIONS,
)  # fmt: skip
"""Whose streams have the suffix of their player (a suppression of everybody's has none: it is the region's own). Safeguards have it, too,
after the name of the region whose they are.
"""

NAMING: Final[Mapping[Aggregate[Any], tuple[str, ...]]] = {
    TRANSACTIONS: ("transaction.deposit_requested", "transaction.withdrawal_requested"),
    PAYOUTS: ("payout.ordered",),
    TICKETS: ("ticket.opened",),
    APPROVALS: ("approval.requested",),
    NOTICES: ("notice.raised",),
    CONTACTS: ("contact.opened",),
}
"""Whose streams have a suffix of their own: the first event says, as `player`, whose they are. By aggregate, its tags."""

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
