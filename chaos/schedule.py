"""
What happens when, and to whom: a function of the seed, and of nothing else.

A run of N kills meets every kind of process in its first nine, and each with the other of the two signals in its next nine. Other
faults are dealt from a pack that the seed has shuffled: some of them in a short run, each at least once in a long one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

SERVERS = ("postgres", "nats", "valkey")
APPS = ("api", "projector", "reactor", "relay+applier", "checkpointer+witness", "custodian")
ROLES = (*APPS, *SERVERS)
KILL, STOP = "kill", "stop"
KILLS = (KILL, STOP)  # what counts as a kill: -9, and SIGSTOP with SIGCONT after the hold

GAP_S = (1.0, 3.0)  # from the beginning of one step to that of the next
STOP_HOLD_S = (2.0, 8.0)
HOLD_S = (2.0, 8.0)
LONG_HOLDS_S: Mapping[str, Sequence[float]] = MappingProxyType(
    {
        "link-cut": (60.0, 300.0, 1800.0),
        "link-blackhole": (60.0, 300.0, 1800.0),
        "link-one-way": (60.0, 300.0, 1800.0),
    }
)
SHARE_OF_OTHERS = 6  # of the other faults, this many in a short run
CLOCK_AHEAD = "clock-ahead"
CLOCK_BEHIND = "clock-behind"
UPGRADE = "upgrade"  # comes first: what befalls regions is to befall this release


class LeftOut(Exception):
    """A fault cannot be carried out here, for a reason that is not the product's. The result names it."""


class NotCarriedOut(Exception):
    """What was to befall the regions did not: an error of the run."""


class Step(NamedTuple):
    """`at_s`: seconds after the load has begun, the earliest at which it begins. `role`: empty where the fault is the region's."""

    at_s: float
    fault: str
    region: str
    role: str = ""
    hold_s: float = 0.0

    def __str__(self) -> str:
        held = f", {self.hold_s:g} s" if self.hold_s else ""
        return f"{self.fault} {self.region}{'/' if self.role else ''}{self.role}{held}"


def schedule(
    seed: int,
    kills: int,
    others: Collection[str],
    regions: Sequence[str],
    *,
    long: bool = False,
    share: int | None = SHARE_OF_OTHERS,
    hold_s: float | None = None,
) -> list[Step]:
    """
    The steps of a run, in order. `others`: the names of all other faults that the run may meet.

    A short run meets `share` of them (None: all), a long one all of them, and those in LONG_HOLDS_S once for each length there.
    """
    chance = random.Random(f"countroom chaos {seed}")
    dealt = _shuffled(chance, sorted(others))
    if not long and share is not None:
        dealt = dealt[:share]
    steps = _mixed(chance, list(_kills(chance, kills, regions)), list(_others(chance, dealt, regions, long=long)))
    steps.sort(key=lambda step: step.fault != UPGRADE)
    at_s, found = 0.0, []
    for step in steps:
        at_s = round(at_s + chance.uniform(*GAP_S), 2)
        held = step.hold_s if hold_s is None or not step.hold_s else hold_s
        found.append(step._replace(at_s=at_s, hold_s=held))
    return found


def _kills(chance: random.Random, count: int, regions: Sequence[str]) -> Iterator[Step]:
    """Rounds over all roles: each role once in each; in two rounds with both signals, in four in two regions."""
    first = {role: chance.randrange(2 * len(regions)) for role in ROLES}
    rounds = itertools.count()
    dealt = ((turn, role) for turn in rounds for role in _shuffled(chance, ROLES))
    for turn, role in itertools.islice(dealt, count):
        there, how = divmod(first[role], 2)
        how = (how + turn) % 2
        region = regions[(there + turn // 2) % len(regions)]
        yield Step(0, KILLS[how], region, role, _drawn(chance, STOP_HOLD_S) if KILLS[how] == STOP else 0.0)


def _others(chance: random.Random, faults: Sequence[str], regions: Sequence[str], *, long: bool) -> Iterator[Step]:
    for fault in faults:
        if not long or fault not in LONG_HOLDS_S:
            yield Step(0, fault, chance.choice(regions), "", _drawn(chance, HOLD_S))
    if long:  # last, so that nothing but kills has to wait for them, or happens while they last
        for fault in sorted(LONG_HOLDS_S.keys() & set(faults)):
            for hold_s in LONG_HOLDS_S[fault]:
                yield Step(0, fault, chance.choice(regions), "", hold_s)


def _mixed(chance: random.Random, kills: list[Step], others: list[Step]) -> list[Step]:
    """One order of both, each in its own."""
    places = _shuffled(chance, [True] * len(kills) + [False] * len(others))
    rest = {True: iter(kills), False: iter(others)}
    return [next(rest[place]) for place in places]


def _drawn(chance: random.Random, between: tuple[float, float]) -> float:
    return round(chance.uniform(*between), 1)


def _shuffled(chance: random.Random, things: Sequence[_T]) -> list[_T]:
    return chance.sample(list(things), len(things))
