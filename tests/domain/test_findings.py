"""Each rule finds what it says, from where on it says so, and names the events; and what is remembered stays small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.findings import ALL, Finding, Picture, Rulebook, Seen
from domain.findings.signs import SIGNS
from domain.players import Closed, ErasureDue
from policies.findings import (
    NAMED_MAX,
    Chase,
    Count,
    House,
    Jump,
    Kind,
    Nights,
    Severity,
    Signal,
    Span,
    Step,
    Total,
    Unplayed,
    Watch,
    Weeks,
    threshold,
)
from policies.limits import Kind as LimitKind
from policies.limits import Period, zone
from tests.domain.watching import (
    NOON,
    Happened,
    cancelled,
    deposit,
    deposit_failed,
    findings,
    limit_set,
    login_failed,
    payout,
    raise_requested,
    registered,
    rolled_back,
    rule,
    seen,
    shared,
    stake,
    win,
    withdrawal,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def of(name: str) -> Watch:
    [found] = [each for each in ALL if each.name == name]
    return found


def found(name: str, *happened: Happened, player: Any = None, begins: datetime = NOON) -> list[Finding]:
    return findings([of(name)], seen(happened, begins), player)


# Each rule of the house, by table: what it finds, and what is just too little


TABLE: list[tuple[str, Sequence[Happened], Sequence[Happened]]] = [
    ("deposit_velocity", [(MINUTE, deposit())] * 6, [(MINUTE, deposit())] * 5),
    ("deposit_velocity", [(12 * MINUTE, deposit())] * 6, [(20 * MINUTE, deposit())] * 12),
    ("failed_payments", [(HOUR, deposit_failed())] * 5, [(7 * HOUR, deposit_failed())] * 12),
    ("failed_log_ins", [(MINUTE, login_failed())] * 10, [(MINUTE, login_failed())] * 9),
    ("erasure_due", [(MINUTE, ErasureDue())], [(MINUTE, Closed("asked"))]),
    ("large_win", [(MINUTE, win(1_000_000))], [(MINUTE, win(999_999))] * 3),
    ("withdrawal_without_play", [(HOUR, deposit(50_000)), (HOUR, withdrawal(10_000))], [(HOUR, deposit(49_999)), (HOUR, withdrawal())]),
    (
        "withdrawal_without_play",
        [(HOUR, deposit(50_000)), (HOUR, stake(14_999)), (HOUR, withdrawal())],
        [(HOUR, deposit(50_000)), (HOUR, stake(15_000)), (HOUR, withdrawal())],
    ),
    ("withdrawal_without_play", [(HOUR, deposit(50_000)), (6 * DAY, withdrawal())], [(HOUR, deposit(50_000)), (8 * DAY, withdrawal())]),
    ("shared_instrument", [(HOUR, shared(2))], [(HOUR, shared(1))]),
    ("stake_jump", [(HOUR, stake(200))] * 50 + [(HOUR, stake(1_000))] * 10, [(HOUR, stake(200))] * 49 + [(HOUR, stake(1_000))] * 10),
    ("stake_jump", [(HOUR, stake(200))] * 50 + [(HOUR, stake(1_000))] * 10, [(HOUR, stake(200))] * 50 + [(HOUR, stake(999))] * 10),
    ("harm_deposits", [(DAY, deposit(25_000))] * 20, [(2 * DAY, deposit(25_000))] * 30),
    ("harm_losses", [(DAY, stake(100_000)), (DAY, stake(100_000))], [(DAY, stake(100_000)), (DAY, win(1)), (DAY, stake(100_000))]),
    ("harm_losses", [(DAY, stake(200_000))], [(DAY, stake(100_000)), (DAY, rolled_back(50_000)), (DAY, stake(100_000))]),
    ("harm_losses", [(DAY, stake(200_000))], [(DAY, stake(200_000, source="bonus"))]),
    ("harm_night_play", [(14 * HOUR, stake())] + [(DAY, stake())] * 3, [(14 * HOUR, stake())] + [(3 * DAY, stake())] * 9),
    ("harm_night_play", [(14 * HOUR, stake())] + [(DAY, stake())] * 3, [(HOUR, stake())] + [(DAY, stake())] * 9),
    (
        "harm_chasing",
        [(HOUR, stake(10_000)), *[(MINUTE, stake(1_000)), (MINUTE, deposit())] * 3],
        [(HOUR, stake(10_000)), *[(MINUTE, stake(1_000)), (MINUTE, deposit())] * 2],
    ),
    (
        "harm_chasing",
        [(HOUR, stake(10_000)), (59 * MINUTE, deposit()), (MINUTE, deposit()), (timedelta(0), deposit())],
        [(HOUR, stake(10_000)), (61 * MINUTE, deposit()), (MINUTE, deposit()), (MINUTE, deposit())],
    ),
    ("harm_chasing", [(HOUR, stake(10_000)), *[(MINUTE, deposit())] * 3], [(HOUR, stake(9_999)), *[(MINUTE, deposit())] * 3]),
    ("harm_cancelled_withdrawals", [(DAY, cancelled())] * 3, [(4 * DAY, cancelled())] * 9),
    ("harm_limit_raises", [(9 * DAY, raise_requested())] * 3, [(16 * DAY, raise_requested())] * 9),
]  # fmt: skip


@pytest.mark.parametrize(("name", "enough", "too_little"), TABLE)
def test_a_rule_finds_what_is_enough_and_not_what_is_just_too_little(
    name: str, enough: Sequence[Happened], too_little: Sequence[Happened]
) -> None:
    [finding] = found(name, *enough)
    last = f"event-{len(enough) - 1}"
    assert (finding.rule, finding.cause, finding.events[-1]) == (name, last, last)
    assert found(name, *too_little) == []


LEGAL: list[tuple[str, str, str, int, Sequence[Happened], str, int]] = [
    ("net_deposit_month", "NL", "EUR", 1980, [(HOUR, deposit(70_000))], "net_deposit.block_threshold", 70_000),
    ("net_deposit_month", "NL", "EUR", 2003, [(HOUR, deposit(30_000))], "net_deposit.block_threshold_18_24", 30_000),
    ("net_deposit_month", "NL", "EUR", 0, [(HOUR, deposit(30_000))], "net_deposit.block_threshold_18_24", 30_000),
    ("financial_vulnerability", "GB", "GBP", 1980, [(HOUR, deposit(15_000, "GBP"))], "financial_vulnerability.net_deposit_threshold_30_days", 15_000),
    ("high_month_limit", "SE", "SEK", 1980, [(HOUR, raise_requested(None))], "deposit_limit.contact_threshold_month", 1_000_000),
    ("high_month_limit", "NL", "EUR", 1980, [(HOUR, limit_set(35_001))], "deposit_limit.contact_threshold_month", 35_000),
    ("intensive_play", "ES", "EUR", 1980, [(timedelta(0), stake(60_000)), (7 * DAY, stake(60_000)), (7 * DAY, stake(60_000))], "harm_indicator.intensive_weekly_net_loss", 60_000),
    ("intensive_play", "ES", "EUR", 2004, [(timedelta(0), stake(20_000)), (7 * DAY, stake(20_000)), (7 * DAY, stake(20_000))], "harm_indicator.intensive_weekly_net_loss_young_adult", 20_000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "country", "currency", "born", "happened", "row", "figure"), LEGAL)
def test_a_legal_marker_stands_on_its_row_and_nowhere_else(
    name: str, country: str, currency: str, born: int, happened: Sequence[Happened], row: str, figure: int
) -> None:
    [finding] = found(name, *happened, player=registered(country, currency, born))
    assert (finding.facts["source"], finding.facts["at_least"]) == (row, figure)
    assert found(name, *happened, player=registered("MT", currency, born)) == []


@pytest.mark.parametrize("period", [Period.DAY, Period.WEEK, Period.MONTH, Period.DAYS_30])
def test_in_sweden_each_raise_of_a_deposit_limit_needs_one_contact(period: Period) -> None:
    """Whether or not a month's is above the threshold; elsewhere a raise alone needs none, and no other kind does."""
    rules = [of("high_month_limit"), of("raised_limit")]

    def contacts(*happened: Happened, country: str = "SE", currency: str = "SEK") -> list[Finding]:
        return findings(rules, seen(happened, NOON), registered(country, currency))

    for crowns in (100, 1_000_000, 1_000_001, None):
        [finding] = contacts((HOUR, raise_requested(crowns, period=period, currency="SEK")))
        assert finding.facts["source"] == "deposit_limit.contact_threshold_month"
    assert contacts((HOUR, limit_set(100, period=period))) == []
    assert contacts((HOUR, raise_requested(100, LimitKind.LOSS, period, currency="SEK"))) == []
    for country in ("NL", "GB", "MT"):
        assert contacts((HOUR, raise_requested(100, period=period)), country=country, currency="EUR") == []


