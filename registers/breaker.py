"""
A register that does not answer is not asked for a while (circuit.py): whoever needs its answer hears at once that there is none.

Invariants:
    - an answer that cannot be believed closes the circuit, too: it has kept nobody waiting, and it stays no answer;
    - what it has counted belongs to one process, and is lost with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from providers.port import Unanswered, Unbelievable
from registers.circuit import Circuit, Open, State
from registers.port import Answer, InRegister, Person, Register

FAILURES_MAX = 3
PAUSE_S = 15.0

_log = structlog.get_logger(__name__)


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
        self._circuit = Circuit(failures_max, pause_s, clock=clock, opens=self._opens, closes=self._closes)

    @property
    def state(self) -> State:
        return self._circuit.state

    async def ask(self, person: Person) -> Answer:
        """Raises Unanswered, Unbelievable."""
        try:
            with self._circuit.question():
                return await self._ask(person)
        except Open:
            self.counted["not_asked"] += 1
            raise Unanswered(f"{self.name} has not answered lately, and is not asked for a while") from None

    async def _ask(self, person: Person) -> Answer:
        try:
            answer = await self._register.ask(person)
        except Unbelievable:
            self._answered("unbelievable")
            raise
        except Unanswered:
            self.counted["unanswered"] += 1
            self._circuit.unanswered()
            raise
        self._answered("excluded" if isinstance(answer, InRegister) else "clear")
        return answer

    def _answered(self, what: str) -> None:
        self.counted[what] += 1
        self._circuit.answered()

    def _opens(self) -> None:
        _log.error("a register does not answer, and is not asked for a while", register=self.name)

    def _closes(self) -> None:
        _log.info("a register answers again", register=self.name)
