"""
Play: a player's game sessions, the time that they take, and whether the player was told how long it has been.

A session is launched by the house, which gives a token to the player's browser; opened when the game's provider shows the token;
and ended by either, by time, or because the player is excluded. Play runs while at least one session is open, and is counted
once however many there are.

Invariants:
    - a token opens a session of its own provider only, and only its SHA-256 stands here;
    - no bet is taken in a session that is not open, or past its end, whether or not anybody has noted that;
    - a second of play that has begun counts; what is counted is counted once, on the local day on which it was played;
    - what has ended is never opened again;
    - no step of a process's clock makes a session longer, or leaves play uncounted: the log's time is the measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, NoReturn, get_args
from zoneinfo import ZoneInfo

import msgspec

from domain.errors import Conflict, CurrencyMismatch, Invalid, LimitExceeded, RuleRefused
from domain.kernel import EPOCH, STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, parse_id
from domain.limits import Limits
from domain.players import Player
from domain.wallets import Accounts
from domain.windows import Usage, by_day, day_of, whole_seconds
from policies import limits as limiting
from policies import play as policy

SESSIONS_MAX = 10
"""How many sessions a player may have, launched or open; one more ends the oldest."""

_NEVER = datetime.max.replace(tzinfo=UTC)


class Kind(StrEnum):
    """What is played."""

    SLOT = "slot"
    TABLE = "table"
    LIVE = "live"
    BINGO = "bingo"
    OTHER = "other"


class SessionClosed(Conflict):
    """Facts: session."""

    code = "session_closed"
    title = "This provider has no open session of that name for the player"


class TokenRefused(Conflict):
    code = "token_refused"
    title = "The token opens no session of this provider: it is another's, used up, or too old"


class SessionLimitNeeded(RuleRefused):
    """Facts: needs (names), rule, verified."""

    code = "session_limit_needed"
    title = "Before a session the player says how long it may last and how much it may lose"


class RealityCheckDue(RuleRefused):
    """Facts: played_s, every_s (seconds), rule, verified."""

    code = "reality_check_due"
    title = "The player is to be told how long they have played, before the next bet"


class NoSuchInterval(Invalid):
    """Facts: choices (minutes)."""

    code = "no_such_interval"
    title = "A player may not choose this interval"


# Events: the tags and fields are the storage format.


class SessionLaunched(Event, frozen=True, kw_only=True, tag="play.session_launched"):
    """The player may play `game` at `provider`, who opens the session with a token until `ends_at`.

    `token_hash`: SHA-256 of the token, in hex. `seconds`, `loss`: how long the player lets it last, and how much they let it
    lose. `due_at`, in all events of play: when something of this player's play ends by itself.
    """

    session: str
    provider: str
    game: str
    kind: Kind
    token_hash: str
    ends_at: datetime
    seconds: int = 0
    loss: Money | None = None
    due_at: datetime | None = None


class SessionOpened(Event, frozen=True, kw_only=True, tag="play.session_opened"):
    """The provider has shown the token. Play runs from now on: until `ends_at`, and by the log's time for no more than `seconds`.

    `jurisdiction`; `accounts`, of `currency`: what the provider was told of the player, now or when it showed the token again.
    """

    session: str
    ends_at: datetime
    seconds: int
    jurisdiction: str = ""
    currency: str = ""
    accounts: Accounts = Accounts()
    due_at: datetime | None = None


class SessionResumed(Event, frozen=True, kw_only=True, tag="play.session_resumed"):
    """The provider has shown the token of an open session again. Nothing changes by it."""

    session: str
    jurisdiction: str
    currency: str
    accounts: Accounts
    due_at: datetime | None = None


class SessionProlonged(Event, frozen=True, kw_only=True, tag="play.session_prolonged"):
    """The player's limits leave more time than they did."""

    session: str
    ends_at: datetime
    due_at: datetime | None = None


class SessionEnded(Event, frozen=True, kw_only=True, tag="play.session_ended"):
    """`reason`: a word. `spent`: the play that was not counted yet, as (local day, seconds). What more of it there was by the log's
    time, since a clock lagged behind, is counted with the day of the recording, `utc_offset` minutes ahead of UTC.
    """

    session: str
    reason: str
    spent: tuple[tuple[date, int], ...] = ()
    utc_offset: int = 0
    due_at: datetime | None = None


class RealityChecked(Event, frozen=True, kw_only=True, tag="play.reality_checked"):
    """The player was told how long they have played, and said that they know."""

    session: str
    due_at: datetime | None = None


class CheckIntervalSet(Event, frozen=True, kw_only=True, tag="play.check_interval_set"):
    """The player wants to be told after so many minutes of play; 0: as it is for everybody."""

    minutes: int
    due_at: datetime | None = None


