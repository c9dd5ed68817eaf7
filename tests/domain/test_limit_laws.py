"""
The laws of limits, whatever is asked for in whatever order and whatever the clock does: nobody deposits more than a limit in
force leaves, and no limit rises before its time and unconfirmed. What is used is counted here from the payments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain import limits
from domain.errors import Rejected
from domain.kernel import Event, Money, TransactionId
from domain.kyc import KYC, Approved
from domain.limits import LIMITS, HeadroomConsumed, Kind, Limits, LimitSet, Period, RaiseConfirmed, Source
from domain.players import PLAYERS, DataKey, Player, ProfileRecorded, Registered
from domain.transactions import TRANSACTIONS, DepositRequested
from domain.transactions.deposits import fail_deposit, request_deposit
from domain.wallets import WALLETS
from domain.windows import ROLLING, Usage
from policies import limits as policy
from policies.gates import Level
from tests.domain.history import NOON, PLAYER, given

HOURS, DAYS = (lambda n: timedelta(hours=n)), (lambda n: timedelta(days=n))
LEAST: dict[str, timedelta] = {
    "AT": HOURS(24), "GB": HOURS(24), "NL": DAYS(7), "DE": DAYS(7), "SE": HOURS(72), "US-PA": HOURS(0), "ES": HOURS(24),
}  # fmt: skip
"""How long a raise waits at the least (rules.md; where that tells nothing, the house's day)."""

BY_THE_LAW: dict[str, list[tuple[Kind, Period, int]]] = {
    "DE": [(Kind.DEPOSIT, Period.MONTH, 1_000_00)],
    "NL": [(Kind.NET_DEPOSIT, Period.MONTH, 700_00)],
}
PRESET: dict[str, list[tuple[Kind, Period, int]]] = {
    "NL": [(Kind.DEPOSIT, Period.MONTH, 350_00)],
    "ES": [
        (Kind.DEPOSIT, Period.DAY, 600_00), (Kind.DEPOSIT, Period.WEEK, 1_500_00), (Kind.DEPOSIT, Period.MONTH, 3_000_00),
    ],
}  # fmt: skip
KNOWN = given(KYC, Approved(Level.ENHANCED, "document", age_verified=True))
PERIODS = [each for each in Period if each is not Period.SPIN]


class Paid(NamedTuple):
    """What was paid in (or, negative, out), and counted with `day` from `at` on; `gross`: whether that is a deposit."""

    amount: int
    day: date
    at: datetime
    gross: bool


class Limiting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = self.recorded = NOON
        self.ahead = timedelta(0)
        self.state: Limits = LIMITS.initial
        self.paid: dict[str, Paid] = {}
        self.open: dict[str, Any] = {}
        self.in_force: dict[tuple[Kind, Period, Source], int] = {}
        self.asked_at: dict[tuple[Kind, Period], tuple[datetime, int | None, str]] = {}
        self.attested: set[tuple[Kind, Period]] = set()
        self.broken: list[str] = []
        self.count = 0

    @initialize(jurisdiction=st.sampled_from(sorted(LEAST)))
    def somebody_registers(self, jurisdiction: str) -> None:
        self.jurisdiction = jurisdiction
        registered = Registered(
            brand="main", country=jurisdiction[:2], currency="EUR", key=DataKey("", ""), birth_year=1980
        )
        self.player = given(PLAYERS, registered, ProfileRecorded(jurisdiction=jurisdiction))

    @property
    def at(self) -> datetime:
        """As the decider makes it: the later of now, by a clock that is `ahead` of the log's, and the newest entry."""
        return max(self.now + self.ahead, self.recorded)

    def decide(self, decision: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        try:
            events = decision()
        except Rejected:
            return ()
        for event in events:
            self.recorded = max(self.now, self.recorded + timedelta(microseconds=1))
            if event.tag.startswith("limits."):
                self.state = LIMITS.evolve(self.state, event, self.recorded)
        return events

    @rule(
        kind=st.sampled_from([Kind.DEPOSIT, Kind.DEPOSIT, Kind.NET_DEPOSIT]),
        period=st.sampled_from(PERIODS),
        most=st.sampled_from([None, 0, 100_00, 200_00, 400_00, 900_00]),
    )
    def set_limit(self, kind: Kind, period: Period, most: int | None) -> None:
        money = None if most is None else Money(most, "EUR")
        at = self.at
        events = self.decide(
            lambda: limits.set_limit(self.state, self.player, kind=kind, period=period, most=money, at=at)
        )
        if any(isinstance(event, LimitSet) for event in events):
            assert most is not None
            before = self.own_or_preset(kind, period)
            if before is not None and most > before:
                self.broken.append("raised at once")
            self.in_force[kind, period, Source.PLAYER] = most
            self.asked_at.pop((kind, period), None)
        elif events:
            self.asked_at[kind, period] = (self.recorded, most, self.jurisdiction)
            self.attested.discard((kind, period))

    def own_or_preset(self, kind: Kind, period: Period) -> int | None:
        presets = [most for of, over, most in PRESET.get(self.jurisdiction, ()) if (of, over) == (kind, period)]
        return self.in_force.get((kind, period, Source.PLAYER), presets[0] if presets else None)

    def own_raises(self) -> list[tuple[Kind, Period]]:
        return sorted(self.asked_at)

    @rule(place=st.integers(0, 10), attested=st.booleans())
    def confirm(self, place: int, attested: bool) -> None:
        if not (asked := self.own_raises()):
            return
        kind, period = asked[place % len(asked)]
        if attested:
            self.attested.add((kind, period))
            for need in ("test", "no_risk_behaviour", "contact"):
                self.decide(
                    lambda need=need: limits.attest_raise(  # type: ignore[misc]
                        self.state, self.player, kind=kind, period=period, need=need, at=self.at
                    )
                )
        at, before = self.at, self.state.raises
        self.decide(lambda: limits.confirm_raise(self.state, self.player, kind=kind, period=period, at=at))
        if self.state.raises != before:
            self.confirmed(kind, period, self.recorded, (kind, period) in self.attested)

    def confirmed(self, kind: Kind, period: Period, at: datetime, attested: bool) -> None:
        """`at`: as the log has recorded it, which is what counts."""
        since, most, there = self.asked_at.pop((kind, period))
        if at - since < max(LEAST[there], LEAST[self.jurisdiction]):
            self.broken.append("raised early")
        waits = self.jurisdiction in {"SE", "US-PA"}
        if waits and period in policy.CALENDAR and self.window(period, at) == self.window(period, since):
            self.broken.append("raised in the period that was running")
        if waits and period in ROLLING and at - since < ROLLING[period].length:
            self.broken.append("raised in the period that was running")
        presets = [each for of, over, each in PRESET.get(self.jurisdiction, ()) if (of, over) == (kind, period)]
        if presets and most is not None and most > presets[0] and not attested:
            self.broken.append("raised above the law unseen")
        if most is None:
            self.in_force.pop((kind, period, Source.PLAYER), None)
        else:
            self.in_force[kind, period, Source.PLAYER] = most

    def window(self, period: Period, at: datetime) -> object:
        day = policy.local_day(self.jurisdiction, at)
        return {Period.DAY: day, Period.WEEK: day.isocalendar()[:2], Period.MONTH: (day.year, day.month)}[period]

    @rule(place=st.integers(0, 10))
    def withdraw_raise(self, place: int) -> None:
        if asked := self.own_raises():
            kind, period = asked[place % len(asked)]
            self.decide(lambda: limits.withdraw_raise(self.state, self.player, kind=kind, period=period, at=self.at))
            self.asked_at.pop((kind, period))

    @rule(period=st.sampled_from(PERIODS), most=st.sampled_from([None, 50_00, 300_00]))
    def operate(self, period: Period, most: int | None) -> None:
        money = None if most is None else Money(most, "EUR")
        self.decide(
            lambda: limits.set_operator_limit(
                self.state, self.player, kind=Kind.DEPOSIT, period=period, most=money, reason="harm"
            )
        )
        self.in_force.pop((Kind.DEPOSIT, period, Source.OPERATOR), None)
        if most is not None:
            self.in_force[Kind.DEPOSIT, period, Source.OPERATOR] = most

    @rule(amount=st.sampled_from([1, 40_00, 100_00, 250_00, 100_000_00]))
    def deposit(self, amount: int) -> None:
        self.count += 1
        id_ = TransactionId(f"transaction_{self.count}")
        at = self.at
        asked = DepositRequested(player=PLAYER, money=Money(amount, "EUR"), provider="acme")
        events = self.decide(
            lambda: request_deposit(
                TRANSACTIONS.initial, self.player, KNOWN, self.state, WALLETS.initial,
                transaction_id=id_, requested=asked, at=at,
            )
        )  # fmt: skip
        if not events:
            return
        requested, consumed = events
        assert isinstance(consumed, HeadroomConsumed)
        began = self.recorded - timedelta(microseconds=1)
        self.open[id_] = TRANSACTIONS.evolve(TRANSACTIONS.initial, requested, began)
        self.paid[id_] = Paid(amount, consumed.day, self.recorded, gross=True)
        self.judge(at)

    def judge(self, at: datetime) -> None:
        """Whether what was just accepted fits into every limit that holds, counted anew."""
        newest = max(paid.day for paid in self.paid.values())
        if newest < policy.local_day(self.jurisdiction, at):
            self.broken.append("counted on a day that is over")
        own = {(kind, period) for kind, period, source in self.in_force if source is Source.PLAYER}
        laws = BY_THE_LAW.get(self.jurisdiction, [])
        presets = [each for each in PRESET.get(self.jurisdiction, ()) if each[:2] not in own]
        given_ = [(kind, period, most) for (kind, period, _), most in self.in_force.items()]
        for kind, period, most in [*laws, *presets, *given_]:
            counted = [paid for paid in self.paid.values() if paid.gross or kind is Kind.NET_DEPOSIT]
            if period in ROLLING:
                inside = [paid.amount for paid in counted if paid.at > at - ROLLING[period].length]
            else:
                same = {
                    Period.DAY: lambda day: day == newest,
                    Period.WEEK: lambda day: day.isocalendar()[:2] == newest.isocalendar()[:2],
                    Period.MONTH: lambda day: (day.year, day.month) == (newest.year, newest.month),
                }[period]
                inside = [paid.amount for paid in counted if same(paid.day)]
            if sum(inside) > most:
                self.broken.append(f"{kind} of {sum(inside)} beyond {most} in {period}")
        wanted = {"DE": 1, "NL": 1, "SE": 3}.get(self.jurisdiction, 0)
        lengths = {
            {"24_hours": "day", "7_days": "week", "30_days": "month"}.get(period, period)
            for kind, period in own
            if kind is Kind.DEPOSIT
        }
        if len(lengths) < wanted:
            self.broken.append("without a limit")

    @rule(place=st.integers(0, 10))
    def fail(self, place: int) -> None:
        if self.open:
            id_ = sorted(self.open)[place % len(self.open)]
            failed = self.open.pop(id_)
            self.decide(lambda: fail_deposit(failed, transaction_id=TransactionId(id_), reason="declined"))
            del self.paid[id_]

    @rule(amount=st.sampled_from([10_00, 80_00]))
    def pay_out(self, amount: int) -> None:
        day, offset = self.state.day_at(self.player, self.at)
        counted = limits.WithdrawalCounted(TransactionId("transaction_out"), Money(amount, "EUR"), day, offset)
        self.decide(lambda: [counted])
        self.count += 1
        self.paid[f"out {self.count}"] = Paid(-amount, day, self.recorded, gross=False)

    @rule(hours=st.sampled_from([1, 5, 11, 24, 72, 168, 400]))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(step=st.sampled_from([HOURS(1), HOURS(-1), DAYS(1), DAYS(-1)]))
    def the_clock_is_stepped(self, step: timedelta) -> None:
        self.now += step

    @invariant()
    def the_laws_hold(self) -> None:
        assert not self.broken

    @invariant()
    def what_holds_is_what_was_set_and_confirmed(self) -> None:
        assert {(e.kind, e.period, e.source): e.amount for e in self.state.given} == self.in_force

    @invariant()
    def a_state_survives_being_stored(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(self.state), type=Limits) == self.state


class Raising(Limiting):
    """Raises alone, where they wait for more than a day."""

    somebody_registers = withdraw_raise = operate = deposit = fail = pay_out = None  # type: ignore[assignment]
    set_limit = the_clock_is_stepped = None  # type: ignore[assignment]

    @initialize(jurisdiction=st.sampled_from(["NL", "ES", "SE", "US-PA"]))
    def somebody_comes(self, jurisdiction: str) -> None:
        Limiting.somebody_registers(self, jurisdiction)

    @rule(jurisdiction=st.sampled_from(["AT", "NL", "ES", "SE", "US-PA"]))
    def she_moves(self, jurisdiction: str) -> None:
        Limiting.somebody_registers(self, jurisdiction)

    @rule(ahead=st.sampled_from([HOURS(0), HOURS(1), HOURS(-1), DAYS(1), DAYS(-1)]))
    def another_process_answers(self, ahead: timedelta) -> None:
        """Whose clock is wrong; the log's is not."""
        self.ahead = ahead

    @rule(place=st.integers(0, 10))
    def a_process_that_is_far_ahead_confirms(self, place: int) -> None:
        """No clock is that wrong by itself; so whoever believes it is found at once."""
        before, self.ahead = self.ahead, DAYS(9)
        self.confirm(place, attested=True)
        self.ahead = before

    @rule(period=st.sampled_from([Period.DAY, Period.MONTH]), most=st.sampled_from([100_00, 400_00, 900_00]))
    def limit(self, period: Period, most: int) -> None:
        Limiting.set_limit(self, Kind.DEPOSIT, period, most)


def check(machine: type[Limiting] = Limiting, **options: Any) -> None:
    options = {"stateful_step_count": 40, "deadline": None, "print_blob": True} | options
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck), **options))


