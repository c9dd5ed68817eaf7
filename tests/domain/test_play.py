"""Game sessions: their time, their limits, and whether the player was told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain import play
from domain.errors import CurrencyMismatch, LimitExceeded, PlayerBlocked
from domain.kernel import Money
from domain.play import (
    SESSIONS_MAX,
    NoSuchInterval,
    Play,
    RealityCheckDue,
    SessionClosed,
    SessionEnded,
    SessionLimitNeeded,
    SessionOpened,
    SessionProlonged,
    SessionResumed,
    TokenRefused,
)
from domain.players import Status
from policies import play as policy
from policies.limits import Period
from tests.domain.playing import FREE, HOLDS, NOON, UTC_ZONE, Story, at_most, player


def given(**more: Any) -> Story:
    story = Story(**more)
    story.launch()
    story.open()
    return story


# Tokens


@pytest.mark.parametrize(
    ("provider", "token_hash"), [("spin", ""), ("reel", "hash of another"), ("reel", "hash of two")]
)
def test_a_token_opens_its_own_session_at_its_own_provider(provider: str, token_hash: str) -> None:
    story = Story()
    story.launch("one")
    story.launch("two")
    with pytest.raises(TokenRefused):
        story.open("one", provider, token_hash)


def test_a_token_that_nobody_has_shown_in_time_opens_nothing() -> None:
    story = Story()
    story.launch()
    story.wait(seconds=policy.HOUSE_TOKEN_LIVES.total_seconds())
    with pytest.raises(TokenRefused):
        story.open()
    [ended] = story.expire()
    assert (ended, story.state.sessions) == (SessionEnded(session="one", reason="expired"), {})


def test_a_token_that_is_shown_again_changes_nothing_and_says_what_the_provider_was_told() -> None:
    story = given()
    before, [opened] = story.state, [event for event in story.events if isinstance(event, SessionOpened)]
    [resumed] = story.open()
    assert isinstance(resumed, SessionResumed)
    assert (story.state, resumed.due_at) == (before, opened.due_at)
    for event in (opened, resumed):
        assert (event.accounts, event.currency, event.jurisdiction) == (HOLDS, "EUR", "AT")


def test_what_has_ended_is_not_opened_again() -> None:
    story = given()
    story.end()
    with pytest.raises(TokenRefused):
        story.open()


def test_whoever_is_blocked_neither_launches_nor_opens() -> None:
    story = Story()
    story.launch()
    story.who = msgspec.structs.replace(story.who, status=Status.BLOCKED)
    with pytest.raises(PlayerBlocked):
        story.open()
    with pytest.raises(PlayerBlocked):
        story.launch("two")


@pytest.mark.parametrize("status", [Status.BLOCKED, Status.CLOSED, Status.PENDING])
def test_who_shows_another_token_hears_nothing_of_the_player(status: Status) -> None:
    story = Story()
    story.launch()
    story.who = msgspec.structs.replace(story.who, status=status)
    with pytest.raises(TokenRefused):
        story.open("one", "reel", "hash of another")
    with pytest.raises(TokenRefused):
        story.open("one", "spin")


# Sessions


def test_a_bet_needs_an_open_session_of_its_provider() -> None:
    story = given()
    story.launch("launched")
    story.bet()
    for name, provider in (("one", "spin"), ("launched", "reel"), ("none", "reel"), ("", "reel")):
        with pytest.raises(SessionClosed):
            story.bet(name, provider)
    story.end()
    with pytest.raises(SessionClosed):
        story.bet()


def test_a_session_past_its_end_takes_no_bet_though_nobody_has_noted_it() -> None:
    story = given(limits=at_most(600))
    story.wait(seconds=599)
    story.bet()
    story.wait(seconds=1)
    with pytest.raises(SessionClosed):
        story.bet()
    story.wait(hours=5)
    [ended] = story.expire()
    assert ended == SessionEnded(session="one", reason="expired", spent=((date(2026, 11, 22), 600),))


def test_an_eleventh_session_ends_the_oldest() -> None:
    story = Story()
    for n in range(SESSIONS_MAX):
        story.play(str(n))
    [ended, _] = story.launch("one more")
    assert (ended.session, ended.reason) == ("0", "superseded")  # type: ignore[attr-defined,union-attr]
    assert len(story.state.sessions) == SESSIONS_MAX


def test_everything_ends_at_once_when_a_player_is_excluded() -> None:
    story = Story()
    story.play("one", minutes=5)
    story.launch("two")
    story.fold(play.end_all(story.state, reason="excluded", at=story.now, zone=UTC_ZONE))
    assert story.state.sessions == {}
    assert [event.spent for event in story.events if isinstance(event, SessionEnded)] == [((NOON.date(), 300),), ()]
    with pytest.raises(SessionClosed):
        story.bet()


def test_a_provider_ends_its_own_sessions_only() -> None:
    story = given()
    assert story.end(provider="spin") == []
    assert len(story.end(provider="reel")) == 1
    assert story.end(provider="reel") == []


def test_a_token_that_nobody_shows_takes_no_time_from_what_is_open() -> None:
    """Found by the machine below: that it ended was once taken for the end of what was counted."""
    story = given()
    story.launch("two")
    story.wait(minutes=10)
    story.end("two")
    assert story.used() == 600


def test_each_event_says_when_something_ends_next() -> None:
    story = given()
    assert story.events[-1].due_at == NOON + policy.HOUSE_SESSION_LIVES
    story.launch("two")
    assert story.events[-1].due_at == NOON + policy.HOUSE_TOKEN_LIVES
    story.end("two")
    assert story.events[-1].due_at == NOON + policy.HOUSE_SESSION_LIVES
    story.end("one")
    assert story.events[-1].due_at is None


# Time


def test_time_counts_once_however_many_sessions_are_open() -> None:
    story = Story()
    story.play("one", minutes=10)
    story.play("two", minutes=10)
    assert story.used() == 1_200
    story.end("one")
    story.wait(minutes=10)
    assert story.used() == 1_800
    story.end("two")
    story.wait(minutes=10)
    assert story.used() == 1_800


def test_a_second_that_has_begun_counts() -> None:
    story = Story()
    for n in range(3):
        story.play(str(n), milliseconds=1)
        story.end(str(n))
    assert story.used() == 3


@pytest.mark.parametrize(
    ("jurisdiction", "opened", "hours", "by_day"),
    [
        ("GB", "2026-11-22T23:00Z", 2, [("2026-11-22", 3_600), ("2026-11-23", 3_600)]),
        ("SE", "2026-11-22T22:00Z", 2, [("2026-11-22", 3_600), ("2026-11-23", 3_600)]),  # an hour ahead
        ("US-PA", "2026-11-23T04:00Z", 2, [("2026-11-22", 3_600), ("2026-11-23", 3_600)]),
        ("SE", "2026-10-24T21:00Z", 3, [("2026-10-24", 3_600), ("2026-10-25", 7_200)]),  # clocks go back at 01:00Z
        ("SE", "2026-03-28T22:00Z", 6, [("2026-03-28", 3_600), ("2026-03-29", 18_000)]),  # and forward: a short night
        ("SE", "2026-03-29T20:00Z", 3, [("2026-03-29", 7_200), ("2026-03-30", 3_600)]),
        ("GB", "2028-02-28T23:30Z", 1, [("2028-02-28", 1_800), ("2028-02-29", 1_800)]),
        ("GB", "2028-02-29T23:30Z", 1, [("2028-02-29", 1_800), ("2028-03-01", 1_800)]),
        ("GB", "2026-12-31T23:59:59Z", 1, [("2026-12-31", 1), ("2027-01-01", 3_599)]),
    ],
)
def test_time_counts_on_the_day_on_which_it_was_played(
    jurisdiction: str, opened: str, hours: int, by_day: list[tuple[str, int]]
) -> None:
    story = given(who=player(jurisdiction), at=datetime.fromisoformat(opened))
    story.wait(hours=hours)
    [ended] = story.end()
    assert isinstance(ended, SessionEnded)
    assert [(day.isoformat(), seconds) for day, seconds in ended.spent] == by_day


@pytest.mark.parametrize(
    "period", [Period.DAY, Period.WEEK, Period.MONTH, Period.HOURS_24, Period.DAYS_7, Period.DAYS_30]
)
def test_a_limit_of_time_ends_a_session_and_refuses_the_next(period: Period) -> None:
    story = given(limits=at_most(1_800, period))
    assert story.events[-1].due_at == NOON + timedelta(minutes=30)
    story.wait(minutes=30)
    with pytest.raises(SessionClosed):
        story.bet()
    story.expire()
    with pytest.raises(LimitExceeded) as refused:
        story.launch("two")
    facts = refused.value.facts
    assert (facts["kind"], facts["period"], facts["limit"], facts["used"], facts["remaining"]) == (
        "time", period.value, 1_800, 1_800, 0,
    )  # fmt: skip
    assert facts["frees_at"] > story.now  # type: ignore[operator]
    story.now = facts["frees_at"]  # type: ignore[assignment]
    story.launch("three")


def test_a_cut_stops_bets_at_once() -> None:
    story = given()
    story.wait(minutes=20)
    story.limits = at_most(600)
    with pytest.raises(LimitExceeded):
        story.bet()


def test_a_session_goes_on_where_a_new_day_has_given_time() -> None:
    story = given(limits=at_most(1_800), at=datetime(2026, 11, 22, 23, 45, tzinfo=UTC))
    assert story.events[-1].due_at == datetime(2026, 11, 23, 0, 15, tzinfo=UTC)
    story.wait(minutes=30)
    [prolonged] = story.expire()
    half_past = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
    assert prolonged == SessionProlonged(session="one", ends_at=half_past, due_at=half_past)
    story.wait(minutes=15)
    [ended] = story.expire()
    assert isinstance(ended, SessionEnded)
    assert ended.spent == ((date(2026, 11, 22), 900), (date(2026, 11, 23), 1_800))


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(days=-1), timedelta(hours=1), timedelta(days=1)])
def test_a_clock_that_is_set_gives_no_time_back(step: timedelta) -> None:
    """A decision's time never goes back: it is the newest that was recorded, or later."""
    story = given(limits=at_most(1_800))
    story.wait(minutes=20)
    story.end()
    before = story.used()
    story.now = max(story.now, story.now + step)
    day_before = story.state.time.of_day
    assert day_before == before == 1_200
    if step < timedelta(days=1):
        story.launch("two")
        assert story.open("two")[-1].due_at == story.now + timedelta(minutes=10)


