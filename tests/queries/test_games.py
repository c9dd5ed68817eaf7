"""What operators are told of games: rounds that are stuck, the bets of a round, revenue, and sessions."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from domain import bets, play, wallets
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import Money, PlayerId
from domain.wallets import Played, Staked
from policies.play import HOUSE_ROUND_STUCK_AFTER
from policies.spending import WinKind
from queries import games
from tests.projections.books import NOON, Book
from tests.projections.playing import LIMITED
from tests.queries.explaining import Explained
from tests.queries.house import House

MINUTE = timedelta(minutes=1)
DAY = date(2026, 3, 1)


def bet(book: Book, player: PlayerId, reference: str, amount: int, **where: str) -> tuple[Staked, datetime]:
    money = Money(amount, "EUR")
    [staked] = book.game(
        player,
        lambda wallet, who, at: bets.stake(
            wallet, LIMITED, who, played=at_game(**where), reference=reference, money=money,
            parts=bets.paying(wallet, who, money), is_slot=False, at=at,
        ),
    )  # fmt: skip
    assert isinstance(staked, Staked)
    return staked, book.recorded


def at_game(provider: str = "studio", game: str = "book", round: str = "r1", session: str = "") -> Played:  # noqa: A002 — its name
    return Played(provider, game, round, session)


def back(book: Book, player: PlayerId, of: tuple[Staked, datetime], amount: int | None = None) -> None:
    book.game(
        player,
        lambda wallet, _who, _at: bets.roll_back(
            wallet, of[0], staked_at=of[1], last=None, reference="x", amount=amount
        ),
    )


def win(book: Book, player: PlayerId, amount: int, kind: WinKind = WinKind.WIN, **where: str) -> None:
    book.game(
        player,
        lambda wallet, who, at: bets.win(
            wallet, who, played=at_game(**where), reference=f"w{amount}", kind=kind, money=Money(amount, "EUR"), at=at
        ),
    )


def rich(book: Book) -> PlayerId:
    player = book.register()
    book.imported(player, 10_000, "2025-01-01T00:00:00Z")
    return player


async def names(context: Any, at: datetime, **chosen: Any) -> list[str]:
    """The rounds of a list, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = await games.rounds(context, at, cursor=cursor, limit=2, **chosen)
        found += [each.round for each in page.items]
        if page.next_cursor is None:
            return found
        assert len(page.items) == 2
        cursor = page.next_cursor


async def test_rounds_that_are_quiet_too_long_are_stuck(house: House) -> None:
    book = Book("eu")
    ada, bo = rich(book), rich(book)
    begun = book.now
    for n in range(1, 4):
        bet(book, ada, f"b{n}", 10, round=f"r{n}")
        book.wait(MINUTE)
    bet(book, bo, "b4", 10, round="r4", provider="arcade")
    win(book, ada, 0, round="r2")
    await house.project(book)
    context, at = house.context, begun + HOUSE_ROUND_STUCK_AFTER
    assert await names(context, at) == ["r2", "r4", "r3", "r1"]
    assert await names(context, at, status="open") == ["r1", "r3", "r4"]
    assert await names(context, at, status="closed") == ["r2"]
    assert await names(context, at, status="stuck") == []
    assert await names(context, at + 1.5 * MINUTE, status="stuck") == ["r1"]
    assert await names(context, at + 5 * MINUTE, status="stuck") == ["r1", "r3", "r4"]
    assert await names(context, at + 5 * MINUTE, status="stuck", provider="arcade") == ["r4"]
    assert await names(context, at + 5 * MINUTE, status="open", player=ada) == ["r1", "r3"]
    assert await names(context, begun + 4 * MINUTE, status="open", older_than=90) == ["r1", "r3"]
    [first, *_] = (await games.rounds(context, at + 1.5 * MINUTE, status="open")).items
    assert (first.status, first.player, first.stakes) == ("stuck", ada, Money(10, "EUR"))
    now = await games.playing(context, at + 1.5 * MINUTE)
    assert (now.open_rounds, now.stuck_rounds, now.open_sessions) == (3, 1, 0)


