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
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from commands.games import bet_id
from commands.plan import Receipt
from domain import wallets
from domain.bets import TooManyEarly
from domain.errors import Invalid, KeyReused, Rejected
from domain.kernel import EPOCH, Event, PlayerId
from domain.wallets import (
    BONUS,
    CASH,
    OWN,
    Accounts,
    BonusForfeited,
    GameRefused,
    InsufficientFunds,
    Played,
    RolledBack,
    RoundClosed,
    Staked,
    StakeRefused,
    Wallet,
    Won,
)
from policies.limits import Period
from policies.play import is_stuck
from tests.commands.gaming import EUR, STUDIO, Games
from tests.commands.house import CODEC, House

references = st.sampled_from(["t1", "t2", "t3"])
amounts = st.sampled_from([0, 1, 7, 40, 100])
parts = st.sampled_from([None, None, 1, 30, 100])
Call = tuple[str, str, dict[str, Any]]
"""(verb, player, what is said beside)."""


class InRound(NamedTuple):
    """All that was ever heard of a round."""

    stakes: int = 0
    returned: int = 0
    backs: int = 0
    bets: int = 0
    is_told: bool = False
    heard_at: datetime = EPOCH

    @property
    def is_open(self) -> bool:
        return not self.is_told and (self.stakes > self.returned or (self.bets > 0 and self.stakes == self.backs == 0))


