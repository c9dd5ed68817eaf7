"""
Game sessions: where a player was let in, from when to when they played, and what they have staked, won and lost meanwhile.

Invariant: sums, and the newest word of the player's play: no order in which play and wallet are read matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import ClassVar

import msgspec

from domain.kernel import Event
from domain.play import SessionEnded, SessionLaunched, SessionOpened, SessionProlonged
from domain.wallets import CASH, RolledBack, Staked, Won
from eventstore.record import Recorded
from projections.columns import as_shown, bigint, text, times
from projections.folded import in_order, suffix_of
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Row, Table
from projections.times import as_us

_PLAYER = "player_"
_PLAY: tuple[type[Event], ...] = (SessionLaunched, SessionOpened, SessionProlonged, SessionEnded)


class Session(msgspec.Struct, gc=False):
    """What a batch says of a session; None where it says nothing. Times in µs since 1970 UTC, amounts in minor units.

    `version`: of the newest event of its play, which says when it `ends`. `…_cash`: what of an amount was the player's cash.
    """

    version: int = 0
    provider: str | None = None
    game: str | None = None
    kind: str | None = None
    launched_us: int | None = None
    opened_us: int | None = None
    ends_us: int | None = None
    ended_us: int | None = None
    reason: str | None = None
    currency: str | None = None
    bets: int = 0
    staked: int = 0
    staked_cash: int = 0
    won: int = 0
    won_cash: int = 0
    returned: int = 0
    returned_cash: int = 0


_KEY = ("id", "player")
_WORDS = ("provider", "game", "kind")
_ONCE = (*_WORDS, "launched_at", "opened_at", "ended_at", "reason", "currency")
"""What one event says, and no other."""
_SUMS = Session.__struct_fields__[-7:]
_COLUMNS = (
    *_KEY, "version", *_WORDS, "launched_at", "opened_at", "ends_at", "ended_at", "reason", "currency", *_SUMS, "status",
)  # fmt: skip

Changes = dict[tuple[str, str], Session]
"""By (id, player). A provider may name any session with a win: it is none of another player's."""


class Sessions:
    name = "sessions"
    tables: ClassVar[Sequence[Table]] = (Table("session", _COLUMNS, key=2, player="player"),)

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        for recorded in in_order(events, _PLAY):
            _played(changes, recorded, recorded.event)
        paid: Iterable[tuple[Recorded, Staked | Won | RolledBack]] = chain(
            events.of(Staked), events.of(Won), events.of(RolledBack)
        )
        for recorded, event in paid:
            if event.played.session:
                _paid(changes.setdefault((event.played.session, _player(recorded)), Session()), event)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        found = list(changes.values())
        columns = _COLUMNS[:-1]  # the last one follows from the others
        await cursor.execute(
            f"""
            INSERT INTO {schema}.session AS old ({", ".join(columns)})
            SELECT * FROM unnest({", ".join(["%b"] * len(columns))})
            ON CONFLICT (id, player) DO UPDATE
               SET version = greatest(old.version, excluded.version),
                   ends_at = CASE WHEN excluded.version > old.version THEN coalesce(excluded.ends_at, old.ends_at)
                                  ELSE coalesce(old.ends_at, excluded.ends_at) END,
                   {", ".join(f"{name} = coalesce(old.{name}, excluded.{name})" for name in _ONCE)},
                   {", ".join(f"{name} = old.{name} + excluded.{name}" for name in _SUMS)}""",
            (
                text([id_ for id_, _ in changes]),
                text([player for _, player in changes]),
                bigint([each.version for each in found]),
                *(text([getattr(each, name) for each in found]) for name in _WORDS),
                *(
                    times([getattr(each, name) for each in found])
                    for name in ("launched_us", "opened_us", "ends_us", "ended_us")
                ),
                text([each.reason for each in found]),
                text([each.currency for each in found]),
                *(bigint([getattr(each, name) for each in found]) for name in _SUMS),
            ),
        )

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["session"]
        for key, new in changes.items():
            before = rows.get(key)
            both = _together(Session(*before[2:-1]), new) if before else new
            rows[key] = as_shown(*key, *_told(both))


def _player(recorded: Recorded) -> str:
    return _PLAYER + suffix_of(recorded)


def _played(changes: Changes, recorded: Recorded, event: Event) -> None:
    assert isinstance(event, SessionLaunched | SessionOpened | SessionProlonged | SessionEnded)  # noqa: S101 — those of _PLAY
    found = changes.setdefault((event.session, _player(recorded)), Session())
    found.version = recorded.body.version
    match event:
        case SessionLaunched():
            found.provider, found.game, found.kind = event.provider, event.game, event.kind.value
            found.launched_us, found.ends_us = recorded.recorded, as_us(event.ends_at)
        case SessionOpened():
            lives_until = recorded.recorded + event.seconds * 1_000_000
            found.opened_us, found.ends_us = recorded.recorded, min(as_us(event.ends_at), lives_until)
        case SessionProlonged():
            found.ends_us = as_us(event.ends_at)
        case SessionEnded():
            found.ended_us, found.reason = recorded.recorded, event.reason


def _paid(found: Session, event: Staked | Won | RolledBack) -> None:
    amount = event.money.amount
    cash = sum(each.money.amount for each in event.movements if CASH in (each.source, each.target))
    found.currency = event.money.currency
    match event:
        case Staked():
            found.bets += 1
            found.staked += amount
            found.staked_cash += cash
        case Won():
            found.won += amount
            found.won_cash += cash
        case RolledBack():
            found.returned += amount
            found.returned_cash += cash


def _together(old: Session, new: Session) -> Session:
    newer, older = (new, old) if new.version > old.version else (old, new)
    both = Session(version=newer.version, ends_us=older.ends_us if newer.ends_us is None else newer.ends_us)
    for name in (*_WORDS, "launched_us", "opened_us", "ended_us", "reason", "currency"):
        first = getattr(old, name)
        setattr(both, name, getattr(new, name) if first is None else first)
    for name in _SUMS:
        setattr(both, name, getattr(old, name) + getattr(new, name))
    return both


def _told(found: Session) -> Row:
    if found.ended_us is not None:
        status = "ended"
    elif found.opened_us is not None:
        status = "open"
    else:
        status = "unknown" if found.launched_us is None else "launched"
    return (*msgspec.structs.astuple(found), status)
