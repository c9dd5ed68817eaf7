"""The read model of approvals: one row for each, in whatever batches it came."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import approvals as decisions
from projections import catalog
from projections.approvals import Approvals
from projections.memory import MemoryStore
from projections.projection import OutOfOrder
from tests.projections.books import NOON, Book
from tests.projections.histories import Act, acts, played

SIZES = st.lists(st.integers(1, 9), max_size=8)


def rejected(book: Book) -> None:
    book.answer(book.approvals[-1], lambda state, at: decisions.reject(state, reason="no ticket", at=at))


def replayed(book: Book, sizes: list[int]) -> MemoryStore:
    """In batches of about these sizes, and the rest in one."""
    store = catalog.in_memory()["approvals"]
    for size in [*sizes, len(book.entries)]:
        first = store.at("eu").position + 1
        ends = (e.position for e in book.batch().events if e.body.command.i == e.body.command.n)
        last = next((end for end in ends if end >= first + size - 1), len(book.entries))
        if first <= last:
            store.apply(book.batch(first, last))
    return store


def test_a_request_that_is_answered_in_its_batch_is_one_row() -> None:
    book = Book("eu")
    book.ask(book.register())
    rejected(book)
    changes = Approvals().changes(book.batch().events)
    assert changes.ended == {}
    assert changes.requested[book.approvals[0]].end.status == "rejected"


def test_a_request_that_is_answered_later_is_an_update() -> None:
    book = Book("eu")
    approval = book.ask(book.register())
    last = len(book.entries)
    rejected(book)
    changes = Approvals().changes(book.batch(last + 1).events)
    assert changes.requested == {}
    end = changes.ended[approval]
    assert (end.version, end.status, end.by) == (2, "rejected", "operator:test")
    assert end.refused is not None
    assert msgspec.json.decode(end.refused)["sealed"]["data.reason"]["sealed"] == "sealed no ticket"


def test_an_answer_to_what_nobody_asked_stops_the_projection() -> None:
    book = Book("eu")
    book.ask(book.register())
    last = len(book.entries)
    rejected(book)
    with pytest.raises(OutOfOrder):
        Approvals().fold({"approval": {}}, Approvals().changes(book.batch(last + 1).events))


def test_a_row_says_what_was_asked_and_until_when() -> None:
    book = Book("eu")
    player = book.register()
    approval = book.ask(player, '{"amount": 1}')
    [row] = replayed(book, []).rows("approval")
    shown = dict(zip(Approvals.tables[0].columns, row, strict=True))
    path = f"/v1/players/{player}/adjustments"
    assert (shown["id"], shown["player"], shown["status"]) == (approval, player, "awaiting_approval")
    assert (shown["path"], shown["reasons"]) == (path, "operator_day,player_day")
    sealed = msgspec.json.decode(shown["asked"])["sealed"]
    assert sealed["data.body"]["sealed"] == 'sealed {"amount": 1}'
    assert shown["expires_at"] == int((NOON + timedelta(days=1)).timestamp()) * 1_000_000


@settings(max_examples=60)
@given(acts, SIZES)
def test_batches_of_any_size_make_the_same_rows_as_the_domain_folds(history: list[Act], sizes: list[int]) -> None:
    book = played("eu", history)
    rows = {row[0]: row for row in replayed(book, sizes).rows("approval")}
    assert rows == {row[0]: row for row in replayed(book, []).rows("approval")}
    status = Approvals.tables[0].columns.index("status")
    assert {approval: row[status] for approval, row in rows.items()} == {
        approval: book.state(decisions.stream(approval)).status for approval in book.approvals
    }
