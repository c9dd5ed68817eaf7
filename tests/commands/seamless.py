"""
The laws of the seamless wallet, as invariants over whatever a provider may say, repeat, contradict and mix up.

The real plans run on real deciders over a log in memory; what holds is recounted from the events alone, in the plainest way.
Rules swallow `Rejected` and nothing else. What it is run for: test_seamless.py.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from commands.plan import Receipt
from domain import wallets
from domain.bets import BetUnknown
from domain.errors import InvalidAmount, KeyReused, Rejected
from domain.kernel import Event, PlayerId
from domain.wallets import (
    BONUS,
    CASH,
    OWN,
    Accounts,
    BonusForfeited,
    GameRefused,
    InsufficientFunds,
    RolledBack,
    RoundClosed,
    Staked,
    StakeRefused,
    Wallet,
    Won,
)
from policies.limits import Period
from tests.commands.gaming import EUR, Games
from tests.commands.house import CODEC, House

references = st.sampled_from(["t1", "t2", "t3"])
amounts = st.sampled_from([0, 1, 7, 40, 100])
parts = st.sampled_from([None, None, 1, 30, 100])
Call = tuple[str, str, dict[str, Any]]
"""(verb, player, what is said beside)."""


class Recount:
    """What a player's events come to, counted by hand."""

    def __init__(self, events: Sequence[tuple[Event, datetime]]) -> None:
        self.accounts: dict[str, int] = defaultdict(int)
        self.bets: dict[str, Staked] = {}
        self.day_of: dict[str, date] = {}  # in UTC, as where these players live
        self.returned: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.foreign: set[str] = (
            set()
        )  # bets of whose bonus a part went to the house in their own era, or came back in another
        self.wagered: list[tuple[date, int]] = []
        self.lost: list[tuple[date, int]] = []
        era = 0
        for event, at in events:
            if isinstance(event, BonusForfeited):
                era += 1
            if isinstance(event, wallets.WalletEvent):
                for account, amount in wallets.postings(event):
                    self.accounts[account] += amount
            match event:
                case Staked():
                    assert event.bonus_era == era
                    self.bets[event.reference] = event
                    day = self.day_of[event.reference] = max(event.day, at.date())
                    self.wagered.append((day, event.money.amount))
                    self.lost.append((day, sum(m.money.amount for m in event.movements if m.source == CASH)))
                case Won():
                    day = max(event.day, at.date())
                    self.lost.append((day, -sum(m.money.amount for m in event.movements if m.target == CASH)))
                case RolledBack():
                    self._roll_back(event, era)

    def _roll_back(self, event: RolledBack, era: int) -> None:
        for each in event.movements:
            staked = self.bets[event.bet]
            self.returned[event.bet][each.target] += each.money.amount
            self.wagered.append((self.day_of[event.bet], -each.money.amount))
            if each.target == CASH:
                self.lost.append((self.day_of[event.bet], -each.money.amount))
            elif (each.target == BONUS) != (staked.bonus_era == era):
                self.foreign.add(event.bet)


