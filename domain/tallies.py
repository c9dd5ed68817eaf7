"""
What a wallet remembers of play beside sums: game rounds, sessions, and rollbacks that came before their bets.

A round is open from its first bet until its provider has closed it, has told an outcome (a win, be it of nothing), or has taken
back all that was staked in it; a free round, until it was taken back.

Invariants:
    - an open round is not forgotten: whoever has ROUNDS_MAX of them begins no other (domain.bets);
    - nothing here grows with the number of bets.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import Final, NamedTuple

ROUNDS_MAX: Final = 50
"""How many rounds a player may have open at once."""

TALLIED_MAX: Final = 10
"""How many sessions are remembered, at least as many as may be open; how many rounds that are over, those heard of last; and how
many rollbacks wait for their bets."""


class Round(NamedTuple):
    """`session`: of its newest bet. `staked`: less what was given back. `heard_at`: when its provider last said anything of it.

    `returned`: whether any of its bets was given back, or a part. `told`: whether it was closed, or its outcome told.
    """

    name: str
    session: str
    staked: int
    heard_at: datetime
    returned: bool = False
    told: bool = False

    @property
    def is_open(self) -> bool:
        """As projections.rounds has it of all that was ever heard."""
        return not self.told and (self.staked > 0 or not self.returned)


class Rounds(NamedTuple):
    """Those that are open, and the newest that are over; whichever was heard of last stands last."""

    open: tuple[Round, ...] = ()
    over: tuple[Round, ...] = ()

    def find(self, name: str) -> Round | None:
        for each in self.open:
            if each[0] == name:
                return each
        for each in self.over:
            if each[0] == name:
                return each
        return None

    def staked(self, name: str, session: str, amount: int, at: datetime) -> Rounds:
        known = self.find(name)
        if known is None:
            return Rounds((*self.open[1 - ROUNDS_MAX :], Round(name, session, amount, at)), self.over)
        return self._with(known, Round(name, session, known.staked + amount, at, known.returned, known.told))

    def told(self, name: str, session: str, at: datetime) -> Rounds:
        """That it is over. Its bet may be still to come."""
        known = self.find(name)
        if known is None:
            return self._with(None, Round(name, session, 0, at, told=True))
        return self._with(known, Round(name, known.session, known.staked, at, known.returned, told=True))

    def given_back(self, name: str, amount: int, at: datetime | None) -> Rounds:
        """`at`: when the provider has said so; None if it was somebody else."""
        known = self.find(name)
        if known is None:  # it is long over
            return self
        heard_at = known.heard_at if at is None else at
        return self._with(known, Round(name, known.session, known.staked - amount, heard_at, True, known.told))

    def _with(self, before: Round | None, after: Round) -> Rounds:
        open_, over = self
        if before is not None and before.is_open:
            open_ = tuple([each for each in open_ if each is not before])
        elif before is not None:
            over = tuple([each for each in over if each is not before])
        if after.is_open:
            return Rounds((*open_[1 - ROUNDS_MAX :], after), over)
        return Rounds(open_, (*over[1 - TALLIED_MAX :], after))


Tally = tuple[tuple[str, int], ...]
"""How much, by name; whatever was added to last stands last."""


def tallied(tally: Tally, name: str) -> int:
    return next((amount for each, amount in reversed(tally) if each == name), 0)


def counted(tally: Tally, name: str, amount: int, forgets: str = "") -> Tally:
    """With `amount` more. `forgets`: what makes room for it; by default what was added to the longest time ago."""
    others = tuple([each for each in tally if each[0] not in (name, forgets)])
    return (*others[1 - TALLIED_MAX :], (name, tallied(tally, name) + amount))


def makes_room(tally: Tally, name: str, alive: Container[str]) -> str:
    """What is to be forgotten if this is added; none of those that are `alive`, of which this is one. "": nothing."""
    if len(tally) < TALLIED_MAX or name not in alive or any(each == name for each, _ in tally):
        return ""
    return next((each for each, _ in tally if each not in alive), "")


def less(tally: Tally, name: str, amount: int) -> Tally:
    """With so much less, if it is remembered."""
    return tuple([(each, had - amount if each == name else had) for each, had in tally])


def less_or_below(tally: Tally, name: str, amount: int, forgets: str) -> Tally:
    """With so much less. What is not remembered has less than nothing then, if there is room for it."""
    if any(each == name for each, _ in tally):
        return less(tally, name, amount)
    if name and amount and (forgets or len(tally) < TALLIED_MAX):
        return counted(tally, name, -amount, forgets)
    return tally


def without(tally: Tally, name: str) -> Tally:
    return tuple([each for each in tally if each[0] != name])
