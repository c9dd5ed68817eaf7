"""
A register that does not answer is not asked for a while: whoever needs its answer hears at once that there is none.

    closed ── FAILURES_MAX questions in a row unanswered ──▶ open ── PAUSE_S later, by the next question ──▶ half open
       ▲                                                      ▲                                                  │
       └── that one question is answered ─────────────────────┼──────────────────────────────────────────────────┤
                                                              └── it is not ─────────────────────────────────────┘

Invariants:
    - while it is half open one question is under way, and however that one ends, another can follow it;
    - an answer that cannot be believed closes it, too: it has kept nobody waiting, and it stays no answer;
    - it belongs to one process, and is lost with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

import structlog

from providers.port import Unanswered, Unbelievable
from registers.port import Answer, InRegister, Person, Register

FAILURES_MAX = 3
PAUSE_S = 15.0

_log = structlog.get_logger(__name__)


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Asks `register`, unless that would be in vain. `clock`: seconds, from any beginning. `counted`: questions by what became of
    them: clear, excluded, unanswered, unbelievable, not_asked.
    """

    def __init__(
        self,
        register: Register,
        *,
        failures_max: int = FAILURES_MAX,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = register.name
        self.counted: Counter[str] = Counter()
        self._register = register
        self._failures_max = failures_max
        self._pause_s = pause_s
        self._clock = clock
        self._failures = 0
        self._again_at: float | None = None
        self._tries = False

    @property
    def state(self) -> State:
        if self._again_at is None:
            return State.CLOSED
        return State.HALF_OPEN if self._tries else State.OPEN

    async def ask(self, person: Person) -> Answer:
        """Raises Unanswered, Unbelievable."""
        again_at = self._again_at
        if again_at is None:
            return await self._ask(person)
        if self._tries or self._clock() < again_at:
            self.counted["not_asked"] += 1
            raise Unanswered(f"{self.name} has not answered lately, and is not asked for a while")
        self._tries = True
        try:
            return await self._ask(person)
        finally:
            self._tries = False

    async def _ask(self, person: Person) -> Answer:
        try:
            answer = await self._register.ask(person)
        except Unbelievable:
            self._answered("unbelievable")
            raise
        except Unanswered:
            self._unanswered()
            raise
        self._answered("excluded" if isinstance(answer, InRegister) else "clear")
        return answer

    def _answered(self, what: str) -> None:
        self.counted[what] += 1
        self._failures = 0
        if self._again_at is not None:
            self._again_at = None
            _log.info("a register answers again", register=self.name)

    def _unanswered(self) -> None:
        self.counted["unanswered"] += 1
        self._failures += 1
        if self._failures >= self._failures_max:
            if self._again_at is None:
                _log.error("a register does not answer, and is not asked for a while", register=self.name)
            self._again_at = self._clock() + self._pause_s
