"""
Who has the same e-mail, phone or person as somebody of whom a command tells: what two accounts of one person are found by.

Heard are subjects that are registered in the log, and what this process is about to record. So a registration that was
refused or never came is heard by nobody, and of two at the same moment in one process at least one hears of the other.

What remains: two processes that register one person at the same moment may not hear of each other; whoever waits may wait
because of one under way that came to nothing; and the words of a change to a registered player are found although its
append was lost, until it is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from commands.plan import Plan
from eventstore.vault import Vault, normalised

Word: TypeAlias = tuple[str, str]


class _Named(NamedTuple):
    subject: str
    command: bytes


class Alike:
    """What is under way in this process, beside what the vault holds."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._under_way: dict[Word, list[_Named]] = {}

    def join(self, plans: Iterable[Plan]) -> None:
        """They are about to be recorded: whoever asks from now on hears of them, until they leave."""
        for plan in plans:
            for word in _words(plan):
                self._under_way.setdefault(word, []).append(_named(plan))

    def leave(self, plans: Iterable[Plan]) -> None:
        for plan in plans:
            for word in _words(plan):
                named = self._under_way[word]
                named.remove(_named(plan))
                if not named:
                    del self._under_way[word]

    async def heard(self, plans: Mapping[int, Plan]) -> dict[int, dict[str, list[str]]]:
        """For each that asks, other subjects by the field in which they are alike.

        What is under way is read before the log: whatever has left by then stands there.
        """
        asked = {place: plan for place, plan in plans.items() if plan.alike}
        if not asked:
            return {}
        beside = {place: self._beside(plan) for place, plan in asked.items()}
        words = [word for plan in asked.values() if plan.owed for word in plan.owed.found_by if word[0] in plan.alike]
        held = await self._vault.find_registered(words) if words else {}
        return {place: _merged(plan, beside[place], held) for place, plan in asked.items()}

    def _beside(self, plan: Plan) -> dict[Word, list[str]]:
        """What others under way are found by, and not the same command that was sent twice."""
        return {
            word: [each.subject for each in self._under_way.get(word, ()) if each.command != plan.context.command_id]
            for word in _words(plan)
        }


def _named(plan: Plan) -> _Named:
    return _Named(plan.owed.subject if plan.owed else "", plan.context.command_id)


def _words(plan: Plan) -> list[Word]:
    return [(field, normalised(value)) for field, value in plan.owed.found_by] if plan.owed else []


def _merged(
    plan: Plan, beside: Mapping[Word, Sequence[str]], held: Mapping[Word, Sequence[str]]
) -> dict[str, list[str]]:
    heard: dict[str, list[str]] = {}
    for field, value in plan.owed.found_by if plan.owed else ():
        if field not in plan.alike:
            continue
        for subject in (*held.get((field, value), ()), *beside.get((field, normalised(value)), ())):
            if plan.owed and subject != plan.owed.subject and subject not in heard.setdefault(field, []):
                heard[field].append(subject)
    return {field: subjects for field, subjects in heard.items() if subjects}
