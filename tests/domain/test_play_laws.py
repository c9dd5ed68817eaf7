"""The laws of game sessions, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from domain import play, windows
from domain.errors import Rejected
from domain.play import (
    SESSIONS_MAX,
    Play,
    PlayEvent,
    SessionEnded,
    SessionOpened,
    SessionProlonged,
)
from policies.limits import zone
from tests.domain.playing import Story, at_most, player


class Span(NamedTuple):
    """A session was open from when until when; it may not have been ended by then."""

    begins: datetime
    ends: datetime


class Sessions(RuleBasedStateMachine):
    """Beside the decisions, a model that remembers everything: which sessions were open from when to when."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3_600
        self.story = Story(player("SE"), at_most(self.limit))
        self.names = 0
        self.open: dict[str, Span] = {}
        self.played: list[Span] = []
        self.ended: set[str] = set()

    def _follow(self, decide: Callable[[], Sequence[PlayEvent]]) -> None:
        try:
            events = decide()
        except Rejected:
            return
        for event in events:
            match event:
                case SessionOpened(session=name, ends_at=ends_at):
                    assert name not in self.ended
                    self.open[name] = Span(self.story.now, ends_at)
                case SessionProlonged(session=name, ends_at=ends_at):
                    self.open[name] = self.open[name]._replace(ends=ends_at)
                case SessionEnded(session=name):
                    assert name not in self.ended
                    self.ended.add(name)
                    if (span := self.open.pop(name, None)) is not None:
                        self.played.append(span._replace(ends=min(span.ends, self.story.now)))

    @rule()
    def launch(self) -> None:
        self.names += 1
        self._follow(lambda: self.story.launch(str(self.names)))

    @rule(n=st.integers(0, 2))
    def open_one(self, n: int) -> None:
        self._follow(lambda: self.story.open(str(self.names - n)))

    @rule(seconds=st.sampled_from([1, 600, 1_800, 43_200]))
    def play(self, seconds: int) -> None:
        self.launch()
        self.open_one(0)
        self.wait(seconds)

    @rule(n=st.integers(0, 2))
    def end(self, n: int) -> None:
        self._follow(lambda: self.story.end(str(self.names - n)))

    @rule(seconds=st.one_of(st.integers(1, 600), st.sampled_from([899, 1_800, 3_600, 43_200])))
    def wait(self, seconds: int) -> None:
        self.story.wait(seconds=seconds)

    @rule()
    def timer(self) -> None:
        self._follow(self.story.expire)

    @rule()
    def check(self) -> None:
        if self.story.state.sessions:
            self._follow(lambda: self.story.check(next(iter(self.story.state.sessions))))

    @rule()
    def exclude(self) -> None:
        story = self.story
        self._follow(lambda: story.fold(play.end_all(story.state, reason="excluded", at=story.now, zone=zone("SE"))))

    @rule()
    def cut(self) -> None:
        self.limit = max(600, self.limit // 2)
        self.story.limits = at_most(self.limit)

    @invariant()
    def what_is_counted_is_what_was_played(self) -> None:
        """The union of all spans, each up to its end; of what is counted, each piece may be a second more."""
        now = self.story.now
        total, reached = timedelta(), datetime.min.replace(tzinfo=UTC)
        for begins, ends in sorted([*self.played, *self.open.values()]):
            total += max(timedelta(), min(ends, now) - max(begins, reached))
            reached = max(reached, min(ends, now))
        pieces = [piece for event in self.story.events if isinstance(event, SessionEnded) for piece in event.spent]
        pieces += self.story.state.running(now, zone("SE"))
        counted = timedelta(seconds=sum(seconds for _, seconds in pieces))
        assert total <= counted <= total + timedelta(seconds=len(pieces))

    @invariant()
    def no_day_has_more_than_its_limit(self) -> None:
        by_day: dict[date, int] = {}
        for event in self.story.events:
            if isinstance(event, SessionEnded):
                for day, seconds in event.spent:
                    by_day[day] = by_day.get(day, 0) + seconds
        assert all(seconds <= 3_600 for seconds in by_day.values())

    @invariant()
    def a_bet_is_taken_only_where_a_session_is_open_and_time_is_left(self) -> None:
        for name in self.story.state.sessions:
            try:
                self.story.bet(name)
            except Rejected:
                continue
            assert name in self.open
            assert self.story.now < self.open[name].ends
            assert self.story.used() < self.limit
            assert self.story.state.since_check(self.story.now) < timedelta(hours=1)

    @invariant()
    def the_state_is_small_and_says_what_is_due(self) -> None:
        state = self.story.state
        assert len(state.sessions) <= SESSIONS_MAX
        ends = [session.ends_at for session in state.sessions.values()]
        assert not self.story.events or self.story.events[-1].due_at == min(ends, default=None)
        assert (state.since is not None) == any(each.opened_at for each in state.sessions.values())


def run_machine(examples: int, *phases: Phase) -> None:
    """With phases: the same every time."""
    steady = {"phases": phases, "derandomize": True, "database": None} if phases else {}
    chosen = settings(max_examples=examples, stateful_step_count=30, **steady)  # type: ignore[arg-type]
    run_state_machine_as_test(Sessions, settings=chosen)  # type: ignore[no-untyped-call]


def test_the_laws_of_sessions_hold_whatever_happens() -> None:
    run_machine(60)


_real_without = play._without


def _counts_each(play_: Play, event: SessionEnded, at: datetime) -> Play:
    """What one session has taken is counted again with the next."""
    after = _real_without(play_, event, at)
    return msgspec.structs.replace(after, since=play_.since if after.since else None)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("_without", _counts_each),
        ("_time_is_up", lambda *_arguments, **_named: play._NEVER),
        ("_next", lambda _sessions, also=None: also),
        ("_overdue", lambda *_arguments: []),
        ("_require_time", lambda *_arguments: None),
        ("by_day", lambda *span: tuple((day, seconds // 60 * 60) for day, seconds in windows.by_day(*span))),
    ],
)
def test_a_planted_fault_breaks_a_law(monkeypatch: pytest.MonkeyPatch, name: str, fault: Any) -> None:
    monkeypatch.setattr(play, name, fault)
    with pytest.raises((AssertionError, KeyError)):
        run_machine(200, Phase.generate)