async def test_a_round_shows_its_bets_and_what_is_left_of_each(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book("eu")
    ada = rich(book)
    one = bet(book, ada, "b1", 100)
    bet(book, ada, "b2", 70)
    bet(book, ada, "b3", 5, round="r2")
    back(book, ada, one, 30)
    await house.project(book)
    [found] = [each for each in (await games.rounds(house.context, NOON)).items if each.round == "r1"]
    shown = await games.round_(house.context, NOON, found.id)
    assert shown.bets == [
        games.Bet("b1", Money(100, "EUR"), Money(30, "EUR")), games.Bet("b2", Money(70, "EUR"), Money(0, "EUR")),
    ]  # fmt: skip
    assert (shown.round, shown.complete) == (found, True)
    monkeypatch.setattr(games, "LOOKED_AT_MAX", 1)
    shown = await games.round_(house.context, NOON, found.id)
    assert ([each.bet for each in shown.bets], shown.complete) == (["b1"], False)
    for unknown in ("round_0", "\0"):
        with pytest.raises(NotFound):
            await games.round_(house.context, NOON, unknown)


async def test_revenue_by_whatever_is_asked(house: House) -> None:
    book = Book("eu")
    ada, bo = rich(book), rich(book)
    book.move(ada, lambda wallet, _: wallets.grant_bonus(wallet, money=Money(50, "EUR"), transaction="bonus_1"))
    one = bet(book, ada, "b1", 10_020)  # 20 of it are bonus money
    bet(book, bo, "b2", 300, game="wheel")
    win(book, bo, 450, game="wheel")
    win(book, bo, 7, WinKind.BONUS_WIN, game="wheel")
    book.wait(timedelta(days=1))
    back(book, ada, one, 25)
    bet(book, bo, "b3", 40, provider="arcade")
    await house.project(book)

    async def asked(by: str, since: date = DAY, until: date = DAY, **more: Any) -> dict[Any, int]:
        found: dict[Any, int] = {}
        cursor = None
        while True:
            page = await games.ggr(house.context, by, since, until, cursor=cursor, limit=1, **more)
            for each in page.items:
                of = (each.day, each.provider, each.game, each.player)
                found[next(v for v in (of if by != "game" else (each.game,)) if v is not None)] = each.ggr
            cursor = page.next_cursor
            if cursor is None:
                return found

    later = DAY + timedelta(days=1)
    assert await asked("game") == {"book": 9_995, "wheel": -150}
    assert await asked("provider", until=later) == {"arcade": 40, "studio": 9_845}
    assert await asked("player", until=later) == {ada: 9_995, bo: -110}
    assert await asked("day", until=later) == {DAY: 9_845, later: 40}
    assert await asked("day", since=later, until=later) == {later: 40}
    assert await asked("day", currency="SEK") == {}
    [book_, wheel] = (await games.ggr(house.context, "game", DAY, DAY)).items
    assert (book_.stakes_cash, book_.stakes_bonus, book_.returned_cash, book_.returned_bonus) == (10_000, 20, 5, 20)
    assert (wheel.bets, wheel.wins_cash, wheel.gifts) == (1, 450, 7)


async def test_sessions_with_their_time_and_loss(house: House) -> None:
    book = Book("eu")
    ada, bo = rich(book), rich(book)
    ends = book.now + timedelta(hours=2)
    for player, session in ((ada, "session_1"), (bo, "session_2"), (ada, "session_3")):
        events: list[Any] = [
            play.SessionLaunched(
                session=session, provider="studio", game="book", kind=play.Kind.SLOT, token_hash="0" * 64, ends_at=ends
            )
        ]
        if session != "session_3":
            events.append(play.SessionOpened(session=session, ends_at=ends, seconds=86_400))
        book.record(play.stream(player), events)
    bet(book, ada, "b1", 500, session="session_1")
    book.wait(10 * MINUTE)
    win(book, ada, 200, session="session_1")
    win(book, bo, 9, session="session_1")  # a provider errs
    book.record(play.stream(ada), [play.SessionEnded(session="session_1", reason="player")])
    await house.project(book)

    async def ids(at: datetime, **chosen: Any) -> list[str]:
        first = await games.sessions(house.context, at, limit=1, **chosen)
        rest = [] if first.next_cursor is None else (
            await games.sessions(house.context, at, cursor=first.next_cursor, **chosen)
        ).items  # fmt: skip
        return [each.id for each in (*first.items, *rest)]

    now = book.now
    assert await ids(now) == ["session_3", "session_2", "session_1"]
    assert await ids(now, player=ada) == ["session_3", "session_1"]
    assert await ids(now, is_open=True) == ["session_2"]
    assert await ids(now, is_open=True, player=ada) == []
    assert await ids(now, is_open=False) == ["session_3", "session_1"]
    assert await ids(ends, is_open=True) == [], "although nobody has noted its end"
    [_, _, ended] = (await games.sessions(house.context, now)).items
    assert (ended.played_s, ended.lost, ended.staked, ended.won, ended.reason) == (600, 300, 500, 200, "player")
    [running] = (await games.sessions(house.context, now, is_open=True)).items
    assert (running.status, running.played_s, running.bets) == ("open", 600, 0)
    [over] = (await games.sessions(house.context, ends + MINUTE, player=bo)).items
    assert (over.status, over.ended_at) == ("ended", ends)
    assert (await games.playing(house.context, now)).open_sessions == 1


@pytest.mark.parametrize(
    ("query", "given", "error"),
    [
        (games.rounds, {"status": "lost"}, Invalid),
        (games.rounds, {"player": "ada"}, InvalidId),
        (games.rounds, {"provider": "\0"}, Invalid),
        (games.rounds, {"older_than": -1}, Invalid),
        (games.rounds, {"older_than": 2**62}, Invalid),
        (games.rounds, {"cursor": "x"}, Invalid),
        (games.rounds, {"limit": 0}, Invalid),
        (games.sessions, {"player": "ada"}, InvalidId),
        (games.sessions, {"cursor": "x"}, Invalid),
    ],
)
async def test_what_is_no_question_is_refused(house: House, query: Any, given: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        await query(house.context, NOON, **given)


async def test_nor_is_revenue_by_anything_else(house: House) -> None:
    for given in ({"by": "brand"}, {"by": "game", "currency": "\0"}, {"by": "game", "cursor": "x"}):
        with pytest.raises(Invalid):
            await games.ggr(house.context, since=DAY, until=DAY, **given)  # type: ignore[arg-type]


async def test_of_many_rounds_only_those_shown_are_read(house: House, explained: Explained) -> None:
    await house.connection.execute(
        """
        INSERT INTO read.round (id, player, provider, game, round, session, currency, opened_at, last_at, first, last, bets,
                                outcomes, taken_back, stakes, wins, returned)
        SELECT 'round_' || n, 'player_x', 'studio', 'book', n::text, '', 'EUR', %s, %s + n * interval '1 s', 1, 1, 1,
               CASE WHEN n <= 3 THEN 0 ELSE 1 END, 0, 10, 0, 0
          FROM generate_series(1, 4000) AS n""",
        (NOON, NOON),
    )
    await house.connection.execute("ANALYZE read.round")
    at = NOON + timedelta(days=1)
    assert await names(explained, at, status="stuck") == ["1", "2", "3"]
    assert max(explained.notes.touched) <= 3
    explained.notes.touched.clear()
    assert len((await games.rounds(explained, at, player=f"player_{26 * '1'}")).items) == 0
    assert max(explained.notes.touched) == 0
