"""What a service records of itself: that it has started, with which program and by which rules."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime

import msgspec

from access import files
from access.policy import Principal
from commands.identity import command_id
from commands.plan import Context, Plan
from domain import adoptions, services
from domain.errors import Conflict
from domain.findings import ALL
from domain.kernel import uuid7_texts
from policies import approvals, gates, limits, payments, play, protection, sla, spending, steps
from policies.currencies import EXPONENTS
from policies.findings import as_data
from policies.rules import RULES

SYSTEM = Principal("system", frozenset())
"""Who acts when nobody asked."""


class Started(msgspec.Struct, frozen=True):
    """`start`: the id of the event."""

    start: str


def policies_in_force() -> dict[str, str]:
    """SHA-256, in hex, of each set of rules that decisions follow, by name. A file of rules joins here when it is loaded."""
    return {
        "access": files.read().digest,
        "approvals": _digest(approvals.RULES),
        "currencies": _digest(EXPONENTS),
        "rules": RULES.digest,
        "findings": _digest(as_data(ALL)),
        "gates": _digest(gates.POLICY),
        "limits": _digest(limits.rules()),
        "payments": _digest(payments.rules()),
        "play": _digest(play.rules()),
        "protection": _digest(protection.POLICY),
        "sla": _digest(sla.rules()),
        "spending": _digest(spending.rules()),
        "steps": _digest(steps.rules()),
    }


def _digest(rules: object) -> str:
    """Of the rules as canonical JSON: names sorted, no blanks (for text and integers that is RFC 8785)."""
    return hashlib.sha256(msgspec.json.encode(rules, order="sorted")).hexdigest()


class PoliciesNotAdopted(Conflict):
    """Facts: hash (of the policies of this program), adopted (what two people have agreed to; "" if nothing)."""

    code = "policies_not_adopted"
    title = "The policies of this program were not adopted in this region"


def start(
    region: str,
    service: str,
    program: str,
    code: str,
    now: datetime,
    told: Mapping[str, str] | None = None,
    *,
    adopted_only: bool = False,
) -> Plan:
    """Record that a service starts. Each call describes another start; running one plan again repeats it. `told`: digests of what
    only this installation was told, by name. `adopted_only`: raises PoliciesNotAdopted unless the policies of access are those that
    were adopted last.
    """
    key = uuid7_texts(now, os.urandom(10))[0]
    started = services.Started(service, program, code, {**policies_in_force(), **(told or {})})

    def decide(_at: datetime, state: services.Services, adopted: adoptions.Adoptions) -> list[services.Started]:
        hash_ = started.policies["access"]
        if adopted_only and adopted.adopted != hash_:
            raise PoliciesNotAdopted(hash=hash_, adopted=adopted.adopted)
        return services.start(state, started=started)

    return Plan(
        Context(SYSTEM, now, command_id(SYSTEM.actor, key), None),
        require=(),
        writes={"state": services.stream(region)},
        reads={"adopted": adoptions.stream(region)},
        decision=decide,
        answer=lambda facts: Started(facts[0].id),
    )
