"""The tree over a log in PostgreSQL, whose proofs the verifier must accept, and the heads that are kept of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, errors

from eventstore import postgres
from eventstore.heads import HeadConflict, LogTree, heads, keep_head, newest_head
from eventstore.note import SigningKey, checkpoint_text, signed, with_signatures
from tests.ledger import EU, US, Ledger, chained, command, opening
from tests.published import append, leaves
from verifier import merkle, tiles
from verifier.tiles import TileReader, tiles_of

KEY = SigningKey.generate(EU)
EDGES = (1, 2, 3, 255, 256, 257, 511, 512, 768, 769)


def invent(ledger: Ledger, size: int) -> None:
    """A copy with leaves of no entries: millions cost little."""
    ledger.sql(
        "INSERT INTO ledger.entry (log, position, recorded, leaf, body)"
        " SELECT 2, n, n, sha256(int8send(n)), '' FROM generate_series(1, %s) AS n",
        size,
    )


def roots(leaf_hashes: list[bytes], sizes: Iterable[int]) -> dict[int, bytes]:
    return dict(merkle.Tree().roots(leaf_hashes, sorted(sizes)))


@asynccontextmanager
async def tree(ledger: Ledger, log: int = 1, role: str = "heads") -> AsyncIterator[LogTree]:
    async with await postgres.connect(ledger.dsn, f"countroom_{role}") as connection:
        yield LogTree(connection, log)


async def files(subject: LogTree, size: int) -> dict[str, bytes]:
    """The log as tlog-tiles would serve it."""
    return {
        tile.path: await subject.bundle(tile.index, tile.width)
        if tile.level is None
        else await subject.tile(tile.level, tile.index, tile.width)
        for tile in tiles_of(size)
    }


@pytest.fixture
def long(ledger: Ledger) -> Ledger:
    """A log of 800 entries: three full tiles and a partial one."""
    append(ledger, 799)
    return ledger


# The tree


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "computed"])
async def test_roots_and_proofs_are_those_that_the_verifier_expects(long: Ledger, stored: bool) -> None:
    choose = random.Random(1)
    sizes = sorted({*EDGES, 799, 800, *choose.choices(range(1, 801), k=20)})
    known = leaves(long)
    expected = roots(known, sizes)
    async with tree(long) as subject:
        if stored:
            assert await subject.extend() == 800
        for size in sizes:
            assert await subject.root(size) == expected[size]
            assert (await subject.prefix(size)).root() == expected[size]
            for index in {0, size - 1, size // 2, choose.randrange(size)}:
                proof = await subject.inclusion_proof(index, size)
                merkle.verify_inclusion(index, size, known[index], proof, expected[size])
            for size1 in {size, *choose.choices([each for each in sizes if each <= size], k=3)}:
                proof = await subject.consistency_proof(size1, size)
                merkle.verify_consistency(size1, size, expected[size1], expected[size], proof)
        assert await subject.root(0) == merkle.EMPTY_ROOT
        assert await subject.consistency_proof(0, 800) == []
        assert [leaf async for page in subject.leaves(0, 800) for leaf in page] == known
        assert [leaf async for page in subject.leaves(300, 302) for leaf in page] == known[300:302]


@pytest.mark.parametrize("size", [1, 256, 600, 800])
async def test_the_verifier_reads_the_tiles(long: Ledger, size: int) -> None:
    async with tree(long) as subject:
        await subject.extend()
        served = await files(subject, size)
        reader = TileReader(served.__getitem__, size, await subject.root(size))
    entries = list(reader.entries())
    assert [merkle.leaf_hash(entry) for entry in entries] == leaves(long)[:size] == list(reader.leaf_hashes())
    assert [entry[48:] for entry in entries] == [entry.body for entry in long.entries()[:size]]
    served["tile/0/000" if size >= 256 else f"tile/0/000.p/{size}"] = bytes(min(size, 256) * 32)
    with pytest.raises(tiles.TileError):
        list(TileReader(served.__getitem__, size, reader.root).entries())


async def test_three_levels_of_tiles(ledger: Ledger) -> None:
    """The tree of tlog-tiles' own example: 273 full tiles, and partial ones of 112, 17 and 1."""
    size, smaller = 70_000, 65_537
    invent(ledger, size)
    known = leaves(ledger, "us")
    expected = roots(known, [1, 65_536, smaller, size])
    async with tree(ledger, 2) as subject:
        assert await subject.extend() == size
        assert ledger.sql("SELECT level, count(*) FROM ledger.subtree GROUP BY level ORDER BY level") == [
            (1, 273),
            (2, 1),
        ]
        assert await subject.tile(2, 0, 1) == expected[65_536]
        for at in (1, 65_536, smaller, size):
            assert await subject.root(at) == expected[at]
        for index in (0, 255, 65_535, 65_536, size - 1):
            proof = await subject.inclusion_proof(index, size)
            merkle.verify_inclusion(index, size, known[index], proof, expected[size])
        proof = await subject.consistency_proof(smaller, size)
        merkle.verify_consistency(smaller, size, expected[smaller], expected[size], proof)
        hashes = {
            each.path: await subject.tile(each.level, each.index, each.width)
            for each in tiles_of(size)
            if each.level is not None
        }
    assert list(TileReader(hashes.__getitem__, size, expected[size]).leaf_hashes()) == known