class Seamless(RuleBasedStateMachine):
    """Two processes, one log, two players; the references of bets, wins and rollbacks are few, so that they meet."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.house, self.games = self.run(self.open())
        self.players: list[str] = []
        self.recounted: tuple[int, list[tuple[str, Recount, Wallet]]] = (0, [])
        self.first: dict[tuple[str, str], tuple[Call, object]] = {}
        self.whole: set[tuple[str, str]] = set()

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(what)

    async def open(self) -> tuple[House, Games]:
        house = House()
        return house, Games(house.process.decider, house.another_process().decider)

    def teardown(self) -> None:
        self.run(self.house.close())
        self.runner.close()

    @initialize(bonus=st.sampled_from([0, 50]))
    def arrive(self, bonus: int) -> None:
        self.players = [self.run(self.games.player(100, bonus, session=f"session_{n}")) for n in range(2)]

    # What a provider may say

    @rule(
        target=calls, reference=references, amount=amounts, who=st.sampled_from([0, 0, 0, 1]), round_=st.integers(1, 2)
    )
    def bet(self, reference: str, amount: int, who: int, round_: int) -> Call:
        said = {"reference": reference, "amount": amount, "round": f"r{round_}", "session": f"session_{who}"}
        return self.say(("bet", self.players[who], said))

    @rule(
        target=calls,
        reference=references,
        amount=amounts,
        kind=st.sampled_from(["win", "win", "bonus_win", "free_win"]),
    )
    def win(self, reference: str, amount: int, kind: str) -> Call:
        return self.say((kind, self.players[0], {"reference": reference, "amount": amount, "session": "session_0"}))

    @rule(target=calls, reference=references, bet=references, amount=parts, who=st.sampled_from([0, 0, 0, 1]))
    def roll_back(self, reference: str, bet: str, amount: int | None, who: int) -> Call:
        said = {"reference": reference, "bet": bet, **({} if amount is None else {"amount": amount})}
        return self.say(("rollback", self.players[who], said))

    @rule(target=calls, reference=references)
    def close(self, reference: str) -> Call:
        return self.say(("close", self.players[0], {"reference": reference}))

    @rule(call=calls, by=st.integers(0, 1))
    def say_again(self, call: Call, by: int) -> None:
        self.say(call, by)

    def say(self, call: Call, by: int = 0) -> Call:
        """Ask, and hold the answer against the first one."""
        verb, player, said = call
        try:
            receipt: Receipt = self.run(self.games.ask(verb, player, by=by, **said))
            answer: object = receipt.answer
        except (BetUnknown, KeyReused):
            return call
        except InvalidAmount as error:
            if not isinstance(error, InsufficientFunds):  # to be sent again
                return call
            answer = (type(error), error.facts)
        except Rejected as error:
            answer = (type(error), error.facts)
        else:
            if verb == "rollback" and "amount" not in said:
                self.whole.add((player, said.get("bet", said["reference"])))
        before, told = self.first.setdefault((verb, said["reference"]), (call, answer))
        if before == call:
            assert told == answer, f"{call} was answered otherwise before"
        return call

    # What else may happen

    @rule(account=st.sampled_from([CASH, BONUS]), amount=st.sampled_from([1, 30]))
    def give(self, account: str, amount: int) -> None:
        self.run(self.games.give(self.players[0], account, amount))

    @rule()
    def forfeit(self) -> None:
        def decide(wallet: Wallet, **_: object) -> list[wallets.WalletEvent]:
            return wallets.forfeit_bonus(wallet, currency=EUR, transaction="bonus_1")

        self.run(self.games.record(self.players[0], decide))

    @rule(hours=st.sampled_from([5, 24, 24 * 8]))
    def wait(self, hours: int) -> None:
        """Everybody opens a session again."""
        self.games.now += timedelta(hours=hours)
        self.house.log.clock.now += hours * 3_600_000_000
        for n, player in enumerate(self.players):
            self.run(self.games.record(player, self.games.opened(f"session_{n}")))

    # The laws

    def read(self, player: str) -> list[tuple[Any, datetime]]:
        """The events of a player's wallet, and when they were recorded."""
        entries = self.house.log._streams.get(wallets.stream(PlayerId(player)).name, [])
        return [(read.event, read.at) for read in map(CODEC.decode, entries)]

    def events(self, player: str) -> list[Event]:
        return [event for event, _ in self.read(player)]

    def recounts(self) -> list[tuple[str, Recount, Wallet]]:
        """Of each player what the events come to, counted by hand, and as the wallet has it."""
        length = len(self.house.log.entries)
        if self.recounted[0] != length:
            self.recounted = (length, [self.recount(player) for player in self.players])
        return self.recounted[1]

    def recount(self, player: str) -> tuple[str, Recount, Wallet]:
        state = wallets.WALLETS.initial
        read = self.read(player)
        for event, at in read:
            state = wallets.WALLETS.evolve(state, event, at)
        return player, Recount(read), state

    @invariant()
    def books_balance_and_no_account_is_overdrawn(self) -> None:
        for player, recount, wallet in self.recounts():
            assert sum(recount.accounts.values()) == 0
            held = Accounts(*(recount.accounts[account] for account in OWN))
            assert wallet.balance(EUR) == held
            assert min(held.cash, held.bonus, held.reserved) >= 0
            for event in self.events(player):
                assert min(getattr(event, "accounts", held).cash, getattr(event, "accounts", held).bonus) >= 0

    @invariant()
    def of_a_bet_no_more_comes_back_than_was_staked_and_to_where_it_came_from(self) -> None:
        for _, recount, _ in self.recounts():
            for reference, back in recount.returned.items():
                bet = recount.bets[reference]
                funded = {each.source: each.money.amount for each in bet.movements}
                assert back[CASH] <= funded.get(CASH, 0)
                assert back[BONUS] + back["house:bonus"] <= funded.get(BONUS, 0)
                assert set(back) <= {CASH, BONUS, "house:bonus"}
            assert not recount.foreign

    @invariant()
    def a_bet_that_was_rolled_back_whole_has_cost_nothing(self) -> None:
        for player, recount, _ in self.recounts():
            for reference, bet in recount.bets.items():
                if (player, reference) in self.whole:
                    back = sum(recount.returned[reference].values())
                    assert back == bet.money.amount

    @invariant()
    def a_reference_has_one_effect(self) -> None:
        seen = set()
        for player in self.players:
            for event in self.events(player):
                key = _call_of(event)
                assert key is None or key not in seen, f"{key} stands twice"
                seen.add(key)

    @invariant()
    def what_was_used_is_what_a_naive_recount_gives(self) -> None:
        for _, recount, wallet in self.recounts():
            for usage, counted in ((wallet.wagered, recount.wagered), (wallet.lost, recount.lost)):
                for period in (Period.DAY, Period.WEEK, Period.MONTH):
                    mine = sum(amount for day, amount in counted if _window(period, day) == _window(period, usage.day))
                    assert usage.within(period, day=usage.day, at=self.games.now) == mine

    @invariant()
    def a_state_survives_being_stored(self) -> None:
        for _, _, wallet in self.recounts():
            assert msgspec.json.decode(msgspec.json.encode(wallet), type=Wallet) == wallet