def test_nobody_exceeds_a_limit_and_none_rises_early_whatever_is_asked_for() -> None:
    check(max_examples=120)


def test_no_clock_of_a_process_and_no_move_makes_a_raise_wait_for_less() -> None:
    check(Raising, max_examples=60)


def refuse_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Limits, "refuse", lambda *_, **__: None)


def count_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Usage, "within", lambda *_, **__: 0)


def ask_for_no_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Limits, "missing", lambda *_: None)


def raise_at_once(patch: pytest.MonkeyPatch) -> None:
    right = policy.to_raise
    patch.setattr(policy, "to_raise", lambda *of, **more: right(*of, **more)._replace(cooling_off=timedelta(0)))


def raise_in_the_running_period(patch: pytest.MonkeyPatch) -> None:
    right = policy.to_raise
    patch.setattr(policy, "to_raise", lambda *of, **more: right(*of, **more)._replace(after_period=False))


def raise_unseen(patch: pytest.MonkeyPatch) -> None:
    right = policy.to_raise
    patch.setattr(policy, "to_raise", lambda *of, **more: right(*of, **more)._replace(needs=()))


def believe_every_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaiseConfirmed, "holds", lambda *_: True)


def count_from_the_asking_clock(patch: pytest.MonkeyPatch) -> None:
    right = limits.due

    def mistaken(state: Limits, player: Player, wanted: limits.Raise, at: datetime) -> limits.Terms:
        return right(state, player, msgspec.structs.replace(wanted, asked_at=wanted.asked_at - DAYS(60)), at)

    patch.setattr("domain.limits.terms.due", mistaken)


