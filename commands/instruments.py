"""
Instruments: the card or account with which a player pays, or to which they are paid, and who else has named the same one.

An instrument is personal, so no event tells it in the clear, and none holds a hash of it that could be tried out: its keyed
fingerprint lies in the vault's blind index, beside those of e-mail and phone. The event names the other players.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from commands.plan import Plan, RefusedFact
from domain import transactions
from domain.kernel import Event, PlayerId
from eventstore.vault import Owed

FIELD: Final = "instrument"


def naming(plan: Plan, player_id: PlayerId, instrument: str | None) -> Plan:
    """The plan of a payment that names an instrument: it is found by it from now on, and says who had named it before."""
    if instrument is None:
        return plan

    def decision(at: datetime, alike: Mapping[str, Sequence[str]], **states: Any) -> Sequence[Event] | RefusedFact:
        decided = plan.decision(at, **states)
        others = alike.get(FIELD, ())
        if isinstance(decided, RefusedFact) or not decided or not others:
            return decided
        return [*decided, transactions.shared(others)]

    return msgspec.structs.replace(
        plan,
        decision=decision,
        owed=Owed(player_id.rpartition("_")[2], None, [(FIELD, written_alike(instrument))]),
        alike=frozenset({FIELD}),
    )


def written_alike(instrument: str) -> str:
    """However blanks and hyphens stand in it. (The vault does not mind case and width.)"""
    return "".join(filter(str.isalnum, instrument)) or instrument
