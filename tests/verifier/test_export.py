"""Exports: what is there is checked, and nothing of it can be altered unnoticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.app.exports import busy_book, make, region_of, small_book, trust_file
from tests.projections.books import Book
from verifier import cli
from verifier.export import (
    Export,
    ExportAltered,
    Line,
    files_in,
    is_export,
    read_line,
    sums_of,
    verify_export,
    write_line,
)
from verifier.faults import CouldNotCheck, Reason
from verifier.log import Report
from verifier.note import Kind, key_of
from verifier.policy import parse_policy

KINDS: dict[str, dict[str, Any]] = {
    "whole": {},
    "range": {"first": "eu/5", "last": "eu/14"},
    "selection": {"jurisdiction": "DE", "first": "eu/3"},
}

pytestmark = pytest.mark.usefixtures("environment")
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def small() -> Book:
    return small_book()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, small: Book) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch, region_of(small, sizes=(4, 9)) as region:
        patch.setenv("NO_PROXY", "*")
        for kind, asked in KINDS.items():
            make(region.url, folder / kind, **asked)
        make(region.url, folder / "player", player=small.players[1])
    return folder


@pytest.fixture
def out(exports: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an export, to be altered."""
    return lambda kind: Path(shutil.copytree(exports / kind, tmp_path / kind))


def verified(folder: Path) -> Report:
    return verify_export(str(folder))["eu"]


def sealed_anew(folder: Path) -> Path:
    """As somebody would who alters an export on purpose."""
    names = set(files_in(folder)) - {"SHA256SUMS"}
    (folder / "SHA256SUMS").write_bytes(sums_of(folder, names))
    return folder


# Every byte


@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_of_an_export_can_be_altered(exports: Path, out: Callable[[str], Path], kind: str) -> None:
    folder = out(kind)
    for name in files_in(exports / kind):
        data = (folder / name).read_bytes()
        with (folder / name).open("r+b", buffering=0) as file:
            for place in range(0, len(data), 1 if len(data) < 64 else 7 if name == "SHA256SUMS" else 97):
                for flipped in (data[place] ^ 1, data[place] ^ 0x80):
                    file.seek(place)
                    file.write(bytes([flipped]))
                    with pytest.raises(ExportAltered) as refused:
                        Export.open(str(folder))
                    assert str(refused.value).isascii()
                    file.seek(place)
                    file.write(data[place : place + 1])
    assert verified(folder).intact


@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_of_a_log_can_be_altered_even_with_new_sums(
    exports: Path, out: Callable[[str], Path], kind: str
) -> None:
    folder = out(kind)
    for name in sorted(name for name in files_in(exports / kind) if name.startswith("eu/")):
        data = (folder / name).read_bytes()
        for place in range(0, len(data), max(len(data) // 12, 1)):
            changed = bytearray(data)
            changed[place] ^= 2
            (folder / name).write_bytes(bytes(changed))
            sealed_anew(folder)
            try:
                report = verified(folder)
                assert not report.intact or is_of_no_account(kind, name, report), (name, place)
            except (ExportAltered, CouldNotCheck) as refused:
                assert str(refused).isascii()  # noqa: PT017 - one of three ways to be refused
        (folder / name).write_bytes(data)


def is_of_no_account(kind: str, name: str, report: Report) -> bool:
    """
    A bundle of a range also holds neighbours, which are not exported and not looked at; and a head that a stranger seems
    to have signed as well is told to be witnessed by nobody.
    """
    unknown = report.signed is not None and report.signed.unknown_signatures
    return (kind == "range" and "entries" in name) or (bool(unknown) and "tile" not in name)


def test_a_cut_off_file_is_refused_as_well(out: Callable[[str], Path]) -> None:
    folder = out("selection")
    lines = (folder / "eu/entries.ndjson").read_bytes().splitlines(keepends=True)
    for kept in (lines[:-1], lines[1:], lines[:3] + lines[4:], [], [*lines, lines[-1]], [lines[1], lines[0]]):
        (folder / "eu/entries.ndjson").write_bytes(b"".join(kept))
        assert not verified(sealed_anew(folder)).intact


# What may be in a directory


def add(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("x")


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda folder: add(folder, "note.txt"), "'note.txt' does not stand in SHA256SUMS"),
        (lambda folder: add(folder, "eu/tile/0/x"), "does not stand in SHA256SUMS"),
        (lambda folder: (folder / "empty").mkdir(), "'empty/' is empty"),
        (lambda folder: (folder / "link").symlink_to("HOWTO.txt"), "'link' is neither a file nor a folder"),
        (lambda folder: (folder / "HOWTO.txt").unlink(), "'HOWTO.txt' stands in SHA256SUMS, but is not there"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "there is no SHA256SUMS"),
    ],
)
def test_what_is_added_or_missing_is_named(
    out: Callable[[str], Path], run: Run, alter: Callable[[Path], object], said: str
) -> None:
    folder = out("whole")
    alter(folder)
    status, shown = run("verify", folder)
    assert (status, f"NOT INTACT: the export was altered: {said}" in shown or said in shown) == (1, True), shown


