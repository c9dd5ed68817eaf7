"""
Who has the same e-mail, phone or person as somebody of whom a command tells: what two accounts of one person are found by.

Heard are subjects that are registered in the log, and what this process is about to record. So a registration that was
refused or never came is heard by nobody, and of two at the same moment in one process at least one hears of the other.

Of two in two processes perhaps neither does, so each process looks again when its entries stand in the log, and before it
answers. The words of a subject are kept before its entry, and the log has an order: whoever is later there finds who was
earlier. It then lets both streams name the other (Plan.introduce), where both are owned here: whom another region owns by now, the
one that heard of them names, and no condition can be made of them. A process that is killed in between has not answered, and
the same request, sent again, looks again. It is one look for all that were recorded together.

What remains: such a request is never sent again; whoever waits may wait because of one under way that came to nothing; and
the words of a change to a registered player are found although its append was lost, until it is sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import structlog

from commands.gathering import Results
from commands.plan import Plan, Receipt, WrongRegion
from eventstore.blind import Among, normalised
from eventstore.vault import Vault
from eventstore.writer import Uncertain

Word: TypeAlias = tuple[str, str]
Record: TypeAlias = Callable[[list[Plan], Results[Receipt]], Awaitable[None]]
Run: TypeAlias = Callable[[Sequence[Plan]], Awaitable[list[Receipt | Exception]]]

_log = structlog.get_logger(__name__)


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
        beside = {place: self._beside(plan) for place, plan in asked.items()}
        held = await self._held(asked.values())
        return {place: _merged(plan, beside[place], held) for place, plan in asked.items()}

    async def run(self, plans: list[Plan], results: Results[Receipt], *, record: Record, then: Run) -> None:
        """Record them; of whoever may have a double nobody hears before both have been told of each other."""
        asking = {place for place, plan in enumerate(plans) if plan.introduce}
        if not asking:
            return await record(plans, results)

        def heard(place: int, result: Receipt | Exception) -> None:
            if place not in asking:
                results[place] = result

        recorded: Results[Receipt] = Results(heard)
        await record(plans, recorded)
        try:
            told = await self._introductions([(place, plans[place], recorded[place]) for place in asking])
        except Exception as error:  # noqa: BLE001 — they are recorded: sent again, each tells the other
            _log.warning("who may be the same person cannot be looked up", error=str(error).strip())
            for place in asking:
                if isinstance(recorded[place], Receipt):
                    recorded[place] = Uncertain("it is recorded; send it again")
            told = []
        for (place, _), result in zip(told, await then([plan for _, plan in told]), strict=True):
            if isinstance(result, Exception) and not isinstance(result, WrongRegion):
                recorded[place] = Uncertain(str(result))  # what another region owns cannot be told from here
        for place in asking:
            results[place] = recorded[place]
        return None

    async def _introductions(self, ended: Sequence[tuple[int, Plan, Receipt | Exception]]) -> list[tuple[int, Plan]]:
        """By place, the commands by which who was recorded, and whoever is like them, name each other."""
        recorded = [(place, plan, result.answer) for place, plan, result in ended if isinstance(result, Receipt)]
        held = await self._held((plan for _, plan, _ in recorded), Among.OWNED)
        return [
            (place, each)
            for place, plan, answer in recorded
            if plan.introduce
            for each in plan.introduce(answer, _merged(plan, {}, held))
        ]

    async def _held(self, plans: Iterable[Plan], among: Among = Among.OURS) -> Mapping[Word, Sequence[str]]:
        words = [word for plan in plans if plan.owed for word in plan.owed.found_by if word[0] in plan.alike]
        return await self._vault.find_registered(words, among) if words else {}

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
