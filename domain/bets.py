"""
Bets: what game providers do to a player's money (the seamless wallet): bet, win, rollback, and the close of a round.

A bet pays from the accounts that the policy names, and a rollback gives back to the same ones, last paid first: as if the bet
had been for less. What happens stands on the wallet's stream; the stream of this module says only that a rollback was here, by
an event that claims an identifier: the bet's, if that has not come yet, or that of the next part of the bet.

Invariants:
    - of a bet no more is given back than was staked, by however many rollbacks, and only to the accounts that have paid;
    - bonus money that was forfeited since goes to the house instead;
    - bets, wins, rollbacks and closes of a round lead to the same books in whatever order and however often they arrive;
    - what was rolled back before its bet is not taken when that comes, and no more of it than was rolled back;
    - nobody begins another round who has tallies.ROUNDS_MAX open, so that the stakes of each are known as long as it is;
    - money that is owed is never refused for want of a bet, a session, or the right to play.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from domain.errors import Conflict, CurrencyMismatch
from domain.kernel import AMOUNT_MAX, STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, parse_id
from domain.limits import Limits
from domain.players import Player
from domain.tallies import ROUNDS_MAX, TALLIED_MAX, makes_room
from domain.wallets import BONUS, CASH, Movement, Played, RolledBack, RoundClosed, Staked, StakeRefused, Wallet, Won
from domain.windows import day_of
from policies import spending
from policies.limits import Kind, local, zone
from policies.spending import WINS, WinKind

# Events: the tags and fields are the storage format.


class Claimed(Event, frozen=True, tag="bet.claimed"):
    """What its envelope names under `claims` counts as taken. It stands after the rollback that has done so."""


# State


class Bets(msgspec.Struct, frozen=True):
    """How many identifiers were claimed; which ones, the log knows."""

    claimed: int = 0


def evolve(bets: Bets, _event: Claimed, _at: datetime) -> Bets:
    return Bets(bets.claimed + 1)


BETS = Aggregate("bet", initial=Bets(), evolve=evolve, events=[Claimed])


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Bets]:
    return Stream(BETS, parse_id("player", player_id))


# Decisions


Parts = Sequence[tuple[str, Money]]
"""(account, what it pays)."""


class BetElsewhere(Conflict):
    code = "bet_elsewhere"
    title = "The bet is another player's"


class TooManyRounds(Conflict):
    """Facts: most."""

    code = "too_many_rounds"
    title = "The player has as many rounds open as there may be; say first how some of them have ended"


class TooManyEarly(Conflict):
    """Facts: most."""

    code = "too_many_early"
    title = "Parts of as many bets as may be were rolled back before these came; say this one again once some are here"


def require_currency(player: Player, money: Money) -> None:
    """Raises NotFound, CurrencyMismatch."""
    player.require()
    if money.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=money.currency)


def cash_in(parts: Parts) -> int:
    """What of such a stake would be the player's cash, in minor units."""
    return sum(part.amount for account, part in parts if account == CASH)


def paying(wallet: Wallet, player: Player, money: Money) -> Parts:
    """Who would fund such a stake. Raises NotFound, CurrencyMismatch."""
    require_currency(player, money)
    return wallet.paying(money, spending.order(player.brand, player.jurisdiction))


def stake(
    wallet: Wallet,
    limits: Limits,
    player: Player,
    *,
    played: Played,
    reference: str,
    money: Money,
    parts: Parts,
    is_slot: bool,
    at: datetime,
    alive: Container[str] = (),
    ahead: int = 0,
) -> list[Staked]:
    """Take a bet, of nothing for a free round. Whether the player may play at all is asked before. `parts`: who funds it.

    `alive`: the player's sessions that have not ended. `ahead`: what was rolled back of it already, and is no part of `money`.
    Raises TooManyRounds, LimitRequired, LimitExceeded, UnderReview, InsufficientFunds.
    """
    there = local(player.jurisdiction, at)
    day = wallet.lost.counts_on(there.day)
    known = wallet.round(played)
    if len(wallet.rounds.open) >= ROUNDS_MAX and not (known and (known.is_open or known.told)):
        raise TooManyRounds(most=ROUNDS_MAX)
    if money.amount:
        limits.refuse_unset(player, at)
        in_round = money.amount + (known.staked if known else 0)
        limits.refuse_stake(in_round, player=player, is_slot=is_slot, at=at)
        for kind, amount, used in (
            (Kind.WAGER, money.amount, wallet.wagered),
            (Kind.LOSS, cash_in(parts), wallet.lost),
        ):
            if amount:  # bonus money alone loses no cash
                limits.refuse(
                    kind, amount, used, currency=money.currency, day=day, at=at, zone=zone(player.jurisdiction)
                )
    movements = tuple(Movement("bet", account, "house:ggr", part, reference) for account, part in parts)
    accounts = wallet.booked(movements, money.currency)
    return [
        Staked(
            played=played,
            reference=reference,
            money=money,
            movements=movements,
            accounts=accounts,
            day=day,
            utc_offset=there.utc_offset,
            bonus_era=wallet.bonus_era,
            ahead=ahead,
            forgets=makes_room(wallet.sessions, played.session, alive),
        )
    ]


