"""Who asks too often is told to wait, and for how long; who keeps to the rate never is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.policy import principal
from access.rates import ADMITTED, Buckets, Limits, TooManyRequests
from app import problems
from policies.rates import HOUSE, Rate

RATE = Rate(4, 3)
GAPS = st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.3, 1.0, 5.0]), min_size=1, max_size=60)


def taken(buckets: Buckets, gaps: list[float]) -> list[float]:
    """The times at which something was taken."""
    at, found = 0.0, []
    for gap in gaps:
        at += gap
        if not buckets.take("ann", at):
            found.append(at)
    return found


def most_within(times: list[float], rate: Rate) -> float:
    """By how much the fullest stretch of time exceeds what may be taken in it; 0 or less if none does."""
    return max(
        (j - i + 1 - rate.burst - (times[j] - times[i]) * rate.per_second for i in range(len(times)) for j in range(i, len(times))),
        default=0,
    )  # fmt: skip


@given(GAPS)
def test_no_stretch_of_time_gives_more_than_the_burst_and_what_has_flown_in(gaps: list[float]) -> None:
    assert most_within(taken(Buckets(RATE), gaps), RATE) <= 1e-9


def test_the_check_finds_a_bucket_that_gives_one_too_many() -> None:
    assert most_within(taken(Buckets(Rate(RATE.per_second, RATE.burst + 1)), [0.0] * 9), RATE) == 1


@given(st.lists(st.sampled_from([0.25, 0.3, 1.0]), min_size=1, max_size=60))
def test_who_keeps_to_the_rate_is_never_refused(gaps: list[float]) -> None:
    assert len(taken(Buckets(RATE), gaps)) == len(gaps)


@given(GAPS)
def test_after_the_time_that_was_told_there_is_one_again(gaps: list[float]) -> None:
    buckets, at = Buckets(RATE), 0.0
    for gap in gaps:
        at += gap
        buckets.take("ann", at)
    if (wait := buckets.wait("ann", at)) > 1e-9:  # what is less is lost in rounding
        assert buckets.wait("ann", at + wait * 0.9) > 0
        assert buckets.take("ann", at + wait + 1e-9) == 0


def test_asking_in_vain_makes_nobody_wait_longer() -> None:
    buckets = Buckets(RATE)
    first = [buckets.take("ann", 0.0) for _ in range(50)][-1]
    assert buckets.wait("ann", 0.0) == first == pytest.approx(1 / RATE.per_second)


def test_one_does_not_pay_for_another() -> None:
    buckets = Buckets(RATE)
    assert [bool(buckets.take("ann", 0.0)) for _ in range(5)] == [False, False, False, True, True]
    assert not buckets.take("bob", 0.0)


def test_memory_is_bounded_and_who_owes_most_is_remembered() -> None:
    buckets = Buckets(RATE, most=100)
    for _ in range(9):
        buckets.take("greedy", 0.0)
    for number in range(10_000):
        buckets.take(f"2001:db8::{number:x}", 0.0)
        assert len(buckets) <= 100
    assert buckets.wait("greedy", 0.0) > 0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


PERSON = principal("operator:ann", ["support"], stepped_up=datetime(2026, 1, 1, tzinfo=UTC))
MACHINE = principal("service:shop", ["operator"], machine=True)


def test_by_the_houses_figures_machines_and_providers_wait_for_nothing() -> None:
    limits = Limits(clock=Clock())
    for _ in range(20_000):
        limits.admit({}, MACHINE)
        limits.admit_provider("acme")
    person = HOUSE["person"]
    assert person
    for _ in range(person.burst):
        limits.admit({}, PERSON)
    with pytest.raises(TooManyRequests):
        limits.admit({}, PERSON)


def test_an_installation_may_say_otherwise_of_each() -> None:
    clock = Clock()
    limits = Limits({"machine": Rate(1, 1), "provider": Rate(1, 1), "person": None}, clock)
    for _ in range(1_000):
        limits.admit({}, PERSON)
    limits.admit({}, MACHINE)
    limits.admit_provider("acme")
    with pytest.raises(TooManyRequests):
        limits.admit({}, MACHINE)
    with pytest.raises(TooManyRequests) as told:
        limits.admit_provider("acme")
    assert told.value.facts == {"wait_s": 1}
    assert problems.headers(told.value) == {"Retry-After": "1"}
    clock.now += 1
    limits.admit({}, MACHINE)
    limits.admit_provider("acme")


def test_an_address_pays_for_those_behind_whom_nobody_is_and_is_let_in_again_in_time() -> None:
    clock = Clock()
    limits = Limits({"address": Rate(2, 4)}, clock)
    for _ in range(4):
        limits.let_in("203.0.113.7")
        limits.nobody("203.0.113.7")
    with pytest.raises(TooManyRequests):
        limits.let_in("203.0.113.7")
    limits.let_in("203.0.113.8")
    clock.now += 0.5
    limits.let_in("203.0.113.7")


def test_who_is_admitted_is_known_to_whoever_answers() -> None:
    scope: dict[str, object] = {}
    Limits({"machine": Rate(1, 1)}, Clock()).admit(scope, MACHINE)
    assert scope[ADMITTED]
