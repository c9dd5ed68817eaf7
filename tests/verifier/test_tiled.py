"""A log in tiles: whatever is changed in a directory is found, and any log that keeps to the specification can be read."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import trees
from tests.verifier.logs import ORIGIN, small_log
from tests.verifier.shown import AT_S, LOG, directory, note, policy, write
from verifier.faults import CouldNotCheck, Found, Reason
from verifier.log import Report, verify
from verifier.source import FolderSource, Head
from verifier.tiled import leaf_at

LONG = small_log(600)  # three bundles


def check(folder: Path, *, trusting: bool = True) -> Report:
    source = FolderSource(str(folder))
    (head,) = source.heads()
    return verify(source.pages(head), policy() if trusting else None, origin=ORIGIN, head=(head.position, head.leaf))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("tiles"), LONG, sizes=(1, 100, 256, 257, 512))


def changing(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], int]:
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: path.write_bytes(before)


def test_a_directory_of_tiles_is_read_as_the_log_that_it_is(tiles: Path) -> None:
    report = check(tiles)
    assert report.intact, report.fault
    assert (report.log, report.entries, report.leaf) == ("eu", 600, LONG[-1][2].hex())
    assert report.signed is not None
    assert (report.signed.heads, report.signed.signatures, report.unwitnessed_entries) == (6, 6, 0)
    assert report.recorded_last_us == int.from_bytes(LONG[-1][1][40:48])


def test_each_leaf_is_read_where_it_stands(tiles: Path) -> None:
    pages = FolderSource(str(tiles)).pages(Head("eu", ORIGIN, 600, None))
    for position in (1, 256, 257, 600):
        assert leaf_at(pages, position) == LONG[position - 1][2]  # type: ignore[arg-type]


def test_a_partial_tile_may_have_given_way_to_the_full_one(tmp_path: Path) -> None:
    folder = directory(tmp_path, LONG)
    (folder / "checkpoint").write_bytes(note(500, trees.head([leaf for _, _, leaf in LONG[:500]])))
    (folder / "tile/1/000.p/1").write_bytes((folder / "tile/1/000.p/2").read_bytes()[:32])
    report = check(folder)
    assert report.intact, report.fault
    assert report.entries == 500


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("path", "change", "reason", "position"),
    [
        ("tile/entries/001", flip(2 + 100), Reason.LEAF_MISMATCH, 257),
        ("tile/entries/002.p/88", flip(2 + 20), Reason.PREV_LEAF_MISMATCH, 513),
        ("tile/entries/001", flip(0), Reason.TILE_MALFORMED, 257),
        ("tile/entries/001", lambda data: data[:-1], Reason.TILE_MALFORMED, 257),
        ("tile/entries/001", lambda data: data + b"x", Reason.TILE_MALFORMED, 257),
        ("tile/0/001", flip(32 * 9), Reason.LEAF_MISMATCH, 266),
        ("tile/0/002.p/88", flip(32 * 87), Reason.LEAF_MISMATCH, 600),
        ("tile/0/000", lambda data: data[:-1], Reason.TILE_MALFORMED, 1),
        ("tile/1/000.p/2", flip(0), Reason.TILE_DIFFERS, 1),
        ("tile/1/000.p/2", flip(32), Reason.TILE_DIFFERS, 257),
        ("tile/1/000.p/2", lambda data: data + b"x", Reason.TILE_MALFORMED, 1),
        ("heads/100", lambda data: data.replace(b"\n100\n", b"\n101\n"), Reason.HEAD_MALFORMED, 100),
        ("heads/256", lambda _: note(256, bytes(32)), Reason.ROOT_MISMATCH, 256),
        ("checkpoint", lambda _: note(600, bytes(32)), Reason.ROOT_MISMATCH, 600),
    ],
)
def test_what_was_changed_in_a_directory_is_found_where_it_is(
    tiles: Path, path: str, change: Callable[[bytes], bytes], reason: Reason, position: int
) -> None:
    restore = changing(tiles / path, change)
    try:
        report = check(tiles)
    finally:
        restore()
    assert report.fault is not None
    assert (report.fault.reason, report.fault.position) == (reason, position), report.fault.detail


@pytest.mark.parametrize("path", ["tile/entries/001", "tile/0/002.p/88", "tile/1/000.p/2", "checkpoint"])
def test_what_is_missing_could_not_be_checked(tiles: Path, path: str) -> None:
    before = (tiles / path).read_bytes()
    (tiles / path).unlink()
    try:
        with pytest.raises(CouldNotCheck, match="there is no"):
            check(tiles)
    finally:
        (tiles / path).write_bytes(before)


def test_a_bit_flipped_anywhere_in_any_file_is_noticed(tiles: Path) -> None:
    chance = random.Random(7)
    for path in sorted(path for path in tiles.rglob("*") if path.is_file()):
        for _ in range(3):
            at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
            restore = changing(
                path, lambda data, at=at, bit=bit: data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            )  # type: ignore[misc]
            try:
                report = check(tiles)
                assert report.signed is not None
                # A witness's line may have become one of somebody unknown: then nothing is witnessed.
                assert not report.intact or (report.signed.unknown_signatures and report.unwitnessed_entries == 600)
            except CouldNotCheck:
                pass
            finally:
                restore()
    assert check(tiles).intact


# Other people's logs.


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.integers(1, 30), st.data())
def test_any_log_that_keeps_to_the_specification_can_be_checked(
    tmp_path_factory: pytest.TempPathFactory, some: list[bytes], times: int, data: st.DataObject
) -> None:
    entries = some * times
    origin = "log.example/foreign"
    root = trees.head([trees.leaf(entry) for entry in entries])
    signed = note(len(entries), root, origin=origin, witnessed={"ap": AT_S})
    folder = write(tmp_path_factory.mktemp("foreign"), entries, [], signed)
    source = FolderSource(str(folder))
    (head,) = source.heads()
    assert (head.log, head.origin, head.position) == (origin, origin, len(entries))

    def checked() -> Report:
        return verify(source.pages(head), policy(LOG, origin=origin), origin=origin, merkle_only=True)

    report = checked()
    assert report.intact, report.fault
    assert (report.entries, report.unwitnessed_entries, report.recorded_last_us) == (len(entries), 0, None)

    index = data.draw(st.integers(0, len(entries) - 1))
    changed = [*entries[:index], entries[index] + b"!", *entries[index + 1 :]]
    for path, content in trees.files(changed).items():
        if path.startswith("tile/entries"):
            (folder / path).write_bytes(content)
    fault = checked().fault
    assert fault is not None
    assert (fault.reason, fault.position) == (Reason.LEAF_MISMATCH, index + 1)


def test_a_foreign_log_is_refused_without_merkle_only(tmp_path: Path) -> None:
    folder = write(tmp_path, [b"a"], [], note(1, trees.leaf(b"a"), origin="log.example/foreign"))
    source = FolderSource(str(folder))
    (head,) = source.heads()
    with pytest.raises(ValueError, match="is not an origin"):
        verify(source.pages(head), origin=head.origin)


def test_a_directory_without_checkpoint_could_not_be_checked(tmp_path: Path) -> None:
    with pytest.raises(CouldNotCheck, match="no checkpoint"):
        FolderSource(str(tmp_path)).heads()
    (tmp_path / "checkpoint").write_bytes(b"\xff")
    with pytest.raises(CouldNotCheck, match="cannot be read"):
        FolderSource(str(tmp_path)).heads()


def test_a_bundle_that_cannot_be_read_accuses_the_place_only_when_it_is_reached(tiles: Path) -> None:
    restore = changing(tiles / "tile/entries/001", lambda data: data[:-1])
    try:
        pages = FolderSource(str(tiles)).pages(Head("eu", ORIGIN, 600, None))
        parts = iter(pages.entries(1, 600))
        assert len(next(iter(parts)).entries) == 256
        with pytest.raises(Found):
            next(iter(parts))
    finally:
        restore()