PlayEvent = (
    SessionLaunched | SessionOpened | SessionResumed | SessionProlonged | SessionEnded | RealityChecked | CheckIntervalSet
)  # fmt: skip


# State


class Session(msgspec.Struct, frozen=True):
    """A session that has not ended. `opened_at`: None while it is launched only."""

    provider: str
    game: str
    kind: Kind
    token_hash: str
    ends_at: datetime
    seconds: int = 0
    loss: Money | None = None
    opened_at: datetime | None = None

    @property
    def lives_until(self) -> datetime:
        """When an open session is over, whatever limits leave."""
        longest = policy.HOUSE_SESSION_LIVES
        own = timedelta(seconds=self.seconds)
        return (self.opened_at or EPOCH) + (min(own, longest) if self.seconds else longest)


class Play(msgspec.Struct, frozen=True):
    """`sessions`: by name, the oldest first. `time`: seconds of play that are counted. `since`: up to when play is counted while a
    session is open. `unchecked`: seconds counted since the player was last told, which was at `checked_at`.
    """

    sessions: dict[str, Session] = {}
    time: Usage = Usage()
    since: datetime | None = None
    unchecked: int = 0
    checked_at: datetime = EPOCH
    check_minutes: int = 0

    def require_open(self, session: str, provider: str, at: datetime) -> Session:
        """Raises SessionClosed."""
        found = self.sessions.get(session)
        if found is None or found.provider != provider or found.opened_at is None or at >= found.ends_at:
            raise SessionClosed(session=session)
        return found

    def time_used(self, at: datetime, zone: ZoneInfo) -> Usage:
        """Seconds of play, with what is running."""
        usage = self.time
        for day, seconds in self.running(at, zone):
            usage = usage.add(seconds, day=day, at=at)
        return usage

    def running(self, at: datetime, zone: ZoneInfo) -> tuple[tuple[date, int], ...]:
        """Play of open sessions that is not counted yet, as (local day, seconds). None of it is after their ends."""
        return () if self.since is None else by_day(self.since, self.counts_until(at), zone)

    def since_check(self, at: datetime) -> timedelta:
        """How much was played since the player was last told."""
        counted = timedelta(seconds=self.unchecked)
        if self.since is None:
            return counted
        return counted + max(timedelta(), self.counts_until(at) - max(self.since, self.checked_at))

    def counts_until(self, at: datetime) -> datetime:
        """Up to when play has run, of what is open."""
        return min(at, max((s.ends_at for s in self.sessions.values() if s.opened_at is not None), default=at))


def evolve(play: Play, event: PlayEvent, at: datetime) -> Play:  # noqa: PLR0911 — one case an event
    change = msgspec.structs.replace
    match event:
        case SessionLaunched():
            made = Session(
                event.provider, event.game, event.kind, event.token_hash, event.ends_at, event.seconds, event.loss
            )
            return change(play, sessions={**play.sessions, event.session: made})
        case SessionOpened(session=name):
            ends_at = min(event.ends_at, at + timedelta(seconds=event.seconds))
            opened = change(play.sessions[name], opened_at=at, ends_at=ends_at)
            return change(play, sessions={**play.sessions, name: opened}, since=play.since or at)
        case SessionProlonged(session=name):
            longer = change(play.sessions[name], ends_at=event.ends_at)
            return change(play, sessions={**play.sessions, name: longer})
        case SessionResumed():
            return play
        case SessionEnded():
            return _without(play, event, at)
        case RealityChecked():
            return change(play, unchecked=0, checked_at=at)
        case CheckIntervalSet():
            return change(play, check_minutes=event.minutes)


def _without(play: Play, event: SessionEnded, at: datetime) -> Play:
    sessions = {name: each for name, each in play.sessions.items() if name != event.session}
    if play.sessions[event.session].opened_at is None:  # of those that are open nothing is counted yet
        return msgspec.structs.replace(play, sessions=sessions)
    counted = sum(seconds for _, seconds in event.spent)
    late = (play.counts_until(at) - (play.since or at)) // timedelta(seconds=1) - counted
    spent = event.spent if late <= 0 else (*event.spent, (day_of(date.min, event.utc_offset, at), late))
    usage = play.time
    for day, seconds in spent:
        usage = usage.add(seconds, day=day, at=at)
    counted += max(0, late)
    told = whole_seconds(max(timedelta(), at - max(play.checked_at, play.since or at)))
    is_open = any(each.opened_at is not None for each in sessions.values())
    unchecked = play.unchecked + min(counted, told)
    return msgspec.structs.replace(
        play, sessions=sessions, time=usage, since=at if is_open else None, unchecked=unchecked
    )


PLAY = Aggregate("play", initial=Play(), evolve=evolve, events=get_args(PlayEvent))


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Play]:
    return Stream(PLAY, parse_id("player", player_id))


