"""A log as static files: paths, bundles, and what is computed from tiles."""

import random
from collections import Counter
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import trees
from verifier.encoding import NUMBER_MAX
from verifier.merkle import Tree, verify_consistency, verify_inclusion
from verifier.tiles import (
    Tile,
    TileError,
    TileReader,
    decode_bundle,
    encode_bundle,
    parse_path,
    root_of_tiles,
    tiles_of,
    width_in,
)

# Paths

PATHS = {
    # The example of tlog-tiles, "Merkle Tree".
    "tile/0/x001/x234/067": Tile(0, 1234067),
    # transparency-dev/trillian-tessera, api/layout/paths_test.go and example_test.go.
    "tile/entries/000": Tile(None, 0),
    "tile/entries/000.p/255": Tile(None, 0, 255),
    "tile/entries/001.p/1": Tile(None, 1, 1),
    "tile/entries/x123/x456/789": Tile(None, 123456789),
    "tile/entries/x123/x456/x789/000": Tile(None, 123456789000),
    "tile/entries/x001/x234/067.p/8": Tile(None, 1234067, 8),
    "tile/1/000.p/4": Tile(1, 0, 4),
    "tile/15/x455/667": Tile(15, 455667),
    "tile/15/x123/x456/789": Tile(15, 123456789),
    "tile/0/x001/x234/067.p/89": Tile(0, 1234067, 89),
    "tile/63/x999/x999/x999/x999/x999/999.p/255": Tile(63, 999999999999999999, 255),
}


@pytest.mark.parametrize(("path", "tile"), PATHS.items())
def test_a_path_is_spelled_and_read_as_in_published_examples(path: str, tile: Tile) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        # transparency-dev/trillian-tessera, api/layout/paths_test.go, TestParseTileLevelIndexWidth.
        "tile/0/x001/x234/067.p/",
        "tile/0/x001/x234/067.p",
        "tile/0/x001/x234/",
        "tile/0/x001/x234",
        "tile/0/x001/",
        "tile/0/x001",
        "tile/1/x001/.p/abc",
        "tile/64/x001/002",
        "tile/-1/x001/002",
        "tile/abc/x001/002",
        "tile/8/001/002",
        "tile/8/x001/0002",
        "tile/8/x001/-002",
        "tile/8/x001/002.p/256",
        # golang.org/x/mod, sumdb/tlog/tlog_test.go: the layout with a height, which tlog-tiles does not have.
        "tile/4/0/001",
        "tile/3/5/x123/x456/078",
        "tile/3/5/123/456/078",
        # A second spelling of something.
        "/tile/0/000",
        "tile/0/000/",
        "tile//000",
        "tile/0/000\n",
        "tile/0/000 ",
        " tile/0/000",
        "TILE/0/000",
        "tile/00/000",
        "tile/01/000",
        "tile/+1/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/x000/x000/001",
        "tile/0/X001/000",
        "tile/0/x1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/01",
        "tile/0/000.p/001",
        "tile/0/000.p/+1",
        "tile/0/000.p/257",
        "tile/0/000.p/1000",
        "tile/0/000.p/1/",
        "tile/0/000.P/1",
        "tile/0/000/p/1",
        "tile/0/\u0660\u0660\u0660",
        "tile/\u0660/000",
        "tile/Entries/000",
        "tile/data/000",
        "tile/0/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x009/x223/x372/x036/x854/x775/808",  # 2^63
        "checkpoint",
        "",
    ],
)
def test_any_other_spelling_is_no_path(path: str) -> None:
    with pytest.raises(TileError, match="is not the path of a tile"):
        parse_path(path)