CLOCKS = (timedelta(0), timedelta(hours=1), timedelta(hours=-1), timedelta(days=1), timedelta(days=-1))
"""By how much the clock of one process is ahead of the log's."""


@pytest.mark.parametrize("ahead", CLOCKS, ids=str)
def test_no_clock_that_is_wrong_in_a_process_makes_a_session_longer(ahead: timedelta) -> None:
    """By the player's own maximum, by a limit of time, or by the house's longest."""
    for seconds, limits in ((600, FREE), (0, at_most(600)), (0, FREE)):
        story = Story(limits=limits)
        story.ahead = ahead
        story.launch(seconds=seconds)
        try:
            story.open()
        except TokenRefused:  # to a clock that lags by a day its own token is too old
            assert ahead < timedelta(0)
            continue
        story.ahead = timedelta(0)
        longest = timedelta(seconds=600) if seconds or limits is not FREE else policy.HOUSE_SESSION_LIVES
        assert story.state.sessions["one"].ends_at <= NOON + longest
        story.wait(seconds=longest.total_seconds())
        with pytest.raises(SessionClosed):
            story.bet()


@pytest.mark.parametrize("ahead", CLOCKS, ids=str)
def test_no_clock_that_is_wrong_in_a_process_leaves_play_uncounted(ahead: timedelta) -> None:
    story = given(limits=at_most(3_600))
    story.wait(minutes=30)
    story.ahead = ahead
    [ended] = story.end()
    assert isinstance(ended, SessionEnded)
    assert story.used() >= 1_800
    if ahead <= timedelta(0):
        assert story.used() == 1_800
        story.ahead = timedelta(0)
        story.play("two", minutes=29, seconds=59)
        story.bet("two")
        story.wait(seconds=1)
        with pytest.raises(SessionClosed):
            story.bet("two")