def test_an_unverified_row_is_applied_and_says_so() -> None:
    [finding] = found("financial_vulnerability", (HOUR, deposit(15_000, "GBP")), player=registered("GB", "GBP"))
    assert finding.facts["verified"] is False
    [finding] = found("net_deposit_month", (HOUR, deposit(70_000)), player=registered("NL"))
    assert "verified" not in finding.facts


def test_what_was_paid_out_is_no_net_deposit() -> None:
    happened = [(HOUR, deposit(60_000)), (HOUR, payout(10_000)), (HOUR, deposit(19_999)), (HOUR, deposit(1))]
    [finding] = found("net_deposit_month", *happened, player=registered("NL"))
    assert (finding.cause, finding.facts["amount"]) == ("event-3", 70_000)


def test_a_calendar_month_begins_where_the_player_lives() -> None:
    begins = datetime(2026, 11, 30, 22, 30, tzinfo=UTC)  # 23:30 in the Netherlands
    happened = [(timedelta(0), deposit(60_000)), (HOUR, deposit(60_000)), (HOUR, deposit(10_000))]
    [finding] = found("net_deposit_month", *happened, player=registered("NL"), begins=begins)
    assert (finding.cause, finding.facts["amount"]) == ("event-2", 70_000)


def test_a_rule_of_a_month_says_it_once_a_month() -> None:
    happened = [(timedelta(0), deposit(70_000)), (DAY, deposit(1)), (8 * DAY, deposit(70_000))]
    causes = [each.cause for each in found("net_deposit_month", *happened, player=registered("NL"))]
    assert causes == ["event-0", "event-2"]


