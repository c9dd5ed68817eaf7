"""The program with a policy: regions that sign, logs in tiles wherever they are, and proofs in files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.verifier import trees
from tests.verifier.logs import ORIGIN, Entry, small_log
from tests.verifier.region import Region, serving
from tests.verifier.shown import AT_S, OTHER_LOG, directory, note, policy_text, root_at, write
from verifier.faults import quoted
from verifier.proof import format_proof

LOG_OF_600 = small_log(600)


pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    file = tmp_path / "trust.policy"
    file.write_text(policy_text())
    return file


def signing(log: list[Entry], *sizes: int) -> Region:
    """A region that signed its log at these sizes, and shows tiles up to the last of them."""
    newest = sizes[-1]
    heads = [(size, note(size, root_at(log, size), witnessed={"us": AT_S})) for size in sizes]
    files = {f"/v1/logs/eu/{path}": data for path, data in trees.files([entry for _, entry, _ in log[:newest]]).items()}
    return Region({"eu": log}, files={**files, "/v1/logs/eu/checkpoint": heads[-1][1]}, signed={"eu": heads})


def test_a_region_is_read_in_tiles_up_to_its_checkpoint_and_entry_by_entry_behind(
    run: Callable[..., tuple[int, str]], trust: Path
) -> None:
    with serving(signing(LOG_OF_600, 100, 300, 550)) as region:
        status, out = run(region.url, "--trust", trust)
    assert status == 0, out
    assert "eu  600 entries  intact; 3 heads, 3 signatures and 3 cosignatures are true" in out
    assert "witnessed up to 550 by 'us'; 50 entries not yet" in out
    assert region.asked_for_entries == [550]
    assert "/v1/logs/eu/tile/entries/002.p/38" in region.requests


def test_more_heads_than_a_page_holds_are_all_checked(run: Callable[..., tuple[int, str]], trust: Path) -> None:
    log = small_log(450)
    with serving(signing(log, *range(1, 451))) as region:
        status, out = run(region.url, "--trust", trust)
        assert status == 0, out
        assert "450 heads, 450 signatures and 450 cosignatures are true" in out
        region.signed["eu"][320] = (321, note(321, bytes(32)))
        status, out = run(region.url, "--trust", trust)
    assert status == 1
    assert "NOT INTACT at position 321" in out
    assert "[root_mismatch]" in out


def test_the_report_for_machines_tells_what_was_signed(run: Callable[..., tuple[int, str]], trust: Path) -> None:
    with serving(signing(LOG_OF_600, 550)) as region:
        _, out = run(region.url, "--trust", trust, "--json")
    (only,) = json.loads(out)["sources"]
    report = only["logs"]["eu"]
    assert report["trusted"] is True
    assert report["signed"]["size"] == 550
    assert report["witnessed"] == {"size": 550, "by": {"us": "2025-11-15T00:00:00Z"}}
    assert report["unwitnessed_entries"] == 50


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"{}", "something else than a list of heads"),
        (
            b'{"items":[{"size":2,"note":""},{"size":2,"note":""}],"next_cursor":null}',
            "something else than a list of heads",
        ),
        (b'{"items":[{"size":true,"note":""}],"next_cursor":null}', "something else than a list of heads"),
        (b'{"items":[{"size":1,"note":7}],"next_cursor":null}', "something else than a list of heads"),
    ],
)
def test_what_is_no_list_of_heads_could_not_be_checked(
    run: Callable[..., tuple[int, str]], answer: bytes, said: str
) -> None:
    with serving(Region({"eu": small_log()}, files={"/v1/logs/eu/heads": answer})) as region:
        status, out = run(region.url)
    assert status == 2
    assert said in out


def test_a_log_in_tiles_is_read_from_a_directory_and_over_http_alike(
    run: Callable[..., tuple[int, str]], trust: Path, tmp_path: Path
) -> None:
    folder = directory(tmp_path / "tiles", LOG_OF_600, sizes=(100,))
    status, out = run(folder, "--trust", trust)
    assert status == 0, out
    assert "600 entries  intact; 2 heads" in out
    files = {
        f"/public/log/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    with serving(Region({}, files=files)) as server:
        status, out = run(f"{server.url}/public/log/", "--trust", trust)
        assert status == 0, out
        assert "600 entries  intact; 1 head, " in out
        assert run(folder, f"{server.url}/public/log")[0] == 0, "copies are compared"


def test_a_foreign_log_wants_merkle_only(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    entries = [b"%d" % number for number in range(300)]
    origin = "log.example/foreign"
    root = trees.head([trees.leaf(entry) for entry in entries])
    folder = write(tmp_path, entries, [], note(300, root, origin=origin))
    status, out = run(folder)
    assert status == 2
    assert "check it with --merkle-only" in out
    status, out = run(folder, "--merkle-only")
    assert status == 0, out
    assert "300 entries  intact" in out


@pytest.mark.parametrize("text", ["", "log x\nquorum none\n", policy_text(OTHER_LOG, origin="countroom.test/us")])
def test_a_policy_that_says_nothing_of_the_log_could_not_be_checked(
    run: Callable[..., tuple[int, str]], trust: Path, tmp_path: Path, text: str
) -> None:
    trust.write_text(text)
    folder = directory(tmp_path / "tiles", small_log())
    status, out = run(folder, "--trust", trust)
    assert status == 2
    assert "could not check: " in out
    assert run(folder, "--trust", tmp_path / "missing")[0] == 2


# Proofs.


def proof_of(index: int, extra: bytes = b"") -> bytes:
    leaves = [leaf for _, _, leaf in small_log()]
    return format_proof(index, trees.path(index, leaves), note(12, trees.head(leaves), witnessed={"us": AT_S}), extra)


@pytest.mark.parametrize("how", ["entry", "leaf", "extra"])
def test_a_proof_is_checked_without_any_connection(
    run: Callable[..., tuple[int, str]], trust: Path, tmp_path: Path, how: str
) -> None:
    _, entry, leaf = small_log()[4]
    (tmp_path / "entry").write_bytes(entry)
    (tmp_path / "proof").write_bytes(proof_of(4, entry if how == "extra" else b""))
    more: dict[str, list[Any]] = {"entry": ["--entry", tmp_path / "entry"], "leaf": ["--leaf", leaf.hex()], "extra": []}
    status, out = run("proof", tmp_path / "proof", "--trust", trust, *more[how])
    assert status == 0, out
    assert f"stands at position 5 of the log {quoted(ORIGIN)}, which had 12 entries" in out
    assert "witnessed by 'us' at 2025-11-15T00:00:00Z" in out
    assert ("the entry in the file's extra data" in out) is (how == "extra")
    assert ("settings.changed" in out) is (how != "leaf")
    status, out = run("proof", tmp_path / "proof", "--trust", trust, *more[how], "--json")
    assert json.loads(out)["position"] == 5


@pytest.mark.parametrize(
    ("proof", "arguments", "status", "said"),
    [
        (proof_of(4), ["--leaf", "00" * 32], 1, "NOT PROVED: the proof leads from the leaf to another root"),
        (proof_of(4, small_log()[5][1]), [], 1, "NOT PROVED"),
        (proof_of(4).replace(b"index 4", b"index 5"), ["--leaf", small_log()[4][2].hex()], 1, "NOT PROVED"),
        (b"nonsense", ["--leaf", "00" * 32], 1, "NOT PROVED: the proof begins with"),
        (proof_of(4), [], 2, "could not check: the proof holds no entry"),
        (proof_of(4), ["--leaf", "00"], 2, "could not check: a leaf is 64 digits of hex"),
        (proof_of(4), ["--entry", "/nowhere"], 2, "could not check: '/nowhere' cannot be read"),
    ],
)
def test_what_proves_nothing_is_told(
    run: Callable[..., tuple[int, str]],
    trust: Path,
    tmp_path: Path,
    proof: bytes,
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    (tmp_path / "proof").write_bytes(proof)
    found, out = run("proof", tmp_path / "proof", "--trust", trust, *arguments)
    assert (found, said in out) == (status, True), out
