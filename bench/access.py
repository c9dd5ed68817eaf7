"""Authorising a command, in process: settled by roles, with a decision that is kept, and with values never seen; and what Cedar's call alone takes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cedarpy

from access import cedar, files
from access.policy import Action, Scope, principal, service

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MATTER: dict[str, str | int] = {"brand": "main", "country": "AT", "vip": 2}
LIMIT_US = {"cached": 150.0, "cold": 150.0, "settled": 10.0}


def run(rounds: int = 5_000) -> dict[str, Any]:
    """Microseconds, median and 99th percentile of `rounds` decisions each."""
    policies = cedar.in_force()
    bound = principal("operator:maria", ["support", "vip_manager"], scope=Scope(frozenset({"main"}), frozenset({"AT"})))
    game = service("provider:studio", "game_provider")
    counter = itertools.count(1)

    def new_person() -> None:
        policies.require(bound._replace(actor=f"operator:{next(counter)}"), (Action.LIMIT_SET,), MATTER, NOON)

    found = {
        "settled": _timed(lambda: policies.settled(game, (Action.GAME_BET,)), rounds),
        "cached": _timed(lambda: policies.require(bound, (Action.LIMIT_SET,), MATTER, NOON), rounds),
        "cold": _timed(_cold(policies), rounds),
        "first_of_a_person": _timed(new_person, rounds // 10),
        "cedarpy_parsed": _timed(_raw(parsed=True), rounds),
        "cedarpy_text": _timed(_raw(parsed=False), max(rounds // 100, 20)),
    }
    return {
        "rounds": rounds,
        **found,
        "within": {name: found[name]["p50_us"] <= most for name, most in LIMIT_US.items()},
    }


def _cold(policies: cedar.Policies) -> Callable[[], None]:
    """Decisions of values that nobody has asked before: another amount each."""
    who = principal("operator:maria", ["payments"])
    amounts = itertools.count(1)
    return lambda: policies.require(who, (Action.MONEY_ADJUST,), {"amount": next(amounts), "currency": "EUR"}, NOON)


def _raw(*, parsed: bool) -> Callable[[], object]:
    """The call that we make, with all policies; as handles that were parsed once, or as texts."""
    read = files.read()
    actor = {
        "uid": {"type": "Actor", "id": "who"},
        "attrs": {"name": "operator:maria", "machine": False, "brands": ["main"], "countries": ["AT"]},
        "parents": [{"type": "Role", "id": "support"}, {"type": "Role", "id": "vip_manager"}],
    }
    entities = json.dumps([actor, {"uid": {"type": "Matter", "id": "it"}, "attrs": MATTER, "parents": []}])
    request = {
        "principal": 'Actor::"who"',
        "action": 'Action::"limit.set"',
        "resource": 'Matter::"it"',
        "context": {"hour": 12, "weekday": 1},
    }
    if not parsed:
        return lambda: cedarpy.is_authorized(request, read.text, entities, read.schema)
    policies, schema = cedarpy.PolicySet.from_str(read.text), cedarpy.Schema.from_str(read.schema)
    known = cedarpy.Entities.from_json_str(entities, schema)
    return lambda: cedarpy.is_authorized(request, policies, known, schema)


def _timed(work: Callable[[], object], rounds: int) -> dict[str, float]:
    work()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        work()
        taken.append(time.perf_counter_ns() - begun)
    taken.sort()
    return {"p50_us": round(taken[rounds // 2] / 1_000, 1), "p99_us": round(taken[rounds * 99 // 100] / 1_000, 1)}


def show(found: dict[str, Any]) -> str:
    words = {
        "settled": "settled by roles (a bet)",
        "cached": "kept: same values again",
        "cold": "values never seen",
        "first_of_a_person": "a person's first command of a kind",
        "cedarpy_parsed": "cedarpy alone, everything parsed",
        "cedarpy_text": "cedarpy alone, from texts",
    }
    lines = [f"  {words[name]:<36} {found[name]['p50_us']:>9} µs  p99 {found[name]['p99_us']:>9}" for name in words]
    return "\n".join(lines)
