"""
Players at the games of a provider: a house in which they have money, an open session, and may bet.

What leads there (deposits, KYC, launches) is other tests' business: here it is recorded as it would stand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from access.policy import Principal
from commands import games
from commands.decider import Decider
from commands.games import GameAnswer, GameBalance, GameCall
from commands.plan import Context, Plan, Receipt
from domain import bets, kyc, limits, play, players, protection, wallets
from domain.kernel import AnyStream, Event, Money, PlayerId, suffix, uuid7
from domain.kyc import Approved
from domain.play import SessionLaunched, SessionOpened
from domain.players import DataKey, Registered
from domain.wallets import Direction, Wallet
from policies import gates
from tests.commands.house import NOON, SECRET, House
from tests.ledger import new_id

OURS = {
    "player": players.stream, "kyc": kyc.stream, "limits": limits.stream, "wallet": wallets.stream, "bet": bets.stream,
    "play": play.stream, "protection": protection.stream,
}  # fmt: skip
STUDIO = "studio"
WHERE = {"game": "book", "round": "r1", "session": "session_1"}
EUR = "EUR"

_numbers = itertools.count(1)


class Nothing(msgspec.Struct, frozen=True):
    pass


class Games:
    """Players and providers over one decider, or several. `now` goes on by a millisecond a call."""

    def __init__(self, *deciders: Decider, now: datetime = NOON) -> None:
        self.deciders = deciders
        self.now = now

    @classmethod
    def of(cls, house: House) -> Games:
        return cls(house.process.decider)

    def streams(self, player: str) -> dict[str, AnyStream[Any]]:
        return {role: stream(PlayerId(player)) for role, stream in OURS.items()}

    async def record(self, player: str, decide: Sequence[Event] | Callable[..., Sequence[Event]]) -> None:
        """Put events on the streams of a player; `decide(**states)` may make them from what is there."""
        self.now += timedelta(milliseconds=1)
        decision = (lambda **_: decide) if isinstance(decide, list) else decide
        plan = Plan(
            context=Context(Principal("system", frozenset()), self.now, new_id(), None),
            require=(),
            writes=self.streams(player),
            decision=lambda _at, **states: decision(**states),  # type: ignore[operator]
            answer=lambda _: Nothing(),
        )
        await self.deciders[0].decide(plan)

    async def player(
        self, cash: int = 0, bonus: int = 0, *, session: str = "session_1", country: str = "FI", known: bool = True
    ) -> str:
        """A player's id: known to us, with money, and with a session open at the studio."""
        number = next(_numbers)
        player = "player_" + suffix(uuid7(self.now, number.to_bytes(10, "big"), 42))
        registered = Registered(brand="main", country=country, currency=EUR, key=DataKey("", ""))
        approved = [Approved(gates.Level.ENHANCED, "document", age_verified=True)] if known else []
        await self.record(player, [registered, *approved, *self.opened(session)])
        for account, amount in (("cash", cash), ("bonus", bonus)):
            if amount:
                await self.give(player, account, amount)
        return player

    def opened(
        self, session: str, provider: str = STUDIO, kind: play.Kind = play.Kind.SLOT, loss: Money | None = None
    ) -> list[Event]:
        ends = self.now + timedelta(days=3650)  # PostgreSQL has a clock of its own
        launched = SessionLaunched(
            session=session, provider=provider, game="book", kind=kind, token_hash="0" * 64, ends_at=ends, loss=loss
        )
        return [launched, SessionOpened(session=session, ends_at=ends, seconds=3650 * 86_400)]

    async def give(self, player: str, account: str, amount: int, direction: Direction = Direction.CREDIT) -> None:
        def decide(wallet: Wallet, **_: object) -> Sequence[Event]:
            return wallets.adjust(
                wallet, account=account, direction=direction, money=Money(amount, EUR), transaction="adjustment_1"
            )

        await self.record(player, decide)

    def plan(self, verb: str, player: str, *, provider: str = STUDIO, **said: Any) -> Plan:
        """What a call is, by default in one round of one game, in cents."""
        self.now += timedelta(milliseconds=1)
        more = {**WHERE, **({"currency": EUR} if "amount" in said else {}), **said}
        call = msgspec.convert({"player": player, **more}, GameCall)
        return games.plan(provider, verb, call, games.context(provider, verb, call, now=self.now, secret=SECRET))

    async def ask(self, verb: str, player: str, *, by: int = 0, **said: Any) -> Receipt:
        """Raises Rejected. `by`: which decider is asked."""
        return await self.deciders[by].decide(self.plan(verb, player, **said))

    async def balance(self, player: str) -> tuple[int, int]:
        """(cash, bonus), as the log has it now: providers are told only of who plays at theirs."""
        held = (await self.wallet(player)).balance(EUR)
        return held.cash, held.bonus

    async def wallet(self, player: str) -> Wallet:
        self.now += timedelta(milliseconds=1)
        plan = Plan(
            context=Context(Principal("system", frozenset()), self.now, new_id(), None),
            require=(),
            writes={"wallet": wallets.stream(PlayerId(player))},
            decision=lambda _at, **_: (),
            answer=lambda _: Nothing(),
            tells=lambda wallet: wallet,
        )
        state = (await self.deciders[0].decide(plan)).answer
        assert isinstance(state, Wallet)
        return state


def balance(answer: Any) -> tuple[int, int]:
    """(cash, bonus), as an answer says."""
    assert isinstance(answer, GameAnswer)
    assert isinstance(answer.balance, GameBalance)
    return answer.balance.cash, answer.balance.bonus
