"""`countroom notices rerun`, as it is called: over logs that a region shows, and verified first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.notices import rerun
from tests.projections.books import Book
from tests.replay.logs import region, sound
from tests.verifier.region import TOKEN, serving

MARCH = {"first": "2026-03-01T00:00:00Z", "last": "2026-04-01T00:00:00Z"}


def spending() -> Book:
    book = Book("eu")
    player = book.register()
    for _ in range(7):
        book.settle(book.request(player, 500))
    return book


def test_what_would_have_been_found_last_month(capsys: pytest.CaptureFixture[str]) -> None:
    book = spending()
    with serving(region({"eu": sound(book)})) as shown:
        with pytest.raises(SystemExit) as ended:
            rerun(shown.url, **MARCH, rule="deposit_velocity", version=1, token=TOKEN, json=True)
        said = capsys.readouterr()
        found = json.loads(said.out)
        assert ended.value.code == 0
        assert (found["by_rule"], found["always"], found["raised"]) == ({"deposit_velocity/1": 1}, True, 0)
        [finding] = found["findings"]
        assert (finding["player"], finding["notice"], len(finding["events"])) == (book.players[0], None, 6)
        assert finding["events"][-1] == finding["cause"]
        assert "entries" in said.err
        with pytest.raises(SystemExit):
            rerun(shown.url, **MARCH, rule="deposit_velocity", token=TOKEN)
        assert capsys.readouterr().out == "nothing found\n", "the rule was not in force in March"


def test_a_log_that_is_not_intact_is_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    entries = sound(spending())
    entries[5] = entries[5]._replace(body=entries[5].body.replace(b"500", b"501"))
    with serving(region({"eu": entries})) as shown, pytest.raises(SystemExit) as ended:
        rerun(shown.url, **MARCH, token=TOKEN)
    assert ended.value.code == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"rule": "no_such_rule"}, "no rule is called no_such_rule"),
        ({"first": MARCH["last"], "last": MARCH["first"]}, "--from lies before --to"),
        ({"first": "yesterday"}, "neither a position"),
        ({"rules": Path("no-such-file.json")}, "No such file"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    asked: dict[str, object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        rerun("http://127.0.0.1:9", **{**MARCH, **asked})  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert why in said.err