def test_a_week_without_the_loss_begins_the_row_anew() -> None:
    weeks = [
        (timedelta(0), stake(60_000)),
        (7 * DAY, stake(60_000)),
        (14 * DAY, stake(60_000)),
        (7 * DAY, stake(60_000)),
    ]
    assert found("intensive_play", *weeks, player=registered("ES")) == []
    [finding] = found("intensive_play", *weeks, (7 * DAY, stake(60_000)), player=registered("ES"))
    assert finding.facts["weeks"] == (60_000, 60_000, 60_000)


def test_a_night_is_one_of_the_players_own_clock() -> None:
    three_in_berlin = [(14 * HOUR, stake()), *[(DAY, stake())] * 3]
    assert len(found("harm_night_play", *three_in_berlin, player=registered("DE"))) == 1
    assert found("harm_night_play", *three_in_berlin, player=registered("US-PA", "EUR")) == []


def test_history_of_the_past_and_other_money_are_seen_by_no_rule() -> None:
    assert found("deposit_velocity", *[(MINUTE, deposit(code="deposit_history"))] * 9) == []
    assert found("harm_deposits", (MINUTE, deposit(900_000_000, "SEK"))) == []
    assert found("high_month_limit", (MINUTE, limit_set(10**9, LimitKind.LOSS)), player=registered("NL")) == []
    assert found("high_month_limit", (MINUTE, limit_set(10**9, period=Period.DAY)), player=registered("NL")) == []


def test_after_a_finding_a_rule_is_quiet_for_its_time_and_not_longer() -> None:
    quiet = rule(Count(Signal.DEPOSIT, Span.HOUR, 2), quiet_hours=24)
    happened = [(MINUTE, deposit())] * 9 + [(24 * HOUR, deposit()), (MINUTE, deposit())]
    assert [each.cause for each in findings([quiet], seen(happened))] == ["event-1", "event-10"]


