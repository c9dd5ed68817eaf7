"""The log's time, as a process knows it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.log_time import HOUSE_TOLERANCE, LogTime
from domain.errors import LimitExceeded
from domain.kernel import EPOCH
from tests.commands.house import NOON, Bound, House, euros

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


class Elapsed:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def noted(elapsed: Elapsed) -> LogTime:
    times = LogTime(elapsed)
    times.note((NOON - EPOCH) // timedelta(microseconds=1))
    return times


def test_before_anything_was_appended_the_processs_own_clock_counts() -> None:
    assert LogTime().bound(NOON) == NOON


@pytest.mark.parametrize(
    ("now", "at"),
    [
        (NOON + DAY, NOON + 60 * SECOND + HOUSE_TOLERANCE),  # ahead
        (NOON + 61 * SECOND, NOON + 61 * SECOND),  # within the tolerance
        (NOON + 30 * SECOND, NOON + 30 * SECOND),
        (NOON - DAY, NOON),  # behind
    ],
)
def test_a_minute_after_an_append_it_is_a_minute_later_and_hardly_more(now: object, at: object) -> None:
    elapsed = Elapsed()
    times = noted(elapsed)
    elapsed.seconds += 60
    assert times.bound(now) == at  # type: ignore[arg-type]


def test_what_was_appended_earlier_changes_nothing() -> None:
    elapsed = Elapsed()
    times = noted(elapsed)
    elapsed.seconds += 60
    times.note((NOON - DAY - EPOCH) // timedelta(microseconds=1))
    assert times.bound(NOON + DAY) == NOON + 60 * SECOND + HOUSE_TOLERANCE


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(-(10**6), 10**6)), max_size=20),
    st.integers(-(10**6), 10**6),
)
def test_however_wrong_a_clock_is_a_decision_is_never_far_from_the_logs_time(
    appends: list[tuple[int, int]], off: int
) -> None:
    """`appends`: after how many seconds each came, and by how many the process's own clock was wrong."""
    elapsed = Elapsed()
    times, true, newest = noted(elapsed), NOON, NOON
    for after, wrong in appends:
        elapsed.seconds += after
        true += after * SECOND
        assert newest <= times.bound(true + wrong * SECOND) <= true + HOUSE_TOLERANCE
        times.note((true - EPOCH) // timedelta(microseconds=1))
        newest = true
    assert newest <= times.bound(true + off * SECOND) <= true + HOUSE_TOLERANCE


async def test_the_time_of_a_decision_is_never_before_what_it_has_seen(house: House) -> None:
    """A clock that lags behind the log's must not give a player the same day twice."""
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})
    house.log.clock.now += 86_400_000_000
    await house.deposit(player, 100)
    with pytest.raises(LimitExceeded):
        await house.deposit(player, 1)


async def test_nor_after_the_logs_time_however_far_ahead_the_processs_clock_is(bound: Bound) -> None:
    """Nobody's exclusion ends, and nobody's day begins, because of the one process whose clock is a day ahead."""
    player = await bound.player()
    await bound.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})
    await bound.deposit(player, 100)
    right = bound.now
    bound.now = right + timedelta(days=1)
    with pytest.raises(LimitExceeded):
        await bound.deposit(player, 1)
    bound.elapsed += 86_400
    await bound.deposit(player, 1)