# What bets ask


class Due(NamedTuple):
    """A reality check that is due: what was played since the last one, and the rule of the interval."""

    played: timedelta
    every: policy.Interval


def check_due(play: Play, player: Player, at: datetime) -> Due | None:
    every = policy.interval(player.jurisdiction, at, play.check_minutes)
    played = play.since_check(at)
    return Due(played, every) if played >= every.every else None


def require_bet(
    play: Play,
    player: Player,
    limits: Limits,
    *,
    session: str,
    provider: str,
    at: datetime,
    stake: int = 0,
    lost: int = 0,
) -> Session:
    """What play asks before a bet. `lost`: cash lost in this session so far, of which `stake` would be more, in minor units.

    Raises SessionClosed, RealityCheckDue, LimitExceeded.
    """
    found = play.require_open(session, provider, at)
    due = check_due(play, player, at) if policy.HOUSE_CHECK_STOPS_BETS else None
    if due is not None:
        played_s, every_s = whole_seconds(due.played), whole_seconds(due.every.every)
        raise RealityCheckDue(played_s=played_s, every_s=every_s, rule=due.every.rule, verified=due.every.verified)
    _require_time(play, player, limits, at)
    if found.loss is not None and lost + stake > found.loss.amount:
        _refuse_loss(found.loss, lost)
    return found


def _refuse_loss(limit: Money, lost: int) -> NoReturn:
    """Nothing frees it: another session has a limit of its own."""
    raise LimitExceeded(
        "the player has let this session lose no more",
        rule="player.loss.session", kind=limiting.Kind.LOSS.value, period="session", source=limiting.Source.PLAYER.value,
        limit=limit, used=Money(lost, limit.currency), remaining=Money(max(0, limit.amount - lost), limit.currency),
        frees_at=None,
    )  # fmt: skip


def _require_time(play: Play, player: Player, limits: Limits, at: datetime) -> None:
    """There is a second left. Raises LimitExceeded."""
    if not any(each.kind is limiting.Kind.TIME for each in limits.given):
        return
    zone = limiting.zone(player.jurisdiction)
    used, day = play.time_used(at, zone), at.astimezone(zone).date()
    limits.refuse(limiting.Kind.TIME, 1, used, currency=player.currency, day=day, at=at, zone=zone)


# Decisions


def launch(play: Play, player: Player, limits: Limits, *, launched: SessionLaunched, at: datetime) -> list[PlayEvent]:
    """Begin a session, for a provider to open; one too many ends the oldest. `launched.ends_at` is set here.

    Raises NotFound, PlayerBlocked, PlayerNotActive, CurrencyMismatch, SessionLimitNeeded, LimitExceeded.
    """
    player.require_active()
    if launched.loss is not None and launched.loss.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=launched.loss.currency)
    need = policy.session_limit(player.jurisdiction, at)
    missing = [name for name, given in (("seconds", launched.seconds), ("loss", launched.loss)) if not given]
    if need is not None and missing:
        raise SessionLimitNeeded(needs=missing, rule=need.rule, verified=need.verified)
    _require_time(play, player, limits, at)
    zone = limiting.zone(player.jurisdiction)
    overdue = _overdue(play, at, zone)
    play = _after(play, overdue, at)
    too_many = list(play.sessions)[: max(0, len(play.sessions) - SESSIONS_MAX + 1)]
    superseded = _end(play, too_many, "superseded", at, zone)
    play = _after(play, superseded, at)
    ends_at = at + policy.HOUSE_TOKEN_LIVES
    due_at = _next(play.sessions.values(), ends_at)
    return [*overdue, *superseded, msgspec.structs.replace(launched, ends_at=ends_at, due_at=due_at)]


def open_(
    play: Play, player: Player, limits: Limits, *, session: str, provider: str, token_hash: str, holds: Accounts, at: datetime
) -> list[PlayEvent]:  # fmt: skip
    """The provider shows the token, and hears what the player holds. A session that is open already stays so.

    Raises TokenRefused, PlayerBlocked, PlayerNotActive, LimitExceeded.
    """
    found = play.sessions.get(session)  # whoever holds no token hears nothing of the player
    if found is None or found.token_hash != token_hash or found.provider != provider or at >= found.ends_at:
        raise TokenRefused
    player.require_active()
    where, currency = player.jurisdiction, player.currency
    if found.opened_at is not None:
        due_at = _next(play.sessions.values())
        resumed = SessionResumed(session=session, jurisdiction=where, currency=currency, accounts=holds, due_at=due_at)
        return [resumed]
    _require_time(play, player, limits, at)
    events: list[PlayEvent] = [*_overdue(play, at, limiting.zone(player.jurisdiction))]
    play = _after(play, events, at)
    opened = msgspec.structs.replace(found, opened_at=at)
    ends_at = min(opened.lives_until, _time_is_up(play, player, limits, at, begins=at))
    others = [each for name, each in play.sessions.items() if name != session]
    lives = whole_seconds(ends_at - at)
    return [*events, SessionOpened(
        session=session, ends_at=ends_at, seconds=lives, jurisdiction=where, currency=currency, accounts=holds,
        due_at=_next(others, ends_at),
    )]  # fmt: skip


