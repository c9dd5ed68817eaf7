"""
Game rounds: what was staked, won and given back in each, when it was last heard of, and whether anything is still to come.

A round is over once its provider has closed it, has told an outcome (a win, be it of nothing), or has taken all of its stakes back.
Until then it is open; how long it may be quiet before it is stuck is for whoever asks.

Invariant: all that is kept of a round is a sum, a first, a last or the greatest word, so no order of its events matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from domain.wallets import Played, RolledBack, RoundClosed, Staked, Won
from eventstore.record import Recorded
from projections.columns import as_shown, bigint, text, times
from projections.folded import suffix_of
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Row, Table

_PLAYER = "player_"


class Round(msgspec.Struct, gc=False):
    """What a batch says of a round. Minor units of `currency`; times in µs since 1970 UTC.

    `outcomes`, `taken_back`: how many wins, and how many rollbacks of bets that were here. `last_us`: when its provider last said
    anything of it; 0: not here. `first`, `last`: the versions of the wallet between which its bets stand.
    """

    player: str
    provider: str
    game: str
    name: str
    session: str
    currency: str
    opened_us: int
    last_us: int
    first: int
    last: int
    closed_us: int | None = None
    bets: int = 0
    outcomes: int = 0
    taken_back: int = 0
    stakes: int = 0
    wins: int = 0
    returned: int = 0


_SAME = ("player", "provider", "game", "round")
_SUMS = ("bets", "outcomes", "taken_back", "stakes", "wins", "returned")
_COLUMNS = (
    "id", *_SAME, "session", "currency", "opened_at", "last_at", "first", "last", "closed_at", *_SUMS, "status",
)  # fmt: skip

Changes = dict[str, Round]
"""By id."""


def id_of(player: str, played: Played) -> str:
    """Of a round, from the provider's words for it. Nobody else's round has it."""
    name = f"{player}\n{played.provider}\n{played.game}\n{played.round}"
    return "round_" + hashlib.sha256(name.encode()).hexdigest()[:32]


class Rounds:
    name = "rounds"
    tables: ClassVar[Sequence[Table]] = (Table("round", _COLUMNS, player="player"),)

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}
        for recorded, staked in events.of(Staked):
            found = _of(changes, recorded, staked.played, staked.money.currency)
            if found is not None:
                found.bets += 1
                found.stakes += staked.money.amount
        for recorded, won in events.of(Won):
            found = _of(changes, recorded, won.played, won.money.currency)
            if found is not None:
                found.outcomes += 1
                found.wins += won.money.amount
        for recorded, back in events.of(RolledBack):
            if back.staked_at is None:
                continue
            found = _of(changes, recorded, back.played, back.money.currency, by_provider=not back.void)
            if found is not None:
                found.taken_back += 1
                found.returned += back.money.amount
        for recorded, closed in events.of(RoundClosed):
            found = _of(changes, recorded, closed.played, closed.currency)
            if found is not None:
                found.closed_us = min(found.closed_us or recorded.recorded, recorded.recorded)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        rounds = list(changes.values())
        columns = _COLUMNS[:-1]  # the last one follows from the others
        await cursor.execute(
            f"""
            INSERT INTO {schema}.round AS old ({", ".join(columns)})
            SELECT * FROM unnest({", ".join(["%b"] * len(columns))})
            ON CONFLICT (id) DO UPDATE
               SET session = greatest(old.session, excluded.session), currency = greatest(old.currency, excluded.currency),
                   opened_at = least(old.opened_at, excluded.opened_at), last_at = greatest(old.last_at, excluded.last_at),
                   first = least(old.first, excluded.first), last = greatest(old.last, excluded.last),
                   closed_at = least(old.closed_at, excluded.closed_at),
                   {", ".join(f"{name} = old.{name} + excluded.{name}" for name in _SUMS)}""",
            (
                text(list(changes)),
                *(text([getattr(each, name) for each in rounds]) for name in ("player", "provider", "game", "name")),
                text([each.session for each in rounds]),
                text([each.currency for each in rounds]),
                times([each.opened_us for each in rounds]),
                times([each.last_us for each in rounds]),
                bigint([each.first for each in rounds]),
                bigint([each.last for each in rounds]),
                times([each.closed_us for each in rounds]),
                *(bigint([getattr(each, name) for each in rounds]) for name in _SUMS),
            ),
        )

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["round"]
        for id_, new in changes.items():
            before = rows.get(id_)
            both = _together(Round(*before[1:-1]), new) if before else new
            rows[id_] = as_shown(id_, *_told(both))


def _of(
    changes: Changes, recorded: Recorded, played: Played, currency: str, *, by_provider: bool = True
) -> Round | None:
    """The round of which an event speaks, with when it did; None if it names none."""
    if not played.round:
        return None
    player, version, at_us = _PLAYER + suffix_of(recorded), recorded.body.version, recorded.recorded
    heard_us = at_us if by_provider else 0
    id_ = id_of(player, played)
    found = changes.get(id_)
    if found is None:
        found = changes[id_] = Round(
            player, played.provider, played.game, played.round, played.session, currency, at_us, heard_us, version, version
        )  # fmt: skip
        return found
    found.session = max(found.session, played.session)
    found.opened_us, found.last_us = min(found.opened_us, at_us), max(found.last_us, heard_us)
    found.first, found.last = min(found.first, version), max(found.last, version)
    return found


def _together(old: Round, new: Round) -> Round:
    closed = [us for us in (old.closed_us, new.closed_us) if us is not None]
    return Round(
        old.player, old.provider, old.game, old.name, max(old.session, new.session), max(old.currency, new.currency),
        min(old.opened_us, new.opened_us), max(old.last_us, new.last_us), min(old.first, new.first),
        max(old.last, new.last), min(closed) if closed else None,
        *(getattr(old, name) + getattr(new, name) for name in _SUMS),
    )  # fmt: skip


def _told(found: Round) -> Row:
    awaits = found.stakes > found.returned or (found.bets > 0 and found.stakes == found.taken_back == 0)
    is_open = found.closed_us is None and not found.outcomes and awaits
    return (*msgspec.structs.astuple(found), "open" if is_open else "closed")
