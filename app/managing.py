"""The read side of operators and tokens on HTTP: who works here with what rights, and which programs may come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from access.policy import Action
from app import openapi
from domain.errors import InvalidId, NotFound
from domain.kernel import OperatorId
from queries import operators
from queries.context import Context

_TEXT = {"type": "string"}
_READS = ("operators",)


def add(get: Callable[..., None], paging: Sequence[dict[str, Any]]) -> None:
    """Serve the queries with `get`; lists take `paging` as well."""

    async def operator(context: Context, operator_id: OperatorId) -> operators.OperatorCard:
        """An operator, with the roles that they hold now."""
        return await operators.get(context, operator_id, datetime.now(UTC))

    async def page(context: Context, **given: Any) -> operators.OperatorPage:
        """Operators, in the order in which they were invited: all, or of a status."""
        return await operators.page(context, datetime.now(UTC), **given)

    async def tokens(context: Context, **given: Any) -> operators.TokenPage:
        """Tokens of programs, in the order in which they were issued: all, or of a status. Never their secrets."""
        return await operators.tokens(context, datetime.now(UTC), **given)

    def chosen(statuses: frozenset[Any]) -> list[dict[str, Any]]:
        return [openapi.query_parameter("status", {**_TEXT, "enum": sorted(statuses)}), *paging]

    get(
        "/v1/operators",
        operators.OperatorPage,
        Action.OPERATOR_READ,
        page,
        reads=_READS,
        parameters=chosen(operators.STATUSES),
        errors=(InvalidId,),
        opens=True,
    )
    get(
        "/v1/operators/{operator_id}",
        operators.OperatorCard,
        Action.OPERATOR_READ,
        operator,
        reads=_READS,
        errors=(NotFound, InvalidId),
        opens=True,
    )
    get(
        "/v1/tokens",
        operators.TokenPage,
        Action.OPERATOR_READ,
        tokens,
        reads=_READS,
        parameters=chosen(operators.TOKEN_STATUSES),
        errors=(InvalidId,),
    )