def test_play_that_a_lagging_clock_has_not_seen_counts_on_the_local_day_of_the_recording() -> None:
    """In Berlin it is past midnight by the log, and not yet by the process that ends the session."""
    story = given(who=player("DE"), at=datetime(2026, 11, 22, 22, 30, tzinfo=UTC))
    story.wait(hours=1)
    story.ahead = timedelta(hours=-1)
    [ended] = story.end()
    assert ended == SessionEnded(session="one", reason="closed", utc_offset=60)
    assert (story.state.time.day, story.state.time.of_day) == (date(2026, 11, 23), 3_600)


# What the player lets a session cost


def test_where_the_law_asks_for_it_a_session_has_limits_of_its_own() -> None:
    story = Story(player("ES"))
    with pytest.raises(SessionLimitNeeded) as refused:
        story.launch(seconds=600)
    assert refused.value.facts["needs"] == ["loss"]
    assert refused.value.facts["rule"] == "session_limit.required_before_session"
    story.launch(seconds=600, loss=Money(1_000, "EUR"))
    story.open()
    assert story.events[-1].due_at == NOON + timedelta(minutes=10)
    story.bet(stake=600, lost=400)
    with pytest.raises(LimitExceeded) as too_much:
        story.bet(stake=601, lost=400)
    assert too_much.value.facts["remaining"] == Money(600, "EUR")
    story.wait(minutes=10)
    with pytest.raises(SessionClosed):
        story.bet()