@pytest.mark.parametrize(
    "name", ["note.txt", "eu/tile/0/001.p/3", "eu/tile/entries/000", "eu/heads/29", "us/checkpoint", "eu/x"]
)
def test_a_file_that_belongs_to_no_export_is_refused_even_with_its_sum(out: Callable[[str], Path], name: str) -> None:
    folder = out("whole")
    add(folder, name)
    with pytest.raises(ExportAltered, match="is no file of an export"):
        Export.open(str(sealed_anew(folder)))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m | {"format": "countroom/export/2"},
        lambda m: m | {"logs": {}},
        lambda m: m | {"logs": {"../eu": m["logs"]["eu"]}},
        lambda m: m | {"logs": {"us": m["logs"]["eu"]}},
        lambda m: m | {"selection": []},
        lambda m: [],
        lambda m: {},
        lambda m: m | {"logs": {"eu": m["logs"]["eu"] | {"size": 7}}},
        lambda m: m | {"logs": {"eu": m["logs"]["eu"] | {"last": True}}},
        lambda m: m | {"logs": {"eu": m["logs"]["eu"] | {"kind": "all"}}},
        lambda m: m | {"logs": {"eu": m["logs"]["eu"] | {"origin": 5}}},
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    out: Callable[[str], Path], change: Callable[[Any], Any]
) -> None:
    folder = out("whole")
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    (folder / "MANIFEST.json").write_text(json.dumps(change(manifest)))
    with pytest.raises(ExportAltered):
        Export.open(str(sealed_anew(folder)))


# What is checked of entries


def rewritten(folder: Path, change: Callable[[list[Line]], list[Line]]) -> Report:
    file = folder / "eu/entries.ndjson"
    lines = change([read_line(line) for line in file.read_bytes().splitlines(keepends=True)])
    file.write_bytes(b"".join(map(write_line, lines)))
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    manifest["logs"]["eu"]["entries"] = len(lines)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return verified(sealed_anew(folder))


def reason(report: Report) -> Reason | None:
    return report.fault.reason if report.fault else None


def test_an_entry_that_is_left_out_leaves_a_gap_in_its_stream(out: Callable[[str], Path]) -> None:
    def without_the_last_of_a_run(lines: list[Line]) -> list[Line]:
        proved = [number for number, line in enumerate(lines) if line.proof is not None]
        return lines[: proved[0] + 1] + lines[proved[1] + 1 :]

    report = rewritten(out("player"), without_the_last_of_a_run)
    assert reason(report) is Reason.VERSION_GAP


def test_a_stream_that_ends_early_is_not_what_the_manifest_says(out: Callable[[str], Path]) -> None:
    def cut(lines: list[Line]) -> list[Line]:
        proved = [number for number, line in enumerate(lines) if line.proof is not None]
        return lines[: proved[-2] + 1]

    report = rewritten(out("player"), cut)
    assert reason(report) is Reason.VERSION_GAP
    assert report.fault is not None
    assert "the manifest says" in report.fault.detail


def test_an_entry_without_its_proof_is_proved_by_the_next_one_only(out: Callable[[str], Path]) -> None:
    folder = out("player")

    def unproved(lines: list[Line]) -> list[Line]:
        return [lines[0]._replace(proof=None), *lines[1:]]

    assert reason(rewritten(folder, unproved)) is Reason.PROOF_FALSE


def test_neighbours_that_do_not_follow_from_one_another_are_found(out: Callable[[str], Path]) -> None:
    def spoilt(lines: list[Line]) -> list[Line]:
        number = next(n for n, line in enumerate(lines) if line.proof is None)
        entry = lines[number].entry.replace(b"EUR", b"SEK").replace(b"SEK", b"XXX")
        return [*lines[:number], lines[number]._replace(entry=entry), *lines[number + 1 :]]

    assert reason(rewritten(out("player"), spoilt)) is Reason.PREV_LEAF_MISMATCH


def test_a_selection_without_any_gap_still_has_versions_from_1(exports: Path) -> None:
    log = Export.open(str(exports / "player")).logs["eu"]
    versions: dict[str, list[int]] = {}
    for _, entry in log.entries():
        body = json.loads(entry[48:])
        versions.setdefault(body["stream"], []).append(body["version"])
    assert log.streams is not None
    assert versions == {stream: list(range(1, last + 1)) for stream, last in log.streams.items()}


# Whose word it is