def _window(period: Period, day: date) -> tuple[int, ...]:
    match period:
        case Period.WEEK:
            return day.isocalendar()[:2]
        case Period.MONTH:
            return (day.year, day.month)
    return (day.toordinal(),)


def _call_of(event: Event) -> tuple[str, str] | None:
    """Which call of the provider an event answers."""
    match event:
        case Staked(reference=reference) | StakeRefused(reference=reference):
            return ("bet", reference)
        case Won(reference=reference, kind=kind):
            return (kind, reference)
        case RolledBack(reference=reference):
            return ("rollback", reference)
        case RoundClosed(reference=reference):
            return ("close", reference)
        case GameRefused(verb=verb, reference=reference):
            return (verb, reference)
    return None


class Repeated(Seamless):
    """Bets that are taken, refused and repeated."""

    give = forfeit = wait = win = close = roll_back = None  # type: ignore[assignment]


class _One(Seamless):
    """One player, whose bets cash and bonus fund together."""

    give = wait = win = close = bet = roll_back = say_again = forfeit = arrive = None  # type: ignore[assignment]

    @initialize()
    def arrive_with_both(self) -> None:
        self.players = [self.run(self.games.player(100, 50, session="session_0"))]


class TakenBack(_One):
    """One bet, what is rolled back of it, and a bonus that is forfeited meanwhile. (One rule: none is ever left out.)"""

    @rule(
        reference=references, amount=st.sampled_from([None, 30, None, 80]), late=st.booleans(), forfeits=st.booleans()
    )
    def bet_and_take_back(self, reference: str, amount: int | None, late: bool, forfeits: bool) -> None:
        """In this order, unless the bet is `late`."""
        if not late:
            Seamless.bet(self, "t1", 120, 0, 1)
        if forfeits:
            Seamless.forfeit(self)
        Seamless.roll_back(self, reference, "t1", amount, 0)
        if late:
            Seamless.bet(self, "t1", 120, 0, 1)


class Counted(_One):
    """What limits count, from day to day."""

    @rule(
        verb=st.sampled_from(["bet", "win", "bonus_win", "rollback"]),
        reference=references,
        amount=st.sampled_from([40, 120]),
        hours=st.sampled_from([0, 0, 0, 24, 24 * 8]),
    )
    def say_and_wait(self, verb: str, reference: str, amount: int, hours: int) -> None:
        said = {} if verb == "rollback" else {"amount": amount}
        self.say((verb, self.players[0], {"reference": reference, "session": "session_0", **said}))
        if hours:
            Seamless.wait(self, hours)