def let_an_asked_raise_hold(patch: pytest.MonkeyPatch) -> None:
    right = LIMITS.evolve

    def eager(state: Limits, event: Any, at: datetime) -> Limits:
        after = right(state, event, at)
        if isinstance(event, limits.RaiseRequested) and event.money is not None:
            return right(after, LimitSet(kind=event.kind, period=event.period, money=event.money), at)
        return after

    patch.setattr(LIMITS, "evolve", eager)


def give_a_day_back_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Usage, "counts_on", lambda _used, day: day)
    patch.setattr(
        limits.Limits,
        "day_at",
        lambda _limits, player, at: policy.LocalDay(policy.local_day(player.jurisdiction, at) - DAYS(1), 0),
    )


def forget_the_law(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("domain.players.system", lambda *_, **__: ())


@pytest.mark.parametrize(
    ("machine", "plant"),
    [
        (Limiting, refuse_nothing),
        (Limiting, count_nothing),
        (Limiting, ask_for_no_limit),
        (Limiting, give_a_day_back_twice),
        (Limiting, forget_the_law),
        (Raising, raise_at_once),
        (Raising, raise_in_the_running_period),
        (Raising, raise_unseen),
        (Raising, believe_every_clock),
        (Raising, count_from_the_asking_clock),
        (Raising, let_an_asked_raise_hold),
    ],
)
def test_a_planted_fault_breaks_a_law(
    monkeypatch: pytest.MonkeyPatch, machine: type[Limiting], plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(machine, max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False, derandomize=True)