def test_a_rule_looks_back_before_its_first_day_and_says_nothing_before_it() -> None:
    new = rule(Total(Signal.DEPOSIT, Span.DAYS_30, House(100)), since=date(2026, 11, 24))
    happened = [(timedelta(0), deposit(9_000)), (DAY, deposit(9_000)), (DAY, deposit(1))]
    [finding] = findings([new], seen(happened))
    assert (finding.cause, finding.facts["amount"]) == ("event-2", 18_001)
    assert [each.cause for each in findings([new], seen(happened), always=True)] == ["event-1", "event-2"]


def test_of_two_versions_each_holds_in_its_own_time() -> None:
    first = rule(Count(Signal.DEPOSIT, Span.HOUR, 3))
    second = rule(Count(Signal.DEPOSIT, Span.HOUR, 2), since=date(2026, 11, 23), version=2)
    happened = [(MINUTE, deposit())] * 3 + [(DAY, deposit()), (MINUTE, deposit())]
    assert [(each.version, each.cause) for each in findings([first, second], seen(happened))] == [
        (1, "event-2"),
        (2, "event-4"),
    ]


def test_a_finding_carries_what_its_rule_does_by_itself() -> None:
    [finding] = found("net_deposit_month", (HOUR, deposit(70_000)), player=registered("NL"))
    assert (finding.kind, finding.severity, finding.steps) == (Kind.HARM, Severity.HIGH, (Step.DEPOSIT_THIS_MONTH,))


def test_every_tag_that_rules_look_at_is_of_an_event_that_there_is() -> None:
    from domain.catalog import AGGREGATES

    assert {tag for aggregate in AGGREGATES for tag in aggregate.events} >= SIGNS.keys()


# The fold against counting anew


def in_span(span: Span, then: datetime, now: datetime, place: str = "DE") -> bool:
    if span is Span.MONTH:
        one, other = (each.astimezone(zone(place)) for each in (then, now))
        return (one.year, one.month) == (other.year, other.month)
    since = then - datetime(1970, 1, 1, tzinfo=UTC)
    part_ends = then - since % span.grain + span.grain
    return part_ends > now - span.length


Signs = list[tuple[Seen, Signal, int]]


def told(history: Sequence[Seen]) -> Signs:
    """All that was said, in order; signals of one event one after the other."""
    return [(each, sign.signal, sign.amount) for each in history for sign in SIGNS[each.event.tag](each.event)]


def adds_up(said: Signs, signal: Signal, span: Span, now: datetime) -> int:
    return sum(amount for each, kind, amount in said if kind is signal and in_span(span, each.at, now))


def figure(test: House, currency: str = "EUR") -> int:
    found = threshold(test, jurisdiction="DE", birth_year=1980, currency=currency, at=NOON)
    assert found is not None
    return found.amount


def by_count(test: Count, said: Signs) -> bool:
    last, signal, _ = said[-1]
    number = sum(kind is test.signal and in_span(test.span, each.at, last.at) for each, kind, _ in said)
    return signal is test.signal and number >= test.at_least


def by_total(test: Total, said: Signs) -> bool:
    last, signal, amount = said[-1]
    total = adds_up(said, test.signal, test.span, last.at)
    if test.minus:
        total -= adds_up(said, test.minus, test.span, last.at)
    return signal is test.signal and amount > 0 and total >= figure(test.at_least)  # type: ignore[arg-type]


def by_unplayed(test: Unplayed, said: Signs) -> bool:
    last, signal, _ = said[-1]
    deposited, staked = (adds_up(said, each, test.span, last.at) for each in (Signal.DEPOSIT, Signal.STAKE))
    return (
        signal is Signal.WITHDRAWAL
        and deposited >= figure(test.at_least)  # type: ignore[arg-type]
        and staked * 100 < deposited * test.percent
    )