class Recount:
    """What a player's events come to, counted by hand."""

    def __init__(self, events: Sequence[tuple[Event, datetime]]) -> None:  # noqa: C901, PLR0912 — one case an event
        self.accounts: dict[str, int] = defaultdict(int)
        self.bets: dict[str, Staked] = {}
        self.day_of: dict[str, date] = {}  # in UTC, as where these players live
        self.returned: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.foreign: set[str] = (
            set()
        )  # bets of whose bonus a part went to the house in their own era, or came back in another
        self.wagered: list[tuple[date, int]] = []
        self.lost: list[tuple[date, int]] = []
        self.lost_in: dict[str, int] = {}  # by session
        self.rounds: dict[str, InRound] = defaultdict(InRound)
        self.voided_early: list[RolledBack] = []  # of rounds that were not stuck
        era, void = 0, ""
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
                    cash = sum(m.money.amount for m in event.movements if m.source == CASH)
                    self.lost.append((day, cash))
                    session = event.played.session
                    self.lost_in[session] = self.lost_in.get(session, 0) + cash
                    self._hear(event.played, at, stakes=event.money.amount, bets=1)
                case Won():
                    day = max(event.day, at.date())
                    cash = sum(m.money.amount for m in event.movements if m.target == CASH)
                    self.lost.append((day, -cash))
                    if session := event.played.session:
                        self.lost_in[session] = self.lost_in.get(session, 0) - cash
                    if event.played.round:
                        self._hear(event.played, at, is_told=True)
                case RoundClosed():
                    self._hear(event.played, at, is_told=True)
                case RolledBack():
                    self._roll_back(event, era)
                    if event.void and event.reference != void:
                        void, found = event.reference, self.rounds[event.played.round]
                        if not found.is_open or not is_stuck(found.heard_at, at):
                            self.voided_early.append(event)
                    if event.staked_at is not None:
                        self._hear(event.played, None if event.void else at, returned=event.money.amount, backs=1)

    def _hear(self, played: Played, at: datetime | None, *, is_told: bool = False, **more: int) -> None:
        found = self.rounds[played.round]
        sums = {name: getattr(found, name) + amount for name, amount in more.items()}
        self.rounds[played.round] = found._replace(
            is_told=found.is_told or is_told, heard_at=at or found.heard_at, **sums
        )

    def _roll_back(self, event: RolledBack, era: int) -> None:
        for each in event.movements:
            staked = self.bets[event.bet]
            self.returned[event.bet][each.target] += each.money.amount
            self.wagered.append((self.day_of[event.bet], -each.money.amount))
            if each.target == CASH:
                self.lost.append((self.day_of[event.bet], -each.money.amount))
                self.lost_in[staked.played.session] -= each.money.amount
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
        self.asked: dict[tuple[str, str], int] = {}
        self.parts: dict[tuple[str, str], int] = defaultdict(int)

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
        of=st.sampled_from([{"session": "session_0"}, {"session": ""}, {"session": "", "round": "", "bet": "t1"}]),
    )
    def win(self, reference: str, amount: int, kind: str, of: dict[str, str]) -> Call:
        return self.say((kind, self.players[0], {"reference": reference, "amount": amount, **of}))

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
        except KeyReused:
            return call
        except (Invalid, TooManyEarly) as error:
            if not isinstance(
                error, InsufficientFunds
            ):  # nothing was recorded: it is decided anew when it is sent again
                return call
            answer = (type(error), error.facts)
        except Rejected as error:
            answer = (type(error), error.facts)
        else:
            if not receipt.repeated:
                self.count(verb, player, said)
        before, told = self.first.setdefault((verb, said["reference"]), (call, answer))
        if before == call:
            assert told == answer, f"{call} was answered otherwise before"
        return call

    def count(self, verb: str, player: str, said: dict[str, Any]) -> None:
        """What has an effect."""
        bet = (player, said.get("bet", said["reference"]))
        match verb:
            case "bet":
                self.asked[bet] = said["amount"]
            case "rollback" if "amount" in said:
                self.parts[bet] += said["amount"]
            case "rollback":
                self.whole.add(bet)

    # What else may happen

    @rule(bets=st.sets(references, min_size=1), round_=st.integers(1, 2))
    def void(self, bets: set[str], round_: int) -> None:
        body = {"provider": STUDIO, "game": "book", "round": f"r{round_}", "bets": sorted(bets)}
        path = f"/v1/players/{self.players[0]}/rounds/void"
        self.house.now = self.games.now
        try:
            receipt = self.run(self.house.process.post(path, body, actor="service:test", roles=["supervisor"]))
        except Rejected:
            return
        self.whole |= {(self.players[0], each.bet) for each in receipt.answer.bets}

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

    def read(self, player: str) -> list[tuple[Any, datetime, str]]:
        """The events of a player's wallet, when they were recorded, and the ids of their commands."""
        entries = self.house.log._streams.get(wallets.stream(PlayerId(player)).name, [])
        return [(read.event, read.at, read.body.command.id) for read in map(CODEC.decode, entries)]

    def events(self, player: str) -> list[Event]:
        return [event for event, _, _ in self.read(player)]

    def recounts(self) -> list[tuple[str, Recount, Wallet]]:
        """Of each player what the events come to, counted by hand, and as the wallet has it."""
        length = len(self.house.log.entries)
        if self.recounted[0] != length:
            self.recounted = (length, [self.recount(player) for player in self.players])
        return self.recounted[1]

    def recount(self, player: str) -> tuple[str, Recount, Wallet]:
        state = wallets.WALLETS.initial
        read = self.read(player)
        for event, at, _ in read:
            state = wallets.WALLETS.evolve(state, event, at)
        return player, Recount([(event, at) for event, at, _ in read]), state

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
    def of_a_bet_is_taken_what_no_part_has_given_back_before_or_after_it(self) -> None:
        for player, recount, _ in self.recounts():
            for reference, bet in recount.bets.items():
                if (player, reference) in self.asked and (player, reference) not in self.whole:
                    left = bet.money.amount - sum(recount.returned[reference].values())
                    assert left == max(0, self.asked[player, reference] - self.parts[player, reference])

    @invariant()
    def open_rounds_and_the_losses_of_sessions_are_known_exactly(self) -> None:
        for _, recount, wallet in self.recounts():
            known = {each.name.rpartition("\n")[2]: (each.staked, each.heard_at) for each in wallet.rounds.open}
            open_ = {name: each for name, each in recount.rounds.items() if each.is_open}
            assert known == {name: (each.stakes - each.returned, each.heard_at) for name, each in open_.items()}
            assert all(wallet.lost_in(session) == lost for session, lost in recount.lost_in.items())

    @invariant()
    def only_stuck_rounds_are_voided(self) -> None:
        for _, recount, _ in self.recounts():
            assert not recount.voided_early

    @invariant()
    def a_win_without_a_session_is_of_that_of_its_round(self) -> None:
        for player in self.players:
            sessions: dict[str, str] = {}
            for event in self.events(player):
                match event:
                    case Staked(played=played):
                        sessions[played.round] = played.session
                    case Won(played=played) if played.round:
                        assert played.session == sessions.get(played.round, played.session)

    @invariant()
    def a_reference_has_one_effect(self) -> None:
        seen = set()
        for player in self.players:
            for event, _, command in self.read(player):
                key = _call_of(event, command)
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


def _call_of(event: Event, command: str) -> tuple[str, str] | None:  # noqa: PLR0911 — one case an event
    """Which call of the provider an event answers."""
    match event:
        case RolledBack(void=True):
            return None
        case RolledBack(reference=reference) if command == bet_id(STUDIO, reference).hex():
            return ("bet", reference)
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

    give = forfeit = wait = win = close = roll_back = void = None  # type: ignore[assignment]


class _One(Seamless):
    """One player, whose bets cash and bonus fund together."""

    give = wait = win = close = bet = roll_back = say_again = forfeit = arrive = void = None  # type: ignore[assignment]

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


class Stuck(_One):
    """One round, of which something is heard, and which is voided."""

    @rule(
        verb=st.sampled_from(["bet", "win", "rollback", "close"]),
        reference=references,
        amount=st.sampled_from([0, 40]),
        hours=st.sampled_from([0, 5]),
    )
    def say_and_void(self, verb: str, reference: str, amount: int, hours: int) -> None:
        more = {"bet": {"amount": amount, "session": "session_0"}, "win": {"amount": amount, "session": ""}}
        self.say((verb, self.players[0], {"reference": reference, **more.get(verb, {})}))
        if hours:
            Seamless.wait(self, hours)
        Seamless.void(self, {reference}, 1)
