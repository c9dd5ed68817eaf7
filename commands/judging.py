"""What a plan sees of the states that were loaded for it, and what it decides from them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from access.steps import require_fresh
from commands.keys import Seeing
from commands.plan import Plan, RefusedFact
from commands.referring import Referred
from domain.kernel import Event
from eventstore.vault import CannotOpen

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Folded(msgspec.Struct, frozen=True):
    """`at`: the latest time that any entry was recorded at; of regions whose clocks differ the newest may not have it."""

    state: Any
    version: int
    at: datetime
    leaf: bytes


class Saw(NamedTuple):
    """What a decision sees: the states by the plan's own names, the versions of their streams, the later of the time and these,
    and the earlier commands to which it refers.
    """

    known: Mapping[str, Any]
    versions: dict[str, int]
    at: datetime
    referred: Referred


def seeing(plans: Sequence[Plan], states: Mapping[str, Folded]) -> Seeing:
    """Those plans to which keys matter."""
    return [(plan, saw_by(plan, states).known) for plan in plans if plan.key is not None]


def saw_by(
    plan: Plan,
    states: Mapping[str, Folded],
    opened: Mapping[str, Event | CannotOpen] = _NOTHING,
    referred: Referred = _NOTHING,
    time: datetime | None = None,
    elsewhere: Container[str] = (),
) -> Saw:
    """`time`: when it is, by the process's own clock without. `elsewhere`: the streams that are others', of which those that the plan
    reads wherever they are make no condition, and say nothing of the time. Raises CannotOpen.
    """
    at = time or plan.context.now
    known: dict[str, Any] = {}
    versions: dict[str, int] = {}
    is_regions = all(stream.partition is None for stream in plan.writes.values())
    for streams in (plan.writes, plan.reads):
        for role, stream in streams.items():
            folded = states[stream.name]
            known[role] = folded.state
            if stream.name in elsewhere and role in plan.wherever:
                continue
            versions[stream.name] = folded.version
            if stream.partition is not None or is_regions:  # another region's clock may be ahead of this one's
                at = max(at, folded.at)
    for name in plan.seen.streams:
        versions[name] = states[name].version
    if plan.opens:
        known["opened"] = event = opened.get(plan.writes[plan.opens].name)
        if isinstance(event, CannotOpen):
            raise event
    return Saw(known, versions, at, referred)


def judge(plan: Plan, saw: Saw, alike: Mapping[str, Sequence[str]]) -> Sequence[Event] | RefusedFact:
    """What is decided, if whoever asks may. Raises Rejected."""
    plan.context.principal.require(*plan.require)
    require_fresh(plan.context.principal, plan.require, plan.context.now)
    if plan.authorise:
        plan.authorise(saw.at, saw.known)
    if plan.seen.streams:
        plan.seen.require(saw.versions)
    if plan.follow:
        plan.follow(**saw.known)
    more = {**saw.referred, "alike": alike} if plan.alike else saw.referred
    return plan.decision(saw.at, **saw.known, **more)


def tells(plan: Plan, states: Mapping[str, Folded]) -> bool:
    """Whether something would be recorded if nobody were alike."""
    try:
        decision = judge(plan, saw_by(plan, states), {})
    except Exception:  # noqa: BLE001 — the decision itself will say so
        return False
    return not isinstance(decision, RefusedFact) and bool(decision)
