"""
What sealing a personal field costs: one field of an event, as the decider seals it, and opening it again.

A text of 24 characters, an e-mail's length; and one of 2,000, a long note. Best of the rounds, since anything else that runs
here only makes it slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from commands.sealing import opened, seal
from domain.players import Noted
from eventstore.vault import DataKey

KEY = DataKey("019a8f00-0000-7000-8000-000000000003", os.urandom(32))
EVENT = "019a8f00-0000-7000-8000-000000000005"
LIMIT_US = 30.0
"""What the house demands of sealing a short field."""


def run(*, fields: int = 20_000, rounds: int = 7) -> dict[str, Any]:
    """{"seal_us", "open_us", "seal_long_us", "open_long_us", "limit_us", "within"}; µs a field."""
    found: dict[str, Any] = {}
    for name, event in (("", Noted("a" * 24)), ("_long", Noted("a" * 2_000))):
        stored = seal(event, KEY, EVENT)
        found[f"seal{name}_us"] = _us(lambda event=event: seal(event, KEY, EVENT), fields, rounds)  # type: ignore[misc]
        found[f"open{name}_us"] = _us(lambda stored=stored: opened(stored, KEY, EVENT), fields, rounds)  # type: ignore[misc]
    return {**found, "limit_us": LIMIT_US, "within": found["seal_us"] <= LIMIT_US}


def _us(work: Callable[[], object], count: int, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            work()
        best = min(best, (time.perf_counter() - began) / count * 1e6)
    return round(best, 2)


def show(found: dict[str, Any]) -> str:
    return (
        f"sealing a field: {found['seal_us']} µs (at most {found['limit_us']:.0f}), opening it: {found['open_us']} µs; "
        f"of 2,000 characters: {found['seal_long_us']} and {found['open_long_us']} µs"
    )
