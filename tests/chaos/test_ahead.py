"""`countroom verify` must find the entries of a clock that was ahead, and this must hide nothing else from the judge."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chaos import views
from chaos.place import Place, Region
from tests.verifier.logs import small_log
from tests.verifier.shown import AT_S, LOG, OTHER_LOG, note, policy_text, root_at, write

TRUST = "trust.policy"
EARLY = ("recorded_implausible", 622)
FORK = ("leaf_wrong", 700)


def place(*clocks: str) -> Place:
    return Place({"eu": Region("", "", "eu"), "us": Region("", "", "us")}, {}, "demo", TRUST, clocks)


def report(**faults: tuple[str, int] | tuple[str, int, str] | None) -> str:
    logs = {
        log: {"fault": fault and {"reason": fault[0], "position": fault[1], "detail": fault[2] if fault[2:] else "…"}}
        for log, fault in faults.items()
    }
    return json.dumps({"intact": not any(faults.values()), "targets": [{"logs": logs}]})


def found(
    monkeypatch: pytest.MonkeyPatch, where: Place, with_witnesses: tuple[int, str], without: tuple[int, str] = (0, "")
) -> tuple[int, str]:
    monkeypatch.setattr(views, "verify", lambda asked, **_: with_witnesses if asked.policy == TRUST else without)
    return views.found_wrong(where)


@pytest.fixture(autouse=True)
def _trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(TRUST).write_text(policy_text())


def test_an_intact_log_is_intact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, place(), (0, report(eu=None, us=None)))[0] == 0
    assert found(monkeypatch, place("eu"), (0, report(eu=None, us=None)))[0] == 0


def test_entries_of_a_clock_that_was_ahead_are_no_fault_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, place("eu"), (1, report(eu=EARLY, us=None)))[0] == 0


def test_entries_too_early_for_a_witness_whose_clock_was_ahead_are_no_fault_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = (*EARLY, "as witnesses saw the log, that is too early by 3539845598")
    late = (*EARLY, "as witnesses saw the log, that is too late by 3539845598")
    assert found(monkeypatch, place("eu"), (1, report(eu=EARLY, us=early)))[0] == 0
    assert found(monkeypatch, place("eu"), (1, report(eu=EARLY, us=late)))[0] == 1
    assert found(monkeypatch, place(), (1, report(eu=None, us=early)))[0] == 1


def test_entries_too_late_for_a_witness_whose_clock_was_behind_are_no_fault_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = (*EARLY, "as witnesses saw the log, that is too early by 3506437700")
    late = (*EARLY, "as witnesses saw the log, that is too late by 3506437700")
    where = msgspec.structs.replace(place(), behind=("us",))
    assert found(monkeypatch, where, (1, report(eu=late, us=None)))[0] == 0
    assert found(monkeypatch, where, (1, report(eu=early, us=None)))[0] == 1
    assert found(monkeypatch, where, (1, report(eu=(*FORK, "too late by 1"), us=None)))[0] == 1


def test_entries_ahead_of_a_clock_that_was_right_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (place(), place("us")):
        code, said = found(monkeypatch, where, (1, report(eu=EARLY, us=None)))
        assert code == 1
        assert "eu: recorded_implausible: 622" in said


@pytest.mark.parametrize("log", ["eu", "us"])
def test_whatever_else_is_found_is_told(monkeypatch: pytest.MonkeyPatch, log: str) -> None:
    code, said = found(monkeypatch, place("eu"), (1, report(**{"eu": EARLY, "us": None, log: FORK})))
    assert code == 1
    assert f"{log}: leaf_wrong: 700" in said


def test_what_early_entries_hide_is_found_without_the_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = (1, report(eu=FORK, us=None))
    assert found(monkeypatch, place("eu"), (1, report(eu=EARLY, us=None)), hidden)[0] == 1


def test_the_witnesses_are_left_out_and_the_logs_are_not() -> None:
    text = policy_text()
    [log] = [line for line in text.splitlines() if line.startswith("log ")]
    assert views._without_witnesses(text.encode()).decode() == f"{log}\nquorum none\n"


def shown(folder: Path, *, by: Ed25519PrivateKey = LOG) -> Place:
    """A log whose first four entries were signed by a witness an hour before they were recorded, and a head of eight, signed `by`."""
    log = small_log()
    early = note(4, root_at(log, 4), witnessed={"us": AT_S - 3600})
    later = note(8, root_at(log, 8), by=(by,))
    newest = note(len(log), root_at(log, len(log)))
    write(folder, [entry for _, entry, _ in log], [(4, early), (8, later)], newest)
    where = {"eu": Region(str(folder), str(folder), "eu")}
    return Place(where, {"auditor": ""}, "test", str(Path(TRUST).absolute()), clocks=("eu",))


def test_a_head_that_is_signed_falsely_behind_an_early_entry_is_found(tmp_path: Path) -> None:
    intact = shown(tmp_path / "true")
    assert views.faults_of(views.verify(intact)[1])[0][:2] == ("eu", "recorded_implausible")
    assert views.found_wrong(intact)[0] == 0
    code, said = views.found_wrong(shown(tmp_path / "unsigned", by=OTHER_LOG))
    assert code == 1
    assert "head_unsigned" in said
    altered = shown(tmp_path / "false")
    head = tmp_path / "false" / "heads" / "8"
    body, _, signature = head.read_bytes().rpartition(b" ")
    changed = signature[:-8] + (b"A" if signature[-8:-7] != b"A" else b"B") + signature[-7:]
    head.write_bytes(body + b" " + changed)
    code, said = views.found_wrong(altered)
    assert code == 1
    assert "signature_false" in said


def test_a_verifier_that_could_not_check_or_says_nothing_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, place("eu"), (2, "cannot connect"))[0] == 2
    assert found(monkeypatch, place("eu"), (1, "Traceback …")) == (1, "Traceback …")
