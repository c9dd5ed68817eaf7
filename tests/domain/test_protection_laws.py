"""Whatever happens to a player: nothing ends early, everything acts at once, and their money stays within reach."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from domain import protection
from domain.errors import Rejected
from domain.kernel import Event
from domain.protection import (
    ActionIsBlocked,
    ActionUnblocked,
    Answer,
    Excluded,
    LiftRequested,
    PlayerExcluded,
    PlayerTimedOut,
    Protection,
    Said,
    Source,
    Stop,
    TimedOut,
    shutting_out,
    standing,
)
from policies import protection as policy
from policies.protection import Moment, term
from tests.domain.history import NOON
from tests.domain.test_protection import DAY, GAMBLING, OTHER, excluded, living


class Life(RuleBasedStateMachine):
    """A player in a jurisdiction, and what each exclusion must hold at least, kept beside it in the simplest way."""

    jurisdictions = ("GB", "DE", "DK", "SE", "US-PA", "CA-ON", "MT", "PT", "ES", "NL", "AT")

    def __init__(self) -> None:
        super().__init__()
        self.at = NOON
        self.player = living("GB")
        self.state = Protection()
        self.holds: dict[Source, datetime] = {}  # until when each source shuts out at least, as far as is settled
        self.pauses = NOON
        self.in_register = False
        self.firm: dict[Source, datetime] = {}  # before when the end of each source's may not be asked for
        self.blocked: set[tuple[Stop, str]] = set()

    def decide(self, decision: Callable[[], list[Any]]) -> list[Event]:
        try:
            events = decision()
        except Rejected:
            return []
        self.state = protection.fold(self.state, events, self.at)
        return events

    @rule(hours=st.sampled_from([0, 1, 23, 24, 25, 24 * 7, 24 * 31, 24 * 92, 24 * 184, 24 * 366]))
    def wait(self, hours: int) -> None:
        self.at += timedelta(hours=hours)

    @rule(which=st.integers(0, 9), microseconds=st.sampled_from([-1, 0, 1]))
    def wait_for_an_edge(self, which: int, microseconds: int) -> None:
        edges = {each for e in self.state.exclusions for each in (e.not_before, e.ends_at) if each}
        edges |= {self.state.timed_out_until} if self.state.timed_out_until else set()
        if to_come := sorted(each for each in edges if each > self.at):
            self.at = max(self.at, to_come[which % len(to_come)] + timedelta(microseconds=microseconds))

    @rule(where=st.sampled_from(jurisdictions))
    def move(self, where: str) -> None:
        self.player = living(where)

    @rule(word=st.sampled_from(["1_month", "3_months", "6_months", "1_year", "5_years", "indefinite", "permanent"]),
          source=st.sampled_from([Source.PLAYER, Source.OPERATOR]))  # fmt: skip
    def exclude(self, word: str, source: Source) -> None:
        granted = policy.exclusion(term(word), self.player.jurisdiction, self.at)
        runs = self.state.of(source)
        if runs is None or runs.is_over(self.at):
            self.firm.pop(source, None)
        self.decide(lambda: protection.exclude(self.state, self.player, wanted=term(word), source=source, at=self.at))
        if isinstance(granted, policy.Granted):
            ends = datetime.max.replace(tzinfo=NOON.tzinfo) if granted.on_request else granted.until or NOON
            self.holds[source] = max(self.holds.get(source, NOON), ends)
            firm = granted.not_before if source is Source.PLAYER else granted.until or granted.not_before
            self.firm[source] = max(self.firm.get(source, NOON), firm or datetime.max.replace(tzinfo=NOON.tzinfo))

    @rule(word=st.sampled_from(["24_hours", "36_hours", "1_week", "1_month", "6_weeks"]))
    def pause(self, word: str) -> None:
        for made in self.decide(
            lambda: protection.time_out(self.state, self.player, wanted=term(word), source=Source.PLAYER, at=self.at)
        ):
            assert isinstance(made, TimedOut)
            self.pauses = max(self.pauses, made.until)

    @rule(source=st.sampled_from([Source.PLAYER, Source.PLAYER, *Source]))
    def lift(self, source: Source) -> None:
        for made in self.decide(lambda: protection.lift(self.state, source=source, at=self.at)):
            assert isinstance(made, LiftRequested)
            assert made.effective_at > self.at >= self.firm.get(source, NOON)
            assert made.effective_at <= self.holds[source], "a lift makes nothing longer"
            self.holds[source] = made.effective_at

    @rule()
    def timer(self) -> None:
        self.decide(lambda: protection.end(self.state, at=self.at))

    @rule(said=st.sampled_from([Said.CLEAR, Said.EXCLUDED]))
    def register(self, said: Said) -> None:
        answer = Answer("R", Moment.LOGIN, said, self.at + DAY if said is Said.EXCLUDED else None)
        self.decide(lambda: protection.hear(self.state, self.player.jurisdiction, answer, at=self.at))
        self.in_register = said is Said.EXCLUDED

    @rule(action=st.sampled_from([Stop.DEPOSIT, Stop.WITHDRAW]), reason=st.sampled_from(["x", "y"]), on=st.booleans())
    def house(self, action: Stop, reason: str, on: bool) -> None:
        if on:
            self.decide(
                lambda: protection.stop(self.state, self.player, action=action, reason=reason, intervention=None)
            )
            self.blocked.add((action, reason))
        else:
            self.decide(
                lambda: protection.allow(self.state, self.player, action=action, reason=reason, intervention=None)
            )
            self.blocked.discard((action, reason))

    @rule()
    @precondition(lambda self: self.state.exclusions)
    def another_account(self) -> None:
        self.decide(
            lambda: protection.exclude_matched(self.state, self.player, of=OTHER, theirs=excluded("GB", "6_months", at=self.at), at=self.at)
        )  # fmt: skip
        until = policy.term("6_months").after(self.at)  # type: ignore[union-attr]
        self.holds[Source.MATCHED] = max(self.holds.get(Source.MATCHED, NOON), until)

    @invariant()
    def nobody_plays_before_the_end_and_everybody_reaches_their_money(self) -> None:
        for source, until in self.holds.items():
            runs = self.state.of(source)
            assert until <= self.at or (runs is not None and not runs.is_over(self.at)), (
                self.at,
                source,
                until,
                self.state,
            )
        blocked = {action for action, _ in self.blocked}
        shut = self.in_register or any(until > self.at for until in self.holds.values())
        for action in GAMBLING:
            refused = self.state.refusal(action, self.at)
            if shut:
                assert isinstance(refused, PlayerExcluded), (self.at, self.holds, self.state)
            elif self.pauses > self.at:
                assert isinstance(refused, PlayerTimedOut)
            elif action in blocked:
                assert isinstance(refused, ActionIsBlocked)
            else:
                assert refused is None, (self.at, self.holds, self.state)
        assert (self.state.refusal(Stop.WITHDRAW, self.at) is not None) == (Stop.WITHDRAW in blocked)
        if shut:
            assert not self.state.may_contact("AT", self.at).allowed

    @invariant()
    def the_state_stays_small(self) -> None:
        assert len({each.source for each in self.state.exclusions}) == len(self.state.exclusions) <= len(Source)


LIVES = settings(max_examples=60, stateful_step_count=25, derandomize=True, suppress_health_check=list(HealthCheck))
FAULTY = settings(LIVES, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False)


def test_whatever_happens_nothing_ends_early_and_money_can_be_withdrawn() -> None:
    run_state_machine_as_test(Life, settings=LIVES)


def _shortens(_state: Protection, made: Excluded, _at: datetime) -> list[Any]:
    return [made]


def _ends_though_nobody_asked(exclusion: protection.Exclusion, at: datetime) -> bool:
    return exclusion.until is not None and at >= exclusion.until


def _lifts_at_once(*_: Any) -> Any:
    return policy.Granted(NOON - DAY, None, False, "", True)


def _lifts_all(state: Protection, event: Any, at: datetime) -> Protection:
    after = _evolve(state, event, at)
    if not isinstance(event, ActionUnblocked):
        return after
    return msgspec.structs.replace(after, stopped={a: why for a, why in after.stopped.items() if a is not event.action})


_evolve = standing.evolve


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (shutting_out, "_longer", _shortens),
        (standing.Exclusion, "is_over", _ends_though_nobody_asked),
        (policy, "lifted_at", _lifts_at_once),
        (standing.Protection, "running", lambda _self, _at: ()),
        (standing.Protection, "is_timed_out", lambda _self, _at: False),
        (standing.Protection, "refusal", lambda self, _action, at: PlayerExcluded() if self.running(at) else None),
        (standing, "evolve", _lifts_all),
    ],
    ids=["a new term replaces the old", "on request ends by itself", "a lift without delay",
         "exclusions do not count", "pauses do not count", "withdrawals are closed too",
         "one reason lifts all"],
)  # fmt: skip
def test_the_machine_finds_a_planted_fault(where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Life, settings=FAULTY)