def in_session(played: Played, session: str) -> Played:
    """The same in a session that was found out."""
    return Played(played.provider, played.game, played.round, session)


def completed(played: Played, known: Played) -> Played:
    """The same, with what it does not say."""
    return Played(
        played.provider, played.game or known.game, played.round or known.round, played.session or known.session
    )


def win(
    wallet: Wallet,
    player: Player,
    *,
    played: Played,
    reference: str,
    kind: WinKind,
    money: Money,
    at: datetime,
    alive: Container[str] = (),
) -> list[Won]:
    """Pay what was won, perhaps nothing. It is of the session of its round, if `played` names none. `alive`: as for a bet.

    Raises NotFound, CurrencyMismatch, and InvalidAmount for what no account can hold.
    """
    require_currency(player, money)
    if not played.session and (known := wallet.round(played)):
        played = in_session(played, known.session)
    source, target = WINS[kind]
    movements = (Movement(kind, source, target, money, reference),) if money.amount else ()
    there = local(player.jurisdiction, at)
    return [
        Won(
            played=played,
            reference=reference,
            kind=kind,
            money=money,
            movements=movements,
            accounts=wallet.booked(movements, money.currency),
            day=wallet.lost.counts_on(there.day),
            utc_offset=there.utc_offset,
            forgets=makes_room(wallet.sessions, played.session, alive),
        )
    ]


def roll_back(
    wallet: Wallet,
    bet: Staked,
    *,
    staked_at: datetime,
    last: RolledBack | None,
    reference: str,
    amount: int | None = None,
    void: bool = False,
) -> list[RolledBack | Claimed]:
    """Give back a bet, or of it as much as `amount` and what is left: nothing, if all was given back before.

    `last`: the newest part that was, which has the total. `void`: a person does, not the provider.
    Raises InvalidAmount for what no account can hold.
    """
    returned, part = (last.total, last.part) if last else (0, 0)
    left = bet.money.amount - returned
    back = left if amount is None else min(left, amount)
    movements = tuple(_given_back(bet, returned, back, wallet.bonus_era, reference))
    event = RolledBack(
        played=bet.played,
        reference=reference,
        bet=bet.reference,
        part=part + 1 if back else 0,
        total=returned + back,
        money=Money(back, bet.money.currency),
        movements=movements,
        accounts=wallet.booked(movements, bet.money.currency),
        day=day_of(bet.day, bet.utc_offset, staked_at),
        staked_at=staked_at,
        void=void,
    )
    return [event, Claimed()] if back else [event]


def _given_back(bet: Staked, returned: int, back: int, era: int, reference: str) -> Iterator[Movement]:
    """The movements the other way, from the end, without the first `returned` of it and until `back` is reached."""
    for paid in reversed(bet.movements):
        before = min(paid.money.amount, returned)
        part = min(paid.money.amount - before, back)
        returned, back = returned - before, back - part
        if part:
            target = "house:bonus" if paid.source == BONUS and bet.bonus_era != era else paid.source
            yield Movement("rollback", paid.target, target, Money(part, bet.money.currency), reference)


def roll_back_nothing(
    wallet: Wallet,
    player: Player,
    *,
    played: Played,
    reference: str,
    bet: str,
    before: StakeRefused | RolledBack | None,
    amount: int | None = None,
) -> list[RolledBack | Claimed]:
    """Take back a bet that has moved nothing: it was refused or taken back `before`, or is not here, and then it never will be.

    A part of what is not here waits for it in the wallet, unless parts of TALLIED_MAX others do; of more than can be staked nothing
    will be taken at all. Raises NotFound, TooManyEarly.
    """
    player.require()
    waits = False
    if before is None and amount is not None and wallet.early_of(played, bet) + amount <= AMOUNT_MAX:
        if not wallet.may_wait(played, bet):
            raise TooManyEarly(most=TALLIED_MAX)
        waits = True
    event = _moving_nothing(wallet, player, played, reference, bet, ahead=amount if waits and amount else 0)
    return [event] if before or waits else [event, Claimed()]


def not_taken(wallet: Wallet, player: Player, *, played: Played, reference: str, money: Money) -> list[RolledBack]:
    """Note that a bet has come of which all was rolled back before. Raises NotFound, CurrencyMismatch."""
    require_currency(player, money)
    return [_moving_nothing(wallet, player, played, reference, reference)]


def _moving_nothing(
    wallet: Wallet, player: Player, played: Played, reference: str, bet: str, ahead: int = 0
) -> RolledBack:
    return RolledBack(
        played=played,
        reference=reference,
        bet=bet,
        part=0,
        total=0,
        money=Money(0, player.currency),
        movements=(),
        accounts=wallet.balance(player.currency),
        ahead=ahead,
    )


def close(wallet: Wallet, player: Player, *, played: Played, reference: str) -> list[RoundClosed]:
    """Note that a round is over. Raises NotFound."""
    player.require()
    accounts = wallet.balance(player.currency)
    return [RoundClosed(played=played, reference=reference, currency=player.currency, accounts=accounts)]
