"""
Voids of game rounds: a person gives back what is left of stakes of whose outcome nothing was heard.

The money moves by rollbacks of the bets, as a provider's would (domain.bets); what stands here is who wanted it, and why, and how
much one person has given back by now, which policies.approvals asks.

Invariants:
    - a void stands in one command with the rollbacks that it explains, and gives back nothing by itself;
    - it concerns bets of one round of one player, each of which has been quiet for as long as the house's policy says;
    - sums are those of one day (UTC), by the time of recording, and count for whoever asked.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import NewType

from domain.adjustments import Adjustments
from domain.errors import Conflict
from domain.kernel import STREAMS_CACHED, Aggregate, Event, Intervention, Money, PlayerId, Stream, parse_id
from domain.players import Player
from domain.wallets import Played, Staked

VoidId = NewType("VoidId", str)

# Events: the tags and fields are the storage format.


class Voided(Event, frozen=True, kw_only=True, tag="round.voided"):
    """What was left of these bets, `money` in all, went back to the player. `bets`: the provider's references.

    `operator`: who asked for it, who need not be the one whose command ran it.
    """

    void: VoidId
    played: Played
    bets: tuple[str, ...]
    money: Money
    operator: str
    intervention: Intervention | None = None


# State


def evolve(voids: Adjustments, event: Voided, at: datetime) -> Adjustments:
    return voids.moved(event.operator, event.money.amount, at)


ROUNDS = Aggregate("round", initial=Adjustments(), evolve=evolve, events=[Voided])


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Adjustments]:
    return Stream(ROUNDS, parse_id("player", player_id))


# Decisions


class BetNotOfRound(Conflict):
    """Facts: bet."""

    code = "bet_not_of_round"
    title = "The player has staked no such bet in this round"


class RoundNotStuck(Conflict):
    """Facts: bet, stuck_at."""

    code = "round_not_stuck"
    title = "A bet of this round is too young: its outcome may be on its way"


def require_stuck(bet: Staked, where: Played, *, staked_at: datetime, after: timedelta, at: datetime) -> None:
    """`where`: provider, game and round, which the bet must be of. Raises BetNotOfRound, RoundNotStuck."""
    played = bet.played
    if (played.provider, played.game, played.round) != (where.provider, where.game, where.round):
        raise BetNotOfRound(bet=bet.reference)
    if at < staked_at + after:
        raise RoundNotStuck(bet=bet.reference, stuck_at=staked_at + after)


def void(player: Player, made: Voided) -> list[Voided]:
    """Say why money goes back; nothing, where nothing was left of any bet. Raises NotFound."""
    player.require()
    return [made] if made.bets else []
