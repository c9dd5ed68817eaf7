"""The read models of findings, notices and contacts: what the domain folds, however the log was cut, in memory and in PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from domain import contacts, notices, suppressions
from domain.contacts import Channel, Contact
from domain.findings import Picture, Rulebook, Seen
from domain.kernel import ContactId, NoticeId, PlayerId, Stream
from domain.notices import Notice
from policies.findings import Count, House, Kind, Severity, Signal, Span, Total, Watch
from projections.findings import Findings, concerning
from projections.memory import MemoryStore
from projections.notices import Notices
from projections.postgres import PostgresStore, TableProjection
from projections.projection import OutOfOrder
from tests.domain.watching import rule
from tests.projections.books import Book
from tests.projections.histories import Act, acts, played

RULES: Sequence[Watch] = [
    msgspec.structs.replace(rule(Count(Signal.DEPOSIT, Span.HOURS_24, 2)), name="two_deposits"),
    msgspec.structs.replace(rule(Count(Signal.DEPOSIT_FAILED, Span.DAYS_7, 1)), name="a_failure"),
    msgspec.structs.replace(rule(Total(Signal.DEPOSIT, Span.DAYS_30, House(3)), quiet_hours=48), name="three_euros"),
]
SIZES = st.lists(st.integers(1, 9), max_size=8)
HOUR = timedelta(hours=1)


def in_memory(projection: TableProjection[Any]) -> MemoryStore:
    layout = {table.name: table for table in projection.tables}
    return MemoryStore(projection, projection.fold, layout.__getitem__, layout)


def cuts(book: Book, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Whole commands, of about these sizes, and the rest in one."""
    ends = {each.position for each in book.batch().events if each.body.command.i == each.body.command.n}
    found, first = [], 1
    for size in [*sizes, len(book.entries)]:
        last = min((end for end in ends if end >= first + size - 1), default=len(book.entries))
        if first <= last:
            found.append((first, last))
            first = last + 1
    return found


def replayed(projection: TableProjection[Any], book: Book, sizes: Sequence[int]) -> MemoryStore:
    store = in_memory(projection)
    for first, last in cuts(book, sizes):
        store.apply(book.batch(first, last))
    return store


def folded(book: Book) -> list[tuple[str, str, str]]:
    """Player, cause and rule of all findings, by the domain alone."""
    rules, pictures, found = Rulebook(RULES), dict[str, Picture](), []
    for suffix, each in concerning(book.batch().events):
        picture = pictures.get(suffix, Picture())
        pictures[suffix], more = rules.follow(picture, Seen(each.body.id, each.at, each.event))
        found += [(f"player_{suffix}", finding.cause, finding.rule) for finding in more]
    return found


BUSY = [("register", 0, 0), *[("request", 0, 900), ("settle", 0, 0)] * 4, ("request", 0, 9), ("fail", 0, 0)]


@settings(max_examples=12)
@given(history=acts, sizes=SIZES)
def test_what_was_found_does_not_depend_on_how_the_log_was_cut(history: list[Act], sizes: list[int]) -> None:
    book = played("eu", [*BUSY, *history])
    store = replayed(Findings(Rulebook(RULES)), book, sizes)
    rows = store.tables["finding"].values()
    assert sorted((row[3], row[0], row[1]) for row in rows) == sorted(folded(book))
    assert store.state_hash() == replayed(Findings(Rulebook(RULES)), book, []).state_hash()


async def test_postgresql_holds_what_memory_holds(connection: AsyncConnection[Any]) -> None:
    chance = random.Random(5)
    verbs = ("register", "request", "settle", "fail", "wait", "withdraw", "know")
    more = [(chance.choice(verbs), chance.randrange(8), chance.randrange(1, 900)) for _ in range(150)]
    book = played("eu", [*BUSY, *more])
    working(book, 60, seed=7)
    for projection in (Findings(Rulebook(RULES)), Notices()):
        store, own = PostgresStore(projection, connection), in_memory(projection)
        standing = await store.open()
        for first, last in cuts(book, [3, 40, 1, 1, 60]):
            standing = await store.apply(standing, book.batch(first, last))
            own.apply(book.batch(first, last))
        assert all(own.tables[table.name] for table in projection.tables)
        assert await store.state_hash() == own.state_hash()