async def test_the_tree_follows_the_log(ledger: Ledger) -> None:
    version = 1
    async with tree(ledger) as subject, tree(ledger, role="reader") as late:
        for entries in (100, 155, 1, 300, 255, 1, 1):
            append(ledger, entries, version)
            version += entries
            known = leaves(ledger)
            expected = roots(known, [len(known)])[len(known)]
            assert await late.root(len(known)) == expected  # before anything is stored of it
            assert await subject.extend() == len(known) == version
            assert await subject.root(len(known)) == expected
            assert ledger.sql("SELECT count(*) FROM ledger.subtree") == [(version // 256,)]


async def test_two_that_extend_at_once_store_the_same(ledger: Ledger) -> None:
    invent(ledger, 20_000)
    async with tree(ledger, 2) as one, tree(ledger, 2) as other:
        assert await asyncio.gather(one.extend(), other.extend()) == [20_000, 20_000]
        assert await one.root(20_000) == merkle.root(leaves(ledger, "us"))
    assert ledger.sql("SELECT level, count(*), max(index) FROM ledger.subtree GROUP BY level") == [(1, 78, 77)]


async def test_a_wrong_hash_in_the_cache_is_a_wrong_root(long: Ledger) -> None:
    async with tree(long) as subject:
        await subject.extend()
        right = await subject.root(800)
        long.sql(b"UPDATE ledger.subtree SET hash = sha256(hash) WHERE index = 1")
        assert await subject.root(800) != right
        proof = await subject.inclusion_proof(5, 800)
        with pytest.raises(merkle.ProofError):
            merkle.verify_inclusion(5, 800, leaves(long)[5], proof, right)


async def test_of_what_the_log_does_not_have_nothing_is_said(long: Ledger) -> None:
    async with tree(long) as subject:
        for asked in (
            subject.root(801),
            subject.root(2**63),
            subject.inclusion_proof(0, 801),
            subject.inclusion_proof(800, 801),
            subject.consistency_proof(1, 801),
            subject.consistency_proof(801, 801),
            subject.tile(0, 3, 33),
            subject.tile(1, 0, 4),
            subject.tile(7, 10**9, 1),
            subject.tile(63, 0, 1),
            subject.bundle(3, 33),
            subject.bundle(2**60, 1),
            anext(subject.leaves(700, 801)),
        ):
            with pytest.raises(LookupError):
                await asked
        for wrong in (subject.inclusion_proof(5, 5), subject.consistency_proof(6, 5)):
            with pytest.raises(ValueError, match="leaves"):
                await wrong


async def test_copies_have_trees_too(ledger: Ledger) -> None:
    entries = chained(US, opening(US, (128, 255)).bodies)
    ledger.append_copy(entries)
    async with tree(ledger, 2) as subject:
        assert await subject.extend() == 1
        assert await subject.root(1) == entries[0].leaf
        (entry,) = tiles.decode_bundle(await subject.bundle(0, 1), 1)
    assert merkle.leaf_hash(entry) == entries[0].leaf


# Heads


def root_at(size: int, branch: int = 0) -> bytes:
    return merkle.leaf_hash(b"%d %d" % (size, branch))


def note(size: int, branch: int = 0, *, origin: str = EU) -> bytes:
    return signed(checkpoint_text(origin, size, root_at(size, branch)), [KEY])


@pytest.fixture
async def keeper(ledger: Ledger) -> AsyncIterator[AsyncConnection[Any]]:
    async with await postgres.connect(ledger.dsn, "countroom_heads") as connection:
        yield connection


async def test_the_newest_published_head_is_the_largest(keeper: AsyncConnection[Any]) -> None:
    assert await newest_head(keeper, 1) is None
    for size, published in ((0, False), (5, True), (9, False), (7, True)):
        await keep_head(keeper, 1, size, root_at(size), note(size), published=published)
    newest = await newest_head(keeper, 1)
    assert newest is not None
    assert newest[:3] == (7, root_at(7), note(7))
    assert newest.published
    assert [(head.size, head.published) for head in await heads(keeper, 1, -1, 10)] == [
        (0, False),
        (5, True),
        (7, True),
        (9, False),
    ]
    assert [head.size for head in await heads(keeper, 1, 5, 1)] == [7]
    assert await heads(keeper, 2, -1, 10) == []


async def test_another_root_of_a_known_size_is_refused_and_the_first_stays(keeper: AsyncConnection[Any]) -> None:
    await keep_head(keeper, 1, 5, root_at(5), note(5), published=True)
    with pytest.raises(HeadConflict, match="another root at size 5"):
        await keep_head(keeper, 1, 5, root_at(5, 1), note(5, 1), published=True)
    assert [head[:3] for head in await heads(keeper, 1, 0, 10)] == [(5, root_at(5), note(5))]


async def test_signatures_are_only_ever_added(keeper: AsyncConnection[Any]) -> None:
    text = checkpoint_text(EU, 5, root_at(5))
    lines = [SigningKey.generate(f"witness-{n}").line(text) for n in range(3)]
    for added in ([], lines[:1], lines[1:], lines[:2], []):
        more = with_signatures(note(5), added)
        await keep_head(keeper, 1, 5, root_at(5), more, published=added == lines[:1])
    newest = await newest_head(keeper, 1)
    assert newest is not None
    assert newest.note == with_signatures(note(5), lines)


async def test_two_that_keep_at_once_lose_no_signature(ledger: Ledger) -> None:
    text = checkpoint_text(EU, 5, root_at(5))
    lines = [SigningKey.generate(f"witness-{n}").line(text) for n in range(8)]

    async def keep(line: str) -> None:
        async with await postgres.connect(ledger.dsn, "countroom_heads") as connection:
            await keep_head(connection, 1, 5, root_at(5), with_signatures(note(5), [line]), published=False)

    await asyncio.gather(*map(keep, lines))
    [(kept,)] = ledger.sql("SELECT note FROM ledger.checkpoint")
    assert sorted(bytes(kept).decode().splitlines()) == sorted(with_signatures(note(5), lines).decode().splitlines())


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        b"\xff",
        note(6),
        note(5, 1),
        note(5, origin=US),
        note(5)[:-1],
        note(5) + b"\n",
        note(5).partition(b"\n\n")[0] + b"\n\n",
        note(5).replace(b"\n\n", b"\nan extension\n\n"),
        note(5) + b"\xe2\x80\x94 w \n",
    ],
)
async def test_a_note_is_kept_only_of_the_head_that_it_states(keeper: AsyncConnection[Any], malformed: bytes) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        await keep_head(keeper, 1, 5, root_at(5), malformed, published=True)
    assert refused.value.sqlstate in {"CR005", "22021"}
    assert await heads(keeper, 1, -1, 10) == []


