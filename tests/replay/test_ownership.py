"""Which entries count."""

from __future__ import annotations

import msgspec
import pytest

from eventstore.record import Body, decode_body
from replay.ownership import Ownership
from tests.ledger import body as made
from tests.projections.books import CODEC, Book


def owned(*names: str) -> Ownership:
    return Ownership(CODEC.decode(Book(name).entries[0]) for name in names)


def of(stream: str, **more: object) -> Body:
    return msgspec.structs.replace(decode_body(made(stream, 1, b"0" * 16)), **more)


def test_an_entry_of_a_partition_that_the_log_opened_with_counts() -> None:
    assert owned("eu").counts("eu", 2, of("wallet 5"))


@pytest.mark.parametrize(
    "body", [of("wallet 200"), of("wallet 5", epoch=2)], ids=["another's partition", "an epoch that never was"]
)
def test_an_entry_of_what_the_log_did_not_own_does_not_count(body: Body) -> None:
    assert not owned("eu", "us").counts("eu", 2, body)


def test_an_entry_of_a_partition_counts_in_its_owners_log_only() -> None:
    assert owned("eu", "us").counts("us", 2, of("wallet 200"))
    assert not owned("eu", "us").counts("us", 2, of("wallet 5"))


def test_a_log_speaks_for_its_own_region_streams_only() -> None:
    assert owned("eu").counts("eu", 1, of("region-eu-log"))
    assert not owned("eu", "us").counts("eu", 1, of("region-us-log"))
    assert not owned("eu").counts("eu", 1, of("region-eu.2-log"))


def test_nothing_counts_behind_a_cut_and_the_other_log_goes_on() -> None:
    eu, us = Book("eu"), Book("us")
    for _ in range(3):
        eu.register()
    eu.hand_over(6, us)
    ownership = Ownership(CODEC.decode(entry) for book in (us, eu) for entry in book.entries)
    assert ownership.counts("eu", 5, of("wallet 5"))
    assert not ownership.counts("eu", 6, of("wallet 5"))
    assert ownership.counts("eu", 6, of("wallet 6"))
    assert ownership.counts("eu", 6, of("region-eu-log"))
    assert not ownership.counts("us", 2, of("wallet 5", epoch=2))
    assert ownership.counts("us", 3, of("wallet 5", epoch=2))
    assert not ownership.counts("us", 3, of("wallet 5"))


def test_a_log_without_partitions_owns_nothing() -> None:
    assert owned("eu").owns("eu")
    assert not owned("eu").owns("us")


def test_what_is_not_shown_is_taken_for_granted_only_where_that_is_said() -> None:
    ownership = Ownership()
    assert not ownership.counts("eu", 2, of("wallet 5"))
    ownership.take_for_granted("eu")
    assert ownership.counts("eu", 2, of("wallet 5"))