@given(
    st.one_of(st.none(), st.integers(min_value=0, max_value=63)),
    st.integers(min_value=0, max_value=NUMBER_MAX),
    st.integers(min_value=1, max_value=256),
)
def test_a_path_is_read_as_what_it_was_spelled_from(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile
    name = "entries" if level is None else str(level)
    assert tile.path == f"tile/{name}/{trees.number(index)}" + (f".p/{width}" if width < 256 else "")


ALPHABET = st.text(alphabet="tileenriesxp/.0123456789", max_size=30)


@given(st.one_of(ALPHABET, st.builds("tile/{}/{}".format, st.sampled_from(["0", "63", "entries"]), ALPHABET)))
def test_what_is_read_as_a_path_is_spelled_the_same(path: str) -> None:
    try:
        tile = parse_path(path)
    except TileError:
        return
    assert tile.path == path


@pytest.mark.parametrize("tile", [Tile(64, 0), Tile(-1, 0), Tile(0, -1), Tile(0, NUMBER_MAX + 1), Tile(0, 0, 0)])
def test_a_tile_that_cannot_be_has_no_path(tile: Tile) -> None:
    with pytest.raises(TileError):
        _ = tile.path
    with pytest.raises(TileError):
        _ = Tile(0, 0, 257).path


# Which tiles there are


def test_a_tree_of_70_000_has_the_tiles_of_the_example() -> None:
    """tlog-tiles, "Partial Tiles"."""
    tiles = [tile for tile in tiles_of(70_000) if tile.level is not None]
    assert Counter((tile.level, tile.width) for tile in tiles) == {
        (0, 256): 273,
        (0, 112): 1,
        (1, 256): 1,
        (1, 17): 1,
        (2, 1): 1,
    }
    assert tiles[273] == Tile(0, 273, 112)


def test_a_tree_of_256_has_a_full_tile_and_a_partial_one_above_it() -> None:
    """tlog-tiles, "Partial Tiles"."""
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1), Tile(None, 0)]


def test_an_empty_tree_has_no_tiles() -> None:
    assert list(tiles_of(0)) == []


SIZES = [1, 2, 3, 7, 255, 256, 257, 511, 512, 513, 700, 1024, 1300]


@cache
def log(size: int) -> tuple[list[bytes], dict[str, bytes]]:
    """Entries of different lengths, and the files that the definition makes of them."""
    entries = [b"entry %d " % number * (number % 7) for number in range(size)]
    return entries, trees.files(entries)


@pytest.mark.parametrize("size", SIZES)
def test_the_tiles_of_a_tree_are_those_of_the_definition(size: int) -> None:
    _, files = log(size)
    tiles = list(tiles_of(size))
    assert {tile.path for tile in tiles} == set(files)
    assert len(tiles) == len(files)
    for tile in tiles:
        assert width_in(size, tile.level, tile.index) == tile.width
        assert tile.level is None or len(files[tile.path]) == 32 * tile.width
    assert width_in(size, 0, size // 256 + 1) == 0
    assert width_in(size, 9, 0) == 0


# Bundles


@pytest.mark.parametrize("size", SIZES)
def test_a_bundle_is_written_and_read_as_defined(size: int) -> None:
    entries, files = log(size)
    for tile in tiles_of(size):
        if tile.level is None:
            held = entries[256 * tile.index :][:256]
            assert encode_bundle(held) == files[tile.path]
            assert decode_bundle(files[tile.path], tile.width) == held


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_is_read_as_it_was_written(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


def test_a_bundle_holds_empty_entries_and_ones_of_65_535_bytes() -> None:
    # The first is transparency-dev/trillian-tessera, api/state_test.go, "empty nodes".
    assert decode_bundle(b"\x00\x00\x00\x01a\x00\x00", 3) == [b"", b"a", b""]
    longest = bytes(65_535)
    assert decode_bundle(encode_bundle([longest, b"x"]), 2) == [longest, b"x"]
    with pytest.raises(TileError, match="65536 bytes does not fit"):
        encode_bundle([longest + b"\x00"])


@pytest.mark.parametrize("entries", [[], [b""] * 257])
def test_a_bundle_holds_1_to_256_entries(entries: list[bytes]) -> None:
    with pytest.raises(TileError, match="a bundle holds 1 to 256 entries"):
        encode_bundle(entries)


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (b"\x00\x02a", 1),  # trillian-tessera, api/state_test.go, "insufficient data"
        (b"\x01", 1),  # the same, "insufficient integer bytes"
        (b"", 1),
        (b"\x00\x01a", 2),
        (b"\x00\x01a\x00", 1),
        (b"\x00\x01a\x00\x00", 1),
        (b"\x00\x00\x00\x00", 1),
    ],
)
def test_a_bundle_that_is_cut_off_or_goes_on_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(TileError, match="the bundle"):
        decode_bundle(data, width)


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9), st.data())
def test_a_bundle_cut_off_anywhere_is_refused(entries: list[bytes], data: Any) -> None:
    whole = encode_bundle(entries)
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    with pytest.raises(TileError):
        decode_bundle(whole[:cut], len(entries))
    with pytest.raises(TileError):
        decode_bundle(whole + data.draw(st.binary(min_size=1, max_size=4)), len(entries))


