"""
Voids of game rounds: a person gives back what is left of stakes of whose outcome nothing was heard.

The money moves by rollbacks of the bets, as a provider's would (domain.bets); what stands here is who wanted it, and why, and how
much one person has given back by now, which policies.approvals asks.

Invariants:
    - a void stands in one command with the rollbacks that it explains, and gives back nothing by itself;
    - it concerns bets of one round of one player that is stuck: open, and quiet for as long as the house's policy says;
    - a round whose outcome may have been told and forgotten is left alone, and so is a bet from before its round began anew;
    - sums are those of one day (UTC), by the time of recording, and count for whoever asked.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import NewType

from domain.adjustments import Adjustments
from domain.errors import Conflict
from domain.kernel import STREAMS_CACHED, Aggregate, Event, Intervention, Money, PlayerId, Stream, parse_id
from domain.players import Player
from domain.tallies import Round
from domain.wallets import Played, Staked
from policies.play import HOUSE_ROUND_STUCK_AFTER, HOUSE_SESSION_LIVES, is_stuck

VoidId = NewType("VoidId", str)

# Events: the tags and fields are the storage format.


class Voided(Event, frozen=True, kw_only=True, tag="round.voided"):
    """What was left of these bets, `money` in all, went back to the player. `bets`: the provider's references.

    `operator`: who asked for it, who need not be the one whose command ran it; `person`: who is behind that account, if it does
    not speak for itself.
    """

    void: VoidId
    played: Played
    bets: tuple[str, ...]
    money: Money
    operator: str
    intervention: Intervention | None = None
    person: str = ""

    @property
    def behind(self) -> str:
        return self.person or self.operator


# State


def evolve(voids: Adjustments, event: Voided, at: datetime) -> Adjustments:
    return voids.moved(event.behind, event.money.amount, at)


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
    """Facts: stuck_at, when it will be if nothing more is heard of it; null: it is over, or may be."""

    code = "round_not_stuck"
    title = "The round is over, or something was heard of it lately: its outcome may be on its way"


def require_of(where: Played, bet: Staked) -> None:
    """`where`: provider, game and round, which the bet must be of. Raises BetNotOfRound."""
    played = bet.played
    if (played.provider, played.game, played.round) != (where.provider, where.game, where.round):
        raise BetNotOfRound(bet=bet.reference)


def require_stuck(found: Round | None, first: datetime, at: datetime) -> None:
    """`found`: the round as the player's wallet knows it, which knows all that are open. `first`: of its bets that are to be given
    back, when the first was recorded. Raises RoundNotStuck.
    """
    if found is None or not found.is_open or first < found.began_at or _may_be_over(found):
        raise RoundNotStuck(stuck_at=None)
    if not is_stuck(found.heard_at, at):
        raise RoundNotStuck(stuck_at=found.heard_at + HOUSE_ROUND_STUCK_AFTER)


def _may_be_over(found: Round) -> bool:
    """Whether its outcome may be one that was forgotten. A bet comes no later after that than its session may last."""
    return found.forgot_at is not None and found.began_at < found.forgot_at + HOUSE_SESSION_LIVES


def void(player: Player, made: Voided) -> list[Voided]:
    """Say why money goes back; nothing, where nothing was left of any bet. Raises NotFound."""
    player.require()
    return [made] if made.bets else []