def test_an_event_of_a_payment_concerns_the_player_of_its_command() -> None:
    book = Book("eu")
    first, second = book.register(), book.register()
    book.fail(book.request(first, 500))
    book.fail(book.request(second, 500))
    failed = [
        (suffix, each.event.tag) for suffix, each in concerning(book.batch().events) if "failed" in each.event.tag
    ]
    assert failed == [(player.partition("_")[2], "transaction.deposit_failed") for player in (first, second)]


def test_history_of_the_past_is_seen_by_no_rule() -> None:
    book = Book("eu")
    player = book.register()
    for _ in range(5):
        book.imported(player, 90_000, "2026-01-05T00:00:00Z")
    assert folded(book) == []
    store = replayed(Findings(Rulebook(RULES)), book, [])
    assert store.tables["finding"] == {}
    picture = msgspec.json.decode(store.tables["watched"][player][1], type=Picture)
    assert (picture.currency, picture.memories) == ("EUR", {})


@pytest.mark.parametrize("raised", [True, False])
def test_what_was_raised_or_withheld_is_open_no_more(raised: bool) -> None:
    book = played("eu", BUSY)
    store = in_memory(Findings(Rulebook(RULES)))
    seen = len(book.entries)
    store.apply(book.batch())
    cause, rule_ = min(store.tables["finding"])
    player = book.players[0]
    closing(book, player, cause, rule_, raised=raised)
    store.apply(book.batch(seen + 1))
    assert (cause, rule_) not in store.tables["finding"]
    assert len(store.tables["finding"]) == len(folded(book)) - 1


def closing(book: Book, player: PlayerId, cause: str, name: str, *, raised: bool) -> None:
    """The event that says so, as the reaction's command leaves it: with the finding's cause as its own."""
    suffix = player.partition("_")[2]
    stream: Any = notices.stream(NoticeId(f"notice_{suffix}")) if raised else suppressions.of_player(player)
    event: Any = raised_of(player, name) if raised else suppressions.Withheld(name, 1, suppressions.Scope.ALL)
    book._decided(stream, [event])
    entry = book.entries[-1]
    body = msgspec.json.decode(entry.body)
    book.entries[-1] = entry._replace(body=msgspec.json.encode({**body, "cause": cause}))


def raised_of(player: PlayerId, name: str = "two_deposits") -> notices.Raised:
    return notices.Raised(
        player=player, rule=name, rule_version=1, kind=Kind.HARM, severity=Severity.HIGH, events=("e",),
        facts={"count": 2, "weeks": (1, 2), "verified": False}, due_at=timedelta(days=1) + notices.EPOCH,
    )  # fmt: skip


# Notices and contacts


def working(book: Book, steps: int, seed: int) -> None:
    """Notices and contacts of the book's players, at random."""
    chance = random.Random(seed)
    noticed: list[NoticeId] = []
    contacted: list[ContactId] = []
    for _ in range(steps):
        player = chance.choice(book.players)
        fresh = book._suffix(notices.stream(NoticeId(f"notice_{player.partition('_')[2]}")).partition)
        if not noticed or chance.random() < 0.2:
            noticed.append(NoticeId(f"notice_{fresh}"))
            contacted.append(ContactId(f"contact_{fresh}"))
            book._decided(notices.stream(noticed[-1]), [raised_of(player)])
            opened = contacts.Opened(
                player=player, channel=Channel.ANY, due_at=book._now + HOUR, reason="two_deposits", trigger=noticed[-1]
            )
            book._decided(contacts.stream(contacted[-1]), [opened])
            continue
        place = chance.randrange(len(noticed))
        work(book, noticed[place], contacted[place], chance)


