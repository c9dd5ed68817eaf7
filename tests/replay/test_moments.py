"""Moments of logs that went on from each other, although their regions' clocks differ: nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.replaying import figures
from app.replaying.accounts import read, replayed
from domain.kernel import EPOCH, PlayerId
from eventstore.record import Entry
from replay import moment
from replay.account import Story
from replay.moment import END_US, Adoption, Moment, at_position, at_time
from tests.projections.books import CODEC, Book
from tests.replay.logs import replaying, sound
from tests.replay.test_figures import InMemory
from verifier.faults import CouldNotCheck

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
LONG_AGO = "2025-01-01T00:00:00Z"


class Regions(NamedTuple):
    """eu's clock is an hour ahead when it hands the player over to us. `cut`: where eu ends for them. `now`: the true time, in µs."""

    eu: Book
    us: Book
    player: PlayerId
    other: PlayerId
    cut: int
    now: int

    @property
    def logs(self) -> Any:
        return InMemory(self.us, self.eu)

    def account(self, player: PlayerId, at: Moment) -> dict[str, int]:
        story = Story(player, self.logs.ownership)
        for book in (self.eu, self.us):
            for entry in book.entries:
                story.take(entry)
        return {currency: held.cash for currency, held in story.account(CODEC, at).balances.items()}

    def closed(self, at: Moment) -> Moment:
        return at.closed(self.logs.ownership.adoptions())


@pytest.fixture
def regions() -> Regions:
    return apart()


def apart() -> Regions:
    """500 and 70 before, 7 after the hand-over; another player, of us, with 1,000 before and 20,000 after it."""
    eu, us = Book("eu"), Book("us")
    for each in (eu, us):
        each.wait(MINUTE)
    player, other = eu.register(), us.register()
    eu.imported(player, 500, LONG_AGO)
    us.imported(other, 1_000, LONG_AGO)
    eu.wait(HOUR)
    for each in (eu, us):
        each.wait(MINUTE)
    eu.imported(player, 70, LONG_AGO)
    for each in (eu, us):
        each.wait(MINUTE)
    behind, us.wait = us.wait, lambda _: None  # type: ignore[method-assign]
    eu.hand_over(128, us)
    us.wait = behind  # type: ignore[method-assign]
    us.wait(MINUTE)
    us.imported(player, 7, LONG_AGO)
    us.imported(other, 20_000, LONG_AGO)
    assert us.now < eu.now
    return Regions(eu, us, player, other, len(eu.entries), micros(us) + 5 * 60_000_000)


def micros(book: Book) -> int:
    return (book.now - EPOCH) // timedelta(microseconds=1)


def cash(found: Mapping[str, Any]) -> int:
    """What all players have together, by the trial balance."""
    accounts = {name: amount for name, _, amount, _ in found["wallets"].rows("account")}
    assert sum(accounts.values()) == 0
    return int(accounts["cash"])


def test_as_of_a_time_after_a_hand_over_nothing_is_left_out_although_the_giver_was_ahead(regions: Regions) -> None:
    at = regions.closed(at_time(regions.now))
    found = figures.as_of(regions.logs, at)
    assert found["wallets"].positions == {"eu": regions.cut, "us": len(regions.us.entries)}
    assert cash(found) == 500 + 70 + 7 + 1_000 + 20_000
    assert regions.account(regions.player, at) == {"EUR": 577}
    assert regions.account(regions.other, at) == {"EUR": 21_000}
    assert f"eu up to {regions.cut} in any case" in at.said


def test_a_moment_that_is_not_closed_is_refused_and_not_cut_short(regions: Regions) -> None:
    """The mistake that these tests are for."""
    with pytest.raises(CouldNotCheck, match=rf"us from \d+ on, which goes on from eu/{regions.cut}"):
        figures.as_of(regions.logs, at_time(regions.now))


def test_before_the_hand_over_each_log_is_looked_at_by_its_own_clock(regions: Regions) -> None:
    adopted = next(each for each in regions.logs.ownership.adoptions())
    at = regions.closed(at_time(adopted.recorded_us - 1))
    found = figures.as_of(regions.logs, at)
    assert cash(found) == 500 + 1_000
    assert at.said == at_time(adopted.recorded_us - 1).said
    assert regions.account(regions.player, at) == {"EUR": 500}


