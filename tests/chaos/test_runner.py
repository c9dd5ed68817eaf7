"""What a run makes of what it meets: without regions, since these cost half a minute."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from chaos import catalog
from chaos.__main__ import main
from chaos.runner import JUDGED_S, LoadEnded, Run, Turns, exit_code, judged_s
from chaos.schedule import CLOCK_AHEAD, CLOCK_BEHIND, KILL, STOP, LeftOut, NotCarriedOut, Step
from chaos.views import verify_s

REGIONS = ("eu", "us")
HOLDS = {"laws": {"one": {"holds": True, "broken": []}}, "errors": []}


class Quiet:
    """A site of which nothing is wanted but to listen."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def log(self, line: str) -> None:
        self.said.append(line)


def carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: dict[str, Any], *steps: Step
) -> dict[str, Any]:
    monkeypatch.setattr(catalog, "known", lambda: faults)
    run = Run(tmp_path, steps, seed=1, regions=REGIONS)
    run._schedule(Quiet())  # type: ignore[arg-type]
    return run._result()


def raises(error: Exception) -> Any:
    def fault(_site: Any, _step: Step) -> None:
        raise error

    return fault


def test_what_was_done_is_counted_and_only_kills_are_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {name: lambda _site, _step: None for name in (KILL, STOP, "link-cut")}
    steps = [Step(0, KILL, "eu", "api"), Step(0, STOP, "us", "api"), Step(0, "link-cut", "eu")]
    result = carried_out(tmp_path, monkeypatch, faults, *steps)
    assert result["kills"] == 2
    assert result["faults"] == {KILL: 1, STOP: 1, "link-cut": 1}
    assert exit_code(result) == 0


def test_what_could_not_be_carried_out_is_an_error_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {KILL: raises(NotCarriedOut("nobody was there")), STOP: raises(TimeoutError("it did not come back"))}
    result = carried_out(tmp_path, monkeypatch, faults, Step(0, KILL, "eu", "api"), Step(0, STOP, "us", "api"))
    assert result["kills"] == 0
    assert len(result["errors"]) == 2
    assert exit_code(result) == 2


def test_what_cannot_be_done_here_is_named_and_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = carried_out(
        tmp_path, monkeypatch, {"disk-full": raises(LeftOut("no compiler"))}, Step(0, "disk-full", "eu")
    )
    assert result["left_out"] == {"disk-full": "no compiler"}
    assert result["faults"] == {}
    assert exit_code(result) == 0


@pytest.mark.parametrize(
    ("outcome", "excused"), [(None, True), (TimeoutError("it did not go on"), True), (LeftOut("no compiler"), False)]
)
def test_a_clock_that_may_have_been_moved_excuses_what_follows_from_it_and_no_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Exception | None, excused: bool
) -> None:
    fault = raises(outcome) if outcome else lambda _site, _step: None
    monkeypatch.setattr(catalog, "known", lambda: {CLOCK_AHEAD: fault, CLOCK_BEHIND: fault})
    steps = [Step(0, CLOCK_AHEAD, "eu"), Step(0, CLOCK_BEHIND, "us")]
    run = Run(tmp_path, steps, seed=1, regions=REGIONS)
    run._schedule(Quiet())  # type: ignore[arg-type]
    assert (run.ahead, run.behind) == (({"eu"}, {"us"}) if excused else (set(), set()))


def test_the_judge_has_time_for_what_hours_of_load_have_left_and_never_less_than_for_minutes() -> None:
    assert judged_s(0) == judged_s(10_000) == JUDGED_S
    assert judged_s(1_000_000) >= 3 * 3600
    for lines in (30_000, 100_000, 1_000_000):
        assert judged_s(lines) >= 2 * verify_s(lines) >= 2 * verify_s(0)


def test_a_broken_law_counts_before_an_error() -> None:
    broken = {"laws": {**HOLDS["laws"], "two": {"holds": False, "broken": ["…"]}}, "errors": ["…"]}
    assert exit_code(HOLDS) == 0
    assert exit_code({**HOLDS, "errors": ["…"]}) == 2
    assert exit_code(broken) == 1


def test_who_needs_what_is_in_use_waits_for_it_and_nobody_else_does() -> None:
    turns = Turns()
    turns.take(frozenset({"eu"}))
    turns.take(frozenset({"us"}))
    waited = threading.Event()

    def wait() -> None:
        turns.take(frozenset({"eu", "between"}))
        waited.set()

    threading.Thread(target=wait).start()
    assert not waited.wait(0.1)
    turns.give_back(frozenset({"us"}))
    assert not waited.wait(0.1)
    turns.give_back(frozenset({"eu"}))
    assert waited.wait(10)


def test_steps_of_one_region_never_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []
    met: list[tuple[str, ...]] = []

    def fault(_site: Any, step: Step) -> None:
        inside.append(step.region)
        met.append(tuple(sorted(inside)))
        time.sleep(0.02)
        inside.remove(step.region)

    steps = [Step(0, KILL, region, "api") for region in ("eu", "eu", "us", "us", "eu", "us")]
    result = carried_out(tmp_path, monkeypatch, {KILL: fault}, *steps)
    assert result["kills"] == len(steps)
    assert set(met) <= {("eu",), ("us",), ("eu", "us")}


def test_nothing_more_befalls_regions_whose_load_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Step] = []
    monkeypatch.setattr(catalog, "known", lambda: {KILL: lambda _site, step: met.append(step)})
    run = Run(tmp_path, [Step(0, KILL, "eu", "api")], seed=1, regions=REGIONS)
    run.load = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    run.load.wait()
    with pytest.raises(LoadEnded, match="ended with 3"):
        run._schedule(Quiet())  # type: ignore[arg-type]
    assert met == []


def test_a_fault_that_nobody_knows_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "earthquake"]) == 2
    assert "no fault is called earthquake" in capsys.readouterr().err
