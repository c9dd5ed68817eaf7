"""What players do at games, for histories: sessions, bets in a few rounds, wins, rollbacks of bets in parts, and closes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from domain import bets, play, wallets
from domain.kernel import Event, Money, PlayerId
from domain.limits import LIMITS, Limits
from domain.players import Player
from domain.wallets import Played, RolledBack, Staked, Wallet
from policies.spending import WinKind
from tests.domain.history import A_MONTH, given
from tests.projections.books import Book

ROUNDS = 3

LIMITED: Limits = given(LIMITS, A_MONTH)
"""Nobody plays in DE who has not set a limit."""


class Bet(NamedTuple):
    """A bet that was taken, when, and the newest part of it that was given back."""

    player: PlayerId
    staked: Staked
    at: datetime
    last: RolledBack | None = None


def where(book: Book, player: PlayerId, which: int, amount: int) -> Played:
    """One of few rounds, of two games at two providers, in a session of the player's, or in none."""
    provider, game = (("studio", "book"), ("studio", "wheel"), ("arcade", "book"))[which % 3]
    sessions = ["", *book.state(play.stream(player)).sessions]
    return Played(provider, game, f"r{amount % ROUNDS}", sessions[amount % len(sessions)])


def play_on(book: Book, which: int, amount: int) -> None:
    """Something that this player does now, if it may be done."""
    player = book.players[which % len(book.players)]
    ACTS[amount % len(ACTS)](book, player, which, amount)


def _bet(book: Book, player: PlayerId, which: int, amount: int) -> None:
    reference = f"b{len(book.entries)}"

    def decide(wallet: Wallet, who: Player, at: datetime) -> Sequence[Event]:
        money = Money(0 if amount % 11 == 0 else amount, who.currency)
        parts = bets.paying(wallet, who, money)
        return bets.stake(
            wallet, LIMITED, who, played=where(book, player, which, amount // 5), reference=reference, money=money, parts=parts,
            is_slot=False, at=at,
        )  # fmt: skip

    for event in book.game(player, decide):
        assert isinstance(event, Staked)
        book.bets.append(Bet(player, event, book.recorded))


def _win(kind: WinKind) -> Callable[[Book, PlayerId, int, int], None]:
    def decided(book: Book, player: PlayerId, which: int, amount: int) -> None:
        there = where(book, player, which, amount // 5)
        if amount % 13 == 0:
            there = Played(there.provider)
        book.game(
            player,
            lambda wallet, who, at: bets.win(
                wallet, who, played=there, reference=f"w{len(book.entries)}", kind=kind,
                money=Money(0 if amount % 3 == 0 else amount, who.currency), at=at,
            ),
        )  # fmt: skip

    return decided


def _roll_back(book: Book, _player: PlayerId, which: int, amount: int) -> None:
    if not book.bets:
        return
    place = which % len(book.bets)
    bet = book.bets[place]
    events = book.game(
        bet.player,
        lambda wallet, _who, _at: bets.roll_back(
            wallet, bet.staked, staked_at=bet.at, last=bet.last, reference=f"x{len(book.entries)}",
            amount=amount if amount % 2 else None, void=amount % 3 == 0,
        ),
    )  # fmt: skip
    for event in events:
        if isinstance(event, RolledBack) and event.part:
            book.bets[place] = bet._replace(last=event)


def _roll_back_nothing(book: Book, player: PlayerId, which: int, amount: int) -> None:
    book.game(
        player,
        lambda wallet, who, _at: bets.roll_back_nothing(
            wallet,
            who,
            played=where(book, player, which, amount),
            reference=f"x{len(book.entries)}",
            bet="none",
            before=None,
        ),
    )


def _close(book: Book, player: PlayerId, which: int, amount: int) -> None:
    book.game(
        player,
        lambda wallet, who, _at: bets.close(
            wallet, who, played=where(book, player, which, amount // 5), reference=f"c{len(book.entries)}"
        ),
    )


def _forfeit(book: Book, player: PlayerId, _which: int, _amount: int) -> None:
    book.move(player, lambda wallet, currency: wallets.forfeit_bonus(wallet, currency=currency, transaction="bonus_1"))


def _session(book: Book, player: PlayerId, which: int, _amount: int) -> None:
    """The next step of a session: launched, opened, prolonged or ended. One that has ended is no more."""
    stream = play.stream(player)
    state: play.Play = book.state(stream)
    if state.sessions:
        name = list(state.sessions)[which % len(state.sessions)]
        found = state.sessions[name]
    else:
        name, found = f"session_{len(book.entries)}", None
    later = book.now + timedelta(hours=2)
    if found is None:
        event: Event = play.SessionLaunched(
            session=name, provider="studio", game="book", kind=play.Kind.SLOT, token_hash="0" * 64, ends_at=later
        )
    elif found.opened_at is None:
        event = play.SessionOpened(session=name, ends_at=later, seconds=7_200)
    elif found.ends_at < later:
        event = play.SessionProlonged(session=name, ends_at=later)
    else:
        event = play.SessionEnded(session=name, reason="player")
    book.record(stream, [event])


ACTS: Sequence[Callable[[Book, PlayerId, int, int], None]] = (
    _bet,
    _win(WinKind.WIN),
    _roll_back,
    _close,
    _session,
    _bet,
    _win(WinKind.FREE_WIN),
    _roll_back_nothing,
    _forfeit,
    _bet,
    _roll_back,
)