def by_jump(test: Jump, said: Signs) -> bool:
    last, signal, amount = said[-1]
    stakes = [(each, amount) for each, kind, amount in said if kind is Signal.STAKE and amount > 0]
    if signal is not Signal.STAKE or amount <= 0 or len(stakes) < test.recent:
        return False
    newly = [amount for _, amount in stakes[-test.recent :]]
    before = [amount for each, amount in stakes[: -test.recent] if in_span(test.span, each.at, last.at)]
    return (
        len(before) >= test.before
        and sum(newly) / test.recent >= figure(test.at_least)  # type: ignore[arg-type]
        and sum(newly) * len(before) >= test.times * sum(before) * test.recent
    )


def by_nights(test: Nights, said: Signs) -> bool:
    def night(each: Seen) -> date | None:
        local = each.at.astimezone(zone("DE"))
        return local.date() if test.begins <= local.hour < test.ends else None

    last, signal, amount = said[-1]
    today = night(last)
    if signal is not Signal.STAKE or amount <= 0 or today is None:
        return False
    nights = {night(each) for each, kind, amount in said if kind is Signal.STAKE and amount > 0} - {None}
    return sum((today - each).days < test.of for each in nights if each) >= test.nights


def by_weeks(test: Weeks, said: Signs) -> bool:
    last, signal, amount = said[-1]

    def week(each: Seen) -> int:
        local = each.at.astimezone(zone("DE")).date()
        return (local - timedelta(days=local.weekday())).toordinal() // 7

    lost = [
        sum(amount for each, kind, amount in said if kind is Signal.LOSS and week(each) == week(last) - back)
        for back in range(test.in_a_row)
    ]
    return signal is Signal.LOSS and amount > 0 and min(lost) >= figure(test.at_least)  # type: ignore[arg-type]


def by_chase(test: Chase, said: Signs) -> bool:
    def chases(place: int) -> bool:
        each, signal, _ = said[place]
        stakes = [at.at for at, kind, amount in said[:place] if kind is Signal.STAKE and amount > 0]
        lost = adds_up(said[:place], Signal.LOSS, Span.HOURS_24, each.at)
        return (
            signal is Signal.DEPOSIT
            and lost >= figure(test.lost)  # type: ignore[arg-type]
            and bool(stakes)
            and each.at - stakes[-1] <= timedelta(minutes=test.minutes)
        )

    last = len(said) - 1
    return (
        chases(last)
        and sum(
            chases(place) and in_span(Span.HOURS_24, said[place][0].at, said[last][0].at) for place in range(len(said))
        )
        >= test.at_least
    )


NAIVE: list[tuple[Watch, Callable[[Any, Signs], bool]]] = [
    (rule(Count(Signal.DEPOSIT, Span.HOUR, 3), quiet_hours=2), by_count),
    (rule(Count(Signal.WITHDRAWAL_CANCELLED, Span.DAYS_7, 3)), by_count),
    (rule(Count(Signal.DEPOSIT_FAILED, Span.HOURS_24, 2), quiet_hours=24), by_count),
    (rule(Total(Signal.DEPOSIT, Span.DAYS_30, House(30)), quiet_hours=48), by_total),
    (rule(Total(Signal.LOSS, Span.DAYS_7, House(20))), by_total),
    (rule(Total(Signal.DEPOSIT, Span.HOURS_24, House(10), minus=Signal.PAYOUT)), by_total),
    (rule(Unplayed(Span.DAYS_7, House(15), percent=40)), by_unplayed),
    (rule(Jump(Span.DAYS_7, recent=2, before=3, times=2, at_least=House(3)), quiet_hours=1), by_jump),
    (rule(Nights(begins=0, ends=9, nights=3, of=5)), by_nights),
    (rule(Weeks(House(5), in_a_row=2)), by_weeks),
    (rule(Chase(minutes=90, lost=House(4), at_least=2)), by_chase),
]

GAPS = st.sampled_from([timedelta(0), MINUTE, 7 * MINUTE, 50 * MINUTE, 3 * HOUR, 11 * HOUR, DAY, 4 * DAY, 9 * DAY])
DOING = st.one_of(
    st.builds(deposit, st.integers(1, 2_000)),
    st.builds(payout, st.integers(1, 1_000)),
    st.builds(withdrawal, st.integers(1, 1_000)),
    st.builds(stake, st.integers(1, 1_500)),
    st.builds(win, st.integers(0, 900)),
    st.builds(rolled_back, st.integers(0, 300)),
    st.builds(deposit_failed),
    st.builds(cancelled),
)
LIVES = st.lists(st.tuples(GAPS, DOING), max_size=60)