# What is computed from tiles


def reader(size: int) -> tuple[TileReader, list[bytes]]:
    entries, files = log(size)
    leaves = [trees.leaf(entry) for entry in entries]
    return TileReader(files.__getitem__, size, trees.head(leaves)), leaves


@pytest.mark.parametrize("size", SIZES)
def test_the_root_is_computed_from_the_tiles_at_the_right_edge(size: int) -> None:
    entries, files = log(size)
    fetched: list[str] = []

    def fetch(path: str) -> bytes:
        fetched.append(path)
        return files[path]

    assert root_of_tiles(fetch, size) == trees.head([trees.leaf(entry) for entry in entries])
    assert len(fetched) <= -(-size.bit_length() // 8)


def test_the_root_of_an_empty_tree_needs_no_tiles() -> None:
    assert root_of_tiles({}.__getitem__, 0) == sha256(b"").digest()
    empty = TileReader({}.__getitem__, 0, sha256(b"").digest())
    assert (empty.tree().root(), list(empty.leaf_hashes()), list(empty.entries())) == (sha256(b"").digest(), [], [])
    with pytest.raises(ValueError, match="no leaf at index 0"):
        empty.inclusion_proof(0)


@pytest.mark.parametrize("size", SIZES)
def test_the_earlier_trees_can_be_continued(size: int) -> None:
    tiles, leaves = reader(size)
    for earlier in sorted({0, 1, size // 3, size // 2, 256 if size > 256 else 1, size - 1, size}):
        tree = tiles.tree(earlier)
        assert (tree.size, tree.root()) == (earlier, trees.head(leaves[:earlier]))
        for leaf in tiles.leaf_hashes(earlier):
            tree.append(leaf)
        assert (tree.size, tree.root()) == (size, tiles.root)


@pytest.mark.parametrize("size", SIZES)
def test_every_proof_from_tiles_is_that_of_the_definition(size: int) -> None:
    tiles, leaves = reader(size)
    some = random.Random(size)
    for index in {0, size - 1, *some.sample(range(size), min(size, 12))}:
        assert tiles.inclusion_proof(index) == trees.path(index, leaves)
        assert tiles.consistency_proof(index + 1) == trees.proof(index + 1, leaves)
        smaller = some.randint(index + 1, size)
        assert tiles.inclusion_proof(index, smaller) == trees.path(index, leaves[:smaller])
        assert tiles.consistency_proof(index + 1, smaller) == trees.proof(index + 1, leaves[:smaller])


@pytest.mark.parametrize("size", [6, 257, 300])
def test_all_proofs_from_tiles_are_those_of_the_definition(size: int) -> None:
    tiles, leaves = reader(size)
    for index in range(size):
        assert tiles.inclusion_proof(index) == trees.path(index, leaves)
        assert tiles.consistency_proof(index + 1) == trees.proof(index + 1, leaves)


@given(st.data())
def test_any_range_of_entries_and_leaf_hashes_can_be_read(data: Any) -> None:
    size = data.draw(st.sampled_from(SIZES))
    end = data.draw(st.integers(min_value=0, max_value=size))
    start = data.draw(st.integers(min_value=0, max_value=end))
    tiles, leaves = reader(size)
    assert list(tiles.leaf_hashes(start, end)) == leaves[start:end]
    assert list(tiles.entries(start, end)) == log(size)[0][start:end]


def test_what_is_not_in_the_tree_cannot_be_asked_for() -> None:
    tiles, _ = reader(7)
    for ask in (
        lambda: tiles.tree(8),
        lambda: tiles.tree(-1),
        lambda: tiles.inclusion_proof(7),
        lambda: tiles.inclusion_proof(-1),
        lambda: tiles.inclusion_proof(3, 3),
        lambda: tiles.inclusion_proof(3, 8),
        lambda: tiles.consistency_proof(0),
        lambda: tiles.consistency_proof(8),
        lambda: tiles.consistency_proof(5, 4),
        lambda: list(tiles.entries(0, 8)),
        lambda: list(tiles.entries(5, 4)),
        lambda: list(tiles.leaf_hashes(-1)),
    ):
        with pytest.raises(ValueError):
            ask()


# Tiles that are missing or wrong


def test_a_partial_tile_that_is_gone_is_read_from_the_full_one() -> None:
    """tlog-tiles, "Partial Tiles": a log may delete partial tiles once the full one is there."""
    entries, files = log(1024)
    tiles = TileReader(files.__getitem__, 1000, trees.head([trees.leaf(entry) for entry in entries[:1000]]))
    assert "tile/0/003.p/232" not in files
    with pytest.raises(LookupError):
        tiles.tree()  # the full tile of level 1 is not there either
    files = {**files, "tile/1/000.p/3": files["tile/1/000.p/4"][:-32]}
    tiles = TileReader(files.__getitem__, 1000, tiles.root)
    assert tiles.tree().root() == tiles.root
    assert list(tiles.entries(990)) == entries[990:1000]
    tiles = TileReader({**files, "tile/0/003": bytes(8191)}.__getitem__, 1000, tiles.root)
    with pytest.raises(TileError, match="8191 bytes instead of 8192"):
        tiles.tree()


def test_a_log_can_be_read_from_a_directory(tmp_path: Path) -> None:
    entries, files = log(513)
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (tmp_path / "tile/entries/002.p/1").rename(tmp_path / "1")
    (tmp_path / "tile/entries/002").write_bytes(files["tile/entries/000"])
    tiles = TileReader(lambda path: (tmp_path / path).read_bytes(), 513, trees.head([trees.leaf(e) for e in entries]))
    assert list(tiles.entries(0, 512)) == entries[:512]
    with pytest.raises(TileError, match="the entry at index 512 is not the one that was hashed"):
        list(tiles.entries(512))
    (tmp_path / "tile/entries/002").unlink()
    with pytest.raises(FileNotFoundError):
        list(tiles.entries(512))


@pytest.mark.parametrize("missing", ["tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/001"])
def test_a_missing_file_is_a_lookup_error(missing: str) -> None:
    entries, files = log(700)
    files = {path: data for path, data in files.items() if path != missing}
    tiles = TileReader(files.__getitem__, 700, trees.head([trees.leaf(entry) for entry in entries]))
    with pytest.raises(LookupError):
        list(tiles.entries())


@given(st.data())
def test_no_change_of_any_bit_of_any_file_goes_unnoticed(data: Any) -> None:
    size = data.draw(st.sampled_from([3, 255, 256, 257, 513, 700]))
    entries, files = log(size)
    path = data.draw(st.sampled_from(sorted(files)))
    bit = data.draw(st.integers(min_value=0, max_value=8 * len(files[path]) - 1))
    changed = bytearray(files[path])
    changed[bit // 8] ^= 1 << bit % 8
    root = trees.head([trees.leaf(entry) for entry in entries])
    tiles = TileReader({**files, path: bytes(changed)}.__getitem__, size, root)
    with pytest.raises(TileError):
        list(tiles.entries())


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\x00", lambda data: b""])
def test_a_file_of_another_length_is_refused(change: Any) -> None:
    entries, files = log(700)
    root = trees.head([trees.leaf(entry) for entry in entries])
    for path, data in files.items():
        tiles = TileReader({**files, path: change(data)}.__getitem__, 700, root)
        with pytest.raises(TileError):
            list(tiles.entries())


def test_two_tiles_in_each_others_place_are_noticed() -> None:
    entries, files = log(700)
    files = {**files, "tile/0/000": files["tile/0/001"], "tile/0/001": files["tile/0/000"]}
    tiles = TileReader(files.__getitem__, 700, trees.head([trees.leaf(entry) for entry in entries]))
    with pytest.raises(TileError, match="tile/0/000 does not hash to what stands in the tile above it"):
        tiles.inclusion_proof(0)


def test_what_stops_a_fetch_is_passed_on() -> None:
    def fetch(path: str) -> bytes:
        raise ConnectionResetError(path)

    with pytest.raises(ConnectionResetError):
        TileReader(fetch, 700, bytes(32)).tree()


# A tree of ten million

HUGE = 10_000_000


@pytest.fixture(scope="module")
def huge() -> trees.Periodic:
    return trees.Periodic(HUGE)


NEAR = [0, 1, 255, 256, 65_535, 65_536, 9_961_471, 9_961_472, HUGE - 128, HUGE - 2, HUGE - 1]


def test_a_proof_in_ten_million_leaves_takes_five_files_at_most(huge: trees.Periodic) -> None:
    root = huge.head(0, HUGE)
    some = random.Random(1)
    taken: Counter[str] = Counter()
    for index in [*NEAR, *(some.randrange(HUGE) for _ in range(100))]:
        huge.fetched.clear()
        proof = TileReader(huge.fetch, HUGE, root).inclusion_proof(index)
        verify_inclusion(index, HUGE, huge.subtree(0, index), proof, root)
        taken["inclusion"] = max(taken["inclusion"], len(huge.fetched))

        huge.fetched.clear()
        proof = TileReader(huge.fetch, HUGE, root).consistency_proof(index + 1)
        verify_consistency(index + 1, HUGE, huge.head(0, index + 1), root, proof)
        taken["consistency"] = max(taken["consistency"], len(huge.fetched))
    assert taken == {"inclusion": 5, "consistency": 5}


def test_the_root_of_ten_million_leaves_takes_three_files(huge: trees.Periodic) -> None:
    huge.fetched.clear()
    assert root_of_tiles(huge.fetch, HUGE) == huge.head(0, HUGE)
    assert huge.fetched == ["tile/0/x039/062.p/128", "tile/1/152.p/150", "tile/2/000.p/152"]


def test_further_proofs_take_only_tiles_that_were_not_read_yet(huge: trees.Periodic) -> None:
    tiles = TileReader(huge.fetch, HUGE, huge.head(0, HUGE))
    tiles.inclusion_proof(5_000_000)
    huge.fetched.clear()
    for index in range(5_000_000, 5_000_060):
        tiles.inclusion_proof(index)
    assert huge.fetched == []


def test_reading_many_tiles_keeps_few_and_reads_none_twice(huge: trees.Periodic) -> None:
    root = huge.head(0, HUGE)
    tiles = TileReader(huge.fetch, HUGE, root)
    huge.fetched.clear()
    tree = Tree()
    for leaf in tiles.leaf_hashes(0, 100_000):
        tree.append(leaf)
    assert tree.root() == huge.head(0, 100_000)
    assert max(Counter(huge.fetched).values()) == 1
    assert len(tiles._full) <= 64
