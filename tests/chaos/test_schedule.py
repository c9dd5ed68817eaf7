from __future__ import annotations

import itertools
from collections import Counter

import pytest

from app.local import PROCESSES
from chaos import catalog
from chaos.schedule import APPS, GAP_S, KILL, KILLS, LONG_HOLDS_S, ROLES, SHARE_OF_OTHERS, STOP, UPGRADE, Step, schedule

REGIONS = ("eu", "us")
OTHERS = catalog.others()
SEEDS = range(30)


def kills(steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.fault in KILLS]


@pytest.mark.parametrize("long", [False, True])
def test_the_same_seed_is_the_same_schedule(long: bool) -> None:
    for seed in SEEDS:
        assert schedule(seed, 20, OTHERS, REGIONS, long=long) == schedule(
            seed, 20, reversed(OTHERS), REGIONS, long=long
        )


def test_another_seed_is_another_schedule() -> None:
    assert len({tuple(schedule(seed, 10, OTHERS, REGIONS)) for seed in SEEDS}) == len(SEEDS)


def test_the_roles_are_those_that_run() -> None:
    assert set(APPS) == {"+".join(roles) for roles in PROCESSES}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_of_process_is_hit_once_there_are_as_many_kills_as_kinds(seed: int) -> None:
    found = kills(schedule(seed, len(ROLES), OTHERS, REGIONS))
    assert Counter(step.role for step in found) == Counter(ROLES)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_is_killed_and_stopped_in_every_region_once_there_are_enough_kills(seed: int) -> None:
    everything = set(itertools.product(KILLS, REGIONS, ROLES))
    found = kills(schedule(seed, len(everything), OTHERS, REGIONS))
    assert {(step.fault, step.region, step.role) for step in found} == everything


@pytest.mark.parametrize("number", [0, 1, 10, 100])
def test_there_are_as_many_kills_as_were_asked_for(number: int) -> None:
    assert len(kills(schedule(3, number, OTHERS, REGIONS))) == number


def test_only_what_is_stopped_is_held() -> None:
    for step in kills(schedule(3, 100, OTHERS, REGIONS)):
        assert (step.hold_s > 0) == (step.fault == STOP), step


@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_run_meets_every_other_fault_and_each_of_the_long_cuts(seed: int) -> None:
    found = Counter(step.fault for step in schedule(seed, 0, OTHERS, REGIONS, long=True))
    assert found == {fault: len(LONG_HOLDS_S.get(fault, "1")) for fault in OTHERS}
    held = {step.hold_s for step in schedule(seed, 0, OTHERS, REGIONS, long=True) if step.fault == "link-cut"}
    assert held == {60, 300, 1800}


def test_short_runs_meet_a_share_of_the_other_faults_and_together_all_of_them() -> None:
    runs = [schedule(seed, 10, OTHERS, REGIONS) for seed in range(100)]
    assert {len(run) for run in runs} == {10 + SHARE_OF_OTHERS}
    assert {step.fault for run in runs for step in run} == {*OTHERS, *KILLS}


def test_faults_that_were_chosen_are_all_met() -> None:
    found = schedule(4, 0, ["disk-full", "cold-start", "link-cut"], REGIONS, share=None)
    assert {step.fault for step in found} == {"disk-full", "cold-start", "link-cut"}


def test_steps_come_in_order_and_with_a_pause() -> None:
    found = schedule(5, 50, OTHERS, REGIONS)
    gaps = [after.at_s - before.at_s for before, after in itertools.pairwise(found)]
    assert min(gaps) >= GAP_S[0] - 0.01
    assert max(gaps) <= GAP_S[1] + 0.01


def test_whatever_is_held_is_held_as_long_as_was_asked_for() -> None:
    assert {step.hold_s for step in schedule(6, 30, OTHERS, REGIONS, hold_s=1.5)} == {0.0, 1.5}


def test_an_upgrade_comes_first() -> None:
    for seed in SEEDS:
        assert schedule(seed, 10, OTHERS, REGIONS, long=True)[0].fault == UPGRADE


def test_every_step_of_a_schedule_can_be_carried_out_and_takes_turns() -> None:
    for step in schedule(7, 40, OTHERS, REGIONS, long=True):
        assert step.fault in catalog.known()
        assert catalog.needs(step, REGIONS)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (Step(0, KILL, "eu", "api"), Step(0, KILL, "us", "api"), True),
        (Step(0, KILL, "eu", "api"), Step(0, KILL, "eu", "nats"), False),
        (Step(0, KILL, "eu", "api"), Step(0, "link-cut", "eu"), True),
        (Step(0, KILL, "eu", "api"), Step(0, "cold-start", "us"), False),
        (Step(0, "frames-drop", "eu"), Step(0, "link-cut", "us"), False),
        (Step(0, "frames-drop", "eu"), Step(0, STOP, "us", "nats"), False),
    ],
)
def test_two_faults_befall_a_region_one_after_the_other(first: Step, second: Step, together: bool) -> None:
    assert catalog.needs(first, REGIONS).isdisjoint(catalog.needs(second, REGIONS)) is together


def test_a_step_says_what_it_does() -> None:
    assert str(Step(1.5, STOP, "eu", "relay+applier", 3)) == "stop eu/relay+applier, 3 s"
    assert str(Step(1.5, "nats-flipped", "us")) == "nats-flipped us"
