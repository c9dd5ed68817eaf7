"""
The command on game rounds: give back what is left of stakes of which nothing more was heard.

A person names the bets, as GET /v1/rounds/{id} shows them: so it is these that a second person approves, and no read model decides
what is given back. Each bet is found in the log by the command that has placed it.

Invariants:
    - a void takes the next part of each bet, as the provider's own rollback does: whichever comes later finds nothing left;
    - it gives nothing back in a round that is over, or of which its provider has said anything lately;
    - a win, a bet or a close that comes afterwards is booked as if there had been none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands import games
from commands.edge import Edge, Endpoint, Why, intervention
from commands.games import Named, Perhaps
from commands.plan import Fact, Plan
from commands.sealing import KeyNotHeld
from domain import bets, players, rounds, wallets
from domain.errors import InvalidAmount, NotFound
from domain.kernel import Event, Money, PlayerId
from domain.players import Player
from domain.rounds import BetNotOfRound, RoundNotStuck, Voided, VoidId
from domain.wallets import Accounts, Played, RolledBack, Staked, Wallet
from policies.approvals import VOID

BETS_MAX = 50
"""How many bets one command gives back; a round of more is voided by several."""


class VoidRound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A round, and the references of its bets, all in the provider's own words."""

    provider: Named
    game: Perhaps = ""
    round: Named
    bets: Annotated[list[Named], msgspec.Meta(min_length=1, max_length=BETS_MAX)]
    intervention: Why | None = None


class Returned(msgspec.Struct, frozen=True):
    """What of a bet was given back now, in minor units."""

    bet: str
    amount: int


class RoundVoided(msgspec.Struct, frozen=True):
    """`void`: the id of what was done, empty where nothing was left. `accounts`: what the player holds afterwards, in minor units."""

    void: str
    returned: Money
    bets: list[Returned]
    accounts: Accounts


def void(player_id: str, command: VoidRound, edge: Edge) -> Plan:
    """Give back what is left of the stakes of a stuck round. Above a threshold another person must approve.

    Raises NotFound, BetNotOfRound, RoundNotStuck, KeyNotHeld, and InvalidAmount for what no account can hold.
    """
    stream = wallets.stream(PlayerId(player_id))
    ids = {bet: games.bet_id(command.provider, bet) for bet in command.bets}
    made = Voided(
        void=VoidId("void_" + edge.new_child(stream.partition)),
        played=Played(command.provider, command.game, command.round),
        bets=(),
        money=Money(0, ""),
        operator=edge.context.principal.actor,
        person=edge.context.principal.person,
        intervention=intervention(command.intervention, edge.context),
    )

    def decision(at: datetime, wallet: Wallet, player: Player, **states: Any) -> Sequence[Event]:
        bets_ = [(bet, states[f"bet_{place}"], states[f"parts_{place}"]) for place, bet in enumerate(ids)]
        return _given_back(wallet, player, stream.name, bets_, made, at)

    def claims(events: Sequence[Event]) -> Mapping[int, bytes]:
        """Each rollback is followed by the event that claims its part."""
        return {
            place + 1: games.part_id(ids[event.bet], event.part)
            for place, event in enumerate(events, 1)
            if isinstance(event, RolledBack) and event.part
        }

    return Plan(
        edge.context,
        require=(Action.ROUND_VOID,),
        writes={
            "wallet": stream,
            "voids": rounds.stream(PlayerId(player_id)),
            "bet_claims": bets.stream(PlayerId(player_id)),
        },
        reads={"player": players.stream(PlayerId(player_id))},
        decision=decision,
        answer=_voided,
        tells=lambda wallet, player, **_: RoundVoided(
            "", Money(0, player.currency), [], wallet.balance(player.currency)
        ),
        key=lambda player, **_: player.sealing_key(),
        refers={f"bet_{place}": id_ for place, id_ in enumerate(ids.values())},
        series={f"parts_{place}": games.parts_of(id_) for place, id_ in enumerate(ids.values())},
        claims=claims,
    )


def _given_back(
    wallet: Wallet,
    player: Player,
    stream: str,
    named: Iterable[tuple[str, Sequence[Fact], Sequence[Fact]]],
    made: Voided,
    at: datetime,
) -> Sequence[Event]:
    """The void and its rollbacks, each with its claim. `named`: of each bet the facts of its command, and of its newest part."""
    player.require()
    found = wallet.round(made.played)
    returned: dict[str, int] = {}
    events: list[Event] = []
    first = at
    for bet, placed, parts in named:
        staked, staked_at = _staked(placed, bet, stream)
        rounds.require_of(made.played, staked)
        last = games.part_in(parts, bet)
        back, *claimed = bets.roll_back(wallet, staked, staked_at=staked_at, last=last, reference=made.void, void=True)
        if isinstance(back, RolledBack) and (back.money.amount or not staked.money.amount):  # or it was free
            wallet = wallets.evolve(wallet, back, at)
            events += [back, *claimed]
            returned[bet] = back.money.amount
            first = min(first, staked_at)
    if events:
        rounds.require_stuck(found, first, at)
    money = Money(sum(returned.values()), player.currency)
    return [*rounds.void(player, msgspec.structs.replace(made, bets=tuple(returned), money=money)), *events]


def _staked(facts: Sequence[Fact], bet: str, wallet: str) -> tuple[Staked, datetime]:
    """The bet, on this wallet, and when it was recorded. Raises BetNotOfRound."""
    match facts:
        case [Fact(stream=stream, event=Staked() as staked, at=at)] if at is not None and stream == wallet:
            return staked, at
    raise BetNotOfRound(bet=bet)


def _voided(facts: Sequence[Fact]) -> RoundVoided:
    [made] = [fact.event for fact in facts if isinstance(fact.event, Voided)]
    back = [fact.event for fact in facts if isinstance(fact.event, RolledBack)]
    return RoundVoided(
        made.void, made.money, [Returned(each.bet, each.money.amount) for each in back], back[-1].accounts
    )


ENDPOINTS = (
    Endpoint(
        VOID, void, VoidRound, RoundVoided, 201, (NotFound, BetNotOfRound, RoundNotStuck, InvalidAmount, KeyNotHeld)
    ),
)