def work(book: Book, notice_id: NoticeId, contact_id: ContactId, chance: random.Random) -> None:
    notice: Notice = book.state(notices.stream(notice_id))
    contact: Contact = book.state(contacts.stream(contact_id))
    due = book._now + HOUR if chance.random() < 0.5 else None
    made = contacts.Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED, note="said", follow_up_due=due)
    followed = contacts.FollowedUp(outcome=contacts.Outcome.CONTESTED, follow_up_due=due)
    for stream, decision in chance.sample(
        [
            (notices.stream(notice_id), lambda: notices.acknowledge(notice)),
            (notices.stream(notice_id), lambda: notices.assign(notice, to="operator:bo")),
            (notices.stream(notice_id), lambda: notices.link(notice, to="ticket_1", itself=notice_id)),
            (notices.stream(notice_id), lambda: notices.close(notice, outcome=notices.Outcome.EXPLAINED)),
            (
                contacts.stream(contact_id),
                lambda: contacts.attempt(contact, attempted=contacts.Attempted(Channel.PHONE, "none")),
            ),
            (contacts.stream(contact_id), lambda: contacts.make(contact, made=made, at=book._now)),
            (contacts.stream(contact_id), lambda: contacts.follow_up(contact, followed=followed, at=book._now)),
        ],
        k=7,
    ):
        try:
            events: Sequence[Any] = decision()
        except notices.Conflict:
            continue
        if events:
            book._decided(stream, events)  # type: ignore[arg-type]
            return


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), sizes=SIZES)
def test_a_row_is_what_the_domain_folds(seed: int, sizes: list[int]) -> None:
    book = Book("eu")
    for _ in range(3):
        book.register()
    working(book, 40, seed)
    store = replayed(Notices(), book, sizes)
    for name, stream, kind in (("notice", notices.stream, Notice), ("contact", contacts.stream, Contact)):
        for id_, row in store.tables[name].items():
            state = by_domain(book, stream(id_))  # type: ignore[operator]
            assert msgspec.json.decode(row[-1], type=kind) == state  # type: ignore[arg-type]
            assert (row[2], row[3]) == (state.player, state.status)
    assert store.state_hash() == replayed(Notices(), book, []).state_hash()


def by_domain(book: Book, stream: Stream[Any]) -> Any:
    state = stream.aggregate.initial
    for recorded in book.batch().events:
        if recorded.body.stream == stream.name:
            state = stream.aggregate.evolve(state, recorded.event, recorded.at)
    return state


def test_what_was_written_stays_sealed() -> None:
    book = Book("eu")
    player = book.register()
    contact = ContactId("contact_" + player.partition("_")[2])
    opened = contacts.Opened(player=player, channel=Channel.ANY, due_at=book._now + HOUR, reason="x")
    made = contacts.Made(channel=Channel.PHONE, outcome=contacts.Outcome.ADVISED, note="a secret")
    book._decided(contacts.stream(contact), [opened])
    book._decided(contacts.stream(contact), [contacts.Attempted(Channel.PHONE)])
    book._decided(contacts.stream(contact), [made])
    rows = replayed(Notices(), book, []).tables["contact_note"].values()
    assert [(row[3], row[-1] is None) for row in rows] == [("attempted", True), ("made", False)]


def test_what_goes_on_before_it_began_is_refused_and_nothing_is_kept() -> None:
    book = Book("eu")
    player = book.register()
    notice = NoticeId("notice_" + player.partition("_")[2])
    book._decided(notices.stream(notice), [raised_of(player)])
    seen = len(book.entries)
    book._decided(notices.stream(notice), [notices.Acknowledged()])
    store = in_memory(Notices())
    with pytest.raises(OutOfOrder):
        store.apply(book.batch(seen + 1)._replace(before=store.at("eu")))
    store.apply(book.batch())
    with pytest.raises(OutOfOrder):
        store.apply(book.batch()._replace(before=store.at("eu")))
    assert len(store.tables["notice"]) == 1
