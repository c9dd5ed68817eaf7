"""
Step-up: what a person may do only while a second factor that they have shown is fresh. Names are those of access.policy.Action.

All of it is a figure of the house: no row of rules.csv asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

FRESH = timedelta(minutes=5)

ACTIONS: Mapping[str, str] = {
    "money.adjust": "money is made or unmade by hand",
    "round.void": "a stake is given back by hand",
    "deposit.settle": "a deposit is booked of which no provider has told",
    "withdrawal.settle": "a withdrawal is booked as paid, or given back, of which no provider has told",
    "approval.decide": "a second person lets money go, or a role be granted",
    "role.grant": "somebody may do more than before",
    "operator.invite": "somebody new gets in",
    "operator.manage": "who somebody is, or whether they get in, changes",
    "token.issue": "a program gets in",
    "policy.adopt": "everybody may do something else than before",
    "region.handover": "another region takes over what is decided here",
    "keys.disclose": "personal data leaves the house",
    "player.erase": "personal data is destroyed",
    "compartment.manage": "who may know of secret cases changes",
}
"""By action, why."""

EXPORTS = ("audit.live", "audit.stream", "log.read", "projection.state")
"""Reads (domain.reads) that take away everything at once."""


def rules() -> Mapping[str, object]:
    """As `service.started` has them."""
    return {"actions": sorted(ACTIONS), "exports": sorted(EXPORTS), "fresh_seconds": int(FRESH.total_seconds())}
