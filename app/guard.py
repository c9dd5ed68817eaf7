"""
What stands before every request: how much may be asked, and how often.

Invariants:
    - who is refused here was not authenticated, and nothing of their body was read;
    - an address pays for a request behind which nobody was found, once that is known; of those that run at once some more may pass;
    - an address is believed from the connection, or from a proxy that the settings name, and from nobody else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from typing import Any
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Receive, Scope, Send

from access.rates import ADMITTED, Limits
from app import problems
from app.lane import refusal
from domain.errors import Rejected

PATH_BYTES_MAX = 1024
QUERY_BYTES_MAX = 4096
PARAMETERS_MAX = 32
HEAD_FIELDS_MAX = 64
HEAD_BYTES_MAX = 16 * 1024
"""Figures of the house: the longest path of ours has three identifiers, the longest cursor 200 characters."""

HEAD_BYTES = "countroom.head_bytes"
"""The key in an ASGI scope of how long the head is at most, where app.listening has counted."""

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware. `proxies`: addresses whose X-Forwarded-For is believed."""

    def __init__(self, app: ASGIApp, limits: Limits, proxies: Collection[str] = ()) -> None:
        self._app = app
        self._limits = limits
        self._proxies = frozenset(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        address: str = client[0] if client else ""
        if address in self._proxies:
            scope["client"] = (address := self._forwarded(scope, address), 0)
        try:
            self._limits.let_in(address)
            check(scope)
        except Rejected as error:
            await _refuse(error, send)
        else:
            await self._app(scope, receive, send)
        finally:
            if not scope.get(ADMITTED):
                self._limits.nobody(address)

    def _forwarded(self, scope: Scope, proxy: str) -> str:
        """Whom the proxies saw; the proxy itself, if it says nothing."""
        found = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hops = [hop.strip() for hop in b",".join(found).decode("latin-1").split(",")]
        return next((hop for hop in reversed(hops) if hop and hop not in self._proxies), proxy)


async def _refuse(error: Rejected, send: Send) -> None:
    """The connection ends with it: what else of the request is on its way is not waited for."""
    refused = refusal(error)
    headers = [*refused.headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": refused.body})


def check(scope: Scope) -> None:
    """Raises AddressTooLong, HeadTooLarge, BodyTooLarge."""
    headers, query = scope["headers"], scope["query_string"]
    if len(headers) > HEAD_FIELDS_MAX or (
        scope.get(HEAD_BYTES, inf) > HEAD_BYTES_MAX
        and sum([len(name) + len(value) for name, value in headers]) > HEAD_BYTES_MAX
    ):
        raise problems.HeadTooLarge(fields=HEAD_FIELDS_MAX, bytes=HEAD_BYTES_MAX)
    if len(scope["path"]) > PATH_BYTES_MAX:
        raise problems.AddressTooLong(limit=PATH_BYTES_MAX)
    if query:
        _check_query(query)
    if scope["method"] in _WITHOUT_BODY and _has_body(headers):
        raise problems.BodyTooLarge(f"a {scope['method']} has no body", limit=0)


def _check_query(query: bytes) -> None:
    names = [unquote_plus(part.partition("=")[0]) for part in query.decode("latin-1").split("&")]
    if len(query) > QUERY_BYTES_MAX or len(names) > PARAMETERS_MAX:
        raise problems.AddressTooLong(limit=QUERY_BYTES_MAX, parameters=PARAMETERS_MAX)
    if len(set(names)) < len(names):
        raise problems.AddressTooLong("a parameter is named once", limit=QUERY_BYTES_MAX, parameters=PARAMETERS_MAX)


def _has_body(headers: Sequence[Any]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")) for name, value in headers
    )
