"""
Commands to which a plan refers by their ids: looked up in the log before each attempt.

Invariants:
    - they are looked up after the plan's streams were loaded: what these streams held then is found, and what they have come
      to hold since makes the append a conflict;
    - a command that is there stays as it is; one that is not there may come, unless the plan claims its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from commands.plan import Fact, Plan
from eventstore.log import Place, Streams
from eventstore.record import Codec, Entry

Referred = Mapping[str, Sequence[Fact]]
"""By role, the facts of a command, none if it is not in the log."""

_AT_A_TIME = 8
"""How many of a series are looked up together; most have one or two."""

_Role = tuple[int, str]


class Referring:
    def __init__(self, streams: Streams, codec: Codec) -> None:
        self._streams = streams
        self._codec = codec

    async def look_up(self, plans: Mapping[int, Plan]) -> dict[int, Referred]:
        """For each plan that refers to anything, by its key, what it refers to; of a series the last one that is there."""
        named = {(key, role): id_ for key, plan in plans.items() for role, id_ in plan.refers.items()}
        series = {(key, role): nth for key, plan in plans.items() for role, nth in plan.series.items()}
        if not named and not series:
            return {}
        found = await self._find(named, series)
        places = list(dict.fromkeys(found.values()))
        commands = dict(zip(places, await self._streams.commands(places) if places else (), strict=True))
        referred: dict[int, dict[str, Sequence[Fact]]] = {}
        for key, role in chain(named, series):
            entries = commands[found[key, role]] if (key, role) in found else ()
            referred.setdefault(key, {})[role] = [self._fact(entry) for entry in entries]
        return dict(referred)

    async def _find(
        self, named: Mapping[_Role, bytes], series: Mapping[_Role, Callable[[int], bytes]]
    ) -> dict[_Role, Place]:
        """Where they stand. A series is gapless, so it ends before the first that is missing."""
        asked = {**named}
        found: dict[_Role, Place] = {}
        open_, done = dict(series), 0
        while asked or open_:
            next_ = {role: [nth(done + n) for n in range(1, _AT_A_TIME + 1)] for role, nth in open_.items()}
            known = await self._streams.find([*asked.values(), *chain.from_iterable(next_.values())])
            found |= {role: known[id_] for role, id_ in asked.items() if id_ in known}
            for role, ids in next_.items():
                there = [known[id_] for id_ in ids if id_ in known]
                if there:
                    found[role] = there[-1]
                if len(there) < len(ids):
                    del open_[role]
            asked, done = {}, done + _AT_A_TIME
        return found

    def _fact(self, entry: Entry) -> Fact:
        read = self._codec.decode(entry)
        return Fact(read.body.stream, read.event, read.body.id, read.at)
