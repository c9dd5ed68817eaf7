"""
What the house asks of a register of the excluded: whether a person is in it.

Invariants:
    - a register hears of a person what it needs to find them, and nothing of what they do here;
    - whoever gets no answer knows nothing of the person.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol


class Person(NamedTuple):
    """Whom to look for, as far as that is known. `birth_date`: ISO 8601."""

    name: str | None = None
    birth_date: str | None = None
    email: str | None = None
    phone: str | None = None
    postcode: str | None = None

    def __repr__(self) -> str:
        return "Person(…)"


class Clear(NamedTuple):
    """The person is not in the register."""


class InRegister(NamedTuple):
    """The person is in the register, until then if it tells."""

    until: datetime | None = None


Answer = Clear | InRegister


class Register(Protocol):
    """A register, by the name that rules.csv has for it."""

    name: str

    async def ask(self, person: Person) -> Answer:
        """Whether the person is in the register. Raises Unanswered (providers.port)."""
