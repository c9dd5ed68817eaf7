"""The audit, the timeline and a replay tell one story of a player: the same events, and those of nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from app.exporting.selection import Choice, read_event
from domain import (
    adjustments,
    approvals,
    bets,
    contacts,
    notices,
    payouts,
    play,
    players,
    protection,
    rounds,
    suppressions,
    tickets,
    transactions,
    wallets,
)
from domain.bets import Played
from domain.catalog import NAMING, OF_PLAYERS
from domain.kernel import ContactId, Money, NoticeId, PlayerId
from eventstore.record import decode_body
from policies.findings import Kind, Severity
from projections import catalog
from projections.runner import Runner
from queries import asof, events, timeline
from queries.context import Context
from queries.events import Merged, Selection
from replay.account import Story
from replay.ownership import Ownership
from tests.projections.books import CODEC, PARTITIONS, Book, write
from tests.projections.knowing import KNOWN
from tests.queries.house import House, unexpected

Place = tuple[str, int]
EVERYTHING = {aggregate.name for aggregate in (*OF_PLAYERS, *NAMING)}


def lived(book: Book, player: PlayerId) -> None:
    """Something of everything that stands in a log of a player: payments, what is known, a ticket, games, a notice …"""
    for learnt in KNOWN[:5] + KNOWN[11:16] + KNOWN[-3:]:
        book.know(player, learnt)
    book.limit(player, 90_000)
    book.settle(book.request(player, 50_000))
    book.fail(book.request(player, 70))
    paid_out(book, player)
    ticket = book.ticket(player)
    book.work(ticket, lambda state, at: tickets.answer(state, text="Here.", at=at))
    book.ask(player)
    adjusted(book, player)
    has_played(book, player)
    noticed(book, player)
    book.wait(timedelta(hours=1))


def paid_out(book: Book, player: PlayerId) -> None:
    out = book.withdraw(player, 2_000)
    assert out is not None
    money = Money(2_000, "EUR")
    sent, ordered = (
        transactions.WithdrawalSent(out),
        payouts.order(payouts.Payout(), player=player, provider="acme", money=money),
    )
    book._append_many([(transactions.stream(out), [sent]), (payouts.stream(out), ordered)])
    book._decided(payouts.stream(out), [payouts.PayoutAccepted("A-1")])


def adjusted(book: Book, player: PlayerId) -> None:
    """Asked for, and run by the approval of another person."""
    approval = book.ask(player)
    stream, wallet = approvals.stream(approval), wallets.stream(player)
    credit, money = wallets.Direction.CREDIT, Money(100, "EUR")
    made = adjustments.Made(
        adjustment=adjustments.AdjustmentId("adjustment_1"), operator="operator:maria", money=money, direction=credit,
        account=adjustments.Account.CASH, reason_code=adjustments.ReasonCode.GOODWILL,
    )  # fmt: skip
    moved = wallets.adjust(book.state(wallet), account="cash", direction=credit, money=money, transaction="a_1")
    approved = approvals.Approved(book.state(stream).hash)
    book._append_many([(stream, [approved]), (adjustments.stream(player), [made]), (wallet, moved)])


def has_played(book: Book, player: PlayerId) -> None:
    played = Played("acme", "book", "r-1")
    book.record(play.stream(player), [play.CheckIntervalSet(minutes=30)])
    book.record(bets.stream(player), [bets.Claimed()])
    void = rounds.Voided(
        void=rounds.VoidId("void_1"), played=played, bets=("b-1",), money=Money(100, "EUR"), operator="operator:maria"
    )
    book.record(rounds.stream(player), [void])
    book.protect(player, lambda state, who, at: protection.panic(state, who, at=at))


def noticed(book: Book, player: PlayerId) -> None:
    """Each on its own stream alone, but for the contact, which says because of which."""
    suffix = book._suffix(players.stream(player).partition)
    notice, contact = NoticeId(f"notice_{suffix}"), ContactId(f"contact_{suffix}")
    raised = notices.Raised(
        player=player, rule="large_win", rule_version=1, kind=Kind.OPERATIONS, severity=Severity.LOW, events=("e-1",),
        facts={"amount": 1}, due_at=book.now,
    )  # fmt: skip
    book.record(notices.stream(notice), [raised, notices.Acknowledged()])
    opened = contacts.Opened(player=player, channel=contacts.Channel.ANY, due_at=book.now, reason="worried")
    book.record(contacts.stream(contact), [opened, contacts.Attempted(contacts.Channel.PHONE)])
    book.record(suppressions.of_player(player), [suppressions.Begun("large_win", book.now, "known")])


def two_lives() -> tuple[Book, PlayerId, PlayerId]:
    """Of one region; neither is named in the other's."""
    book = Book("eu")
    ada, bob = book.register(name="Ada"), book.register(name="Bob")
    lived(book, ada)
    lived(book, bob)
    return book, ada, bob


