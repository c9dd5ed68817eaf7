"""
Somebody who does not answer is not asked for a while: whoever needs the answer hears at once that there is none.

    closed ── `failures_max` questions in a row unanswered ──▶ open ── `pause_s` later, by the next question ──▶ half open
       ▲                                                        ▲                                                    │
       └── that one question is answered ───────────────────────┼────────────────────────────────────────────────────┤
                                                                └── it is not ───────────────────────────────────────┘

Invariants:
    - while it is half open one question is under way, and however that one ends, another can follow it;
    - it belongs to one process, and is lost with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Open(Exception):
    """They have not answered lately, and are not asked."""


class Circuit:
    """`clock`: seconds, from any beginning. `opens` and `closes` are told of it."""

    def __init__(
        self,
        failures_max: int,
        pause_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        opens: Callable[[], None] = lambda: None,
        closes: Callable[[], None] = lambda: None,
    ) -> None:
        self._failures_max = failures_max
        self._pause_s = pause_s
        self._clock = clock
        self._opens = opens
        self._closes = closes
        self._failures = 0
        self._again_at: float | None = None
        self._tries = False

    @property
    def state(self) -> State:
        if self._again_at is None:
            return State.CLOSED
        return State.HALF_OPEN if self._tries else State.OPEN

    @contextmanager
    def question(self) -> Iterator[None]:
        """While one is asked; what became of it is told by `answered` or `unanswered`. Raises Open."""
        if self._again_at is None:
            yield
            return
        if self._tries or self._clock() < self._again_at:
            raise Open
        self._tries = True
        try:
            yield
        finally:
            self._tries = False

    def answered(self) -> None:
        self._failures = 0
        if self._again_at is not None:
            self._again_at = None
            self._closes()

    def unanswered(self) -> None:
        self._failures += 1
        if self._failures >= self._failures_max:
            if self._again_at is None:
                self._opens()
            self._again_at = self._clock() + self._pause_s
