"""Rounds, revenue and sessions against the wallets themselves, and whatever order their events are read in."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import bets, play, wallets
from domain.kernel import Event, Money
from domain.wallets import KINDS, Played, RolledBack, RoundClosed, Staked, Won, currency_of, postings
from policies.spending import WinKind
from projections.catalog import in_memory
from projections.ggr import GGR, SUMS, Ggr
from projections.memory import Tables
from projections.projection import Events
from projections.rounds import Rounds
from projections.sessions import Sessions
from projections.times import as_us
from tests.projections.books import Book
from tests.projections.histories import Act, acts, played
from tests.projections.playing import LIMITED

games = st.lists(st.tuples(st.just("play"), st.integers(0, 7), st.integers(1, 900)), max_size=40)
rich: list[Act] = [("register", 0, 1), ("register", 1, 1), *[("import", n, 90_000) for n in range(8)], ("move", 0, 900)]
_LAST_AT = Rounds.tables[0].columns.index("last_at")
quick = settings(max_examples=60)


def events_of(book: Book) -> list[Event]:
    return [recorded.event for recorded in book.batch().events]


def revenue(tables: Tables) -> Counter[str]:
    sums: Counter[str] = Counter()
    for row in tables["ggr"].values():
        found = dict(zip(SUMS, row[5:], strict=True))
        assert min(found.values()) >= 0
        for sign, what in ((1, "stakes"), (-1, "wins"), (-1, "returned")):
            sums[row[4]] += sign * (found[f"{what}_cash"] + found[f"{what}_bonus"])
    return sums


def nothing_left_out(one: Counter[str], other: Counter[str]) -> bool:
    return all(one[currency] == other[currency] for currency in one.keys() | other.keys())


def told(*books: Book) -> Tables:
    stores = in_memory()
    tables: Tables = {}
    for name in ("ggr", "rounds", "sessions"):
        for book in books:
            stores[name].apply(book.batch())
        tables |= stores[name].tables
    return tables


@quick
@given(eu=games, us=acts)
def test_gross_gaming_revenue_is_what_house_ggr_has_received(eu: Any, us: Any) -> None:
    books = played("eu", rich + eu), played("us", us)
    received: Counter[str] = Counter()
    for book in books:
        for event in events_of(book):
            if isinstance(event, KINDS):
                received.update({currency_of(event): sum(n for account, n in postings(event) if account == GGR)})
    tables = told(*books)
    assert nothing_left_out(revenue(tables), received)
    key = next(iter(tables["ggr"]), None)
    if key is not None:
        row = tables["ggr"][key]
        tables["ggr"][key] = (*row[:6], row[6] + 1, *row[7:])
        assert not nothing_left_out(revenue(tables), received), "a planted cent is noticed"


@quick
@given(history=games)
def test_a_round_has_what_was_staked_won_and_given_back_in_it(history: Any) -> None:
    book = played("eu", rich + history)
    expected: dict[tuple[str, ...], list[int]] = {}
    over: set[tuple[str, ...]] = set()
    for recorded in book.batch().events:
        event = recorded.event
        if not isinstance(event, Staked | Won | RolledBack | RoundClosed) or not event.played.round:
            continue
        if isinstance(event, RolledBack) and event.staked_at is None:
            continue
        where = event.played
        key = ("player_" + recorded.body.stream.partition("-")[2], where.provider, where.game, where.round)
        sums = expected.setdefault(key, [0, 0, 0])
        match event:
            case Staked():
                sums[0] += event.money.amount
            case Won():
                sums[1] += event.money.amount
                over.add(key)
            case RolledBack():
                sums[2] += event.money.amount
            case RoundClosed():
                over.add(key)
    rows = told(book)["round"].values()
    assert {row[1:5]: list(row[-4:-1]) for row in rows} == expected
    assert {row[1:5] for row in rows if row[-1] == "open"} >= {
        key for key, (stakes, _, back) in expected.items() if stakes > back and key not in over
    }
    assert not {row[1:5] for row in rows if row[-1] == "open"} & over


@quick
@given(history=games)
def test_a_wallet_and_the_list_agree_on_which_rounds_are_open_and_since_when_they_are_quiet(history: Any) -> None:
    """So that what is listed as stuck is what a void takes for it."""
    book = played("eu", rich + history)
    listed = {
        (row[1], f"{row[2]}\n{row[3]}\n{row[4]}", row[_LAST_AT])
        for row in told(book)["round"].values()
        if row[-1] == "open"
    }
    states: dict[str, wallets.Wallet] = {}
    for recorded in book.batch().events:
        if recorded.event.tag in wallets.WALLETS.events:
            player = "player_" + recorded.body.stream.partition("-")[2]
            before = states.get(player, wallets.WALLETS.initial)
            states[player] = wallets.WALLETS.evolve(before, recorded.event, recorded.at)
    known = {
        (player, found.name, as_us(found.heard_at)) for player, state in states.items() for found in state.rounds.open
    }
    assert known == listed


@quick
@given(history=games, data=st.data())
def test_no_order_in_which_logs_are_read_matters(history: Any, data: st.DataObject) -> None:
    """Not even were the events of a player told by two logs: each half is a batch, and either comes first."""
    events = list(played("eu", rich + history).batch().events)
    first = set(data.draw(st.lists(st.integers(0, len(events) - 1))))
    halves = [
        Events(e for n, e in enumerate(events) if n in first),
        Events(e for n, e in enumerate(events) if n not in first),
    ]
    for projection in (Rounds(), Ggr(), Sessions()):
        found = []
        for batches in ([Events(events)], halves, halves[::-1]):
            tables: Tables = {table.name: {} for table in projection.tables}
            for batch in batches:
                projection.fold(tables, projection.changes(batch))
            found.append(tables)
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("acts_", "status"),
    [
        (["bet"], "open"),
        (["free"], "open"),
        (["bet", "lost"], "closed"),
        (["bet", "close"], "closed"),
        (["close", "bet"], "closed"),
        (["bet", "part"], "open"),
        (["bet", "part", "rest"], "closed"),
        (["free", "back"], "closed"),
        (["bet", "back", "again"], "open"),
        (["lost"], "closed"),
    ],
)
def test_a_round_is_open_until_its_outcome_is_known(acts_: list[str], status: str) -> None:
    book = Book("eu")
    player = book.register()
    book.imported(player, 1_000, "2025-01-01T00:00:00Z")
    there = Played("studio", "book", "r1")

    def bet(amount: int, reference: str) -> None:
        book.game(
            player,
            lambda wallet, who, at: bets.stake(
                wallet, LIMITED, who, played=there, reference=reference, money=Money(amount, "EUR"),
                parts=bets.paying(wallet, who, Money(amount, "EUR")), is_slot=False, at=at,
            ),
        )  # fmt: skip

    taken: list[Staked] = []
    parts: list[RolledBack] = []

    def back(act: str) -> None:
        made = book.game(
            player,
            lambda wallet, _who, at: bets.roll_back(
                wallet, taken[0], staked_at=at, last=parts[-1] if parts else None, reference=act,
                amount=40 if act == "part" else None,
            ),
        )  # fmt: skip
        parts.extend(event for event in made if isinstance(event, RolledBack))

    for act in acts_:
        match act:
            case "bet" | "again" | "free":
                bet(0 if act == "free" else 100, act)
                taken += [event for event in events_of(book)[-1:] if isinstance(event, Staked)]
            case "lost":
                book.game(
                    player,
                    lambda wallet, who, at: bets.win(
                        wallet, who, played=there, reference="w", kind=WinKind.WIN, money=Money(0, "EUR"), at=at
                    ),
                )
            case "close":
                book.game(player, lambda wallet, who, _at: bets.close(wallet, who, played=there, reference="c"))
            case _:
                back(act)
    [row] = told(book)["round"].values()
    assert row[-1] == status


def test_a_session_says_how_long_it_was_and_what_was_lost_in_it() -> None:
    book = Book("eu")
    player = book.register()
    book.imported(player, 1_000, "2025-01-01T00:00:00Z")
    book.move(player, lambda wallet, _: wallets.grant_bonus(wallet, money=Money(50, "EUR"), transaction="bonus_1"))
    there, ends = Played("studio", "book", "r1", "session_1"), book.now + timedelta(hours=2)
    stream = play.stream(player)
    book.record(
        stream,
        [
            play.SessionLaunched(
                session="session_1",
                provider="studio",
                game="book",
                kind=play.Kind.SLOT,
                token_hash="0" * 64,
                ends_at=ends,
            ),
            play.SessionOpened(session="session_1", ends_at=ends, seconds=86_400),
        ],
    )
    opened_at = book.recorded
    book.game(
        player,
        lambda wallet, who, at: bets.stake(
            wallet, LIMITED, who, played=there, reference="b1", money=Money(1_040, "EUR"),
            parts=bets.paying(wallet, who, Money(1_040, "EUR")), is_slot=False, at=at,
        ),
    )  # fmt: skip
    book.wait(timedelta(minutes=30))
    for kind, amount in ((WinKind.WIN, 300), (WinKind.FREE_WIN, 7)):
        book.game(
            player,
            lambda wallet, who, at, kind=kind, amount=amount: bets.win(
                wallet, who, played=there, reference=kind, kind=kind, money=Money(amount, "EUR"), at=at
            ),
        )
    book.record(stream, [play.SessionEnded(session="session_1", reason="player")])
    [row] = told(book)["session"].values()
    found = dict(zip(Sessions.tables[0].columns, row, strict=True))
    assert found["ended_at"] - found["opened_at"] == (book.recorded - opened_at) // timedelta(microseconds=1)
    assert {name: found[name] for name in ("player", "game", "status", "reason", "bets", "staked", "won", "returned")} == {
        "player": player, "game": "book", "status": "ended", "reason": "player", "bets": 1, "staked": 1_040, "won": 307,
        "returned": 0,
    }  # fmt: skip
    assert found["staked_cash"] - found["won_cash"] - found["returned_cash"] == 1_000 - 300
