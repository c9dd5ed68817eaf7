"""The log as regulators read it, with the verifier as the regulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from domain.errors import Invalid, NotFound
from eventstore.postgres import pool
from queries import tiles
from queries.context import Context, open_nothing
from queries.tiles import NotPublished
from tests.ledger import US, Ledger, chained, opening
from tests.published import append, head, leaves, publish, trusting
from tests.stack import Servers
from verifier import merkle
from verifier.proof import verify_proof
from verifier.tiles import Tile, TileReader, tiles_of


@pytest.fixture
async def context(ledger: Ledger, servers: Servers) -> AsyncIterator[Context]:
    async with (
        pool(ledger.dsn, "countroom_reader", size=2) as readers,
        Redis.from_url(servers.endpoints.redis) as redis,
    ):
        yield Context(readers, redis, open_nothing)


@pytest.fixture
def long(ledger: Ledger) -> Ledger:
    """A log of 600 entries, of which 100, then 257, then 590 were published."""
    append(ledger, 599)
    publish(ledger, 100, 257, 590)
    publish(ledger, 600, published=False)
    return ledger


async def served(context: Context, size: int) -> dict[str, bytes]:
    return {tile.path: await tiles.file(context, "eu", tile.path) for tile in tiles_of(size)}


async def test_the_checkpoint_is_the_newest_published_head(context: Context, long: Ledger) -> None:
    assert await tiles.checkpoint(context, "eu") == head("eu", leaves(long)[:590])


@pytest.mark.parametrize("size", [100, 257, 590])
async def test_the_verifier_reads_the_log_of_every_published_head(context: Context, long: Ledger, size: int) -> None:
    known = leaves(long)[:size]
    files = await served(context, size)
    reader = TileReader(files.__getitem__, size, merkle.root(known))
    assert list(reader.leaf_hashes()) == known
    assert [entry[48:] for entry in reader.entries()] == [entry.body for entry in long.entries()[:size]]


async def test_nothing_is_shown_beyond_the_newest_published_head(context: Context, long: Ledger) -> None:
    for path in ("tile/0/002.p/78", "tile/entries/002.p/78", "tile/1/000.p/2", "tile/0/001", "tile/0/001.p/3"):
        assert await tiles.file(context, "eu", path)
    for path in (
        "tile/0/002.p/79",
        "tile/entries/002.p/79",
        "tile/0/002",
        "tile/0/003.p/1",
        "tile/1/000.p/3",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/63/000.p/1",
        "tile/entries/x999/x999/x999/x999/x999/x999/999",
    ):
        with pytest.raises(NotPublished) as refused:
            await tiles.file(context, "eu", path)
        assert refused.value.facts == {"log": "eu", "size": 590}
    with pytest.raises(NotPublished):
        await tiles.inclusion(context, "eu", 591)
    with pytest.raises(NotPublished):
        await tiles.consistency(context, "eu", 1, 591)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x000/x001/000",
        "tile/0/001/000",
        "tile/0/000/",
        "tile//000",
        "tile/00/000",
        "tile/-1/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/000\n",
        "tile/entry/000",
        "tile/Entries/000",
        "tile/entries/000.P/1",
        "tile/0/x+01/000",
        "tile/",
        "",
        "checkpoint",
    ],
)
def test_a_path_has_one_spelling(path: str) -> None:
    with pytest.raises(NotFound):
        tiles.parse_path(path)


@given(
    st.none() | st.integers(0, 63),
    st.one_of(st.integers(0, 2000), st.integers(0, 2**63 - 1)),
    st.integers(1, 256),
)
def test_paths_are_those_of_the_verifier(level: int | None, index: int, width: int) -> None:
    assert tiles.parse_path(Tile(level, index, width).path) == (level, index, width)


async def test_heads_are_listed_by_size(context: Context, long: Ledger) -> None:
    known = leaves(long)
    first = await tiles.heads(context, "eu", limit=2)
    assert [(each.size, each.root) for each in first.items] == [
        (size, merkle.root(known[:size]).hex()) for size in (100, 257)
    ]
    assert first.items[0].note.encode() == head("eu", known[:100])
    rest = await tiles.heads(context, "eu", limit=2, cursor=first.next_cursor)
    assert [each.size for each in rest.items] == [590]
    assert rest.next_cursor is None
    assert [each.size for each in (await tiles.heads(context, "eu", after=257)).items] == [590]
    assert (await tiles.heads(context, "eu", after=590)).items == []


@pytest.mark.parametrize("position", [1, 2, 256, 257, 590])
async def test_a_proof_in_a_file_is_accepted(context: Context, long: Ledger, position: int) -> None:
    known = leaves(long)
    found = await tiles.inclusion(context, "eu", position)
    assert (found.index, found.size, found.leaf) == (position - 1, 590, known[position - 1].hex())
    proven = verify_proof(found.file(), known[position - 1], trusting("eu"))
    assert (proven.index, proven.head.checkpoint.size) == (position - 1, 590)
    with pytest.raises(merkle.ProofError):
        verify_proof(found.file(), known[position % 590], trusting("eu"))
    with pytest.raises(merkle.ProofError):
        verify_proof(found.file(), known[position - 1], trusting("us"))


async def test_a_proof_of_consistency_is_accepted(context: Context, long: Ledger) -> None:
    known = leaves(long)
    for first, second in ((1, 590), (100, 257), (256, 512), (257, 590), (590, 590)):
        found = await tiles.consistency(context, "eu", first, second)
        proof = [bytes.fromhex(each) for each in found.hashes]
        merkle.verify_consistency(first, second, merkle.root(known[:first]), merkle.root(known[:second]), proof)


async def test_a_copy_is_served_as_far_as_it_is_here(context: Context, ledger: Ledger) -> None:
    entries = chained(US, opening(US, (128, 255)).bodies)
    ledger.append_copy(entries)
    publish(ledger, 1, log="us")
    ledger.sql(
        "SELECT ledger.keep_checkpoint(2::smallint, 2, %s, %s, true)",
        *(merkle.root([entries[0].leaf] * 2), head("us", [entries[0].leaf] * 2)),
    )
    assert await tiles.checkpoint(context, "us") == head("us", [entries[0].leaf])
    assert [each.size for each in (await tiles.heads(context, "us")).items] == [1]
    proof = await tiles.inclusion(context, "us", 1)
    assert verify_proof(proof.file(), entries[0].leaf, trusting("us")).head.checkpoint.size == 1


async def test_what_cannot_be_asked(context: Context, long: Ledger) -> None:
    for log in ("mars", "", "e\x00u", "eu/../eu"):
        for asked in (
            tiles.checkpoint(context, log),
            tiles.heads(context, log),
            tiles.file(context, log, "tile/0/000"),
            tiles.inclusion(context, log, 1),
            tiles.consistency(context, log, 1, 2),
        ):
            with pytest.raises(NotFound) as refused:
                await asked
            assert refused.value.code == "not_found"
    with pytest.raises(NotPublished):
        await tiles.checkpoint(context, "us")
    for wrong in (
        tiles.consistency(context, "eu", 2, 1),
        tiles.consistency(context, "eu", 0, 1),
        tiles.heads(context, "eu", after=-1),
        tiles.heads(context, "eu", limit=201),
        tiles.heads(context, "eu", cursor="WzFd!"),
    ):
        with pytest.raises(Invalid):
            await wrong


async def test_readers_do_not_wait_for_one_another(context: Context, long: Ledger) -> None:
    proofs = await asyncio.gather(*(tiles.inclusion(context, "eu", position) for position in range(1, 30)))
    known = leaves(long)
    for proof in proofs:
        verify_proof(proof.file(), known[proof.index], trusting("eu"))
