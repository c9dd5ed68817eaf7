"""Canonical lines, their digest, and what reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg import AsyncConnection
from redis.asyncio import Redis

from projections import catalog, postgres, state, version
from projections.rebuild import rebuild_store
from projections.state import Chunk, State, Table, Unreadable
from tests.projections.books import Book, MemorySource
from tests.projections.histories import follow

values = st.none() | st.text(max_size=3) | st.integers(-(2**53), 2**53)


@st.composite
def states(draw: Any) -> list[Chunk]:
    chunks: list[Chunk] = []
    for name in sorted(draw(st.sets(st.sampled_from(["a", "b", "ä"])))):
        keys = sorted(draw(st.sets(st.text(max_size=2), max_size=3)))
        rows = [(key, draw(values), draw(values)) for key in keys]
        chunks.append((Table(name, ("key", "one", "two")), rows))
    return chunks


def of(chunks: list[Chunk]) -> State:
    return State("test", {"eu": 7}, "1+00", chunks)


def lines(chunks: list[Chunk]) -> list[bytes]:
    return b"".join(of(chunks).ndjson()).splitlines(keepends=True)


def test_the_lines_are_as_documented() -> None:
    chunks: list[Chunk] = [
        (Table("a", ("id", "at", "why"), player="id"), [("x\n\u001f\u2028é", -1, None), ("y", 2**53, "")]),
        (Table("b", ("one", "two"), key=2), []),
    ]
    canonical = '# a\n["x\\n\\u001f\u2028é",-1,null]\n["y",9007199254740992,""]\n# b\n'.encode()
    assert of(chunks).digest() == hashlib.sha256(canonical).hexdigest()
    told = [json.loads(line) for line in lines(chunks)]
    assert told == [
        {"projection": "test", "positions": {"eu": 7}, "code": "1+00"},
        {"table": "a", "columns": ["id", "at", "why"], "key": 1, "player": "id"},
        ["x\n\u001f\u2028é", -1, None],
        ["y", 2**53, ""],
        {"table": "b", "columns": ["one", "two"], "key": 2, "player": None},
        {"digest": of(chunks).digest()},
    ]


@given(states())
def test_what_is_written_is_read(chunks: list[Chunk]) -> None:
    found = state.read(lines(chunks))
    assert (found.projection, found.positions, found.code) == ("test", {"eu": 7}, "1+00")
    assert found.digest() == of(chunks).digest()
    assert state.difference(state.read(lines(chunks)), of(chunks)) is None


@given(states())
def test_a_table_in_several_chunks_is_one(chunks: list[Chunk]) -> None:
    apart: list[Chunk] = [(table, part) for table, rows in chunks for part in ([], *([row] for row in rows))]
    assert of(apart).digest() == of(chunks).digest()
    assert state.difference(of(apart), of(chunks)) is None


@given(states(), states())
def test_equal_digests_and_no_difference_are_the_same(one: list[Chunk], other: list[Chunk]) -> None:
    equal = of(one).digest() == of(other).digest()
    assert (state.difference(of(one), of(other)) is None) == equal
    assert (state.difference(of(other), of(one)) is None) == equal


@given(states(), states())
def test_the_first_difference_is_before_all_others(one: list[Chunk], other: list[Chunk]) -> None:
    found = state.difference(of(one), of(other))
    assume(found is not None)
    assert found is not None

    def until(chunks: list[Chunk]) -> list[Any]:
        rows = [(table.name, *row) for table, rows in chunks for row in rows]
        return [row for row in rows if row[:2] < (found.table, *found.key)]

    assert until(one) == until(other)


@given(states(), st.data())
def test_lines_that_break_off_or_were_changed_are_unreadable(chunks: list[Chunk], data: Any) -> None:
    whole = lines(chunks)
    with pytest.raises(Unreadable):
        state.read(whole[: data.draw(st.integers(0, len(whole) - 1))]).digest()
    which = data.draw(st.integers(1, len(whole) - 1))
    changed = [*whole[:which], *whole[which + 1 :]]
    with pytest.raises(Unreadable):
        state.read(changed).digest()


TABLE = b'{"table":"a","columns":["id","at"],"key":1,"player":null}\n'
HEAD = b'{"projection":"p","positions":{},"code":null}\n'


@pytest.mark.parametrize(
    "told",
    [
        [],
        [b"\n"],
        [TABLE],
        [HEAD, b'["x",1]\n'],
        [HEAD, TABLE, b'["x"]\n'],
        [HEAD, TABLE, b"[1,1]\n"],
        [HEAD, TABLE, b'["x",1.5]\n'],
        [HEAD, TABLE, b'["x",true]\n'],
        [HEAD, TABLE, b'["x",[]]\n'],
        [HEAD, TABLE.replace(b'"key":1', b'"key":0'), b'["x",1]\n'],
        [HEAD, TABLE.replace(b'"key":1', b'"key":3'), b'["x",1]\n'],
        [HEAD, b"nonsense\n"],
        [HEAD, b'{"digest":"00"}\n'],
        [HEAD, b'{"digest":"%b"}\n' % hashlib.sha256().hexdigest().encode(), b"\n"],
    ],
)
def test_what_is_no_state_is_unreadable(told: list[bytes]) -> None:
    with pytest.raises(Unreadable):
        state.read(told).digest()


def test_rows_in_another_order_or_twice_are_different() -> None:
    table = Table("a", ("id", "at"))
    right: list[Chunk] = [(table, [("x", 1), ("y", 2)])]
    for wrong in ([("y", 2), ("x", 1)], [("x", 1), ("x", 1), ("y", 2)], [("x", 1), ("y", 2), ("y", 2)]):
        assert state.difference(of([(table, wrong)]), of(right)) is not None


def test_a_column_that_the_other_does_not_have_is_named() -> None:
    old: list[Chunk] = [(Table("a", ("id", "one")), [("x", 1)])]
    new: list[Chunk] = [(Table("a", ("id", "one", "two")), [("x", 1, 5)])]
    found = state.difference(of(old), of(new))
    assert found is not None
    assert (found.field, found.live, found.replayed) == ("two", None, 5)


# One moment


async def test_a_state_is_of_one_moment_whatever_is_applied_meanwhile(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    book = Book("eu")
    async with await postgres.connect(dsn) as other:
        for name, store in catalog.stores(connection, client).items():
            book.imported(book.register(), 500, "2025-01-01T00:00:00Z")
            await follow([store], MemorySource(book))
            before = await store.state_hash()
            reader = catalog.stores(other, client)[name]
            async with reader.state() as found:
                book.imported(book.register(), 70, "2025-01-01T00:00:00Z")
                await follow([store], MemorySource(book))
                assert await found.hash() == before
            assert await reader.state_hash() == await store.state_hash() != before


async def test_a_rebuild_waits_for_whoever_reads_the_tables_that_it_replaces(
    dsn: str, connection: AsyncConnection[Any], client: Redis
) -> None:
    book = Book("eu")
    book.imported(book.register(), 500, "2025-01-01T00:00:00Z")
    store = catalog.stores(connection, client)["players"]
    await follow([store], MemorySource(book))
    before = await store.state_hash()
    async with await postgres.connect(dsn) as other:
        async with catalog.stores(other, client)["players"].state() as found:
            rebuilding = asyncio.create_task(rebuild_store(store, MemorySource(book)))
            await asyncio.sleep(0.2)
            assert await found.hash() == before
            assert not rebuilding.done()
        await rebuilding
    assert await store.state_hash() == before


# The code's version


def tree(root: Path) -> Path:
    for name in version.PACKAGES:
        (root / name / "deep").mkdir(parents=True)
        (root / name / "a.py").write_text(name)
    (root / "policies" / "deep" / "rules.csv").write_text("1")
    return root


CHANGES: list[Callable[[Path], object]] = [
    lambda root: (root / "domain" / "a.py").write_text("other"),
    lambda root: (root / "policies" / "deep" / "rules.csv").write_text("2"),
    lambda root: (root / "projections" / "deep" / "b.py").write_text(""),
    lambda root: (root / "domain" / "a.py").rename(root / "domain" / "b.py"),
    lambda root: (root / "domain" / "a.py").unlink(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_code_is_another_when_a_source_is(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = tree(tmp_path)
    before = version.code(root, "1.2.3")
    assert before.startswith("1.2.3+")
    change(root)
    assert version.code(root, "1.2.3") != before


def test_code_is_the_same_whatever_lies_beside_the_sources(tmp_path: Path) -> None:
    root = tree(tmp_path)
    before = version.code(root, "1.2.3")
    (root / "domain" / "__pycache__").mkdir()
    (root / "domain" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    (root / "queries").mkdir()
    (root / "queries" / "a.py").write_text("elsewhere")
    assert version.code(root, "1.2.3") == before
