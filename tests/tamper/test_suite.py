"""The tamper suite: it finds everything, and it notices when the verifier has lost one of its eyes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.stored import _Index
from app.verifying import DatabaseSource
from tamper import __main__ as program
from tamper import suite, workers
from tamper.attacks import ATTACKS, DATABASE_ONLY
from tamper.suite import FLIP, Bench, Case, On, Outcome, Verdict
from tests.stack import Servers
from verifier import cli, growth, known, log, signed

SEEDS = range(2)


@pytest.fixture(scope="module")
def bench(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("tamper")
    world = suite.make_world(servers.endpoints.postgres, folder / "keys", 7)
    made = Bench(world, 1, folder / "bench")
    yield made
    made.close()


def tried(bench: Bench, on: On, attack: str, seeds: Sequence[int] = SEEDS) -> list[Outcome]:
    return [bench.run(Case(on, attack, seed)) for seed in seeds]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_found_where_it_is(bench: Bench, attack: str) -> None:
    for on in On:
        if not (on is On.TILES and attack in DATABASE_ONLY):
            wrong = [str(each) for each in tried(bench, on, attack) if each.verdict is not Verdict.FOUND]
            assert wrong == []


@pytest.mark.parametrize("on", On)
def test_a_changed_byte_is_found_where_it_is(bench: Bench, on: On) -> None:
    count = bench.flips[on].count
    wrong = [str(each) for each in tried(bench, on, FLIP, range(0, count, 9_973)) if each.verdict is not Verdict.FOUND]
    assert wrong == []


@pytest.mark.parametrize("on", On)
def test_every_byte_of_an_entry_is_found_in_a_check_of_the_whole_log_too(
    bench: Bench, on: On, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tamper.flips.WHOLE_EVERY", 1)
    first = 250 * 97
    wrong = [
        str(each) for each in tried(bench, on, FLIP, range(first, first + 460, 23)) if each.verdict is not Verdict.FOUND
    ]
    assert wrong == []


def test_what_was_tampered_with_is_put_back(bench: Bench) -> None:
    folders = [str(tiles.folder) for tiles in bench.tiles.values()]
    for attack in ATTACKS:
        tried(bench, On.DATABASE, attack, [1])
    assert suite.doubted([bench.world.dsn.rpartition("/")[0] + "/tamper_1", *folders], bench.policy) == []


def test_no_clean_log_is_doubted(bench: Bench, tmp_path: Path) -> None:
    assert suite.false_alarms(bench.world, 1, 6, 5, tmp_path) == []


# Planted: a verifier that does not look.

BLIND: list[tuple[str, On, object, str, Callable[..., Any]]] = [
    ("index_column", On.DATABASE, _Index, "compare", lambda *_: None),
    ("snapshot", On.DATABASE, DatabaseSource, "compare_snapshots", lambda *_: None),
    ("truncate", On.DATABASE, log._Check, "_missing", lambda *_: []),
    ("truncate", On.TILES, known.WithKnown, "heads", lambda self: self._pages.heads()),
    ("tree_hash", On.TILES, growth.Growth, "_compare", lambda *_: None),
    ("tree_hash", On.DATABASE, growth.Growth, "_compare", lambda *_: None),
    ("rechain", On.TILES, growth.Marks, "root", lambda *_: _Anything()),
    ("checkpoint", On.DATABASE, signed.Trust, "judge", lambda *_: None),
    ("roll_back", On.DATABASE, cli, "_difference", lambda *_: None),
    ("fork", On.TILES, cli, "_difference", lambda *_: None),
    ("fork", On.DATABASE, signed.Trust, "is_quorum", lambda *_: True),
]


class _Anything:
    """Equal to every root."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def hex(self) -> str:
        return ""


@pytest.mark.parametrize(("attack", "on", "owner", "name", "blind"), BLIND)
def test_an_attack_that_the_verifier_does_not_look_for_is_undetected(
    bench: Bench, monkeypatch: Any, attack: str, on: On, owner: object, name: str, blind: Callable[..., Any]
) -> None:
    monkeypatch.setattr(owner, name, blind)
    assert any(bench.run(Case(on, attack, seed)).verdict is Verdict.UNDETECTED for seed in range(20))


@pytest.mark.parametrize("on", On)
def test_a_changed_byte_that_the_verifier_does_not_hash_is_undetected(bench: Bench, on: On, monkeypatch: Any) -> None:
    monkeypatch.setattr(log._Reading, "follow", lambda *_: True)
    (outcome,) = tried(bench, on, FLIP, [250])
    assert outcome.verdict is Verdict.UNDETECTED
    assert outcome.case == Case(on, FLIP, 250)
    assert f"--only flip --on {on} --seed 250" in str(outcome)


def test_a_position_beside_the_right_one_is_misplaced(bench: Bench, monkeypatch: Any) -> None:
    named = cli._difference

    def beside(one: cli.Copy, other: cli.Copy) -> object:
        fault = named(one, other)
        return fault and replace(fault, position=fault.position + 1)

    monkeypatch.setattr(cli, "_difference", beside)
    outcomes = tried(bench, On.TILES, "fork")
    assert {outcome.verdict for outcome in outcomes} == {Verdict.MISPLACED}
    found = program.report(workers.results(outcomes, ["r1: something"]))
    assert (found["tried"], found["undetected"], found["misplaced"], found["false_alarms"]) == (2, 0, 2, 1)


def test_a_verifier_that_suspects_everybody_raises_false_alarms(bench: Bench, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(signed, "PLAUSIBLE_US", -(10**12))
    assert len(suite.false_alarms(bench.world, 2, 6, 5, tmp_path)) > 0


def test_one_attack_can_be_tried_again_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--only", "tree_hash", "--on", "tiles", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "tried": 1,
        "undetected": 0,
        "misplaced": 0,
        "false_alarms": 0,
        "by_attack": {"tree_hash on tiles": 1},
    }
    assert program.main(["--only", "nonsense"]) == 2
