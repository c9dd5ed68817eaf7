"""
What a wallet remembers of rounds and sessions, against a model that forgets nothing, whatever is played in whatever order.

There is room for few of each, so that it is always short.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain import bets, play, tallies, wallets
from domain.bets import TooManyRounds
from domain.kernel import Event
from domain.limits import Limits
from domain.players import Player
from domain.rounds import RoundNotStuck, require_stuck
from domain.tallies import Round, Rounds
from domain.wallets import CASH, WALLETS, Accounts, Moved, Movement, Played, RolledBack, RoundClosed, Staked, Wallet
from policies.spending import WinKind
from tests.domain.history import EUR, NOON, euros
from tests.domain.playing import AUSTRIAN

FEW = 3

rounds = st.integers(1, 8).map(lambda n: f"r{n}")
amounts = st.sampled_from([0, 1, 7])
which = st.integers(0, FEW - 1)


def test_every_session_that_may_be_open_is_remembered() -> None:
    assert tallies.TALLIED_MAX >= play.SESSIONS_MAX


class Known(NamedTuple):
    """All that was ever heard of a round, or since it began anew. `in_doubt`: it has begun though its outcome was told."""

    staked: int = 0
    began_at: datetime = NOON
    in_doubt: bool = False
    heard_at: datetime = NOON
    bets: int = 0
    returned: bool = False
    told: bool = False

    @property
    def is_open(self) -> bool:
        return not self.told and (self.staked > 0 or (self.bets > 0 and not self.returned))


class Remembering(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.numbers = NOON, 0
        self.wallet = Wallet()
        self.alive: list[str] = []
        self.ended: list[str] = []
        self.lost: dict[str, int] = {}
        self.rounds: dict[str, Known] = {}
        self.bets: list[tuple[Staked, datetime, RolledBack | None]] = []

    def fold(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, wallets.WalletEvent | wallets.Unmoved):
                self.wallet = WALLETS.evolve(self.wallet, event, self.now)
        self.now += timedelta(seconds=1)

    def hear(self, name: str, **changes: Any) -> None:
        found = self.rounds.get(name, Known())
        self.rounds[name] = found._replace(heard_at=self.now, **changes)

    @initialize()
    def rich(self) -> None:
        given = Movement("bonus", "house:bonus", CASH, euros(10**6), "x")
        self.fold(Moved((given,), Accounts(10**6)))

    @rule()
    def open(self) -> None:
        """One too many ends the oldest."""
        self.numbers += 1
        self.alive.append(f"session_{self.numbers}")
        self.ended += self.alive[:-FEW]
        self.alive = self.alive[-FEW:]

    @rule(n=which)
    def end(self, n: int) -> None:
        if n < len(self.alive):
            self.ended.append(self.alive.pop(n))

    @rule(n=which, names=st.lists(rounds, min_size=1, max_size=FEW + 1), amount=amounts)
    def bet(self, n: int, names: list[str], amount: int) -> None:
        for name in names if n < len(self.alive) else ():
            self.bet_in(n, name, amount)

    def bet_in(self, n: int, name: str, amount: int) -> None:
        known = self.rounds.get(name, Known())
        played = Played("studio", "book", name, self.alive[n])
        if (
            name in self.rounds and not known.is_open and self.wallet.round(played) is None
        ):  # what has long been over begins anew
            known = Known(began_at=self.now, in_doubt=known.told and not known.bets)
        open_ = sum(each.is_open for each in self.rounds.values())
        is_refused = open_ >= FEW and not known.is_open and not known.told
        self.numbers += 1
        money = euros(amount)
        try:
            [event] = bets.stake(
                self.wallet, Limits(), WHO, played=played, reference=f"b{self.numbers}", money=money,
                parts=bets.paying(self.wallet, WHO, money), is_slot=False, at=self.now, alive=self.alive,
            )  # fmt: skip
        except TooManyRounds:
            assert is_refused
            return
        assert not is_refused
        self.rounds[name] = known._replace(heard_at=self.now, staked=known.staked + amount, bets=known.bets + 1)
        self.lost[played.session] = self.lost.get(played.session, 0) + amount
        self.bets.append((event, self.now, None))
        self.fold(event)

    @rule(n=which, name=rounds, amount=amounts, of=st.sampled_from(["", "alive", "ended"]))
    def win(self, n: int, name: str, amount: int, of: str) -> None:
        sessions = {"": [""] * FEW, "alive": self.alive, "ended": self.ended[::-1]}[of]
        if n >= len(sessions):
            return
        [event] = bets.win(
            self.wallet, WHO, played=Played("studio", "book", name, sessions[n]), reference="w", kind=WinKind.WIN,
            money=euros(amount), at=self.now, alive=self.alive,
        )  # fmt: skip
        self.lost[event.played.session] = self.lost.get(event.played.session, 0) - amount
        self.hear(name, told=True)
        self.fold(event)

    @rule(n=which, name=rounds)
    def begin_anew(self, n: int, name: str) -> None:
        """What is over, after so many others that it is forgotten. Then its first bet is given back."""
        if n < len(self.alive):
            first = len(self.bets)
            for each in (name, *(f"r{other}" for other in range(1, 9) if f"r{other}" != name)):
                self.bet_in(n, each, 7)
                self.close_one(each)
            self.bet_in(n, name, 1)
            if first < len(self.bets):
                self.give_back(first, None, void=False)

    @rule(n=which, name=rounds)
    def overtake(self, n: int, name: str) -> None:
        """An outcome its bet, and so many others theirs that it is forgotten."""
        if n < len(self.alive):
            for each in (name, *(f"x{self.numbers}.{other}" for other in range(FEW))):
                self.close_one(each)
            self.bet_in(n, name, 1)

    @rule(name=rounds)
    def close(self, name: str) -> None:
        self.close_one(name)

    def close_one(self, name: str) -> None:
        self.hear(name, told=True)
        played = Played("studio", "book", name)
        self.fold(RoundClosed(played=played, reference="c", currency=EUR, accounts=self.wallet.balance(EUR)))

    @rule(n=st.integers(0, 9), amount=st.sampled_from([None, 1]), void=st.booleans())
    def roll_back(self, n: int, amount: int | None, void: bool) -> None:
        if n < len(self.bets):
            self.give_back(len(self.bets) - 1 - n, amount, void)

    def give_back(self, place: int, amount: int | None, void: bool) -> None:
        bet, at, last = self.bets[place]
        event, *_ = bets.roll_back(self.wallet, bet, staked_at=at, last=last, reference="x", amount=amount, void=void)
        assert isinstance(event, RolledBack)
        self.bets[place] = (bet, at, event if event.part else last)
        name, back = bet.played.round, event.money.amount
        before = self.rounds[name]
        if at >= before.began_at:
            self.hear(name, staked=before.staked - back, returned=True)
        if void:
            self.rounds[name] = self.rounds[name]._replace(heard_at=before.heard_at)
        self.lost[bet.played.session] -= back
        self.fold(event)

    # The laws

    @invariant()
    def of_every_open_round_is_known_what_was_staked_in_it_and_when_it_was_heard_of(self) -> None:
        known = {each.name.rpartition("\n")[2]: (each.staked, each.heard_at) for each in self.wallet.rounds.open}
        assert known == {name: (each.staked, each.heard_at) for name, each in self.rounds.items() if each.is_open}

    @invariant()
    def a_round_whose_outcome_was_told_is_not_taken_for_one_that_may_be_given_back(self) -> None:
        for each in self.wallet.rounds.open:
            if self.rounds[each.name.rpartition("\n")[2]].in_doubt:
                assert never_stuck(each)

    @invariant()
    def of_every_session_in_which_bets_may_be_placed_is_known_what_was_lost(self) -> None:
        for session in self.alive:
            assert self.wallet.lost_in(session) == self.lost.get(session, 0)

    @invariant()
    def no_more_is_kept_however_much_is_played(self) -> None:
        assert max(map(len, (*self.wallet.rounds[:3], self.wallet.sessions))) <= FEW


def never_stuck(found: Round) -> bool:
    try:
        require_stuck(found, found.began_at, found.heard_at + timedelta(days=1))
    except RoundNotStuck as refused:
        return refused.facts == {"stuck_at": None}
    return False


WHO: Player = AUSTRIAN


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "every_session" in request.node.name:
        return
    for module, name in ((tallies, "ROUNDS_MAX"), (tallies, "TALLIED_MAX"), (bets, "ROUNDS_MAX")):
        monkeypatch.setattr(module, name, FEW)


def run_machine(examples: int, *phases: Phase) -> None:
    """With phases: the same every time."""
    steady = {"phases": phases, "derandomize": True, "database": None} if phases else {}
    chosen = settings(max_examples=examples, stateful_step_count=40, **steady)  # type: ignore[arg-type]
    run_state_machine_as_test(Remembering, settings=chosen)  # type: ignore[no-untyped-call]


def test_nothing_that_matters_is_forgotten_whatever_is_played() -> None:
    run_machine(60)


def told_nothing(self: Rounds, *_: object, **__: object) -> Rounds:
    return self


def doubting_nothing(self: Rounds, name: str, session: str, amount: int, at: datetime) -> Rounds:
    return STAKED(self._replace(forgot_at=None), name, session, amount, at)


def given_back_whenever_it_was_staked(
    self: Rounds, name: str, amount: int, *, staked_at: datetime, **at: Any
) -> Rounds:
    return GIVEN_BACK(self, name, amount, staked_at=max(staked_at, NOON + timedelta(days=1)), **at)


STAKED, GIVEN_BACK = Rounds.staked, Rounds.given_back


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (bets, "makes_room", lambda *_: ""),
        (bets, "ROUNDS_MAX", 10**6),
        (wallets, "less_or_below", lambda tally, name, amount, _: tallies.less(tally, name, amount)),
        (Rounds, "told", told_nothing),
        (Rounds, "given_back", told_nothing),
        (Rounds, "given_back", given_back_whenever_it_was_staked),
        (Rounds, "staked", doubting_nothing),
    ],
)
def test_a_planted_fault_breaks_a_law(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Callable[..., Any] | int
) -> None:
    monkeypatch.setattr(where, name, fault)
    with pytest.raises(AssertionError):
        run_machine(200, Phase.generate)
