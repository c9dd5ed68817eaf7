"""
Safeguards of several regions, in whatever order they come and are taken up: nobody is less protected by one, and in the end all is as
if the owner had recorded it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from domain import anywhere, limits, players, protection, safeguards
from domain.kernel import Aggregate, Money
from domain.limits import LIMITS, Kind, Limits, Period
from domain.players import PLAYERS, Channel, Player, Status
from domain.protection import PROTECTION, Protection, Source, Stop
from domain.safeguards import Safeguard, Safeguards
from tests.domain.history import NOON

HOUR = timedelta(hours=1)
MOMENTS = [NOON + n * 24 * HOUR for n in range(18)]
ACTIONS = (Stop.DEPOSIT, Stop.BET, Stop.LOGIN, Stop.BONUS, Stop.WITHDRAW)
AGGREGATES: Sequence[Aggregate[Any]] = (PROTECTION, LIMITS, PLAYERS)

hours = st.integers(1, 400)
ends = st.none() | hours.map(lambda n: NOON + n * HOUR)
facts: st.SearchStrategy[Safeguard] = st.one_of(
    st.builds(safeguards.TimedOut, until=hours.map(lambda n: NOON + n * HOUR), source=st.sampled_from(list(Source)[:2])),
    st.builds(
        safeguards.Excluded, source=st.sampled_from(list(Source)[:2]), jurisdiction=st.just("AT"), until=ends,
        not_before=ends, on_request=st.booleans(),
    ),
    st.builds(safeguards.ActionBlocked, action=st.sampled_from(ACTIONS), reason=st.sampled_from(["harm", "fraud"])),
    st.builds(safeguards.Blocked, reason=st.sampled_from(["fraud", "chargeback"])),
    st.builds(safeguards.ConsentWithdrawn, channel=st.sampled_from(Channel)),
    st.builds(
        safeguards.LimitSet, kind=st.just(Kind.DEPOSIT), period=st.sampled_from([Period.DAY, Period.WEEK]),
        source=st.sampled_from([limits.Source.PLAYER, limits.Source.OPERATOR]),
        money=st.integers(0, 50).map(lambda amount: Money(amount, "EUR")),
    ),
)  # fmt: skip


class Standing(NamedTuple):
    """What holds for the player, by aggregate."""

    states: Mapping[Aggregate[Any], Any]

    def included(self, there: Mapping[str, Safeguards]) -> Standing:
        return Standing({each: anywhere.included(each, state, there) for each, state in self.states.items()})

    def taken_up(self, log: str, here: Safeguards) -> Standing:
        states = dict(self.states)
        for each in AGGREGATES:
            for event in anywhere.take_up(each, states[each], log, here):
                states[each] = each.evolve(states[each], event, NOON + 500 * HOUR)
        return Standing(states)

    def protects(self) -> tuple[set[Any], tuple[float, ...], set[Channel], bool]:
        """What is closed and when, the limits, which channels are open, whether the account is blocked."""
        protected: Protection = self.states[PROTECTION]
        limited: Limits = self.states[LIMITS]
        player: Player = self.states[PLAYERS]
        closed = {(action, at) for action in ACTIONS for at in MOMENTS if protected.refusal(action, at)}
        own = [
            limited.own(Kind.DEPOSIT, period, by) for period in (Period.DAY, Period.WEEK) for by in list(limits.Source)
        ]
        most = tuple(float("inf") if each is None else float(each.amount) for each in own)
        return closed, most, set(player.consents), player.status is Status.BLOCKED


def no_less(after: Standing, before: Standing) -> bool:
    closed, most, channels, blocked = after.protects()
    was_closed, was_most, were_open, was_blocked = before.protects()
    lower = all(now <= then for now, then in zip(most, was_most, strict=True))
    return closed >= was_closed and lower and channels <= were_open and blocked >= was_blocked


def recorded(made: Sequence[Safeguard]) -> Safeguards:
    state = Safeguards()
    for fact in made:
        state = safeguards.evolve(state, fact, NOON)
    return state


def beginning() -> Standing:
    player = Player(Status.ACTIVE, "AT", "EUR", consents=tuple(sorted(Channel)))
    return Standing({PROTECTION: Protection(), LIMITS: Limits(), PLAYERS: player})


def lived(own: Sequence[Safeguard]) -> Standing:
    """What the owner has recorded itself."""
    return Standing(
        {each: anywhere.included(each, state, {"owner": recorded(own)}) for each, state in beginning().states.items()}
    )


several = st.lists(facts, max_size=4)


steps = st.lists(st.tuples(st.sampled_from(["us", "ap"]), st.integers(0, 4), st.booleans()), max_size=6)
"""What arrives: of which log, up to which version, and whether the owner takes it up then."""


@given(several, several, several, steps)
@settings(max_examples=80)
def test_in_whatever_order_they_arrive_nobody_is_less_protected_and_all_is_as_if_the_owner_had_recorded_it(
    own: list[Safeguard], of_us: list[Safeguard], of_ap: list[Safeguard], arriving: list[tuple[str, int, bool]]
) -> None:
    stands = best = lived(own)
    logs = {"us": of_us, "ap": of_ap}
    everything = {log: recorded(made) for log, made in logs.items()}
    complete = stands.included(everything).protects()
    arrived = dict.fromkeys(logs, 0)
    for log, upto, is_taken_up in [*arriving, ("us", 4, True), ("ap", 4, True), ("us", 4, True)]:
        arrived[log] = max(arrived[log], upto)
        there = {each: recorded(made[: arrived[each]]) for each, made in logs.items()}
        counts = stands.included(there)
        assert no_less(counts, best)
        best = counts
        if is_taken_up:
            stands = stands.taken_up(log, there[log])
            assert stands.included(there).protects() == counts.protects()
            assert stands.taken_up(log, there[log]) == stands, "once"
    assert not any(anywhere.is_open(each, state, everything) for each, state in stands.states.items())
    assert stands.protects() == complete == stands.included(everything).protects()


@given(several, several)
@settings(max_examples=60)
def test_which_region_comes_first_makes_no_difference(of_us: list[Safeguard], of_ap: list[Safeguard]) -> None:
    us, ap = recorded(of_us), recorded(of_ap)
    one = beginning().taken_up("us", us).taken_up("ap", ap)
    other = beginning().taken_up("ap", ap).taken_up("us", us)
    assert one.protects() == other.protects()


@given(several)
@settings(max_examples=60)
def test_what_was_ended_since_it_was_taken_up_stays_ended(of_us: list[Safeguard]) -> None:
    us = recorded([*of_us, safeguards.ActionBlocked(action=Stop.BONUS, reason="harm")])
    stands = beginning().taken_up("us", us)
    freed = PROTECTION.evolve(
        stands.states[PROTECTION], protection.ActionUnblocked(action=Stop.BONUS, reason="harm"), NOON
    )
    found = anywhere.included(PROTECTION, freed, {"us": us})
    assert "harm" not in found.stopped.get(Stop.BONUS, ())


def test_every_fact_of_the_owners_that_protects_has_its_like_and_none_that_lifts_has() -> None:
    theirs = {**PROTECTION.events, **LIMITS.events, **PLAYERS.events}
    alike = {kind.__mro__[1] for kind in safeguards.KINDS}
    assert alike <= set(theirs.values())
    for lifts in (
        protection.ActionUnblocked,
        protection.Lifted,
        limits.LimitLifted,
        limits.RaiseConfirmed,
        players.ConsentGiven,
    ):
        assert lifts not in alike
