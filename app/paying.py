"""Payments on HTTP, as they are read: transactions, how many of them stand where, and the players' funds day by day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from access.policy import Action
from app import openapi
from domain.errors import Invalid, InvalidId, NotFound
from queries import funds, transactions
from queries.context import Context

_TEXT = {"type": "string"}
_READS = ("transactions", "players")


def add(get: Callable[..., None], paging: Sequence[dict[str, Any]]) -> None:
    """`get` serves a query (app.querying); `paging` are the parameters of every list."""
    get(
        "/v1/players/{player_id}/transactions",
        transactions.TransactionPage,
        Action.PLAYER_READ,
        transactions.of_player,
        reads=_READS,
        parameters=paging,
        errors=(NotFound, InvalidId),
        filtered=True,
        opens=True,
    )
    chosen = [
        openapi.query_parameter("status", {**_TEXT, "enum": transactions.STATUSES}),
        openapi.query_parameter("kind", {**_TEXT, "enum": transactions.KINDS}),
        openapi.query_parameter("provider", _TEXT, "Those through this provider."),
        openapi.query_parameter("requested_from", {**_TEXT, "format": "date-time"}, "Those requested then or later."),
        openapi.query_parameter("requested_to", {**_TEXT, "format": "date-time"}, "Those requested before."),
    ]
    get(
        "/v1/transactions",
        transactions.TransactionPage,
        Action.PLAYER_READ,
        transactions.page,
        reads=_READS,
        parameters=[*chosen, *paging],
        filtered=True,
        opens=True,
    )
    get(
        "/v1/transactions/{transaction_id}",
        transactions.Transaction,
        Action.PLAYER_READ,
        transactions.get,
        reads=_READS,
        errors=(NotFound, InvalidId),
        opens=True,
    )
    get(
        "/v1/payments/summary",
        transactions.PaymentsSummary,
        Action.DASHBOARD_READ,
        transactions.summary,
        reads=("transactions",),
    )
    day = openapi.query_parameter("day", {**_TEXT, "format": "date"}, "A day of UTC, YYYY-MM-DD; today if absent.")
    get("/v1/funds", funds.Funds, Action.DASHBOARD_READ, _funds, reads=("funds",), parameters=[day])


async def _funds(context: Context, day: str | None = None) -> funds.Funds:
    """What the house held of its players' money on a day, or has held today so far: opening, in, out, closing, by currency and account."""
    try:
        asked = datetime.now(UTC).date() if day is None else date.fromisoformat(day)
    except ValueError:
        raise Invalid("not a day of the calendar, such as 2026-11-22", parameter="day") from None
    return await funds.report(context, asked)
