"""The events of all logs: chosen, merged, and resumed anywhere without a gap or a repeat."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

import pytest

from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import PlayerId
from eventstore.record import Entry, decode_body
from queries import events
from queries.context import Context
from queries.events import Merged, Row, Selection, parse_vector, write_vector
from tests.projections.books import Book, write
from tests.queries.house import House

US = 1_000_000
STRANDED = 5


def books() -> tuple[Book, Book]:
    """Two logs whose times interleave."""
    both = Book("eu"), Book("us")
    for book in both:
        for _ in range(3):
            player = book.register(name="Ada")
            book.limit(player, 100_000)
    for step in range(12):
        for book in both:
            book.wait(timedelta(seconds=7 if book.name == "eu" else 5))
            player = book.players[step % 3]
            transaction = book.request(player, 100 + step)
            (book.fail if step % 4 == 0 else book.settle)(transaction)
    return both


@pytest.fixture
def both(house: House, monkeypatch: pytest.MonkeyPatch) -> tuple[Book, Book]:
    monkeypatch.setattr(events, "SCAN_ENTRIES", 7)
    made = books()
    write(house.dsn, *made, stranded=[STRANDED])
    return made


def expected(both: Sequence[Book], selection: Selection) -> list[Entry]:
    """The same, the slow way."""
    found = []
    for book in both:
        streams = (
            {f"{kind}-{selection.player.partition('_')[2]}" for kind in ("player", "wallet", "limits")}
            if selection.player
            else set()
        )
        commands = {decode_body(e.body).command.id for e in book.entries if decode_body(e.body).stream in streams}
        for entry in book.entries:
            body = decode_body(entry.body)
            tag = selection.type or body.type
            if (
                (selection.log in (None, book.name))
                and selection.since <= entry.recorded < selection.until
                and (body.type == tag or (tag.endswith("*") and body.type.startswith(tag[:-1])))
                and selection.actor in (None, body.actor)
                and (not selection.player or body.command.id in commands)
            ):
                found.append(entry)
    return sorted(found, key=lambda e: (e.recorded, e.log, e.position))


async def everything(context: Context, selection: Selection, after: str = "", limit: int = 50) -> list[Row]:
    merged = await Merged.begin(context, selection, parse_vector(after))
    found: list[Row] = []
    while not merged.done:
        found += await merged.step(limit)
    return found


def places(found: Sequence[Row] | Sequence[Entry]) -> list[tuple[str, int]]:
    return [(each.log, each.position) for each in found]


async def test_all_events_of_all_logs_in_the_order_of_their_times(house: House, both: tuple[Book, Book]) -> None:
    found = await everything(house.context, Selection())
    assert places(found) == places(expected(both, Selection()))
    assert [row.body for row in found] == [entry.body for entry in expected(both, Selection())]
    assert {(row.log, row.position) for row in found if not row.counts} == {("eu", STRANDED), ("us", STRANDED)}


async def test_what_is_chosen_is_what_a_slow_search_finds(house: House, both: tuple[Book, Book]) -> None:
    middle = both[0].entries[len(both[0].entries) // 2].recorded
    selections = [
        Selection(type="wallet.credited"),
        Selection(type="limits.*"),
        Selection(type="wallet.*", log="us"),
        Selection(actor="system"),
        Selection(actor="nobody"),
        Selection(since=middle),
        Selection(until=middle),
        Selection(since=middle, until=middle + 20 * US, type="transaction.*"),
        Selection(since=middle + 10**15),
        Selection(until=1),
        Selection(log="us", since=middle, until=middle),
        Selection(player=both[1].players[2]),
        Selection(player=both[0].players[1], type="transaction.deposit_failed"),
        Selection(player=both[0].players[1], since=middle, actor="operator:test"),
        Selection(player=both[0].players[1], log="us"),
    ]
    for selection in selections:
        found = places(await everything(house.context, selection))
        assert found == places(expected(both, selection)), selection


async def test_a_player_is_shown_with_the_transactions_and_nobody_elses(house: House, both: tuple[Book, Book]) -> None:
    player = both[0].players[0]
    found = [decode_body(row.body) for row in await everything(house.context, Selection(player=player))]
    assert {body.type.partition(".")[0] for body in found} == {"player", "limits", "transaction", "wallet"}
    mine = [e for e in both[0].entries if player.encode() in e.body or player.partition("_")[2].encode() in e.body]
    assert {body.id for body in found} >= {decode_body(entry.body).id for entry in mine}
    assert not any(other.partition("_")[2] in body.stream for other in both[0].players[1:] for body in found)


async def test_whoever_resumes_anywhere_misses_nothing_and_sees_nothing_twice(
    house: House, both: tuple[Book, Book]
) -> None:
    draw = random.Random(7)
    for selection in (
        Selection(),
        Selection(type="wallet.*"),
        Selection(player=both[0].players[0]),
        Selection(actor="x"),
    ):
        found: list[Row] = []
        after = ""
        for _ in range(10_000):
            merged = await Merged.begin(house.context, selection, parse_vector(after))
            if merged.done:
                break
            for _ in range(draw.randint(1, 3)):
                found += await merged.step(draw.randint(1, 9))
            after = write_vector(merged.vector)
        assert places(found) == places(expected(both, selection))
        assert parse_vector(after) == {book.name: len(book.entries) for book in both}


async def test_no_statement_looks_at_more_than_a_page(
    house: House, both: tuple[Book, Book], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    fetch = Context.fetch

    async def counted(context: Context, query: str, *arguments: object) -> list[tuple[object, ...]]:
        found = await fetch(context, query, *arguments)  # type: ignore[arg-type]
        rows.append(len(found))
        if "recorded, e.leaf" in query:
            after, upto = arguments[1:3]
            assert isinstance(after, int)
            assert isinstance(upto, int)
            assert upto - after <= 7 or "ANY" in query
        return found

    monkeypatch.setattr(Context, "fetch", counted)
    merged = await Merged.begin(house.context, Selection(actor="nobody"), {})
    steps = 0
    while not merged.done:
        assert await merged.step() == []
        steps += 1
    assert steps >= len(both[0].entries) // 7
    await everything(house.context, Selection(player=both[0].players[0]))
    assert max(rows) <= 7


async def test_it_ends_at_the_heads_that_there_were(house: House, both: tuple[Book, Book]) -> None:
    merged = await Merged.begin(house.context, Selection(), {})
    heads = {book.name: len(book.entries) for book in both}
    both[0].register()
    write(house.dsn, *both)
    while not merged.done:
        await merged.step()
    assert merged.vector == heads
    assert places(await everything(house.context, Selection(), write_vector(heads))) == [("eu", heads["eu"] + 1)]


async def test_what_cannot_be_asked(house: House, both: tuple[Book, Book]) -> None:
    for error, selection in (
        (NotFound, Selection(log="mars")),
        (NotFound, Selection(log="eu'")),
        (InvalidId, Selection(player=PlayerId("player_x"))),
        (Invalid, Selection(type="wallet*")),
        (Invalid, Selection(type="%")),
        (Invalid, Selection(actor="\0")),
    ):
        with pytest.raises(error):
            await Merged.begin(house.context, selection, {})
    with pytest.raises(Invalid):
        await Merged.begin(house.context, Selection(), {"mars": 3})


@pytest.mark.parametrize(
    "text", ["eu", "eu/", "eu/x", "eu/-1", "eu/01", "eu/1,eu/2", "eu/1;us/2", "EU/1", "eu/" + "9" * 19]
)
def test_positions_have_one_spelling(text: str) -> None:
    with pytest.raises(Invalid):
        parse_vector(text)


def test_a_vector_reads_as_it_is_written() -> None:
    for vector in ({}, {"eu": 0}, {"eu": 12, "us": 3, "a1.10": 10**17}):
        assert parse_vector(write_vector(vector)) == vector
