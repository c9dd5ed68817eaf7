"""Limits: how they are set, cut and raised in each jurisdiction, and what they refuse."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from domain import limits
from domain.errors import CurrencyMismatch, LimitExceeded, LimitRaise, LimitRequired, NotFound, UnderReview
from domain.kernel import Money
from domain.limits import (
    LIMITS,
    HeadroomConsumed,
    HeadroomReleased,
    Kind,
    Limits,
    LimitSet,
    NoRaise,
    NotLimited,
    Period,
    RaiseAttested,
    RaiseConfirmed,
    RaiseRequested,
    RaiseTooEarly,
    RaiseTooSoon,
    RaiseUnseen,
    RaiseWithdrawn,
    Source,
    WithdrawalCounted,
)
from domain.players import PLAYERS, DataKey, Player, ProfileRecorded, Registered
from policies.limits import zone
from tests.domain.history import DEPOSIT, EUR, NOON, OTHER_DEPOSIT, TOMORROW, USD, euros, fold, given

TODAY = NOON.date()  # a Sunday
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)
DAY, WEEK, MONTH = Period.DAY, Period.WEEK, Period.MONTH


def player(jurisdiction: str = "AT", currency: str = EUR, born: int = 1980) -> Player:
    registered = Registered(
        brand="main", country=jurisdiction[:2], currency=currency, key=DataKey("", ""), birth_year=born
    )
    return given(PLAYERS, registered, ProfileRecorded(jurisdiction=jurisdiction))


ANNA = player()


def limit_of(amount: int, period: Period = DAY, **more: Any) -> LimitSet:
    return LimitSet(kind=Kind.DEPOSIT, period=period, money=euros(amount), **more)


def consumed(amount: int, day: date = TODAY) -> HeadroomConsumed:
    return HeadroomConsumed(transaction=DEPOSIT, money=euros(amount), day=day)


def set_(state: Limits, most: Money | int | None, who: Player = ANNA, at: datetime = NOON, **of: Any) -> list[Any]:
    wanted = {"kind": Kind.DEPOSIT, "period": DAY} | of
    return list(limits.set_limit(state, who, most=most, at=at, **wanted))


def confirm(state: Limits, at: datetime, who: Player = ANNA, **of: Any) -> list[Any]:
    wanted = {"kind": Kind.DEPOSIT, "period": DAY} | of
    return list(limits.confirm_raise(state, who, at=at, **wanted))


def refuse(state: Limits, amount: int, who: Player = ANNA, at: datetime = NOON) -> Any:
    with pytest.raises(LimitExceeded) as refused:
        state.refuse_deposit(Money(amount, who.currency), player=who, at=at)
    return refused.value.facts


# Setting and cutting


def test_a_limit_is_set_and_the_same_again_records_nothing() -> None:
    assert set_(given(LIMITS), euros(100)) == [limit_of(100)]
    assert set_(given(LIMITS, limit_of(100)), euros(100)) == []


def test_a_limit_is_cut_at_once_and_a_raise_that_was_asked_for_is_void() -> None:
    asked = given(LIMITS, limit_of(100), *set_(given(LIMITS, limit_of(100)), euros(200)))
    events = set_(asked, euros(0))
    assert events == [limit_of(0)]
    after = fold(LIMITS, events, state=asked)
    assert refuse(after, 1)["limit"] == euros(0)
    with pytest.raises(NoRaise):
        confirm(after, NOON + timedelta(days=2))


def test_limits_of_every_kind_stand_side_by_side() -> None:
    state = given(LIMITS)
    for kind, period, most in (
        (Kind.DEPOSIT, DAY, euros(5)), (Kind.DEPOSIT, Period.DAYS_7, euros(6)), (Kind.NET_DEPOSIT, MONTH, euros(7)),
        (Kind.LOSS, WEEK, euros(8)), (Kind.WAGER, Period.HOURS_24, euros(9)), (Kind.STAKE, Period.SPIN, euros(2)),
        (Kind.TIME, DAY, 3600),
    ):  # fmt: skip
        state = fold(LIMITS, set_(state, most, kind=kind, period=period), state=state)
    assert [(each.kind.value, each.period.value, each.amount) for each in state.given] == [
        ("deposit", "7_days", 6), ("deposit", "day", 5), ("loss", "week", 8), ("net_deposit", "month", 7),
        ("stake", "spin", 2), ("time", "day", 3600), ("wager", "24_hours", 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("of", "most", "refusal"),
    [
        ({}, Money(100, USD), CurrencyMismatch),
        ({}, 3600, NotLimited),
        ({"kind": Kind.TIME}, euros(100), NotLimited),
        ({"kind": Kind.STAKE}, euros(100), NotLimited),
        ({"period": Period.SPIN}, euros(100), NotLimited),
    ],
)
def test_a_limit_is_of_its_kind_and_in_its_unit(of: Any, most: Any, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        set_(given(LIMITS), most, **of)


def test_nobody_has_a_limit_who_is_not_there() -> None:
    for asks in (lambda: set_(given(LIMITS), euros(1), given(PLAYERS)), lambda: confirm(given(LIMITS), NOON, Player())):
        with pytest.raises(NotFound):
            asks()


def test_where_only_cuts_are_taken_a_raise_is_refused() -> None:
    with pytest.raises(LimitRaise) as refused:
        limits.set_deposit_limit(given(LIMITS, limit_of(100)), ANNA, period=DAY, limit=euros(101), at=NOON)
    assert refused.value.facts == {"limit": euros(100)}


# Raising


def raising(jurisdiction: str, period: Period, at: str, amount: int = 200, currency: str = EUR) -> RaiseRequested:
    state = given(LIMITS, LimitSet(kind=Kind.DEPOSIT, period=period, money=Money(100, currency)))
    who = player(jurisdiction, currency)
    [asked] = set_(state, Money(amount, currency), who, datetime.fromisoformat(at), period=period)
    assert isinstance(asked, RaiseRequested)
    return asked


@pytest.mark.parametrize(
    ("jurisdiction", "period", "asked", "effective"),
    [
        ("AT", DAY, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),  # the house's own
        ("GB", MONTH, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),
        ("CA-ON", DAY, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),
        ("NL", DAY, "2026-11-22T12:00Z", "2026-11-29T12:00Z"),
        ("DE", MONTH, "2026-11-22T12:00Z", "2026-11-29T12:00Z"),
        ("DK", WEEK, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),
        ("SE", DAY, "2026-11-22T12:00Z", "2026-11-25T12:00Z"),
        ("SE", WEEK, "2026-11-21T23:00Z", "2026-11-24T23:00Z"),  # 24 h left in the week: 48 h after it has ended
        ("SE", WEEK, "2026-11-16T00:00Z", "2026-11-22T23:00Z"),  # a Monday: the week's end comes later than 72 h
        ("SE", MONTH, "2026-11-22T12:00Z", "2026-11-30T23:00Z"),
        ("SE", Period.DAYS_7, "2026-11-22T12:00Z", "2026-11-29T18:00Z"),
        ("US-PA", DAY, "2026-11-22T12:00Z", "2026-11-23T05:00Z"),  # when the old limit's day is over, in New York
        ("US-PA", MONTH, "2026-11-22T12:00Z", "2026-12-01T05:00Z"),
        ("PT", DAY, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),
        ("MT", DAY, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),
        ("ES", DAY, "2026-11-22T12:00Z", "2026-11-23T12:00Z"),
    ],
)
def test_a_raise_waits_as_long_as_the_rule_says(jurisdiction: str, period: Period, asked: str, effective: str) -> None:
    wanted = raising(jurisdiction, period, asked)
    assert wanted.effective_at == datetime.fromisoformat(effective)
    assert wanted.needs == ()


def test_a_raise_holds_once_it_was_asked_for_again_and_not_before() -> None:
    before = given(LIMITS, limit_of(100))
    [asked] = set_(before, euros(200))
    state = fold(LIMITS, [asked], state=before)
    assert refuse(state, 101, at=asked.effective_at)["limit"] == euros(100)
    with pytest.raises(RaiseTooEarly) as refused:
        confirm(state, asked.effective_at - timedelta(microseconds=1))
    assert refused.value.facts == {"effective_at": asked.effective_at}
    confirmed = confirm(state, asked.effective_at)
    assert confirmed == [
        RaiseConfirmed(kind=Kind.DEPOSIT, period=DAY, effective_at=asked.effective_at, money=euros(200))
    ]
    raised = fold(LIMITS, confirmed, at=asked.effective_at, state=state)
    raised.refuse_deposit(euros(200), player=ANNA, at=asked.effective_at)
    assert (raised.raises, raised.raised_at) == ((), {})  # the law of AT presets nothing that this would be above


def test_asking_for_the_same_raise_again_neither_helps_nor_begins_anew() -> None:
    before = given(LIMITS, limit_of(100))
    state = fold(LIMITS, set_(before, euros(200)), state=before)
    assert set_(state, euros(200), at=TOMORROW) == []
    [another] = set_(state, euros(300), at=TOMORROW)
    assert another.effective_at == TOMORROW + timedelta(hours=24)


def test_a_raise_may_be_withdrawn_and_lapses() -> None:
    before = given(LIMITS, limit_of(100))
    [asked] = set_(before, euros(200))
    state = fold(LIMITS, [asked], state=before)
    of: Any = {"kind": Kind.DEPOSIT, "period": DAY}
    assert limits.withdraw_raise(state, ANNA, at=NOON, **of) == [RaiseWithdrawn(Kind.DEPOSIT, DAY)]
    assert limits.withdraw_raise(before, ANNA, at=NOON, **of) == []
    with pytest.raises(NoRaise):
        confirm(state, asked.lapses_at)
    assert confirm(state, asked.lapses_at - timedelta(microseconds=1))


def test_to_have_no_limit_is_a_raise_too() -> None:
    before = given(LIMITS, limit_of(100))
    [asked] = set_(before, None)
    assert (asked.money, asked.seconds) == (None, None)
    state = fold(LIMITS, [asked], state=before)
    after = fold(LIMITS, confirm(state, asked.effective_at), at=asked.effective_at, state=state)
    assert after.given == ()
    assert set_(given(LIMITS), None) == []


# The law's


def test_the_presets_of_spain_hold_until_a_raise_was_seen_and_confirmed() -> None:
    """Annex II; the test and no risk behaviour first, and three months between raises (RD 1614/2011 art. 36)."""
    anna = player("ES")
    assert refuse(given(LIMITS), 600_01, anna)["rule"] == "deposit_limit.default_day"
    state = given(LIMITS)
    [asked] = set_(state, euros(700_00), anna)
    assert asked.needs == ("test", "no_risk_behaviour")
    state = fold(LIMITS, [asked], state=state)
    for need in asked.needs:
        with pytest.raises(RaiseUnseen):
            confirm(state, asked.effective_at, anna)
        attested = limits.attest_raise(state, anna, kind=Kind.DEPOSIT, period=DAY, need=need, at=NOON)
        assert attested == [RaiseAttested(Kind.DEPOSIT, DAY, need)]
        state = fold(LIMITS, attested, state=state)
    at = asked.effective_at
    state = fold(LIMITS, confirm(state, at, anna), at=at, state=state)
    state.refuse_deposit(euros(700_00), player=anna, at=at)
    with pytest.raises(RaiseTooSoon) as refused:
        set_(state, euros(800_00), anna, at + timedelta(days=80))
    assert refused.value.facts["earliest"] == datetime(2027, 2, 23, 12, tzinfo=UTC)
    assert set_(state, euros(800_00), anna, datetime(2027, 2, 23, 12, tzinfo=UTC))
    assert set_(state, euros(500_00), anna, at) == [limit_of(500_00)]


def test_in_the_netherlands_nobody_deposits_much_before_somebody_has_spoken_with_them() -> None:
    own = given(LIMITS, limit_of(10**6))
    for born, most in ((1980, 350_00), (2003, 150_00), (0, 150_00)):
        assert refuse(own, most + 1, player("NL", born=born))["limit"] == euros(most)
    [asked] = set_(own, euros(500_00), player("NL"), period=MONTH)
    assert (asked.needs, asked.effective_at) == (("contact",), NOON + timedelta(days=7))


def test_net_deposits_are_blocked_in_the_netherlands_until_the_month_is_over() -> None:
    month = RaiseConfirmed(  # somebody has spoken with her
        kind=Kind.DEPOSIT, period=MONTH, effective_at=NOON, money=euros(10**6), above="NL"
    )
    anna = player("NL")
    assert refuse(given(LIMITS, month, consumed(690_00)), 10_01, anna) == {
        "rule": "net_deposit.block_threshold", "verified": True, "kind": "net_deposit", "period": "month", "source": "system",
        "limit": euros(700_00), "used": euros(690_00), "remaining": euros(10_00),
        "frees_at": datetime(2026, 11, 30, 23, tzinfo=UTC),
    }  # fmt: skip
    paid_out = given(LIMITS, month, consumed(690_00), WithdrawalCounted(OTHER_DEPOSIT, euros(100_00), TODAY))
    paid_out.refuse_deposit(euros(110_00), player=anna, at=NOON)
    refuse(paid_out, 110_01, anna)


@pytest.mark.parametrize(
    ("jurisdiction", "currency", "enough", "missing"),
    [
        ("NL", "EUR", [WEEK], ["day", "week", "month"]),
        ("DE", "EUR", [MONTH], ["month"]),
        ("DK", "DKK", [DAY], ["day", "week", "month"]),
        ("SE", "SEK", [DAY, WEEK, MONTH], ["day", "week", "month"]),
        ("SE", "SEK", [Period.HOURS_24, Period.DAYS_7, MONTH], ["day", "week", "month"]),
        ("GB", "GBP", [], None),
        ("AT", "EUR", [], None),
    ],
)
def test_a_limit_has_to_be_set_before_the_first_deposit(
    jurisdiction: str, currency: str, enough: list[Period], missing: list[str] | None
) -> None:
    who, state = player(jurisdiction, currency), given(LIMITS)
    for period in enough:
        with pytest.raises(LimitRequired) as refused:
            state.refuse_deposit(Money(1, currency), player=who, at=NOON)
        assert refused.value.facts["rule"] == "deposit_limit.required_before_first_deposit"
        if state == Limits():
            assert list(refused.value.facts["periods"]) == missing  # type: ignore[call-overload]
        state = fold(LIMITS, set_(state, Money(100, currency), who, period=period), state=state)
    state.refuse_deposit(Money(1, currency), player=who, at=NOON)


def test_an_amount_in_another_currency_cannot_be_shown_to_be_below_the_laws() -> None:
    anna = player("DE", USD)
    state = given(LIMITS, LimitSet(kind=Kind.DEPOSIT, period=MONTH, money=Money(100, USD)))
    assert refuse(state, 1, anna)["rule"] == "deposit_limit.max_month_cross_operator"


@pytest.mark.parametrize(
    ("jurisdiction", "born", "most"),
    [("GB", 1980, 500), ("GB", 2002, 200), ("GB", 2001, 200), ("GB", 2000, 500), ("GB", 0, 200), ("DE", 2005, 100)],
)
def test_the_stake_of_a_spin_is_limited_by_age(jurisdiction: str, born: int, most: int) -> None:
    """GB: less than 25 years old (SI 2025/215). Who turns 25 in 2026 may still be 24."""
    who = player(jurisdiction, "GBP" if jurisdiction == "GB" else EUR, born)
    state = given(LIMITS)
    state.refuse_stake(most, player=who, at=NOON)
    with pytest.raises(LimitExceeded):
        state.refuse_stake(most + 1, player=who, at=NOON)
    state.refuse_stake(most + 1, player=who, at=NOON, is_slot=False)
    own = given(LIMITS, LimitSet(kind=Kind.STAKE, period=Period.SPIN, money=Money(50, who.currency)))
    with pytest.raises(LimitExceeded) as refused:
        own.refuse_stake(51, player=who, at=NOON, is_slot=False)
    assert refused.value.facts["rule"] == "player.stake.spin"


# The house's


def operate(state: Limits, most: Money | int | None, reason: str = "harm", **of: Any) -> list[Any]:
    return list(
        limits.set_operator_limit(state, ANNA, most=most, reason=reason, **({"kind": Kind.DEPOSIT, "period": DAY} | of))
    )


def test_the_houses_own_limit_stands_beside_the_players_and_acts_at_once_both_ways() -> None:
    state = given(LIMITS, limit_of(100), *operate(given(LIMITS), euros(50)))
    assert refuse(state, 51)["source"] == "operator"
    assert operate(state, euros(50)) == []
    higher = fold(LIMITS, operate(state, euros(500)), state=state)
    assert refuse(higher, 101)["source"] == "player"
    lifted = fold(LIMITS, operate(higher, None), state=higher)
    assert [each.source for each in lifted.given] == [Source.PLAYER]
    assert operate(lifted, None) == []


def test_who_meets_a_hold_for_money_laundering_hears_a_neutral_word() -> None:
    state = given(LIMITS, limit_of(100), *operate(given(LIMITS), euros(0), "aml"))
    with pytest.raises(UnderReview) as refused:
        state.refuse_deposit(euros(1), player=ANNA, at=NOON)
    assert refused.value.facts == {}
    event = limits.deposit_refused(euros(1), refused.value)
    assert (event.code, event.exceeded, event.required) == ("under_review", None, None)


# Refusing


def test_a_deposit_may_use_a_limit_up_and_not_exceed_it() -> None:
    state = given(LIMITS, limit_of(100), consumed(60))
    state.refuse_deposit(euros(40), player=ANNA, at=NOON)
    assert refuse(state, 41) == {
        "rule": "player.deposit.day", "verified": True, "kind": "deposit", "period": "day", "source": "player",
        "limit": euros(100), "used": euros(60), "remaining": euros(40), "frees_at": MIDNIGHT,
    }  # fmt: skip


def test_of_several_limits_the_lowest_applies() -> None:
    state = given(LIMITS, limit_of(100), limit_of(150, WEEK), limit_of(120, Period.DAYS_30), consumed(60))
    assert refuse(state, 41)["period"] == "day"
    monday = MIDNIGHT + timedelta(hours=1)
    assert refuse(state, 61, at=monday)["period"] == "30_days"


def test_a_limit_that_was_set_at_noon_counts_the_morning() -> None:
    facts = refuse(given(LIMITS, consumed(70), limit_of(50)), 1)
    assert (facts["used"], facts["remaining"]) == (euros(70), euros(0))


def test_without_a_limit_nothing_is_refused_and_nothing_is_left_to_say() -> None:
    state = given(LIMITS, consumed(10**12))
    state.refuse_deposit(Money(10**12, EUR), player=ANNA, at=NOON)
    room = {"currency": EUR, "day": TODAY, "at": NOON}
    assert state.room(Kind.DEPOSIT, state.deposited, **room) is None  # type: ignore[arg-type]
    limited = given(LIMITS, consumed(70), limit_of(50), limit_of(100, WEEK))
    assert limited.room(Kind.DEPOSIT, limited.deposited, **room) == 0  # type: ignore[arg-type]
    assert limited.room(Kind.DEPOSIT, given(LIMITS).deposited, **room) == 50  # type: ignore[arg-type]


def test_time_is_limited_in_seconds() -> None:
    state = given(LIMITS, LimitSet(kind=Kind.TIME, period=DAY, seconds=3600))
    used = given(LIMITS).deposited.add(3000, day=TODAY, at=NOON)
    with pytest.raises(LimitExceeded) as refused:
        state.refuse(Kind.TIME, 601, used, currency=EUR, day=TODAY, at=NOON, zone=zone("AT"))
    assert (refused.value.facts["limit"], refused.value.facts["remaining"]) == (3600, 600)


def test_a_new_day_has_the_whole_limit_where_the_player_lives() -> None:
    state, where = given(LIMITS, limit_of(100), limit_of(10**6, MONTH), consumed(100)), player("DE")
    there = MIDNIGHT - timedelta(hours=1)
    assert refuse(state, 1, where, there - timedelta(microseconds=1))["frees_at"] == there
    state.refuse_deposit(euros(100), player=where, at=there)


def test_a_refusal_can_be_told_again_from_its_event() -> None:
    for who, state in ((ANNA, given(LIMITS, limit_of(1))), (player("SE"), given(LIMITS))):
        with pytest.raises((LimitExceeded, LimitRequired)) as refused:
            state.refuse_deposit(euros(2), player=who, at=NOON)
        again = limits.refused_by(limits.deposit_refused(euros(2), refused.value))
        assert type(again) is refused.type
        assert again.facts == refused.value.facts


# Releasing


def test_a_release_gives_back_what_was_consumed_with_its_day_and_time() -> None:
    released = HeadroomReleased(transaction=DEPOSIT, money=euros(60), day=TODAY, at=NOON)
    state = given(LIMITS, consumed(60), consumed(30), released)
    assert (state.deposited.of_day, state.requested) == (30, 30)
    tomorrow = fold(LIMITS, [consumed(30, TOMORROW.date()), released], at=TOMORROW, state=given(LIMITS, consumed(60)))
    assert (tomorrow.deposited.of_day, tomorrow.deposited.of_month) == (30, 30)
