"""
Commands that protect a player, in a region that cannot reach the one that owns them; and taking up what was recorded so.

The command is the very one that the owner would have run, by the same id: what it decides from what is held here stands on this
region's own stream instead. Should the owner have run it after all, taking it up changes nothing.

Invariants:
    - only what protects is recorded without ownership: a raise, a lift, and whatever else needs the owner, waits for it;
    - a safeguard is taken up once: what counts of it stands on the player's streams with the word that it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from access import resources
from access.policy import Action
from commands.edge import Edge
from commands.everywhere import everywhere
from commands.plan import Plan, RefusedFact
from commands.protection import ProtectionChanged, streams, with_ends
from domain import anywhere, limits, players, protection, safeguards
from domain.errors import Conflict, NotFound, Rejected
from domain.kernel import Aggregate, AnyStream, Event, PlayerId
from domain.limits import LIMITS, Limits
from domain.logins import Login
from domain.play import Play
from domain.players import PLAYERS, Player
from domain.protection import PROTECTION, Protection, Stop
from domain.safeguards import SAFEGUARDS, Safeguard, Safeguards
from policies.limits import MONEY_LAUNDERING

_ONE: Final = "/v1/players/{player_id}"
PATHS: Final = frozenset(
    {
        f"{_ONE}/time-out",
        f"{_ONE}/panic",
        f"{_ONE}/exclude",
        f"{_ONE}/blocks",
        f"{_ONE}/block",
        f"{_ONE}/limits",
        f"{_ONE}/limits/deposit",
        f"{_ONE}/limits/operator",
        f"{_ONE}/consents/withdraw",
    }
)
"""Of commands that may be recorded without ownership, as far as they protect."""

OPENED: Final[Mapping[str, Stop]] = {
    f"{_ONE}/deposits": Stop.DEPOSIT,
    f"{_ONE}/withdrawals": Stop.WITHDRAW,
    f"{_ONE}/logins": Stop.LOGIN,
    f"{_ONE}/sessions": Stop.BET,
    "/v1/games/{provider}/authenticate": Stop.BET,
    "/v1/games/{provider}/bet": Stop.BET,
}
"""By path, what a command opens to a player that protection may close: it is not sent to an owner who may not know of that yet."""


class NeedsOwner(Conflict):
    """The command does more, or other things, than to protect. It is told as what kept it from its owner."""

    code = "needs_owner"
    title = "This is recorded by the region that owns the player alone"


def seen_by(plan: Plan, logs: Sequence[str]) -> Mapping[str, AnyStream[Any]]:
    """All that such a plan is decided from, to be looked at here."""
    whole = everywhere(plan, logs)
    return {**whole.writes, **whole.reads}


def record(plan: Plan, player_id: PlayerId, log: str, logs: Sequence[str], held: Mapping[str, Any]) -> Plan:
    """The same command, recorded by `log`, which does not own the player. `held`: of `seen_by`, what is held here.

    Raises what it would raise there, and NeedsOwner.
    """
    whole, here = everywhere(plan, logs), safeguards.stream(log, player_id)
    player = next(state for state in held.values() if isinstance(state, Player))

    def decision(at: datetime, own: Safeguards) -> Sequence[Event]:
        states = {**held, here.name: own}
        decided = whole.decision(at, **states)
        if isinstance(decided, RefusedFact):
            raise decided.error
        made = [fact for event in decided if (fact := safeguards.of(event)) is not None]
        there = {each: states[safeguards.stream(each, player_id).name] for each in logs}
        before = {
            stream.aggregate: anywhere.included(stream.aggregate, states[role], there)
            for role, stream in plan.writes.items()
            if stream.aggregate is LIMITS
        }
        _require_protective(decided, made, before)
        if not decided:
            if not whole.decision(at, **{**states, **dict.fromkeys(map(_name, logs), SAFEGUARDS.initial)}):
                raise NeedsOwner  # it is so in the copy; the owner may have ended it since
            whole.decision(at, **states)  # a plan that records nothing answers of what it was asked last
        return made

    def _name(each: str) -> str:
        return safeguards.stream(each, player_id).name

    key = whole.key
    return Plan(
        plan.context,
        require=plan.require,
        writes={"own": here},
        decision=decision,
        answer=plan.answer,
        key=None if key is None else lambda own: key(**{**held, here.name: own}),
        about=resources.of({"player": player}, plan.context.now, plan.about)[0],
    )


_FOLLOWS: Final = ("play.", "login.")
"""Beginnings of the tags of what the owner adds when it takes a fact up: the ends of games and log-ins."""


def _require_protective(decided: Sequence[Event], made: Sequence[Safeguard], held: Mapping[Any, Any]) -> None:
    """Raises NeedsOwner."""
    if len(made) < sum(not event.tag.startswith(_FOLLOWS) for event in decided):
        raise NeedsOwner
    for fact in made:
        if getattr(fact, "reason", "") in MONEY_LAUNDERING:  # whose secrecy follows from the player's own streams
            raise NeedsOwner
        if isinstance(fact, safeguards.LimitSet) and not limits.take_up(held[LIMITS], fact):
            raise NeedsOwner  # the one that holds is as low


def player_of(plan: Plan) -> PlayerId | None:
    """The player whose protection a plan reads or writes, if it does."""
    named = (stream for stream in (*plan.writes.values(), *plan.reads.values()) if stream.aggregate in _OF_PLAYER)
    return next((PlayerId("player_" + stream.name.partition("-")[2]) for stream in named), None)


_OF_PLAYER: Final[Mapping[Aggregate[Any], Callable[[PlayerId], AnyStream[Any]]]] = {
    PROTECTION: protection.stream,
    LIMITS: limits.stream,
    PLAYERS: players.stream,
}


class Here(NamedTuple):
    """What is held here of a player. `there`: by log, the safeguards."""

    states: Mapping[Aggregate[Any], Any]
    there: Mapping[str, Safeguards]

    @property
    def player(self) -> Player:
        found: Player = self.states[PLAYERS]
        return found

    def is_open(self) -> bool:
        """Whether the owner has something to take up."""
        return any(anywhere.is_open(each, self.states[each], self.there) for each in _OF_PLAYER)

    def refusal(self, action: Stop, at: datetime) -> Rejected | None:
        """Why the action is closed to the player, by what protects them and by a block that holds their money."""
        protected: Protection = anywhere.included(PROTECTION, self.states[PROTECTION], self.there)
        if (refused := protected.refusal(action, at)) or action is not Stop.WITHDRAW:
            return refused
        held = _holding(anywhere.included(PLAYERS, self.player, self.there))
        return None if _holding(self.player) else held  # the owner's own block it judges itself: it may be over


def _holding(player: Player) -> Rejected | None:
    """Why money that is theirs is not paid out. (Their own region's log may not have come so far that there is a player.)"""
    try:
        player.require_payable()
    except NotFound:
        return None
    except Rejected as held:
        return held
    return None


Look = Callable[[Mapping[str, AnyStream[Any]]], Awaitable[Mapping[str, Any]]]
"""commands.decider.Decider.look"""


async def look_here(players: Collection[PlayerId], logs: Sequence[str], look: Look) -> dict[PlayerId, Here]:
    """What is held here of players: of those for whom any region has recorded a safeguard, which are few."""
    found = await look({f"{each} {log}": safeguards.stream(log, each) for each in players for log in logs})
    there = {each: {log: found[f"{each} {log}"] for log in logs} for each in players}
    sheltered = [each for each, of in there.items() if any(state.version for state in of.values())]
    if not sheltered:
        return {}
    states = await look({f"{a.name} {each}": stream(each) for each in sheltered for a, stream in _OF_PLAYER.items()})
    return {each: Here({a: states[f"{a.name} {each}"] for a in _OF_PLAYER}, there[each]) for each in sheltered}


def take_up(player_id: PlayerId, log: str, edge: Edge) -> Plan:
    """Let what `log` has recorded to protect a player count by the player's own streams. For the owner's reaction."""

    def decide(
        at: datetime,
        state: Protection,
        playing: Play,
        login: Login,
        limits: Limits,
        player: Player,
        there: Safeguards,
    ) -> list[Event]:
        shut: list[Any] = anywhere.take_up(PROTECTION, state, log, there)
        return [
            *with_ends(shut, playing, login, player, at),
            *anywhere.take_up(LIMITS, limits, log, there),
            *anywhere.take_up(PLAYERS, player, log, there),
        ]

    return Plan(
        edge.context,
        require=(Action.PROTECTION_SET,),
        writes={
            **streams(player_id),
            "limits": limits.stream(player_id),
            "player": players.stream(player_id),
        },
        reads={"there": safeguards.stream(log, player_id)},
        decision=decide,
        answer=lambda _facts: ProtectionChanged(player_id),
    )