def test_a_maximum_loss_is_in_the_players_currency() -> None:
    with pytest.raises(CurrencyMismatch):
        Story().launch(loss=Money(1, "USD"))


# Reality checks


@pytest.mark.parametrize(
    ("jurisdiction", "chosen", "minutes", "rule"),
    [
        ("AT", 0, 60, "house.reality_check"),
        ("AT", 30, 30, "player.reality_check"),
        ("MT", 0, 60, "house.reality_check"),  # the law leaves it to the player
        ("MT", 15, 15, "player.reality_check"),
        ("ES", 0, 60, "reality_check.interval"),
        ("ES", 60, 60, "reality_check.interval"),
        ("US-PA", 0, 60, "reality_check.interval"),
        ("US-PA", 15, 15, "player.reality_check"),
    ],
)
def test_a_player_is_told_as_often_as_the_law_or_they_themselves_say(
    jurisdiction: str, chosen: int, minutes: int, rule: str
) -> None:
    story = Story(player(jurisdiction))
    if chosen:
        story.fold(play.choose_interval(story.state, story.who, minutes=chosen, at=NOON))
    story.launch(seconds=86_400, loss=Money(10**6, "EUR"))
    story.open()
    story.wait(minutes=minutes, seconds=-1)
    story.bet()
    story.wait(seconds=1)
    with pytest.raises(RealityCheckDue) as due:
        story.bet()
    assert due.value.facts == {"played_s": minutes * 60, "every_s": minutes * 60, "rule": rule, "verified": True}
    story.check()
    story.bet()
    story.wait(minutes=minutes)
    with pytest.raises(RealityCheckDue):
        story.bet()


@pytest.mark.parametrize(
    ("jurisdiction", "minutes"), [("US-PA", 45), ("US-PA", 60), ("AT", 61), ("AT", 1), ("ES", 120)]
)
def test_an_interval_that_is_not_offered_is_refused(jurisdiction: str, minutes: int) -> None:
    with pytest.raises(NoSuchInterval):
        play.choose_interval(Play(), player(jurisdiction), minutes=minutes, at=NOON)


def test_leaving_and_coming_back_does_not_start_the_interval_anew() -> None:
    story = Story()
    for n in range(5):
        story.play(str(n), minutes=10)
        story.end(str(n))
        story.wait(hours=1)
    story.play("last", minutes=10)
    with pytest.raises(RealityCheckDue):
        story.bet("last")


def test_an_acknowledgement_within_a_minute_is_nothing_new() -> None:
    story = given()
    story.wait(minutes=59)
    assert len(story.check()) == 1
    story.wait(seconds=59)
    assert story.check() == []


def test_only_a_session_of_the_player_acknowledges() -> None:
    with pytest.raises(SessionClosed):
        given().check("another")