def counted_anew(watch: Watch, naive: Callable[[Any, Signs], bool], history: Sequence[Seen]) -> list[str]:
    """The causes, by looking at everything again with each sign."""
    said, causes, quiet = told(history), [], datetime.min.replace(tzinfo=UTC)
    for place, (each, _, _) in enumerate(said):
        if each.at >= quiet and naive(watch.test, said[: place + 1]):
            causes.append(each.id)
            quiet = each.at + timedelta(hours=watch.quiet_hours)
    return causes


@pytest.mark.parametrize(
    ("watch", "naive"), NAIVE, ids=[f"{type(w.test).__name__}{n}" for n, (w, _) in enumerate(NAIVE)]
)
@settings(max_examples=25)
@given(life=LIVES)
def test_the_fold_finds_what_counting_anew_finds(
    watch: Watch, naive: Callable[[Any, Signs], bool], life: list[Happened]
) -> None:
    history = seen(life)
    assert [each.cause for each in findings([watch], history)] == counted_anew(watch, naive, history)


@settings(max_examples=30)
@given(life=LIVES)
def test_all_rules_together_find_what_each_finds_alone(life: list[Happened]) -> None:
    history = seen(life)
    together = findings(ALL, history)
    assert sorted(each.rule for each in together) == sorted(
        each.rule for watch in ALL for each in findings([watch], history)
    )


@settings(max_examples=20)
@given(life=LIVES)
def test_a_finding_names_events_that_there_were_in_their_order(life: list[Happened]) -> None:
    history = seen(life)
    order = {each.id: place for place, each in enumerate(history)}
    for watch, _ in NAIVE:
        for finding in findings([watch], history):
            assert 1 <= len(finding.events) <= NAMED_MAX
            assert finding.events[-1] == finding.cause or watch.test.__class__ is Nights
            assert [order[each] for each in finding.events] == sorted(order[each] for each in finding.events)


# What is remembered


def remembered(life: Sequence[Happened], rules: Sequence[Watch] = ALL) -> Picture:
    book, picture = Rulebook(rules), Picture()
    for each in (Seen("registered", NOON, registered("NL")), *seen(life)):
        picture, _ = book.follow(picture, each)
    return picture


def test_what_is_remembered_does_not_grow_with_what_happens() -> None:
    def busy(days: int) -> list[Happened]:
        return [
            (20 * MINUTE, each)
            for _ in range(days * 12)
            for each in (deposit(), stake(), win(50), stake(), withdrawal(), cancelled())
        ]

    a_month, half_a_year = (len(msgspec.json.encode(remembered(busy(days)))) for days in (40, 180))
    assert half_a_year <= a_month * 1.1 < 20_000


@settings(max_examples=20)
@given(life=LIVES, cut=st.integers(0, 60))
def test_what_was_written_down_between_goes_on_as_if_it_had_not_been(life: list[Happened], cut: int) -> None:
    book, history = Rulebook(), seen(life)
    whole = part = Picture()
    found_whole: list[Finding] = []
    found_part: list[Finding] = []
    for place, each in enumerate((Seen("registered", NOON, registered("NL")), *history)):
        whole, more = book.follow(whole, each)
        found_whole += more
        if place == cut:
            part = msgspec.json.decode(msgspec.json.encode(part), type=Picture)
        part, more = book.follow(part, each)
        found_part += more
    assert found_part == found_whole
    assert msgspec.json.encode(part) == msgspec.json.encode(whole)


def test_a_picture_holds_nothing_personal() -> None:
    """Numbers, ids of events, the names of rules, a country and a currency, and the year of birth that the registration tells."""
    picture = remembered([(HOUR, deposit()), (HOUR, stake()), (HOUR, login_failed())])
    assert set(msgspec.to_builtins(picture)) == {"jurisdiction", "currency", "birth_year", "memories"}
