"""
Games as operators see them: rounds and their bets, gross gaming revenue, and sessions with their time and loss.

Invariants:
    - whether a round is stuck, or a session still open, is asked of the moment of the question, which is given (`at`);
    - the bets of a round come from the log itself: they are what a void names.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final, LiteralString

import msgspec

from domain.errors import Invalid, NotFound
from domain.kernel import Money, PlayerId, instant, parse_id
from domain.wallets import RolledBack, Staked
from eventstore.record import Body
from policies.play import HOUSE_ROUND_STUCK_AFTER, is_stuck
from projections.ggr import SUMS
from queries import listing, seeing
from queries.context import Context, page_size, read_cursor, write_cursor
from queries.listing import Listing, Wanted

_SECOND = timedelta(seconds=1)
STATUSES: Final = ("open", "stuck", "closed")
LOOKED_AT_MAX: Final = 10_000
"""How many events of a wallet are looked at for the bets of a round."""

_ROUND: LiteralString = """
    id, player, provider, game, round, nullif(session, ''), currency, opened_at, last_at, closed_at, status, bets, stakes,
    wins, returned"""
_LEADS = [("player",), ("status",)]
_QUIET_FIRST = Listing("read.round", _ROUND, "last_at", _LEADS, attributes=seeing.ROUNDS)
_NEWEST_FIRST = _QUIET_FIRST._replace(newest_first=True)
_ONE = f"SELECT {_ROUND}, first, last FROM read.round WHERE id = %s"
_BETS = """
    SELECT e.body FROM ledger.entry AS e
     WHERE e.stream = %s AND e.version BETWEEN %s AND %s AND e.type IN ('wallet.staked', 'wallet.rolled_back')
     ORDER BY e.version"""
_SESSION: LiteralString = """
    id, player, provider, game, kind, status, launched_at, opened_at,
    CASE WHEN ended_at IS NOT NULL THEN least(ended_at, ends_at) END, ends_at, reason, currency,
    bets, staked, won, returned, staked_cash - won_cash - returned_cash"""
_SESSIONS = Listing(
    "read.session",
    _SESSION,
    "launched_at",
    [("player",), ("status",), ("player", "status")],
    newest_first=True,
    attributes=seeing.SESSIONS,
)
_NOW = """
    SELECT (SELECT count(*) FROM read.round WHERE status = 'open'),
           (SELECT count(*) FROM read.round WHERE status = 'open' AND last_at < %s),
           (SELECT count(*) FROM read.session WHERE status = 'open' AND ends_at > %s)"""


class Round(msgspec.Struct, frozen=True):
    """A game round, in the words of its provider but for `player` and `session`. Its `status` is open while its outcome is to
    come: nobody has closed it, no win was told, be it of nothing, and not all of its stakes were given back. An open one of
    which nothing was heard for a while (`last_at`) is stuck.
    """

    id: str
    player: PlayerId
    provider: str
    game: str
    round: str
    session: str | None
    currency: str
    opened_at: datetime
    last_at: datetime
    closed_at: datetime | None
    status: str
    bets: int
    stakes: Money
    wins: Money
    returned: Money


class RoundPage(msgspec.Struct, frozen=True):
    """Rounds: those open that are quiet the longest first, all others by when they were last heard of, the newest first."""

    items: list[Round]
    next_cursor: str | None


class Bet(msgspec.Struct, frozen=True):
    """A bet by its provider's reference, and what of it was given back by now."""

    bet: str
    staked: Money
    returned: Money


class RoundWithBets(msgspec.Struct, frozen=True):
    """`complete`: whether all of its bets are here; of very long rounds only the first ones are."""

    round: Round
    bets: list[Bet]
    complete: bool


class Revenue(msgspec.Struct, frozen=True, omit_defaults=True):
    """In minor units of `currency`: ggr = stakes - wins - returned, each of cash and of bonus money. `gifts`: prizes that the house has paid
    as bonuses, which are no part of it. What it is of is named: the day, the provider, the game at its provider, or the player.
    """

    currency: str
    ggr: int
    bets: int
    stakes_cash: int
    stakes_bonus: int
    wins_cash: int
    wins_bonus: int
    returned_cash: int
    returned_bonus: int
    gifts: int
    day: date | None = None
    provider: str | None = None
    game: str | None = None
    player: PlayerId | None = None


class RevenuePage(msgspec.Struct, frozen=True):
    """In the order of what it is by, for the local days `since` to `until`, both included."""

    items: list[Revenue]
    since: date
    until: date
    next_cursor: str | None