def end(
    play: Play, player: Player, *, session: str, provider: str | None, reason: str, at: datetime
) -> list[PlayEvent]:
    """End a session. One that is not there has ended already: nothing is recorded. `provider`: who must own it, if anybody must."""
    player.require()
    found = play.sessions.get(session)
    if found is None or provider not in (None, found.provider):
        return []
    return [*_end(play, [session], reason, at, limiting.zone(player.jurisdiction))]


def end_all(play: Play, *, reason: str, at: datetime, zone: ZoneInfo) -> list[PlayEvent]:
    """End whatever is launched or open."""
    return [*_end(play, play.sessions, reason, at, zone)]


def expire(play: Play, player: Player, limits: Limits, *, at: datetime) -> list[PlayEvent]:
    """End the sessions whose time is over. Where limits leave more time than they did, an open one goes on."""
    player.require()
    zone = limiting.zone(player.jurisdiction)
    events: list[PlayEvent] = []
    for name, session in play.sessions.items():
        if at < session.ends_at:
            continue
        ends_at = session.ends_at
        if session.opened_at is not None:
            ends_at = min(session.lives_until, _time_is_up(play, player, limits, at, begins=ends_at))
        if ends_at > at:
            others = [each for other, each in play.sessions.items() if other != name]
            made: Sequence[PlayEvent] = [SessionProlonged(session=name, ends_at=ends_at, due_at=_next(others, ends_at))]
        else:
            made = _end(play, [name], "expired", at, zone)
        play = _after(play, made, at)
        events += made
    return events


def check(play: Play, player: Player, *, session: str, provider: str | None, at: datetime) -> list[PlayEvent]:
    """The player was told. Said again within a minute of play it is nothing new. `provider`: as for `end`. Raises SessionClosed."""
    player.require()
    found = play.sessions.get(session)
    if found is None or provider not in (None, found.provider):
        raise SessionClosed(session=session)
    if play.since_check(at) < policy.HOUSE_CHECK_EARLIEST:
        return []
    return [RealityChecked(session=session, due_at=_next(play.sessions.values()))]


def choose_interval(play: Play, player: Player, *, minutes: int, at: datetime) -> list[PlayEvent]:
    """The player chooses how often to be told; 0: as it is for everybody. Raises NotFound, NoSuchInterval."""
    player.require()
    offered = policy.choices(player.jurisdiction, at)
    if minutes not in (0, *offered):
        raise NoSuchInterval(choices=offered)
    if minutes == play.check_minutes:
        return []
    return [CheckIntervalSet(minutes=minutes, due_at=_next(play.sessions.values()))]


def _time_is_up(play: Play, player: Player, limits: Limits, at: datetime, *, begins: datetime) -> datetime:
    """When the player's limits leave no time, if it goes on from `begins`."""
    zone = limiting.zone(player.jurisdiction)
    used, day = play.time_used(at, zone), at.astimezone(zone).date()
    room = limits.room(limiting.Kind.TIME, used, currency=player.currency, day=day, at=at)
    return _NEVER if room is None else begins + timedelta(seconds=room)


def _overdue(play: Play, at: datetime, zone: ZoneInfo) -> list[SessionEnded]:
    """What time has ended, and nobody has noted yet."""
    return _end(play, [name for name, each in play.sessions.items() if at >= each.ends_at], "expired", at, zone)


def _end(play: Play, names: Iterable[str], reason: str, at: datetime, zone: ZoneInfo) -> list[SessionEnded]:
    ended: list[SessionEnded] = []
    for name in names:
        was_open = play.sessions[name].opened_at is not None
        rest = [each for other, each in play.sessions.items() if other != name]
        spent = play.running(at, zone) if was_open else ()
        offset = limiting.local_in(zone, at).utc_offset if was_open else 0
        event = SessionEnded(session=name, reason=reason, spent=spent, utc_offset=offset, due_at=_next(rest))
        play = evolve(play, event, at)
        ended.append(event)
    return ended


def _next(sessions: Iterable[Session], also: datetime | None = None) -> datetime | None:
    """When the first of them ends."""
    times = [each.ends_at for each in sessions]
    return min([*times, also] if also is not None else times, default=None)


def _after(play: Play, events: Iterable[PlayEvent], at: datetime) -> Play:
    for event in events:
        play = evolve(play, event, at)
    return play