async def audited(context: Context, player: PlayerId) -> list[Place]:
    merged = await Merged.begin(context, Selection(player=player), {})
    found: list[Place] = []
    while not merged.done:
        found += [(row.log, row.position) for row in await merged.step(7)]
    return found


async def told(context: Context, player: PlayerId) -> list[Place]:
    """The timeline, the first first."""
    found: list[Place] = []
    cursor = None
    while True:
        page = await timeline.history(context, player, cursor, 7)
        found += [(each.log, each.position) for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found[::-1]


def replayed(books: Iterable[Book], player: PlayerId) -> list[Place]:
    """What a replay of the logs says concerns the player."""
    read = [CODEC.decode(entry) for book in books for entry in book.entries]
    story = Story(player, Ownership(each for each in read if each.body.stream.startswith("region-")))
    for book in books:
        for entry in book.entries:
            story.take(entry)
    return [(found.entry.log, found.entry.position) for found in story.concerned() if found.counts]


def exported(book: Book, player: PlayerId) -> list[Place]:
    choice = Choice([player.removeprefix("player_")], ())
    return [("eu", entry.position) for entry in book.entries if choice.wants(read_event(entry.body))]


async def test_audit_timeline_replay_and_export_tell_the_same_of_a_player(house: House) -> None:
    book, ada, bob = two_lives()
    await house.project(book)
    stories = [await audited(house.context, player) for player in (ada, bob)]
    for player, story in zip((ada, bob), stories, strict=True):
        of = {decode_body(book.entries[position - 1].body).stream.partition("-")[0] for _, position in story}
        assert of == EVERYTHING
        assert story == await told(house.context, player) == replayed([book], player) == exported(book, player)
    assert set(stories[0]) | set(stories[1]) == {("eu", entry.position) for entry in book.entries[1:]}
    assert set(stories[0]).isdisjoint(stories[1])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
async def test_the_audit_misses_nothing_while_the_read_models_lag(
    house: House, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(events, "SCAN_ENTRIES", 5)
    book, ada, _ = two_lives()
    whole = book.entries
    book.entries = whole[: round(share * len(whole))]
    await house.project(book)
    book.entries = whole
    write(house.dsn, book)
    assert await audited(house.context, ada) == replayed([book], ada)
    as_of = await asof.player(house.context, ada)
    assert {stream.partition("-")[0] for stream in as_of.versions} == EVERYTHING


async def test_the_audit_misses_nothing_while_one_of_the_read_models_has_stopped(house: House) -> None:
    book, ada, _ = two_lives()
    write(house.dsn, book)
    stores = catalog.stores(house.connection, house.client)
    runner = Runner(catalog.source(house.connection, PARTITIONS), [stores["tickets"]], unexpected)
    while await runner.step():
        pass
    assert await audited(house.context, ada) == replayed([book], ada)


async def test_what_goes_on_in_another_log_is_found_there(house: House) -> None:
    """A ticket that was opened in one region is answered in the one that took over."""
    eu, us = Book("eu"), Book("us")
    ada = eu.register(name="Ada")
    ticket = eu.ticket(ada)
    eu.hand_over(128, us)
    us.wait(timedelta(hours=1))
    us.work(ticket, lambda state, at: tickets.answer(state, text="Here.", at=at))
    write(house.dsn, eu, us)
    assert await audited(house.context, ada) == [("eu", 2), ("eu", 3), ("us", 3)]


async def test_a_ticket_that_does_not_count_is_nobodys(house: House) -> None:
    book = Book("eu")
    ada = book.register()
    book.ticket(ada)
    book.know(ada, lambda p, *_: players.note(p, text="Hm."))
    write(house.dsn, book, stranded=[3])
    assert await audited(house.context, ada) == [("eu", 2), ("eu", 4)]