def test_as_of_a_position_before_the_hand_over_the_other_log_ends_before_it_too(regions: Regions) -> None:
    before = regions.eu.entries[regions.cut - 2]
    at = regions.closed(at_position("eu", before.position, before.recorded))
    adopted = next(each for each in regions.logs.ownership.adoptions())
    found = figures.as_of(regions.logs, at)
    assert found["wallets"].positions == {"eu": before.position, "us": adopted.position - 1}
    assert cash(found) == 570 + 1_000
    assert f"us up to {adopted.position - 1} only" in at.said
    assert regions.account(regions.player, at) == {"EUR": 570}


def test_as_of_a_position_of_the_new_owner_the_giver_is_there_up_to_the_cut(regions: Regions) -> None:
    last = regions.us.entries[-1]
    at = regions.closed(at_position("us", last.position, last.recorded))
    assert cash(figures.as_of(regions.logs, at)) == 21_577
    assert regions.account(regions.player, at) == {"EUR": 577}


def test_what_a_region_knew_includes_all_from_which_it_went_on(regions: Regions) -> None:
    """Its witness had signed less of the other log than its copy held."""
    at = regions.closed(moment.known_to("us", regions.now, {"eu": 2}))
    assert cash(figures.as_of(regions.logs, at)) == 21_577


def test_without_the_givers_log_figures_are_refused(regions: Regions) -> None:
    logs: Any = InMemory(regions.us)
    with pytest.raises(CouldNotCheck, match="which goes on from eu/"):
        figures.as_of(logs, at_time(regions.now).closed(logs.ownership.adoptions()))


def shown(regions: Regions) -> dict[str, Sequence[Entry]]:
    """Both logs as a verifier accepts them, the adoption naming the leaf that its cut has there."""
    eu = sound(regions.eu)
    old, new = (entries[regions.cut - 1].leaf.hex().encode() for entries in (regions.eu.entries, eu))
    entries = [entry._replace(body=entry.body.replace(old, new)) for entry in regions.us.entries]
    us: Any = SimpleNamespace(name="us", origin=regions.us.origin, entries=entries)
    return {"eu": eu, "us": sound(us)}


def test_a_time_that_is_named_to_replay_is_closed_by_what_the_logs_say(regions: Regions) -> None:
    with replaying(shown(regions)) as logs:
        at = logs.moment(moment.rfc3339(regions.now))
        assert f"eu up to {regions.cut} in any case" in at.said
        assert cash(figures.as_of(logs, at)) == 21_577
        found = replayed(logs, read(logs, regions.player, at), at)
        assert found.account.balances["EUR"].cash == 577
        assert f"eu up to {regions.cut} in any case" in found.evidence.moment


LOGS = ("eu", "us", "ap")


@st.composite
def adoptions(draw: st.DrawFn) -> list[Adoption]:
    """Of three logs, whose clocks may say anything; what is recorded in one is later than what was recorded before."""
    found = []
    for log in LOGS:
        positions = sorted(draw(st.sets(st.integers(2, 40), max_size=4)))
        times = sorted(draw(st.sets(st.integers(1, 100), min_size=len(positions), max_size=len(positions))))
        for position, recorded_us in zip(positions, times, strict=True):
            of = draw(st.sampled_from([each for each in LOGS if each != log]))
            cut_us = draw(st.one_of(st.just(END_US), st.integers(1, 100)))
            found.append(Adoption(log, position, recorded_us, of, draw(st.integers(1, 40)), cut_us))
    return found


MOMENTS = st.one_of(
    st.builds(at_time, st.integers(0, 100)),
    st.builds(at_position, st.sampled_from(LOGS), st.integers(1, 40), st.integers(0, 100)),
)


@given(MOMENTS, adoptions())
def test_a_closed_moment_holds_what_its_adoptions_go_on_from(open_: Moment, known: list[Adoption]) -> None:
    at = open_.closed(known)
    for each in known:
        if at.covers(each.log, each.position, each.recorded_us):
            assert at.covers(each.of, each.cut, each.cut_us), each
    for log, last in open_.most.items():
        assert not at.covers(log, last + 1, 0), "what was named by its position ends there"
    if not any(open_.covers(each.log, each.position, each.recorded_us) for each in known):
        assert at == open_
