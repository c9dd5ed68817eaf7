"""The read model of operators and tokens: a row for each, in whatever batches it came."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from domain import operators as decisions
from domain import tokens
from domain.kernel import OperatorId
from domain.operators import Operator
from domain.tokens import Token
from projections import catalog
from projections.operators import Operators
from projections.projection import OutOfOrder
from tests.projections.books import INVITATION, Book


def worked() -> Book:
    """One joins, is given roles and leaves; one token is confirmed, and one is not."""
    book = Book("eu")
    otto = book.invite("Otto")
    book.invite("Ada")
    book.manage(otto, lambda state, at: decisions.activate(state, invitation=INVITATION, at=at))
    book.manage(otto, lambda state, at: decisions.grant(state, role="risk", until=at + timedelta(hours=1), at=at))
    book.manage(otto, lambda state, _at: decisions.suspend(state, reason="left"))
    one, _ = book.issue(), book.issue("importer:crm")
    book.answer_for(one, lambda token, _at: tokens.confirm(token, person="staff-1"))
    return book


def folded(book: Book, id_: OperatorId) -> Operator:
    state = Operator()
    for recorded in book.batch().events:
        if recorded.body.stream == decisions.stream(id_).name:
            state = decisions.evolve(state, recorded.event, recorded.at)  # type: ignore[arg-type]
    return state


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_row_is_what_the_domain_folds_in_batches_of_any_size(size: int) -> None:
    book, store = worked(), catalog.in_memory()["operators"]
    for first in range(1, len(book.entries) + 1, size):
        store.apply(book.batch(first, first + size - 1))
    rows = store.tables["operator"]
    states = [msgspec.json.decode(rows[id_][-1], type=Operator) for id_ in book.operators]
    assert states == [folded(book, id_) for id_ in book.operators]
    assert [rows[id_][1:4] for id_ in book.operators] == [
        (4, "suspended", rows[book.operators[0]][3]),
        (1, "invited", rows[book.operators[1]][3]),
    ]
    issued = store.tables["token"]
    assert [issued[id_][2] for id_ in book.tokens] == ["confirmed", "awaiting_second_person"]
    assert [msgspec.json.decode(issued[id_][-1], type=Token).digest for id_ in book.tokens] == [
        id_.removeprefix("token_") for id_ in book.tokens
    ]


def test_what_goes_on_without_having_begun_is_out_of_order_and_changes_nothing() -> None:
    book = worked()
    late = Operators().changes(book.batch(5).events)
    tables: dict[str, dict[str, tuple[object, ...]]] = {"operator": {}, "token": {}}
    with pytest.raises(OutOfOrder):
        Operators().fold(tables, late)  # type: ignore[arg-type]
    assert tables == {"operator": {}, "token": {}}
    store = catalog.in_memory()["operators"]
    store.apply(book.batch())
    with pytest.raises(OutOfOrder):
        Operators().fold(store.tables, Operators().changes(book.batch(2, 2).events))


def test_names_stay_sealed() -> None:
    book, store = worked(), catalog.in_memory()["operators"]
    store.apply(book.batch())
    sealed = [row[4] for row in store.tables["operator"].values()]
    assert all("data.name" in words and "data.email" in words for words in sealed)