def test_keys_that_came_with_the_export_are_said_to_have(exports: Path, run: Run, tmp_path: Path) -> None:
    for kind in (*KINDS, "player"):
        status, said = run("verify", exports / kind)
        assert (status, "CAME WITH THE EXPORT" in said) == (0, True), said
        status, said = run("verify", exports / kind, "--trust", trust_file(tmp_path))
        assert (status, "CAME WITH THE EXPORT" in said) == (0, False), said
        assert "witnessed up to" in said


def test_an_export_without_keys_is_intact_and_says_that_no_signature_was_checked(
    out: Callable[[str], Path], run: Run
) -> None:
    for kind in KINDS:
        folder = out(kind)
        (folder / "trust.policy").unlink()
        status, said = run(sealed_anew(folder))
        assert (status, "NO signature was checked" in said) == (0, True), said


def test_a_checkpoint_that_others_signed_is_not_believed(exports: Path, run: Run, tmp_path: Path) -> None:
    key = key_of("countroom.test/eu", Kind.ED25519, Ed25519PrivateKey.generate())
    (tmp_path / "other.policy").write_text(f"log {key}\nquorum none\n")
    for kind in KINDS:
        status, said = run("verify", exports / kind, "--trust", tmp_path / "other.policy")
        assert (status, "head_unsigned" in said) == (1, True), said


def test_a_policy_that_says_nothing_of_the_log_could_not_be_checked(exports: Path, run: Run, tmp_path: Path) -> None:
    text = trust_file(tmp_path).read_text().splitlines()
    (tmp_path / "us.policy").write_text("\n".join([text[1], "quorum none", ""]))
    for kind in KINDS:
        assert run("verify", exports / kind, "--trust", tmp_path / "us.policy")[0] == 2


def test_a_known_head_is_held_against_whole_logs_only(exports: Path, run: Run) -> None:
    known = exports / "whole/eu/heads/9"
    assert run("verify", exports / "whole", "--known", known)[0] == 0
    status, said = run("verify", exports / "player", "--known", known)
    assert (status, "cannot be seen" in said) == (2, True)
    assert run("verify", exports / "player", "--merkle-only")[0] == 2


def test_the_report_for_machines_says_what_was_taken(exports: Path, run: Run) -> None:
    _, said = run("verify", exports / "range", "--json")
    (source,) = json.loads(said)["sources"]
    assert source["logs"]["eu"]["export"] == {
        "kind": "range", "first": 5, "last": 14, "size": len(small_book().entries), "keys": "enclosed",
    }  # fmt: skip
    assert source["logs"]["eu"]["entries"] == 10


def test_an_export_and_a_whole_log_are_compared(exports: Path, run: Run) -> None:
    status, said = run(exports / "whole", exports / "range")
    assert status == 0, said


def test_policies_are_read_as_any_other(exports: Path) -> None:
    policy = Export.open(str(exports / "whole")).policy()
    assert policy == parse_policy((exports / "whole/trust.policy").read_bytes())


# More than one bundle


def test_a_log_of_several_bundles_is_checked_in_part(tmp_path: Path) -> None:
    book = busy_book(players=50, rounds=5)
    assert len(book.entries) > 4 * 256
    with region_of(book) as region:
        make(region.url, tmp_path / "range", first="eu/300", last="eu/700")
        make(region.url, tmp_path / "player", player=book.players[-1])
    assert verified(tmp_path / "range").intact
    assert verified(tmp_path / "player").intact
    folder = tmp_path / "range"
    tile = folder / "eu/tile/0/001"
    data = bytearray(tile.read_bytes())
    data[-1] ^= 1
    tile.write_bytes(bytes(data))
    report = verified(sealed_anew(folder))
    assert reason(report) is Reason.TILE_DIFFERS


# Lines


def test_a_line_has_one_spelling() -> None:
    line = write_line(Line(7, b"\x00entry", (sha256(b"x").digest(),)))
    assert read_line(line) == Line(7, b"\x00entry", (sha256(b"x").digest(),))
    assert read_line(write_line(Line(7, b"e", None))).proof is None
    for other in (
        line.replace(b":7", b": 7"),
        line.replace(b":7", b":7.0"),
        line.replace(b":7", b":true"),
        line.rstrip(b"\n"),
        line.replace(b'"proof"', b'"prof"'),
        line.upper(),
        b"[]\n",
        b"null\n",
        b"[" * 100_000,
        b'{"position":7,"entry":"ZQ"}\n',
        b'{"position":7,"entry":5}\n',
        b'{"position":7,"entry":"ZQ==","proof":5}\n',
        b"\xff\n",
    ):
        with pytest.raises(ValueError):
            read_line(other)


def test_a_directory_of_tiles_is_no_export(exports: Path) -> None:
    assert is_export(str(exports / "whole"))
    assert not is_export(str(exports / "whole/eu"))
    assert cli.check([str(exports / "whole/eu")]).status == 0