async def test_a_head_of_no_log_is_refused(keeper: AsyncConnection[Any]) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        await keep_head(keeper, 9, 5, root_at(5), note(5), published=True)
    assert refused.value.sqlstate == "CR002"


async def test_whoever_listens_hears_of_a_head(ledger: Ledger, keeper: AsyncConnection[Any]) -> None:
    async with await postgres.connect(ledger.dsn, "countroom_reader") as listener:
        await listener.execute("LISTEN heads")
        await keep_head(keeper, 1, 5, root_at(5), note(5), published=True)
        heard = [each.payload async for each in listener.notifies(timeout=60, stop_after=1)]
    assert heard == ["1 5"]


@pytest.mark.parametrize("role", ["ledger", None], ids=["owner", "superuser"])
@pytest.mark.parametrize(
    "change",
    [
        b"UPDATE ledger.checkpoint SET root = sha256(root)",
        b"UPDATE ledger.checkpoint SET size = 6",
        b"UPDATE ledger.checkpoint SET published_at = NULL",
        b"UPDATE ledger.checkpoint SET note = substr(note, 1, 100)",
        b"DELETE FROM ledger.checkpoint",
        b"TRUNCATE ledger.checkpoint",
    ],
)
async def test_a_kept_head_is_not_changed_even_by_the_owner(
    ledger: Ledger, keeper: AsyncConnection[Any], role: str | None, change: LiteralString
) -> None:
    await keep_head(keeper, 1, 5, root_at(5), note(5), published=True)
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.sql(change, role=role)
    assert refused.value.sqlstate == "CR001"


@pytest.mark.parametrize("role", ["reader", "writer", "applier", "projector"])
async def test_only_the_role_of_heads_keeps_hashes_and_heads(long: Ledger, role: str) -> None:
    async with await postgres.connect(long.login(role), f"countroom_{role}") as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            await LogTree(connection, 1).extend()
        with pytest.raises(errors.InsufficientPrivilege):
            await keep_head(connection, 1, 5, root_at(5), note(5), published=True)
        assert await LogTree(connection, 1).root(800) == merkle.root(leaves(long))


async def test_whoever_keeps_heads_writes_no_entry(ledger: Ledger) -> None:
    with psycopg.connect(ledger.login("heads"), autocommit=True) as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            ledger.append(command(("wallet 1", 1)), connection=connection)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT ledger.append_copy(2::smallint, 1, '{}', '{}', '{}')")
