"""
What a wallet remembers of play beside sums: game rounds, sessions, and rollbacks that came before their bets.

A round is open from its first bet until its provider has closed it, has told an outcome (a win, be it of nothing), or has taken
back all that was staked in it; a free round, until it was taken back.

An outcome may overtake its bet. That one is waited for then, and its round is over as soon as it comes.

Invariants:
    - an open round is not forgotten: whoever has ROUNDS_MAX of them begins no other (domain.bets);
    - an outcome that was forgotten before its bet has come leaves a mark on every round that begins later;
    - what is given back of a bet from before a round began is none of that round's;
    - nothing here grows with the number of bets.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import Final, NamedTuple

ROUNDS_MAX: Final = 50
"""How many rounds a player may have open at once, and for how many bets is waited whose outcome is known."""

TALLIED_MAX: Final = 10
"""How many sessions are remembered, at least as many as may be open; how many rounds that are over, those heard of last; and how
many rollbacks wait for their bets."""


class Round(NamedTuple):
    """`session`: of its newest bet. `staked`: less what was given back. `heard_at`: when its provider last said anything of it, and
    `began_at`: when first.

    `returned`: whether any of its bets was given back, or a part. `told`: whether it was closed, or its outcome told. `forgot_at`:
    that of all rounds when it began: its own outcome may be among what was forgotten.
    """

    name: str
    session: str
    staked: int
    heard_at: datetime
    began_at: datetime
    returned: bool = False
    told: bool = False
    forgot_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """As projections.rounds has it of all that was ever heard."""
        return not self.told and (self.staked > 0 or not self.returned)


class Rounds(NamedTuple):
    """Those that are open, the newest that are over, and the newest that are `told` of and have no bet yet; whichever was heard of
    last stands last. `forgot_at`: when the newest of those was heard of that had no bet and were forgotten.
    """

    open: tuple[Round, ...] = ()
    over: tuple[Round, ...] = ()
    awaited: tuple[Round, ...] = ()
    forgot_at: datetime | None = None

    def find(self, name: str) -> Round | None:
        for rounds in (self.open, self.over, self.awaited):
            for each in rounds:
                if each[0] == name:
                    return each
        return None

    def staked(self, name: str, session: str, amount: int, at: datetime) -> Rounds:
        known = self.find(name)
        if known is None:
            begun = Round(name, session, amount, at, at, forgot_at=self.forgot_at)
            return self._replace(open=(*self.open[1 - ROUNDS_MAX :], begun))
        return self._with(known, known._replace(session=session, staked=known.staked + amount, heard_at=at))

    def told(self, name: str, session: str, at: datetime) -> Rounds:
        """That it is over. Its bet may be still to come."""
        known = self.find(name)
        if known is not None and known not in self.awaited:
            return self._with(known, known._replace(heard_at=at, told=True))
        others = tuple([each for each in self.awaited if each is not known])
        first = known or Round(name, session, 0, at, at, told=True)
        forgot_at = others[0].heard_at if len(others) >= ROUNDS_MAX else self.forgot_at
        awaited = (*others[1 - ROUNDS_MAX :], first._replace(heard_at=at))
        return self._replace(awaited=awaited, forgot_at=forgot_at)

    def given_back(self, name: str, amount: int, *, staked_at: datetime, at: datetime | None) -> Rounds:
        """Of a bet of `staked_at`. `at`: when the provider has said so; None if it was somebody else."""
        known = self.find(name)
        if known is None or staked_at < known.began_at:  # that is long over
            return self
        heard_at = known.heard_at if at is None else at
        return self._with(known, known._replace(staked=known.staked - amount, heard_at=heard_at, returned=True))

    def _with(self, before: Round, after: Round) -> Rounds:
        """`after`: the same, with a bet."""
        open_, over, awaited = (
            tuple([each for each in rounds if each is not before]) for rounds in (self.open, self.over, self.awaited)
        )
        if after.is_open:
            open_ = (*open_[1 - ROUNDS_MAX :], after)
        else:
            over = (*over[1 - TALLIED_MAX :], after)
        return Rounds(open_, over, awaited, self.forgot_at)


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
