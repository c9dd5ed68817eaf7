"""Heads that are known from elsewhere: what a source no longer shows is missed."""

from pathlib import Path

import pytest

from tests.verifier.logs import ORIGIN, chain, small_log
from tests.verifier.shown import STRANGER, Shown, directory, note, policy, policy_text, root_at
from verifier import cli
from verifier.faults import CouldNotCheck, Reason
from verifier.known import WithKnown, read_heads
from verifier.log import verify
from verifier.witness import FileStore

LOG = small_log(60)


def head(size: int) -> tuple[int, bytes]:
    return size, note(size, root_at(LOG, size))


def found(shown: Shown, *known: tuple[int, bytes]) -> tuple[Reason, int] | None:
    report = verify(WithKnown(shown, dict(known)), policy(), origin=ORIGIN)
    return report.fault and (report.fault.reason, report.fault.position)


def test_a_log_that_goes_on_from_a_known_head_is_intact() -> None:
    shown = Shown(LOG, [head(10), head(40)])
    for known in ([], [head(10)], [head(25)], [head(60)], [head(5), head(10), head(41)]):
        assert found(shown, *known) is None
        sizes = [size for size, _ in WithKnown(shown, dict(known)).heads()]
        assert sizes == sorted({10, 40, *(size for size, _ in known)})


def test_a_log_that_ends_before_a_known_head_has_lost_entries() -> None:
    assert found(Shown(LOG[:40], [head(10)]), head(50)) == (Reason.HEAD_BEYOND_LOG, 40)


def test_a_log_that_went_on_otherwise_before_a_known_head_is_found() -> None:
    other = chain(
        [
            entry[48:].replace(b"service:import", b"service:rigged" if position >= 30 else b"service:import")
            for position, entry, _ in LOG
        ]
    )
    own = [(size, note(size, root_at(other, size))) for size in (20, 40)]
    assert found(Shown(other, own)) is None
    assert found(Shown(other, own), head(20)) is None
    assert found(Shown(other, own), head(40)) == (Reason.ROOT_MISMATCH, 40)
    assert found(Shown(other, own), head(35)) == (Reason.ROOT_MISMATCH, 35)


def test_a_known_head_hides_no_false_signature_of_the_same_one() -> None:
    false = note(40, root_at(LOG, 40), by=[STRANGER])
    assert found(Shown(LOG, [(40, false)]), head(40)) == (Reason.HEAD_UNSIGNED, 40)


def test_a_witnesss_record_is_read_as_it_stands(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    assert store.swap(ORIGIN, None, head(40)[1])
    [file] = [path for path in (tmp_path / "heads").iterdir() if path.suffix != ".lock"]
    plain = tmp_path / "plain"
    plain.write_bytes(head(50)[1])
    assert read_heads([str(file), str(plain)]) == {ORIGIN: {40: head(40)[1], 50: head(50)[1]}}


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    for name, data in (("none", None), ("empty", b""), ("other", note(40, bytes(32)))):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        (tmp_path / "one").write_bytes(head(40)[1])
        with pytest.raises(CouldNotCheck):
            read_heads([str(tmp_path / "one"), str(tmp_path / name)])


def test_the_program_misses_what_a_known_head_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles, trust, known = directory(tmp_path / "tiles", LOG[:40]), tmp_path / "policy", tmp_path / "known"
    trust.write_text(policy_text())
    for size, status in ((40, 0), (30, 0), (50, 1)):
        known.write_bytes(head(size)[1])
        assert cli.main([str(tiles), "--trust", str(trust), "--known", str(known)]) == status
    assert "NOT INTACT at position 40: a head of 50 entries was signed" in capsys.readouterr().out
    assert cli.main([str(tiles), "--known", str(tmp_path / "none")]) == 2
