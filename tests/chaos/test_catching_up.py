from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chaos import catching_up
from chaos.catching_up import NotCaughtUp, View, await_caught_up

HEADS = {"eu": 10, "us": 7}


def view(*, heads: dict[str, int] = HEADS, wrong: tuple[str, ...] = (), **read: dict[str, int]) -> View:
    models = {"players": HEADS, "dashboard": HEADS} | read
    return View(
        heads, {(model, log): position for model, of in models.items() for log, position in of.items()}, list(wrong)
    )


def wait(monkeypatch: pytest.MonkeyPatch, looks: dict[str, list[View | None]], **how: Any) -> float:
    """Each look at a region gives the next one of these, and the last one for ever."""
    left = {region: list(views) for region, views in looks.items()}

    def look(_site: Any, region: str) -> View | None:
        return left[region].pop(0) if len(left[region]) > 1 else left[region][0]

    monkeypatch.setattr(catching_up, "_view", look)
    monkeypatch.setattr(catching_up, "_POLL_S", 0.001)
    site = SimpleNamespace(regions=["eu", "us"], log=lambda _line: None)
    return await_caught_up(site, 0.3, **how)  # type: ignore[arg-type]


def test_regions_that_hold_and_show_everything_have_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    wait(monkeypatch, {"eu": [view()], "us": [view()]})


def test_a_region_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wait(monkeypatch, {"eu": [view()], "us": [None, view(heads={"eu": 3, "us": 7}), view()]})


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (None, "us cannot be asked"),
        (view(heads={"eu": 9, "us": 7}), "us holds 9 of 10 entries of eu"),
        (view(heads={"us": 7}), "us holds 0 of 10 entries of eu"),
        (view(players={"eu": 10, "us": 6}), "us shows 6 of 7 entries of us in players"),
        (view(dashboard={"eu": 0, "us": 7}), "us shows 0 of 10 entries of eu in dashboard"),
        (view(wrong=("eu at 4: another leaf",)), "us: eu at 4: another leaf"),
    ],
)
def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, there: View | None, why: str) -> None:
    with pytest.raises(NotCaughtUp, match=why):
        wait(monkeypatch, {"eu": [view()], "us": [there]})


def test_what_comes_later_is_not_waited_for_unless_silence_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = [view(heads={"eu": 10 + number, "us": 7}) for number in range(10_000)]
    wait(monkeypatch, {"eu": list(growing), "us": [view()]})
    with pytest.raises(NotCaughtUp):
        wait(monkeypatch, {"eu": list(growing), "us": [view()]}, quiet=True)


def test_silence_is_waited_for_as_long_as_it_takes_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "QUIET_S", 0.05)
    assert wait(monkeypatch, {"eu": [view()], "us": [view()]}, quiet=True) >= 0.05