class Session(msgspec.Struct, frozen=True):
    """A game session. `played_s`: seconds since it was opened, or from then to its end, one that has begun included. `lost`: cash staked, less cash won and given
    back, in minor units of `currency`; below 0 if the player is ahead. `ends_at`: when it ends by itself, or would have.
    """

    id: str
    player: PlayerId
    provider: str
    game: str
    kind: str
    status: str
    launched_at: datetime
    opened_at: datetime | None
    ended_at: datetime | None
    ends_at: datetime
    reason: str | None
    played_s: int
    currency: str | None
    bets: int
    staked: int
    won: int
    returned: int
    lost: int


class SessionPage(msgspec.Struct, frozen=True):
    """Sessions, those launched last first."""

    items: list[Session]
    next_cursor: str | None


class Playing(msgspec.Struct, frozen=True):
    """How many rounds and sessions are open now, and how many rounds are stuck: open, and quiet for `stuck_after_s` seconds."""

    open_rounds: int
    stuck_rounds: int
    open_sessions: int
    stuck_after_s: int


# Rounds


async def rounds(
    context: Context,
    at: datetime,
    status: str | None = None,
    player: str | None = None,
    provider: str | None = None,
    older_than: int | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> RoundPage:
    """Game rounds. `older_than`: those of which nothing was heard for so many seconds; of stuck ones by default the house's policy.

    Raises Invalid, InvalidId.
    """
    page_size(limit)
    _one_of(status, STATUSES, "status")
    _clear(provider, "provider")
    if player is not None:
        parse_id("player", player)
    kept = {"open": "open", "stuck": "open", "closed": "closed"}.get(status or "")
    given = {"status": kept, "player": player, "provider": provider}
    wanted = Wanted({name: value for name, value in given.items() if value is not None})
    quiet = HOUSE_ROUND_STUCK_AFTER if status == "stuck" and older_than is None else None
    if older_than is not None:
        quiet = _seconds(older_than)
    if quiet is not None:
        wanted = wanted._replace(until=at - quiet)
    if cursor is not None:
        last_us, id_ = read_cursor(cursor, tuple[int, str])
        wanted = wanted._replace(after=(instant(last_us), id_))
    found = await listing.rows(context, _QUIET_FIRST if kept == "open" else _NEWEST_FIRST, wanted, limit)
    items = [_round(at, *row) for row in found[:limit]]
    return RoundPage(items, listing.cursor(items[-1].last_at, items[-1].id) if len(found) > limit else None)


async def round_(context: Context, at: datetime, round_id: str) -> RoundWithBets:
    """A game round with its bets, and what is left of each. Raises NotFound."""
    rows = [] if "\0" in round_id else await context.fetch(_ONE, round_id)
    if not rows:
        raise NotFound("no such round")
    *told, first, last = rows[0]
    found = _round(at, *told)
    upto = min(last, first + LOOKED_AT_MAX - 1)
    stream = "wallet-" + parse_id("player", found.player)
    bodies = [msgspec.json.decode(body, type=Body) for (body,) in await context.fetch(_BETS, stream, first, upto)]
    return RoundWithBets(found, _bets(found, bodies), complete=upto == last)


def _bets(found: Round, bodies: list[Body]) -> list[Bet]:
    staked: dict[str, int] = {}
    returned: dict[str, int] = {}
    for body in bodies:
        event = _event(body)
        where = event.played
        if (where.provider, where.game, where.round) != (found.provider, found.game, found.round):
            continue
        if isinstance(event, Staked):
            staked[event.reference] = event.money.amount
        else:
            returned[event.bet] = max(event.total, returned.get(event.bet, 0))
    return [
        Bet(bet, Money(amount, found.currency), Money(returned.get(bet, 0), found.currency))
        for bet, amount in staked.items()
    ]


def _event(body: Body) -> Staked | RolledBack:
    if body.type == Staked.tag:
        return msgspec.json.decode(body.data, type=Staked)
    return msgspec.json.decode(body.data, type=RolledBack)


def _round(at: datetime, *row: Any) -> Round:
    told: list[Any]
    *told, status, bets, stakes, wins, returned = row
    currency, last_at = told[6], told[8]
    if status == "open" and is_stuck(last_at, at):
        status = "stuck"
    return Round(
        *(*told, status, bets, Money(stakes, currency), Money(wins, currency), Money(returned, currency)),
    )


# Revenue

_BY: Mapping[str, tuple[LiteralString, LiteralString]] = {
    "game": ("provider", "game"),
    "provider": ("provider", "''"),
    "player": ("player", "''"),
    "day": ("day", "''"),
}
BY: Final = tuple(_BY)
_SUMS: LiteralString = """
    sum(bets)::bigint, sum(stakes_cash)::bigint, sum(stakes_bonus)::bigint, sum(wins_cash)::bigint,
    sum(wins_bonus)::bigint, sum(returned_cash)::bigint, sum(returned_bonus)::bigint, sum(gifts)::bigint"""


async def ggr(
    context: Context,
    by: str,
    since: date,
    until: date,
    currency: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> RevenuePage:
    """Gross gaming revenue of the local days `since` to `until`, both included, by game, provider, player or day, and by currency.

    Raises Invalid.
    """
    page_size(limit)
    _one_of(by, BY, "by")
    _clear(currency, "currency")
    place = ("", "", "") if cursor is None else read_cursor(cursor, tuple[str, str, str])
    first, second = _BY[by]
    chosen: LiteralString = "" if currency is None else "AND currency = %s"
    rows = await context.fetch(
        f"""
        SELECT {first} AS a, {second} AS b, currency, {_SUMS} FROM read.ggr
         WHERE day BETWEEN %s AND %s AND ({first}, {second}, currency) > (%s, %s, %s) {chosen}
         GROUP BY {first}, b, currency ORDER BY {first}, b, currency LIMIT %s""",
        *(since.isoformat(), until.isoformat(), *place),
        *(() if currency is None else (currency,)),
        limit + 1,
    )
    items = [_revenue(by, *row) for row in rows[:limit]]
    return RevenuePage(items, since, until, write_cursor(*rows[limit - 1][:3]) if len(rows) > limit else None)


def _revenue(by: str, first: str, second: str, currency: str, *sums: int) -> Revenue:
    of: dict[str, Any] = {by: first}
    if by == "game":
        of = {"provider": first, "game": second}
    elif by == "day":
        of = {"day": date.fromisoformat(first)}
    figures: dict[str, Any] = dict(zip(SUMS, sums, strict=True))
    staked, won, back = (figures[f"{what}_cash"] + figures[f"{what}_bonus"] for what in ("stakes", "wins", "returned"))
    return Revenue(currency=currency, ggr=staked - won - back, **figures, **of)


# Sessions


async def sessions(
    context: Context,
    at: datetime,
    player: str | None = None,
    is_open: bool | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> SessionPage:
    """Game sessions, all or a player's; those that are open now, or those that are not. Raises Invalid, InvalidId."""
    page_size(limit)
    if player is not None:
        parse_id("player", player)
    wanted = Wanted({} if player is None else {"player": player})
    if is_open:
        wanted = wanted._replace(equal={**wanted.equal, "status": "open"}, conditions=[("ends_at > %s", at)])
    elif is_open is False:
        wanted = wanted._replace(conditions=[("(status <> 'open' OR ends_at <= %s)", at)])
    if cursor is not None:
        launched_us, id_ = read_cursor(cursor, tuple[int, str])
        wanted = wanted._replace(after=(instant(launched_us), id_))
    found = await listing.rows(context, _SESSIONS, wanted, limit)
    items = [_session(at, *row) for row in found[:limit]]
    return SessionPage(items, listing.cursor(items[-1].launched_at, items[-1].id) if len(found) > limit else None)


def _session(at: datetime, *row: Any) -> Session:
    id_, player, provider, game, kind, status, launched_at, opened_at, ended_at, ends_at, reason, *money = row
    if status != "ended" and ends_at <= at:  # nobody has noted it yet
        status, ended_at = "ended", ends_at
    played = (ended_at or at) - opened_at if opened_at else timedelta()
    return Session(
        id_, player, provider, game, kind, status, launched_at, opened_at, ended_at, ends_at, reason,
        max(0, -(-played // _SECOND)), *money,
    )  # fmt: skip


async def playing(context: Context, at: datetime) -> Playing:
    """What is being played now, and what is stuck."""
    [(open_, stuck, sessions_)] = await context.fetch(_NOW, at - HOUSE_ROUND_STUCK_AFTER, at)
    return Playing(open_, stuck, sessions_, int(HOUSE_ROUND_STUCK_AFTER.total_seconds()))


# What is asked


def _one_of(value: str | None, known: tuple[str, ...], name: str) -> None:
    if value is not None and value not in known:
        raise Invalid(f"{name} is one of {', '.join(known)}", parameter=name)


def _clear(value: str | None, name: str) -> None:
    if "\0" in (value or ""):
        raise Invalid(f"no {name} has this name", parameter=name)


def _seconds(older_than: int) -> timedelta:
    """Raises Invalid for what lies before the calendar."""
    if not 0 <= older_than <= OLDEST_S:
        raise Invalid(f"older_than is from 0 to {OLDEST_S} seconds", parameter="older_than")
    return timedelta(seconds=older_than)


OLDEST_S: Final = 10 * 366 * 86_400
"""Ten years."""
