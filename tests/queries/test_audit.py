"""The logs as regulators get them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from domain.errors import Invalid, NotFound
from eventstore.record import genesis
from queries import audit
from tests.projections.books import Book, write
from tests.queries.house import House


def deposits(count: int) -> Book:
    book = Book("eu")
    player = book.register(name="Ada")
    for amount in range(1, count + 1):
        book.imported(player, amount, "2025-01-01T00:00:00Z")
    return book


def checked(items: list[dict[str, Any]], previous: bytes) -> bytes:
    """Recompute the chain from what was sent. Returns the last leaf."""
    for item in items:
        entry = base64.b64decode(item["entry"], validate=True)
        assert entry[:32] == previous
        assert int.from_bytes(entry[32:40], "big") == item["position"]
        previous = hashlib.sha256(b"\0" + entry).digest()
        assert previous.hex() == item["leaf"]
    return previous


async def test_all_logs_and_their_heads(house: House) -> None:
    eu, us = deposits(3), Book("us")
    us.entries.clear()
    write(house.dsn, eu, us)
    found = {head.log: head for head in await audit.logs(house.context)}
    assert (found["eu"].position, found["eu"].leaf) == (len(eu.entries), eu.entries[-1].leaf.hex())
    assert (found["us"].position, found["us"].leaf) == (0, genesis("countroom.test/us").hex())
    assert found["eu"].origin == "countroom.test/eu"


async def test_a_page_is_entries_that_chain(house: House) -> None:
    book = deposits(10)
    write(house.dsn, book, stranded=range(6, 9))
    previous, cursor, seen = genesis(book.origin), None, 0
    while True:
        page = await audit.page(house.context, "eu", 0, 7, cursor)
        items = [{"position": i.position, "leaf": i.leaf, "entry": i.entry} for i in page.items]
        previous = checked(items, previous)
        seen += len(items)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == len(book.entries)
    assert previous == book.entries[-1].leaf


@pytest.mark.parametrize("after", [0, 1, 5, 32])
async def test_the_stream_is_the_log_to_its_head(house: House, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE_ENTRIES", 9)
    book = deposits(10)
    write(house.dsn, book)
    text = b"".join([chunk async for chunk in audit.stream(house.context, "eu", after)])
    items = [json.loads(line) for line in text.splitlines()]
    assert [item["position"] for item in items] == list(range(after + 1, len(book.entries) + 1))
    checked(items, book.entries[after - 1].leaf if after else genesis(book.origin))


async def test_what_is_appended_while_streaming_is_left_for_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE_ENTRIES", 5)
    book = deposits(10)
    write(house.dsn, book)
    head = len(book.entries)
    lines = 0
    async for chunk in audit.stream(house.context, "eu"):
        if lines == 0:
            book.imported(book.players[0], 5, "2025-01-01T00:00:00Z")
            write(house.dsn, book)
        lines += chunk.count(b"\n")
    assert lines == head


async def test_what_cannot_be_asked(house: House) -> None:
    write(house.dsn, deposits(1))
    with pytest.raises(NotFound):
        await audit.page(house.context, "mars")
    with pytest.raises(NotFound):
        await audit.page(house.context, "eu", 99)
    with pytest.raises(Invalid):
        await audit.page(house.context, "eu", -1)
    with pytest.raises(NotFound):
        async for _ in audit.stream(house.context, "mars"):
            pass
