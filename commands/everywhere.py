"""
What protects a player counts in every decision about them, wherever it was recorded: a plan that names streams of a player's
protection reads the safeguards of all regions as well (domain/anywhere.py).

Invariants:
    - no plan does that itself, and none can forget it; the decision hears of states that hold everything;
    - the safeguards are conditions of the append: one that has arrived meanwhile makes it a conflict, and it is decided anew;
    - one that names safeguards itself sees all states as their own streams have them: it takes up what is open, or records some.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from commands.plan import Plan
from domain import anywhere
from domain.kernel import AnyStream, RegionStream
from domain.safeguards import SAFEGUARDS, Safeguards
from eventstore.log import Streams

_STALE_S = 2.0


class Logs:
    """The logs held here, as one process knows them: of 2 s ago or later. A single one has nothing to read elsewhere."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._names: Sequence[str] = ()
        self._asked_at = -_STALE_S

    async def names(self) -> Sequence[str]:
        if time.monotonic() >= self._asked_at + _STALE_S:
            names = await self._streams.logs()
            self._names, self._asked_at = names if len(names) > 1 else (), time.monotonic()
        return self._names


def everywhere(plan: Plan, logs: Sequence[str]) -> Plan:
    """The plan, deciding on what all `logs` have recorded to protect its players."""
    named = [*plan.writes.values(), *plan.reads.values()]
    if not logs or any(stream.aggregate is SAFEGUARDS for stream in named):
        return plan
    seen = _Seen(plan, logs)
    if not seen.further and plan.follow is None:
        return plan
    change: dict[str, Any] = {}
    if follow := plan.follow:
        change["follow"] = lambda **states: seen.followed(follow(**seen.whole(states)))
    if key := plan.key:
        change["key"] = lambda **states: key(**seen.whole(states))
    if tells := plan.tells:
        change["tells"] = lambda **states: tells(**seen.whole(states))
    return msgspec.structs.replace(
        plan,
        reads={**plan.reads, **seen.further},
        decision=lambda at, **states: plan.decision(at, **seen.whole(states)),
        **change,
    )


class _Seen:
    """What a plan sees. `further`: the streams that are read as well, by their names, which no role of a plan is like."""

    def __init__(self, plan: Plan, logs: Sequence[str]) -> None:
        self._logs = logs
        self._beside: dict[str, tuple[AnyStream[Any], Mapping[str, RegionStream[Safeguards]]]] = {}
        known = {role: stream for role, stream in (*plan.writes.items(), *plan.reads.items()) if role not in plan.fresh}
        self.further = self._of(known)

    def followed(self, streams: Mapping[str, AnyStream[Any]]) -> Mapping[str, AnyStream[Any]]:
        return {**streams, **self._of(streams)}

    def whole(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """The plan's own states, with what was recorded elsewhere."""
        own = {role: state for role, state in states.items() if type(state) is not Safeguards}
        if all(state.version == 0 for state in states.values() if type(state) is Safeguards):
            return own
        for role, (stream, beside) in self._beside.items():
            if role in own:
                there = {log: states[each.name] for log, each in beside.items() if each.name in states}
                own[role] = anywhere.included(stream.aggregate, own[role], there)
        return own

    def _of(self, streams: Mapping[str, AnyStream[Any]]) -> dict[str, RegionStream[Safeguards]]:
        further = {}
        for role, stream in streams.items():
            if beside := anywhere.beside(stream, self._logs):
                self._beside[role] = stream, beside
                further.update({each.name: each for each in beside.values()})
        return further
