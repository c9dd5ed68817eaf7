"""Games on HTTP, as they are read: rounds, gross gaming revenue, sessions, and what is going on now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from access.policy import Action
from app import openapi
from domain.errors import Invalid, InvalidId, NotFound
from queries import games
from queries.context import Context

_TEXT = {"type": "string"}
_DAY = {**_TEXT, "format": "date"}


def add(get: Callable[..., None], paging: Sequence[dict[str, Any]]) -> None:
    """`get` serves a query (app.querying); `paging` are the parameters of every list."""
    player = openapi.query_parameter("player", _TEXT, "Those of this player.")
    older = {"type": "integer", "minimum": 0, "maximum": games.OLDEST_S}
    get(
        "/v1/rounds",
        games.RoundPage,
        Action.PLAYER_READ,
        _rounds,
        reads=("rounds", "players"),
        parameters=[
            openapi.query_parameter("status", {**_TEXT, "enum": list(games.STATUSES)}),
            player,
            openapi.query_parameter("provider", _TEXT, "Those at this provider."),
            openapi.query_parameter("older_than", older, "Those of which nothing was heard for so many seconds."),
            *paging,
        ],
        errors=(InvalidId,),
        filtered=True,
    )
    get(
        "/v1/rounds/{round}",
        games.RoundWithBets,
        Action.PLAYER_READ,
        _round,
        reads=("rounds", "players"),
        errors=(NotFound,),
    )
    get(
        "/v1/ggr",
        games.RevenuePage,
        Action.DASHBOARD_READ,
        _ggr,
        reads=("ggr",),
        parameters=[
            openapi.query_parameter("by", {**_TEXT, "enum": list(games.BY), "default": games.BY[0]}),
            openapi.query_parameter("from", _DAY, "The first local day; the last one if absent."),
            openapi.query_parameter("to", _DAY, "The last local day; today (UTC) if absent."),
            openapi.query_parameter("currency", _TEXT, "ISO 4217 code."),
            *paging,
        ],
        also=lambda given: (Action.PLAYER_READ,) if given.get("by") == "player" else (),
    )
    get(
        "/v1/sessions",
        games.SessionPage,
        Action.PLAYER_READ,
        _sessions,
        reads=("sessions", "players"),
        parameters=[
            player,
            openapi.query_parameter(
                "open", {**_TEXT, "enum": ["true", "false"]}, "Those that are open now, or are not."
            ),
            *paging,
        ],
        errors=(InvalidId,),
        filtered=True,
    )
    get("/v1/playing", games.Playing, Action.DASHBOARD_READ, _playing, reads=("rounds", "sessions"))


async def _rounds(context: Context, **given: Any) -> games.RoundPage:
    """Game rounds: open ones, stuck ones (those that are quiet the longest first), closed ones, or all."""
    return await games.rounds(context, datetime.now(UTC), **given)


async def _round(context: Context, round_id: str) -> games.RoundWithBets:
    """A game round with its bets."""
    return await games.round_(context, datetime.now(UTC), round_id)


async def _ggr(context: Context, by: str = games.BY[0], to: str | None = None, **given: Any) -> games.RevenuePage:
    """Gross gaming revenue by game, provider, player or local day, and by currency, cash and bonus money apart."""
    until = datetime.now(UTC).date() if to is None else _day(to, "to")
    first = given.pop("from", None)
    return await games.ggr(context, by, until if first is None else _day(first, "from"), until, **given)


async def _sessions(context: Context, **given: Any) -> games.SessionPage:
    """Game sessions with their time and loss, those launched last first."""
    asked = given.pop("open", None)
    if asked not in (None, "true", "false"):
        raise Invalid("open is true or false", parameter="open")
    return await games.sessions(context, datetime.now(UTC), is_open=None if asked is None else asked == "true", **given)


async def _playing(context: Context) -> games.Playing:
    """How many rounds and sessions are open now, and how many rounds are stuck."""
    return await games.playing(context, datetime.now(UTC))


def _day(text: str, parameter: str) -> date:
    """Raises Invalid."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Invalid("not a day of the calendar, such as 2026-11-22", parameter=parameter) from None
